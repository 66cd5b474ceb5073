package openstacktest

import (
	"fmt"
	"net/http"
)

type image struct {
	base
	Project    *string  `json:"project_id,omitempty"` // none: Glance says owner
	Name       string   `json:"name"`
	Status     string   `json:"status"`
	Visibility string   `json:"visibility"`
	Owner      string   `json:"owner"`
	Container  string   `json:"container_format"`
	Disk       string   `json:"disk_format"`
	MinDisk    int      `json:"min_disk"` // GiB
	MinRAM     int      `json:"min_ram"`  // MiB
	Size       int64    `json:"size"`     // bytes
	Tags       []string `json:"tags"`
	Protected  bool     `json:"protected"`
	Hidden     bool     `json:"os_hidden"`
	CreatedAt  string   `json:"created_at"`
	UpdatedAt  string   `json:"updated_at"`
	File       string   `json:"file"`
	Schema     string   `json:"schema"`
	AdminUser  string   `json:"os_admin_user,omitempty"` // the login cloud-init sets up
	Distro     string   `json:"os_distro,omitempty"`
	Release    string   `json:"os_version,omitempty"`
}

func (i *image) sees(q *call) bool {
	return i.Visibility == "public" || i.Visibility == "community" || i.Owner == q.who.ProjectID || q.admin()
}

// listed leaves out what has to be asked for by id.
func (i *image) listed(q *call) bool {
	return i.sees(q) && !i.Hidden && (i.Visibility != "community" || i.Owner == q.who.ProjectID)
}

func (c *Cloud) seedImages() {
	i := &image{Name: "debian-13", Status: "active", Visibility: "public", Owner: c.identity.admin.ID, Container: "bare", Disk: "qcow2", MinDisk: 2,
		Size: 340 << 20, Tags: []string{}, CreatedAt: stamp(), UpdatedAt: stamp(), Schema: "/v2/schemas/image", AdminUser: "debian", Distro: "debian", Release: "13"}
	i.ID = c.newID()
	i.File = "/v2/images/" + i.ID + "/file"
	c.images.add(i)
}

func glance(status int, _, format string, args ...any) error {
	title := http.StatusText(status)
	return &apiError{status, map[string]string{"code": fmt.Sprintf("%d %s", status, title), "title": title, "message": fmt.Sprintf(format, args...) + "<br /><br />\n\n\n"}}
}

func (c *Cloud) imageRoutes() {
	c.on("GET", prefixImage, "/{$}", route{open: true, status: http.StatusMultipleChoices, do: func(*call) (any, error) {
		return map[string]any{"versions": []any{map[string]any{"id": "v2.17", "status": "CURRENT", "links": []link{{"self", c.server.URL + prefixImage + "/v2/"}}}}}, nil
	}})
	c.on("GET", prefixImage, "/v2/images", route{do: func(q *call) (any, error) {
		q.pagesOf(25)
		v, err := list(q, "images", "Image", q.images.where(func(i *image) bool { return i.listed(q) }), glance)
		if m, ok := v.(map[string]any); ok {
			m["first"], m["schema"] = "/v2/images", "/v2/schemas/images"
			if links, ok := m["images_links"].([]link); ok {
				m["next"] = links[0].Href[len(q.server.URL+prefixImage):]
				delete(m, "images_links")
			}
		}
		return v, err
	}})
	c.on("GET", prefixImage, "/v2/images/{id}", route{do: func(q *call) (any, error) {
		i, ok := q.images.get(q.PathValue("id"))
		if !ok || !i.sees(q) {
			return nil, glance(http.StatusNotFound, "", "No image found with ID %s", q.PathValue("id"))
		}
		return i, nil
	}})
}

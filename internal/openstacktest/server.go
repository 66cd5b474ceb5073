package openstacktest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

type server struct {
	base
	Name        string            `json:"name"`
	Status      string            `json:"status"`
	TaskState   *string           `json:"OS-EXT-STS:task_state"`
	Fault       *serverFault      `json:"fault"`
	Console     string            `json:"console"` // what os-getConsoleOutput answers
	KeyName     *string           `json:"key_name"`
	Metadata    map[string]string `json:"metadata"`
	Tags        []string          `json:"tags"`
	UserData    string            `json:"user_data"` // base64, as it was sent
	Hostname    string            `json:"hostname"`
	Description *string           `json:"description"`
	Zone        string            `json:"OS-EXT-AZ:availability_zone"`
	Host        string            `json:"hostId"` // a hash, as Nova shows it to users; "" before it is placed
	ConfigDrive bool              `json:"config_drive"`
	Created     string            `json:"created"`
	Updated     string            `json:"updated"`

	imageID string
	disk    *blockDevice // what it boots from; nil for the flavor's own
	volume  string       // id of what was made of that
	group   string       // id of its server group
	userID  string
	flavor  *flavor
	ports   []string // in the order of the request
	made    []string // those Nova made itself, which go with the server
}

type serverFault struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
	Created string `json:"created"`
}

func (c *Cloud) serverRoutes(on func(string, string, int, func(*call) (any, error))) {
	on("POST", "/servers", 202, createServer)
	on("GET", "/servers", 200, func(q *call) (any, error) { return listServers(q, false) })
	on("GET", "/servers/detail", 200, func(q *call) (any, error) { return listServers(q, true) })
	on("GET", "/servers/{id}", 200, withServer(func(q *call, s *server) (any, error) {
		if q.look(s); s.gone {
			return nil, noServer(s.ID)
		}
		return map[string]any{"server": q.showServer(s)}, nil
	}))
	on("PUT", "/servers/{id}", 200, withServer(updateServer))
	on("DELETE", "/servers/{id}", 204, withServer(deleteServer))
	on("POST", "/servers/{id}/action", 200, withServer(serverAction))
	on("GET", "/servers/{id}/metadata", 200, withServer(func(q *call, s *server) (any, error) { return map[string]any{"metadata": s.Metadata}, nil }))
	on("POST", "/servers/{id}/metadata", 200, withServer(setMetadata))
	on("PUT", "/servers/{id}/metadata", 200, withServer(setMetadata))
	on("DELETE", "/servers/{id}/metadata/{key}", 204, withServer(func(q *call, s *server) (any, error) {
		if _, ok := s.Metadata[q.PathValue("key")]; !ok {
			return nil, nova(http.StatusNotFound, "Metadata item was not found")
		}
		delete(s.Metadata, q.PathValue("key"))
		return nil, nil
	}))
	on("GET", "/servers/{id}/os-interface", 200, withServer(listInterfaces))
}

func noServer(id string) error {
	return nova(http.StatusNotFound, "Instance %s could not be found.", id)
}

func withServer(do func(*call, *server) (any, error)) func(*call) (any, error) {
	return func(q *call) (any, error) {
		s, ok := q.compute.servers.get(q.PathValue("id"))
		if !ok || s.ProjectID != q.who.ProjectID && !q.admin() {
			return nil, noServer(q.PathValue("id"))
		}
		return do(q, s)
	}
}

func (q *call) showServer(s *server) map[string]any {
	power := map[string]int{"ACTIVE": 1, "SHUTOFF": 4}[s.Status]
	vm := map[string]string{"ACTIVE": "active", "BUILD": "building", "ERROR": "error", "SHUTOFF": "stopped"}[s.Status]
	drive := ""
	if s.ConfigDrive {
		drive = "True"
	}
	m := map[string]any{"id": s.ID, "name": s.Name, "status": s.Status, "tenant_id": s.ProjectID, "user_id": s.userID, "metadata": s.Metadata,
		"image": map[string]any{"id": s.imageID, "links": []link{}}, "key_name": s.KeyName, "created": s.Created, "updated": s.Updated, "progress": 0,
		"hostId": s.Host, "accessIPv4": "", "accessIPv6": "", "config_drive": drive, "addresses": q.addresses(s), "links": []link{{"self", q.server.URL + prefixCompute + "/v2.1/servers/" + s.ID}},
		"OS-EXT-STS:task_state": s.TaskState, "OS-EXT-STS:vm_state": vm, "OS-EXT-STS:power_state": power, "OS-EXT-AZ:availability_zone": s.Zone,
		"OS-DCF:diskConfig": "MANUAL", "os-extended-volumes:volumes_attached": []any{}, "OS-SRV-USG:launched_at": nil, "OS-SRV-USG:terminated_at": nil,
		"security_groups": []any{}}
	if s.disk != nil {
		m["image"] = ""
	}
	if s.volume != "" {
		m["os-extended-volumes:volumes_attached"] = []any{map[string]any{"id": s.volume, "delete_on_termination": s.disk.Dies}}
	}
	m["flavor"] = map[string]any{"id": s.flavor.ID, "links": []link{}}
	if q.since(47) {
		m["flavor"] = map[string]any{"original_name": s.flavor.Name, "vcpus": s.flavor.VCPUs, "ram": s.flavor.RAM, "disk": s.flavor.Disk, "ephemeral": 0, "swap": 0, "extra_specs": map[string]string{}}
	}
	if s.Status == "ERROR" {
		f := serverFault{500, "No valid host was found. ", s.Updated}
		if s.Fault != nil {
			f.Code, f.Message = s.Fault.Code, s.Fault.Message
		}
		m["fault"] = f
	}
	if q.since(9) {
		m["locked"] = false
	}
	if q.since(19) {
		m["description"] = s.Description
	}
	if q.since(26) {
		m["tags"] = s.Tags
	}
	if q.since(90) {
		m["OS-EXT-SRV-ATTR:hostname"] = s.Hostname
	}
	return m
}

// addresses lists the bound ports' addresses by network name.
func (q *call) addresses(s *server) map[string][]map[string]any {
	out := map[string][]map[string]any{}
	for _, id := range s.ports {
		p, ok := q.network.ports.get(id)
		if !ok || p.DeviceID != s.ID {
			continue
		}
		n, _ := q.network.networks.get(p.NetworkID)
		entry := func(address, kind string) {
			version := 4
			if regexp.MustCompile(":").MatchString(address) {
				version = 6
			}
			out[n.Name] = append(out[n.Name], map[string]any{"addr": address, "version": version, "OS-EXT-IPS:type": kind, "OS-EXT-IPS-MAC:mac_addr": p.MAC})
		}
		for _, f := range p.FixedIPs {
			entry(f.Address, "fixed")
			for _, fip := range q.network.floatingIPs.rows {
				if fip.FixedIP != nil && *fip.FixedIP == f.Address && *fip.PortID == p.ID {
					entry(fip.Address, "floating")
				}
			}
		}
	}
	return out
}

// listServers answers newest first; name is a regular expression, as in Nova.
func listServers(q *call, detail bool) (any, error) {
	query := q.URL.Query()
	var name *regexp.Regexp
	for key := range query {
		switch key {
		case "name":
			x, err := regexp.Compile(query.Get(key))
			if err != nil {
				return nil, nova(http.StatusBadRequest, "Invalid regular expression")
			}
			name = x
		case "status", "limit", "marker", "sort_key", "sort_dir", "all_tenants", "project_id", "tags", "tags-any":
		default:
			q.misuse("unknown filter %s", key)
		}
	}
	all := query.Get("all_tenants") != "" && q.admin()
	found := q.compute.servers.where(func(s *server) bool {
		return (all || s.ProjectID == q.who.ProjectID) && (name == nil || name.MatchString(s.Name)) &&
			(query.Get("tags") == "" || matchTags(s, "tags", query["tags"])) && (query.Get("tags-any") == "" || matchTags(s, "tags-any", query["tags-any"]))
	})
	for _, s := range found {
		q.look(s)
	}
	want := query.Get("status")
	found = slices.DeleteFunc(found, func(s *server) bool { return s.gone || want != "" && s.Status != want })
	slices.Reverse(found)
	query.Del("status")
	page, links, err := paginate(q, "Instance", found, query, novaDialect)
	if err != nil {
		return nil, err
	}
	out := []any{}
	for _, s := range page {
		v := q.showServer(s)
		if !detail {
			v = map[string]any{"id": v["id"], "name": v["name"], "links": v["links"]}
		}
		out = append(out, v)
	}
	answer := map[string]any{"servers": out}
	if len(links) > 0 {
		answer["servers_links"] = links
	}
	return answer, nil
}

func updateServer(q *call, s *server) (any, error) {
	f, err := q.object("server")
	if err != nil {
		return nil, err
	}
	for key := range f {
		if key != "name" && key != "description" && (key != "hostname" || !q.since(90)) {
			q.misuse("unknown field %s", key)
			return nil, nova(http.StatusBadRequest, "Additional properties are not allowed ('%s' was unexpected)", key)
		}
	}
	if _, err := assign(s, f, anyField); err != nil {
		return nil, nova(http.StatusBadRequest, "%v", err)
	}
	return map[string]any{"server": q.showServer(s)}, nil
}

func setMetadata(q *call, s *server) (any, error) {
	var body struct {
		Metadata map[string]string `json:"metadata"`
	}
	if err := json.Unmarshal(q.body, &body); err != nil {
		return nil, nova(http.StatusBadRequest, "Malformed request body")
	}
	m := map[string]string{}
	if q.Method == http.MethodPost {
		for k, v := range s.Metadata {
			m[k] = v
		}
	}
	for k, v := range body.Metadata {
		m[k] = v
	}
	if err := q.checkMetadata(m); err != nil {
		return nil, err
	}
	s.Metadata = m
	return map[string]any{"metadata": m}, nil
}

func (q *call) checkMetadata(m map[string]string) error {
	if limit := q.limit("compute", "metadata_items", q.who.ProjectID); limit >= 0 && len(m) > limit {
		return nova(http.StatusForbidden, "Maximum number of metadata items exceeds %d", limit)
	}
	for k, v := range m {
		if len(k) > 255 || len(v) > 255 {
			return nova(http.StatusBadRequest, "Invalid input for field/attribute %s. Value is too long", k)
		}
	}
	return nil
}

// deleteServer is asynchronous: the server is shown for a while, then its ports
// are free again.
func deleteServer(q *call, s *server) (any, error) {
	task := "deleting"
	s.TaskState = &task
	q.later(s, func() {
		q.Cloud.unbind(s)
		q.compute.servers.drop(s.ID)
	})
	return nil, nil
}

func serverAction(q *call, s *server) (any, error) {
	var body map[string]json.RawMessage
	if err := json.Unmarshal(q.body, &body); err != nil {
		return nil, nova(http.StatusBadRequest, "Malformed request body")
	}
	if _, ok := body["os-getConsoleOutput"]; ok {
		if s.Status == "BUILD" {
			return nil, nova(http.StatusConflict, "Instance %s is not ready", s.ID)
		}
		return map[string]any{"output": s.Console}, nil
	}
	for action, to := range map[string][2]string{"os-start": {"SHUTOFF", "ACTIVE"}, "os-stop": {"ACTIVE", "SHUTOFF"}} {
		if _, ok := body[action]; !ok {
			continue
		}
		if s.Status != to[0] {
			return nil, nova(http.StatusConflict, "Cannot '%s' instance %s while it is in vm_state %s", action[3:], s.ID, s.Status)
		}
		s.Status = to[1]
		return nil, nil
	}
	q.misuse("unknown action %s", q.body)
	return nil, nova(http.StatusBadRequest, "There is no such action: %s", strings.Join(slices.Sorted(maps.Keys(body)), ", "))
}

func listInterfaces(q *call, s *server) (any, error) {
	out := []any{}
	for _, id := range s.ports {
		if p, ok := q.network.ports.get(id); ok && p.DeviceID == s.ID {
			out = append(out, map[string]any{"port_id": p.ID, "net_id": p.NetworkID, "mac_addr": p.MAC, "port_state": p.Status, "fixed_ips": p.FixedIPs})
		}
	}
	return map[string]any{"interfaceAttachments": out}, nil
}

// validUserData tells whether Nova takes it: base64, at most 65535 characters.
func validUserData(s string) error {
	if len(s) > 65535 {
		return fmt.Errorf("user data too large; it must be no more than 65535 bytes: %s", strconv.Itoa(len(s)))
	}
	_, err := base64.StdEncoding.DecodeString(s)
	return err
}

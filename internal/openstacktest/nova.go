package openstacktest

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// The range of Nova's microversions, as minor numbers of 2.
const (
	minMicroversion = 1
	maxMicroversion = 100
)

type compute struct {
	servers  *table[*server]
	keypairs *table[*keypair]
	flavors  *table[*flavor]
	groups   *table[*serverGroup]
}

func newCompute() compute {
	return compute{newTable[*server]("server"), newTable[*keypair]("keypair"), newTable[*flavor]("flavor"), newTable[*serverGroup]("server_group")}
}

type flavor struct {
	base
	Name  string `json:"name"`
	VCPUs int    `json:"vcpus"`
	RAM   int    `json:"ram"`  // MiB
	Disk  int    `json:"disk"` // GiB
}

func (c *Cloud) seedCompute() {
	add := func(id, name string, vcpus, ram, disk int) {
		c.compute.flavors.add(&flavor{base: base{ID: id}, Name: name, VCPUs: vcpus, RAM: ram, Disk: disk})
	}
	add("2", "m1.small", 1, 2048, 20)
	add("3", "m1.medium", 2, 4096, 40)
	add("4", "m1.large", 4, 8192, 80)
	c.seedImages()
}

// nova is an error in Nova's form: the key names the status.
func nova(status int, format string, args ...any) error {
	key := map[int]string{400: "badRequest", 401: "unauthorized", 403: "forbidden", 404: "itemNotFound", 406: "computeFault", 409: "conflictingRequest"}[status]
	return &apiError{status, map[string]any{key: map[string]any{"code": status, "message": fmt.Sprintf(format, args...)}}}
}

func novaDialect(status int, _, format string, args ...any) error {
	return nova(status, format, args...)
}

func (c *Cloud) computeRoutes() {
	v21 := func() map[string]any {
		return map[string]any{"id": "v2.1", "status": "CURRENT", "version": fmt.Sprintf("2.%d", maxMicroversion), "min_version": "2.1",
			"updated": "2013-07-23T11:33:21Z", "links": []link{{"self", c.server.URL + prefixCompute + "/v2.1/"}}}
	}
	c.on("GET", prefixCompute, "/{$}", route{open: true, do: func(*call) (any, error) {
		old := map[string]any{"id": "v2.0", "status": "SUPPORTED", "version": "", "min_version": "", "updated": "2011-01-21T11:33:21Z",
			"links": []link{{"self", c.server.URL + prefixCompute + "/v2/"}}}
		return map[string]any{"versions": []any{old, v21()}}, nil
	}})
	c.on("GET", prefixCompute, "/v2.1/{$}", route{open: true, do: func(*call) (any, error) { return map[string]any{"version": v21()}, nil }})
	on := func(method, path string, status int, do func(*call) (any, error)) {
		c.on(method, prefixCompute, "/v2.1"+path, route{status: status, do: func(q *call) (any, error) {
			if err := q.negotiate(); err != nil {
				return nil, err
			}
			return do(q)
		}})
	}
	on("GET", "/flavors", 200, func(q *call) (any, error) { return listFlavors(q, false) })
	on("GET", "/flavors/detail", 200, func(q *call) (any, error) { return listFlavors(q, true) })
	on("GET", "/flavors/{id}", 200, func(q *call) (any, error) {
		f, ok := q.compute.flavors.get(q.PathValue("id"))
		if !ok {
			return nil, nova(http.StatusNotFound, "Flavor %s could not be found.", q.PathValue("id"))
		}
		return map[string]any{"flavor": q.showFlavor(f)}, nil
	})
	on("GET", "/os-availability-zone", 200, func(*call) (any, error) {
		zones := []any{}
		for _, name := range c.knobs.computeZones {
			zones = append(zones, map[string]any{"zoneName": name, "zoneState": map[string]bool{"available": true}, "hosts": nil})
		}
		return map[string]any{"availabilityZoneInfo": zones}, nil
	})
	c.serverRoutes(on)
	c.keypairRoutes(on)
	c.serverGroupRoutes(on)
	c.computeQuotaRoutes(on)
}

// negotiate refuses an unknown microversion and echoes the one in use.
func (q *call) negotiate() error {
	n, err := q.microversion()
	if err != nil || n < minMicroversion || n > maxMicroversion {
		q.misuse("microversion %q is out of range", q.Header.Get("X-OpenStack-Nova-API-Version"))
		return nova(http.StatusNotAcceptable, "Version %s is not supported by the API. Minimum is 2.1 and maximum is 2.%d.", q.Header.Get("X-OpenStack-Nova-API-Version"), maxMicroversion)
	}
	q.header.Set("X-OpenStack-Nova-API-Version", fmt.Sprintf("2.%d", n))
	q.header.Set("OpenStack-API-Version", fmt.Sprintf("compute 2.%d", n))
	return nil
}

// microversion is the minor number of the one asked for, 1 without any.
func (q *call) microversion() (int, error) {
	v := q.Header.Get("X-OpenStack-Nova-API-Version")
	if x, ok := strings.CutPrefix(q.Header.Get("OpenStack-API-Version"), "compute "); ok {
		v = x
	}
	switch v {
	case "":
		return minMicroversion, nil
	case "latest":
		return maxMicroversion, nil
	}
	minor, ok := strings.CutPrefix(v, "2.")
	if !ok {
		return 0, fmt.Errorf("major version of %q", v)
	}
	return strconv.Atoi(minor)
}

// since tells whether the request speaks microversion 2.minor or later.
func (q *call) since(minor int) bool {
	n, err := q.microversion()
	return err == nil && n >= minor
}

func (q *call) showFlavor(f *flavor) map[string]any {
	return map[string]any{"id": f.ID, "name": f.Name, "vcpus": f.VCPUs, "ram": f.RAM, "disk": f.Disk, "swap": "", "rxtx_factor": 1.0,
		"OS-FLV-EXT-DATA:ephemeral": 0, "OS-FLV-DISABLED:disabled": false, "os-flavor-access:is_public": true,
		"links": []link{{"self", q.server.URL + prefixCompute + "/v2.1/flavors/" + f.ID}}}
}

func listFlavors(q *call, detail bool) (any, error) {
	out := []any{}
	after := q.URL.Query().Get("marker")
	limit, _ := strconv.Atoi(q.URL.Query().Get("limit"))
	for _, f := range q.compute.flavors.rows {
		if after != "" {
			if f.ID == after {
				after = ""
			}
			continue
		}
		if limit > 0 && len(out) == limit {
			break
		}
		v := q.showFlavor(f)
		if !detail {
			v = map[string]any{"id": v["id"], "name": v["name"], "links": v["links"]}
		}
		out = append(out, v)
	}
	return map[string]any{"flavors": out}, nil
}

func (c *Cloud) computeQuotaRoutes(on func(string, string, int, func(*call) (any, error))) {
	get := func(body func(q *call, id string) map[string]any) func(*call) (any, error) {
		return func(q *call) (any, error) {
			id := q.PathValue("project")
			if id != q.who.ProjectID && !q.admin() {
				return nil, nova(http.StatusForbidden, "Policy doesn't allow os_compute_api:os-quota-sets:show to be performed.")
			}
			set := body(q, id)
			set["id"] = id
			return map[string]any{"quota_set": set}, nil
		}
	}
	limits := get(func(q *call, id string) map[string]any { return q.limits("compute", id) })
	on("GET", "/os-quota-sets/{project}", 200, limits)
	on("GET", "/os-quota-sets/{project}/defaults", 200, get(func(q *call, _ string) map[string]any { return q.limits("compute", "") }))
	on("GET", "/os-quota-sets/{project}/detail", 200, get(func(q *call, id string) map[string]any { return q.detail("compute", id, "in_use") }))
	on("PUT", "/os-quota-sets/{project}", 200, func(q *call) (any, error) {
		if !q.admin() {
			return nil, nova(http.StatusForbidden, "Policy doesn't allow os_compute_api:os-quota-sets:update to be performed.")
		}
		f, err := q.object("quota_set")
		if err != nil {
			return nil, err
		}
		if err := q.setLimits("compute", q.PathValue("project"), f); err != nil {
			return nil, err
		}
		return limits(q)
	})
	on("GET", "/limits", 200, func(q *call) (any, error) {
		p := q.who.ProjectID
		return map[string]any{"limits": map[string]any{"rate": []any{}, "absolute": map[string]int{
			"maxTotalInstances": q.limit("compute", "instances", p), "totalInstancesUsed": q.used("compute", "instances", p),
			"maxTotalCores": q.limit("compute", "cores", p), "totalCoresUsed": q.used("compute", "cores", p),
			"maxTotalRAMSize": q.limit("compute", "ram", p), "totalRAMUsed": q.used("compute", "ram", p),
			"maxTotalKeypairs": q.limit("compute", "key_pairs", p), "maxServerMeta": q.limit("compute", "metadata_items", p),
			"maxServerGroups": q.limit("compute", "server_groups", p), "totalServerGroupsUsed": q.used("compute", "server_groups", p), "maxServerGroupMembers": q.limit("compute", "server_group_members", p),
		}}}, nil
	})
}

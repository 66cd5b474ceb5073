package openstacktest

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// limit is the project's quota of one resource, -1 for none.
func (c *Cloud) limit(service, resource, project string) int {
	if n, ok := c.identity.quotas[project][service+"/"+resource]; ok {
		return n
	}
	if n, ok := c.knobs.quota[service+"/"+resource]; ok {
		return n
	}
	return -1
}

// used is how much of one resource the project has.
func (c *Cloud) used(service, resource, project string) int {
	count := func(s shelf) int {
		n := 0
		for _, r := range s.all() {
			if r.head().ProjectID == project {
				n++
			}
		}
		return n
	}
	n, b := &c.network, &c.balancer
	shelves := map[string]shelf{
		"network/network": n.networks, "network/subnet": n.subnets, "network/port": n.ports, "network/router": n.routers,
		"network/floatingip": n.floatingIPs, "network/security_group": n.groups, "network/security_group_rule": n.rules, "network/trunk": n.trunks,
		"compute/instances": c.compute.servers, "compute/server_groups": c.compute.groups, "block-storage/volumes": c.volumes.volumes,
		"load-balancer/load_balancer": b.loadBalancers, "load-balancer/listener": b.listeners, "load-balancer/pool": b.pools,
		"load-balancer/member": b.members, "load-balancer/health_monitor": b.monitors,
	}
	if s, ok := shelves[service+"/"+resource]; ok {
		return count(s)
	}
	total := 0
	for _, v := range c.volumes.volumes.rows {
		if v.ProjectID == project && resource == "gigabytes" {
			total += v.Size
		}
	}
	for _, s := range c.compute.servers.rows {
		if s.ProjectID == project {
			total += map[string]int{"cores": s.flavor.VCPUs, "ram": s.flavor.RAM}[resource]
		}
	}
	return total
}

func (c *Cloud) exceeds(service, resource, project string, more int) bool {
	limit := c.limit(service, resource, project)
	return limit >= 0 && c.used(service, resource, project)+more > limit
}

// quota refuses n more of a Neutron resource, as a whole.
func (q *call) quota(service, resource string, n int) error {
	if q.exceeds(service, resource, q.who.ProjectID, n) {
		return neutron(http.StatusConflict, "OverQuota", "Quota exceeded for resources: ['%s'].", resource)
	}
	return nil
}

// resources are a service's quota names.
func resources(service string) []string {
	var names []string
	for key := range quotaDefaults() {
		if s, name, _ := strings.Cut(key, "/"); s == service {
			names = append(names, name)
		}
	}
	return slices.Sorted(slices.Values(names))
}

func (c *Cloud) limits(service, project string) map[string]any {
	m := map[string]any{}
	for _, r := range resources(service) {
		m[r] = c.limit(service, r, project)
	}
	return m
}

// detail has usage beside the limits; the key of usage differs between services.
func (c *Cloud) detail(service, project, usedKey string) map[string]any {
	m := map[string]any{}
	for _, r := range resources(service) {
		m[r] = map[string]int{"limit": c.limit(service, r, project), usedKey: c.used(service, r, project), "reserved": 0}
	}
	return m
}

// setLimits changes a project's quotas from a body's object.
func (q *call) setLimits(service, project string, f fields) error {
	known := resources(service)
	for _, key := range slices.Sorted(maps.Keys(f)) {
		var n int
		if key == "force" {
			continue
		}
		if !slices.Contains(known, key) {
			q.misuse("unknown quota %s", key)
			return &apiError{http.StatusBadRequest, map[string]any{"badRequest": map[string]any{"code": 400, "message": "unknown quota " + key}}}
		}
		if err := json.Unmarshal(f[key], &n); err != nil {
			return &apiError{http.StatusBadRequest, map[string]any{"badRequest": map[string]any{"code": 400, "message": err.Error()}}}
		}
		if q.identity.quotas[project] == nil {
			q.identity.quotas[project] = map[string]int{}
		}
		q.identity.quotas[project][service+"/"+key] = n
	}
	return nil
}

func (c *Cloud) networkQuotaRoutes() {
	mine := func(q *call) (string, error) {
		id := q.PathValue("project")
		if id != q.who.ProjectID && !q.admin() || q.Method != http.MethodGet && !q.admin() {
			return "", neutron(http.StatusForbidden, "PolicyNotAuthorized", "rule:%s_quota is disallowed by policy", map[string]string{"GET": "get", "PUT": "update", "DELETE": "delete"}[q.Method])
		}
		return id, nil
	}
	answer := func(do func(q *call, project string) (any, error)) func(*call) (any, error) {
		return func(q *call) (any, error) {
			id, err := mine(q)
			if err != nil {
				return nil, err
			}
			return do(q, id)
		}
	}
	path := "/v2.0/quotas/{project}"
	show := func(q *call, id string) (any, error) { return map[string]any{"quota": q.limits("network", id)}, nil }
	c.on("GET", prefixNetwork, path, route{do: answer(show)})
	details := answer(func(q *call, id string) (any, error) {
		return map[string]any{"quota": q.detail("network", id, "used")}, nil
	})
	c.on("GET", prefixNetwork, path+"/details", route{do: details})
	c.on("GET", prefixNetwork, path+"/details.json", route{do: details}) // as gophercloud asks
	c.on("GET", prefixNetwork, path+"/default", route{do: answer(func(q *call, _ string) (any, error) {
		return map[string]any{"quota": q.limits("network", "")}, nil
	})})
	c.on("PUT", prefixNetwork, path, route{do: answer(func(q *call, id string) (any, error) {
		f, err := q.object("quota")
		if err != nil {
			return nil, err
		}
		if err := q.setLimits("network", id, f); err != nil {
			return nil, err
		}
		return show(q, id)
	})})
	c.on("DELETE", prefixNetwork, path, route{status: http.StatusNoContent, do: answer(func(q *call, id string) (any, error) {
		maps.DeleteFunc(q.identity.quotas[id], func(k string, _ int) bool { return strings.HasPrefix(k, "network/") })
		return nil, nil
	})})
}

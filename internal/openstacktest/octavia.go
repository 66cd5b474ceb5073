package openstacktest

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

type balancer struct {
	loadBalancers *table[*loadBalancer]
	listeners     *table[*listener]
	pools         *table[*lbPool]
	members       *table[*member]
	monitors      *table[*monitor]
}

func newBalancer() balancer {
	return balancer{newTable[*loadBalancer]("loadbalancer"), newTable[*listener]("listener"), newTable[*lbPool]("pool"),
		newTable[*member]("member"), newTable[*monitor]("healthmonitor")}
}

// part is what Octavia gives every resource of a tree.
type part struct {
	base
	TenantID     string   `json:"tenant_id" api:"c"`
	Name         string   `json:"name" api:"cu"`
	AdminStateUp bool     `json:"admin_state_up" api:"cu"`
	Provisioning string   `json:"provisioning_status"`
	Operating    string   `json:"operating_status"`
	Tags         []string `json:"tags" api:"cu"`
	CreatedAt    string   `json:"created_at"`
	UpdatedAt    string   `json:"updated_at"`

	lb string // the root of the tree
}

func (p *part) node() *part { return p }

// branch is a row of a tree.
type branch interface {
	row
	node() *part
}

// octaviaTime is a time as Octavia writes it, without a zone.
func octaviaTime() string { return now().Format("2006-01-02T15:04:05") }

func (c *Cloud) newPart(project, lb string) part {
	return part{base: base{ID: c.newID(), ProjectID: project}, TenantID: project, AdminStateUp: true, Provisioning: "PENDING_CREATE", Operating: "OFFLINE",
		Tags: []string{}, CreatedAt: octaviaTime(), UpdatedAt: octaviaTime(), lb: lb}
}

func octavia(status int, _, format string, args ...any) error {
	side := "Client"
	if status >= 500 {
		side = "Server"
	}
	return &apiError{status, map[string]any{"faultcode": side, "faultstring": fmt.Sprintf(format, args...), "debuginfo": nil}}
}

func notFound(kind, id string) error {
	return octavia(http.StatusNotFound, "", "%s %s not found.", kind, id)
}

func (c *Cloud) balancerRoutes() {
	if c.knobs.noOctavia {
		return
	}
	c.on("GET", prefixBalancer, "/{$}", route{open: true, do: func(*call) (any, error) {
		var versions []any
		for minor := 0; minor <= 27; minor++ {
			status := "SUPPORTED"
			if minor == 27 {
				status = "CURRENT"
			}
			versions = append(versions, map[string]any{"id": fmt.Sprintf("v2.%d", minor), "status": status, "updated": "2023-05-04T00:00:00Z",
				"links": []link{{"self", c.server.URL + prefixBalancer + "/v2"}}})
		}
		return map[string]any{"versions": versions}, nil
	}})
	on := func(method, path string, status int, do func(*call) (any, error)) {
		c.on(method, prefixBalancer, "/v2.0/lbaas"+path, route{status: status, do: func(q *call) (any, error) {
			if !slices.ContainsFunc(q.who.roles, func(r named) bool {
				return strings.HasPrefix(r.Name, "load-balancer_") || r.Name == "admin" ||
					!q.knobs.balancerRoles && (r.Name == "member" || r.Name == "reader" && method == http.MethodGet)
			}) {
				return nil, octavia(http.StatusForbidden, "", "Policy does not allow this request to be performed.")
			}
			return do(q)
		}})
	}
	c.treeRoutes(on)
	branchRoutes(on, "listeners", "listener", "Listener", c.balancer.listeners, createListener, updateListener, removeListener)
	branchRoutes(on, "pools", "pool", "Pool", c.balancer.pools, createPool, updatePool, removePool)
	branchRoutes(on, "healthmonitors", "healthmonitor", "Health Monitor", c.balancer.monitors, createMonitor, updateMonitor, removeMonitor)
	c.memberRoutes(on)
	on("GET", "/providers", 200, func(q *call) (any, error) {
		p := map[string]string{"name": q.knobs.provider, "description": "Octavia " + q.knobs.provider + " driver"}
		return map[string]any{"providers": []any{p}}, nil
	})
	quotas := func(q *call) (any, error) {
		id := q.PathValue("project")
		if id != q.who.ProjectID && !q.admin() {
			return nil, octavia(http.StatusForbidden, "", "Policy does not allow this request to be performed.")
		}
		limits := q.limits("load-balancer", id)
		return map[string]any{"quota": limits}, nil
	}
	for _, path := range []string{"/v2.0/quotas/{project}", "/v2.0/lbaas/quotas/{project}"} {
		c.on("GET", prefixBalancer, path, route{do: quotas})
		c.on("PUT", prefixBalancer, path, route{status: http.StatusAccepted, do: func(q *call) (any, error) {
			if !q.admin() {
				return nil, octavia(http.StatusForbidden, "", "Policy does not allow this request to be performed.")
			}
			f, err := q.object("quota")
			if err != nil {
				return nil, err
			}
			if err := q.setLimits("load-balancer", q.PathValue("project"), f); err != nil {
				return nil, err
			}
			return quotas(q)
		}})
	}
}

// branchRoutes registers the five routes of listeners, pools and health monitors.
func branchRoutes[T branch](on func(string, string, int, func(*call) (any, error)), plural, singular, title string, t *table[T],
	create func(*call, fields) (T, error), update func(*call, T, fields) error, remove func(*call, T) error) {
	find := func(q *call) (T, error) {
		r, ok := t.get(q.PathValue("id"))
		if ok && (r.head().ProjectID == q.who.ProjectID || q.admin()) {
			return r, nil
		}
		return r, notFound(title, q.PathValue("id"))
	}
	mine := func(q *call) []T {
		return t.where(func(r T) bool { return r.head().ProjectID == q.who.ProjectID || q.admin() })
	}
	on("GET", "/"+plural, 200, func(q *call) (any, error) { return list(q, plural, title, mine(q), octavia) })
	on("GET", "/"+plural+"/{id}", 200, func(q *call) (any, error) {
		r, err := find(q)
		if err != nil {
			return nil, err
		}
		if q.look(r); r.head().gone {
			return nil, notFound(title, r.head().ID)
		}
		return map[string]any{singular: q.show(r)}, nil
	})
	on("POST", "/"+plural, 201, func(q *call) (any, error) {
		f, err := q.object(singular)
		if err != nil {
			return nil, err
		}
		r, err := create(q, f)
		if err != nil {
			return nil, err
		}
		return map[string]any{singular: q.show(r)}, nil
	})
	on("PUT", "/"+plural+"/{id}", 200, func(q *call) (any, error) {
		r, err := find(q)
		if err != nil {
			return nil, err
		}
		f, err := q.object(singular)
		if err != nil {
			return nil, err
		}
		if err := q.mutable(r.node().lb); err != nil {
			return nil, err
		}
		fresh := clone(r)
		if err := q.fill(fresh, f, atUpdate); err != nil {
			return nil, err
		}
		if err := update(q, fresh, f); err != nil {
			return nil, err
		}
		overwrite(r, fresh)
		q.pending(r.node().lb, r)
		return map[string]any{singular: q.show(r)}, nil
	})
	on("DELETE", "/"+plural+"/{id}", 204, func(q *call) (any, error) {
		r, err := find(q)
		if err != nil {
			return nil, err
		}
		if err := q.mutable(r.node().lb); err != nil {
			return nil, err
		}
		q.removing(r, func() {
			if err := remove(q, r); err != nil {
				q.t.Errorf("openstacktest: removing %s %s: %v", title, r.head().ID, err)
			}
			t.drop(r.head().ID)
		})
		return nil, nil
	})
}

// fill writes a body into a row; what Octavia does not know fails the test.
func (q *call) fill(r branch, f fields, when string) error {
	refused, err := assign(r, f, when)
	switch r.(type) {
	case *member, *monitor:
		if f.has("description") {
			refused = append(refused, "description") // the two kinds that have none
		}
	}
	if len(refused) > 0 {
		q.misuse("Octavia does not take %s now", strings.Join(refused, ", "))
		return octavia(http.StatusBadRequest, "", "Unknown attribute for argument: %s", strings.Join(refused, ", "))
	}
	if err != nil {
		q.misuse("%v", err)
		return octavia(http.StatusBadRequest, "", "Invalid input: %v", err)
	}
	if p := r.node(); p.Tags == nil {
		p.Tags = []string{}
	}
	return nil
}

// limited refuses n more of a resource.
func (q *call) limited(resource, title string, n int) error {
	if n > 0 && q.exceeds("load-balancer", resource, q.who.ProjectID, n) {
		return octavia(http.StatusForbidden, "", "Quota has been met for resources: %s", title)
	}
	return nil
}

// mutable refuses a change while the tree's load balancer is not ACTIVE; the
// refusal counts as a poll.
func (q *call) mutable(id string) error {
	lb, ok := q.balancer.loadBalancers.get(id)
	if !ok {
		return notFound("Load Balancer", id)
	}
	if lb.Provisioning != "ACTIVE" {
		q.look(lb)
		return octavia(http.StatusConflict, "", "Load Balancer %s is immutable and cannot be updated.", id)
	}
	return nil
}

// open refuses a change of a pool's members while the pool is not ACTIVE, which it may not be although its load balancer is.
func (q *call) open(p *lbPool) error {
	if err := q.mutable(p.lb); err != nil {
		return err
	}
	if p.Provisioning != "ACTIVE" {
		q.look(p)
		return octavia(http.StatusConflict, "", "Pool %s is immutable and cannot be updated.", p.ID)
	}
	return nil
}

// pending sends a load balancer and the changed rows of its tree into PENDING_*.
func (q *call) pending(id string, changed ...branch) {
	lb, _ := q.balancer.loadBalancers.get(id)
	if lb.UpdatedAt = octaviaTime(); lb.Provisioning == "ACTIVE" {
		lb.Provisioning = "PENDING_UPDATE"
	}
	for _, r := range changed {
		if p := r.node(); p.Provisioning != "PENDING_CREATE" {
			p.Provisioning, p.UpdatedAt = "PENDING_UPDATE", octaviaTime()
		}
		if r != branch(lb) {
			q.arrive(lb, r, func() { q.Cloud.activate(r) })
		}
	}
	q.later(lb, func() { q.Cloud.activate(lb) })
}

// arrive lets a row of a tree reach its state when the tree was polled often
// enough. With the OVN provider the load balancer is ACTIVE before its rows are:
// who waits for the load balancer alone sees members still in PENDING_CREATE.
func (q *call) arrive(lb *loadBalancer, r branch, done func()) {
	q.later(r, done)
	if c := r.head().change; c != nil && lb.Provider == "ovn" {
		c.left++
	}
}

// removing sends a row into PENDING_DELETE; drop happens when it arrives.
func (q *call) removing(r branch, drop func()) {
	lb, _ := q.balancer.loadBalancers.get(r.node().lb)
	lb.Provisioning, lb.UpdatedAt = "PENDING_UPDATE", octaviaTime()
	r.node().Provisioning = "PENDING_DELETE"
	q.arrive(lb, r, drop)
	q.later(lb, func() { q.Cloud.activate(lb) })
}

func (c *Cloud) activate(r branch) {
	p := r.node()
	p.Provisioning, p.UpdatedAt = "ACTIVE", octaviaTime()
	switch r := r.(type) {
	case *member:
		p.Operating = "NO_MONITOR"
		if pool, ok := c.balancer.pools.get(r.PoolID); ok && pool.monitor(c) != nil {
			p.Operating = "ONLINE"
		}
	default:
		p.Operating = "ONLINE"
	}
}

package lbaas

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gophercloud/gophercloud/v2"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
)

// cloud is Neutron and Octavia as far as they are the stack's. It is safe for concurrent use.
type cloud struct {
	network, octavia *gophercloud.ServiceClient
	project, stack   string
	mayWrite         func() error

	facts facts  // but for the provider, which a view has
	vips  string // id of the network of the VIPs
	group string // id of the pods' security group

	looking chan struct{} // held by who looks
	latest  *view         // guarded by looking
}

// errReadOnly is wrapped by the errors of calls that were not made since mayWrite refused.
var errReadOnly = errors.New("not sent")

// open finds what a stack has of networks by their names: five reads.
func open(ctx context.Context, login *openstack.Cloud, stack string, mayWrite func() error) (*cloud, error) {
	c := &cloud{project: login.ProjectID(), stack: stack, mayWrite: mayWrite, looking: make(chan struct{}, 1)}
	var err error
	if c.network, err = login.Network(); err != nil {
		return nil, err
	}
	if c.octavia, err = login.LoadBalancer(); err != nil {
		return nil, err
	}
	type named struct {
		ID, Name, CIDR string
		Network        string `json:"network_id"`
		Gateway        struct {
			Network string `json:"network_id"`
		} `json:"external_gateway_info"`
	}
	find := func(path, name string) (named, error) {
		all, err := list[named](ctx, c.network, path, url.Values{"name": {stack + "/" + name}, "project_id": {c.project}})
		if err == nil && len(all) != 1 {
			err = fmt.Errorf("%d %s are called %s/%s, and one is needed: is the stack's name right?", len(all), path, stack, name)
		}
		if err != nil {
			return named{}, err
		}
		return all[0], nil
	}
	service, err := find("subnets", "service_subnet")
	if err != nil {
		return nil, err
	}
	c.vips, c.facts = service.Network, facts{stack: stack, vipSubnet: service.ID}
	for _, role := range []string{"pod", "vm"} {
		s, err := find("subnets", role+"_subnet")
		if err != nil {
			return nil, err
		}
		p, err := netip.ParsePrefix(s.CIDR)
		if err != nil {
			return nil, fmt.Errorf("reading subnet %s: %w", s.ID, err)
		}
		c.facts.places = append(c.facts.places, place{p, s.ID, role == "pod"})
	}
	router, err := find("routers", "router")
	if err != nil {
		return nil, err
	}
	group, err := find("security-groups", "pod_access")
	c.facts.public, c.group = router.Gateway.Network, group.ID
	return c, err
}

// list reads a collection page by page. The next page is asked for by the last object of this one: the links in the answer may,
// behind a proxy, name another host.
func list[T any](ctx context.Context, client *gophercloud.ServiceClient, path string, query url.Values) ([]T, error) {
	var all []T
	for {
		var page map[string]json.RawMessage
		if _, err := client.Get(ctx, client.ServiceURL(path)+"?"+query.Encode(), &page, nil); err != nil {
			return nil, openstack.Wrap(err, "listing %s", path)
		}
		key := strings.ReplaceAll(path[strings.LastIndex(path, "/")+1:], "-", "_")
		var items []T
		var ids []struct{ ID string }
		var links []struct{ Rel string }
		err := errors.Join(json.Unmarshal(page[key], &items), json.Unmarshal(page[key], &ids))
		if raw, ok := page[key+"_links"]; ok && err == nil {
			err = json.Unmarshal(raw, &links)
		}
		if err != nil {
			return nil, fmt.Errorf("listing %s: reading the answer: %w", path, err)
		}
		all = append(all, items...)
		if len(ids) == 0 || !slices.ContainsFunc(links, func(l struct{ Rel string }) bool { return l.Rel == "next" }) {
			return all, nil
		}
		query.Set("marker", ids[len(ids)-1].ID)
	}
}

// write sends a request that changes something. out, if not nil, takes the answer.
func (c *cloud) write(ctx context.Context, client *gophercloud.ServiceClient, method, path string, body, out any) error {
	if err := c.mayWrite(); err != nil {
		return fmt.Errorf("%s %s: %w: %w", method, path, errReadOnly, err)
	}
	opts := &gophercloud.RequestOpts{JSONBody: body, JSONResponse: out, OkCodes: []int{http.StatusOK, http.StatusCreated, http.StatusAccepted, http.StatusNoContent}}
	resp, err := client.Request(ctx, method, client.ServiceURL(path), opts)
	if err == nil && out == nil {
		err = resp.Body.Close()
	}
	return err
}

func (c *cloud) lb(ctx context.Context, method, path string, body, out any) error {
	return c.write(ctx, c.octavia, method, "lbaas/"+path, body, out)
}

// view is what the cloud held at one moment.
type view struct {
	begin     time.Time
	provider  string // of the API's load balancer; "" when that is not there
	balancers map[string][]*balancer
	floating  []publicIP
	pools     map[string]pooled // by id: its members, with the ids by which they are known
}

// pooled are the members of a pool.
type pooled struct {
	ids     []string // sorted
	members []member
	broken  string // address of one that is in ERROR
}

// publicIP is a floating IP.
type publicIP struct {
	ID          string
	Description string
	Address     string `json:"floating_ip_address"`
	Network     string `json:"floating_network_id"`
	Port        string `json:"port_id"`
}

type ref struct{ ID string }

func refs(all []ref) (ids []string) {
	for _, r := range all {
		ids = append(ids, r.ID)
	}
	slices.Sort(ids)
	return ids
}

// look reads all at once, unless somebody did since notBefore. Members are asked for where their ids are new.
func (c *cloud) look(ctx context.Context, notBefore time.Time) (*view, error) {
	select {
	case c.looking <- struct{}{}:
		defer func() { <-c.looking }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if c.latest != nil && c.latest.begin.After(notBefore) {
		return c.latest, nil
	}
	v := &view{begin: time.Now(), balancers: map[string][]*balancer{}, pools: map[string]pooled{}}
	mine := func() url.Values { return url.Values{"project_id": {c.project}} }
	heads, err := list[struct {
		ID, Name, Description, Provider string
		Up                              bool   `json:"admin_state_up"`
		Status                          string `json:"provisioning_status"`
		VIP                             string `json:"vip_address"`
		VIPPort                         string `json:"vip_port_id"`
	}](ctx, c.octavia, "lbaas/loadbalancers", mine())
	if err != nil {
		return nil, err
	}
	byID := map[string]*balancer{}
	for _, h := range heads {
		if h.Description != openstack.Mark(c.stack) || h.Status == "DELETED" {
			continue
		}
		if h.Name == c.stack+"/api-lb" {
			v.provider = h.Provider
		}
		if key, ok := keyOf(c.stack, h.Name); ok {
			b := &balancer{ID: h.ID, Name: h.Name, Description: h.Description, Status: h.Status, VIP: h.VIP, VIPPort: h.VIPPort, Provider: h.Provider, Off: !h.Up}
			v.balancers[key], byID[h.ID] = append(v.balancers[key], b), b
		}
	}
	if err := c.lookInside(ctx, v, byID, mine); err != nil {
		return nil, err
	}
	if v.floating, err = list[publicIP](ctx, c.network, "floatingips", mine()); err != nil {
		return nil, err
	}
	if c.latest != nil && v.provider == "" {
		v.provider = c.latest.provider
	}
	c.latest = v
	return v, nil
}

// lookInside reads what is in load balancers.
func (c *cloud) lookInside(ctx context.Context, v *view, byID map[string]*balancer, mine func() url.Values) error {
	if len(byID) == 0 {
		return nil
	}
	monitors, err := list[struct {
		monitor
		ID     string
		Status string `json:"provisioning_status"`
		Pools  []ref
	}](ctx, c.octavia, "lbaas/healthmonitors", mine())
	if err != nil {
		return err
	}
	pools, err := list[struct {
		ID, Name, Protocol string
		Up                 bool      `json:"admin_state_up"`
		Status             string    `json:"provisioning_status"`
		Algorithm          string    `json:"lb_algorithm"`
		Affinity           *affinity `json:"session_persistence"`
		LoadBalancers      []ref     `json:"loadbalancers"`
		Members            []ref
	}](ctx, c.octavia, "lbaas/pools", mine())
	if err != nil {
		return err
	}
	listeners, err := list[struct {
		settings
		ID, Name, Protocol string
		Status             string   `json:"provisioning_status"`
		Port               int      `json:"protocol_port"`
		Pool               string   `json:"default_pool_id"`
		CIDRs              []string `json:"allowed_cidrs"`
		LoadBalancers      []ref    `json:"loadbalancers"`
	}](ctx, c.octavia, "lbaas/listeners", mine())
	if err != nil {
		return err
	}
	of := func(all []ref) *balancer {
		if len(all) == 0 {
			return nil
		}
		return byID[all[0].ID]
	}
	known, home := map[string]*pool{}, map[string]*balancer{}
	for _, p := range pools {
		b := of(p.LoadBalancers)
		if b == nil {
			continue
		}
		made := &pool{ID: p.ID, Name: p.Name, Protocol: p.Protocol, Algorithm: p.Algorithm, Affinity: p.Affinity, Off: !p.Up}
		b.suspect("pool", p.Name, p.Status)
		in := pooled{ids: refs(p.Members)}
		if c.latest != nil && slices.Equal(c.latest.pools[p.ID].ids, in.ids) && c.latest.pools[p.ID].broken == "" {
			in = c.latest.pools[p.ID]
		} else if in, err = c.members(ctx, p.ID); err != nil {
			if openstack.IsNotFound(err) {
				continue
			}
			return err
		}
		if in.broken != "" {
			b.suspect("member", in.broken, "ERROR")
		}
		v.pools[p.ID], known[p.ID], home[p.ID] = in, made, b
		made.Members = in.members
	}
	for _, m := range monitors {
		for _, r := range m.Pools {
			if p := known[r.ID]; p != nil {
				one := m.monitor
				one.ID = m.ID
				p.Monitor = &one
				home[r.ID].suspect("health monitor of", p.Name, m.Status)
			}
		}
	}
	used := map[string]bool{}
	for _, l := range listeners {
		b := of(l.LoadBalancers)
		if b == nil {
			continue
		}
		b.suspect("listener", l.Name, l.Status)
		slices.Sort(l.CIDRs)
		b.Listeners = append(b.Listeners, &listener{ID: l.ID, Name: l.Name, Protocol: l.Protocol, Port: l.Port, settings: l.settings, CIDRs: l.CIDRs, Pool: known[l.Pool]})
		used[l.Pool] = true
	}
	for _, p := range pools {
		if b := of(p.LoadBalancers); b != nil && known[p.ID] != nil && !used[p.ID] {
			b.Loose = append(b.Loose, known[p.ID])
		}
	}
	return nil
}

// members reads those of a pool.
func (c *cloud) members(ctx context.Context, pool string) (pooled, error) {
	all, err := list[struct {
		member
		ID     string
		Status string `json:"provisioning_status"`
	}](ctx, c.octavia, "lbaas/pools/"+pool+"/members", url.Values{})
	var p pooled
	for _, m := range all {
		if m.Status != "PENDING_DELETE" && m.Status != "DELETED" {
			m.member.ID = m.ID
			p.members, p.ids = append(p.members, m.member), append(p.ids, m.ID)
			if m.Status == "ERROR" {
				p.broken = m.Address
			}
		}
	}
	slices.Sort(p.ids)
	slices.SortFunc(p.members, member.compare)
	return p, err
}

// status is the answer of Octavia's status call: the structure of a load balancer without what is set in it.
type status struct {
	Status    string `json:"provisioning_status"`
	Listeners []struct {
		ID, Name string
		Status   string `json:"provisioning_status"`
		Pools    []struct {
			ID, Name string
			Status   string `json:"provisioning_status"`
			Members  []struct {
				ID, Address string
				Port        int    `json:"protocol_port"`
				Status      string `json:"provisioning_status"`
			}
			Monitor *struct {
				ID, Type string
				Status   string `json:"provisioning_status"`
			} `json:"health_monitor"`
		}
	}
}

// refresh reads a load balancer's state and structure in one call. What is set in its parts is as it was known or, of parts that are new,
// as it was asked for.
func (c *cloud) refresh(ctx context.Context, b, asked *balancer) error {
	var body struct {
		Statuses struct {
			LoadBalancer status `json:"loadbalancer"`
		}
	}
	if _, err := c.octavia.Get(ctx, c.octavia.ServiceURL("lbaas", "loadbalancers", b.ID, "status"), &body, nil); err != nil {
		return openstack.Wrap(err, "looking at load balancer %s", b.Name)
	}
	now := body.Statuses.LoadBalancer
	b.Status, b.Broken = now.Status, ""
	if b.Status != "ACTIVE" {
		return nil
	}
	old, asks := *b, &balancer{}
	if asked != nil {
		asks = asked
	}
	b.Listeners = nil
	attached := map[string]bool{}
	for _, n := range now.Listeners {
		l := &listener{ID: n.ID, Name: n.Name}
		b.suspect("listener", n.Name, n.Status)
		for _, o := range append(slices.Clone(old.Listeners), asks.Listeners...) {
			if o.ID == n.ID || o.ID == "" && o.Name == n.Name {
				l.Protocol, l.Port, l.settings, l.CIDRs = o.Protocol, o.Port, o.settings, o.CIDRs
				break
			}
		}
		for _, np := range n.Pools {
			p := &pool{ID: np.ID, Name: np.Name}
			b.suspect("pool", np.Name, np.Status)
			attached[p.ID] = true
			var m *monitor
			if o := poolOf(np.ID, np.Name, &old, asks); o != nil {
				p.Protocol, p.Algorithm, p.Affinity, p.Off, m = o.Protocol, o.Algorithm, o.Affinity, o.Off, o.Monitor
			}
			for _, nm := range np.Members {
				b.suspect("member", nm.Address, nm.Status)
				if nm.Status != "PENDING_DELETE" {
					p.Members = append(p.Members, member{ID: nm.ID, Address: nm.Address, Port: nm.Port})
				}
			}
			slices.SortFunc(p.Members, member.compare)
			if np.Monitor != nil {
				b.suspect("health monitor of", np.Name, np.Monitor.Status)
				p.Monitor = &monitor{ID: np.Monitor.ID, Type: np.Monitor.Type}
				if a := poolOf("", np.Name, asks); a != nil && (m == nil || m.ID != np.Monitor.ID) {
					m = a.Monitor
				}
				if m != nil {
					one := *m
					one.ID, one.Type = np.Monitor.ID, np.Monitor.Type
					p.Monitor = &one
				}
			}
			l.Pool = p
		}
		b.Listeners = append(b.Listeners, l)
	}
	b.Loose = slices.DeleteFunc(slices.Clone(b.Loose), func(p *pool) bool { return attached[p.ID] })
	return nil
}

// poolOf finds a pool that is known by its id or, having none yet, by its name.
func poolOf(id, name string, in ...*balancer) *pool {
	for _, b := range in {
		all := slices.Clone(b.Loose)
		for _, l := range b.Listeners {
			if l.Pool != nil {
				all = append(all, l.Pool)
			}
		}
		for _, p := range all {
			if id != "" && p.ID == id || p.ID == "" && p.Name == name {
				return p
			}
		}
	}
	return nil
}

// evict removes the port that holds a VIP, if a load balancer left it behind: OVN's provider does so when it refuses what it was asked to
// make. It says after what time the address can be had, or else who holds it. A port younger than age may be that of a load balancer which
// is being made.
func (c *cloud) evict(ctx context.Context, vip string, age time.Duration) (again time.Duration, holder string, err error) {
	ports, err := list[struct {
		ID, Name, Description string
		Project               string    `json:"project_id"`
		CreatedAt             time.Time `json:"created_at"`
		Owner                 string    `json:"device_owner"`
	}](ctx, c.network, "ports", url.Values{"network_id": {c.vips}, "fixed_ips": {"ip_address=" + vip}})
	if err != nil || len(ports) == 0 {
		return 0, "", err
	}
	p := ports[0]
	holder = fmt.Sprintf("port %s %s %s", p.ID, p.Name, p.Owner)
	id, leaked := strings.CutPrefix(p.Name, "ovn-lb-vip-")
	if !leaked || p.Project != c.project {
		return 0, holder, nil
	}
	_, err = c.octavia.Get(ctx, c.octavia.ServiceURL("lbaas", "loadbalancers", id), nil, nil)
	switch {
	case err == nil:
		return 0, holder, nil
	case !openstack.IsNotFound(err):
		return 0, holder, openstack.Wrap(err, "looking for the load balancer of port %s", p.ID)
	}
	if left := age - time.Since(p.CreatedAt); left > 0 {
		return left, "", nil
	}
	if err := c.write(ctx, c.network, http.MethodDelete, "ports/"+p.ID, nil, nil); err != nil && !openstack.IsNotFound(err) {
		return 0, holder, openstack.Wrap(err, "deleting port %s", p.ID)
	}
	return soon, "", nil
}

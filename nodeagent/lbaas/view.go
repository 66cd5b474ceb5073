package lbaas

import (
	"context"
	"net/url"
	"slices"
	"time"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
)

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
	odd     []part // members that are not ACTIVE, by their addresses
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
		if c.latest != nil && slices.Equal(c.latest.pools[p.ID].ids, in.ids) && len(c.latest.pools[p.ID].odd) == 0 {
			in = c.latest.pools[p.ID]
		} else if in, err = c.members(ctx, p.ID); err != nil {
			if openstack.IsNotFound(err) {
				continue
			}
			return err
		}
		for _, m := range in.odd {
			b.suspect("member", m.what, m.status)
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
		}
		if m.Status != "ACTIVE" {
			p.odd = append(p.odd, part{m.Address, m.Status})
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
	b.Status, b.Broken, b.UnderWay = now.Status, "", nil
	if b.Status != "ACTIVE" && b.Status != "ERROR" {
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

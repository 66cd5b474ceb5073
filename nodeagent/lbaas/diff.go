package lbaas

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// balancer is a load balancer with everything in it, as it is or as it should be. What is only in Octavia's hands is empty in the latter.
type balancer struct {
	ID, Name, Status      string
	VIP, VIPPort          string
	Provider, Description string
	Listeners             []*listener
	Loose                 []*pool // that no listener uses
	Broken                string  // what of it is in ERROR while the whole is not
	UnderWay              []part  // what of it is PENDING while the whole is not
	Off                   bool    // somebody disabled it
}

// part is something in a load balancer that has a state of its own.
type part struct{ what, status string }

// suspect notes a part that is not ACTIVE.
func (b *balancer) suspect(kind, name, status string) {
	switch {
	case status == "ERROR":
		b.Broken = kind + " " + name
	case strings.HasPrefix(status, "PENDING_"):
		b.UnderWay = append(b.UnderWay, part{kind + " " + name, status})
	}
}

type listener struct {
	ID, Name, Protocol string
	Port               int
	settings
	CIDRs []string // sources let in, sorted; none is everywhere
	Pool  *pool
}

// settings are what may be changed of a listener. Times are in ms.
type settings struct {
	Up            bool `json:"admin_state_up"`
	Limit         int  `json:"connection_limit"`
	ClientData    int  `json:"timeout_client_data"`
	MemberConnect int  `json:"timeout_member_connect"`
	MemberData    int  `json:"timeout_member_data"`
	Inspect       int  `json:"timeout_tcp_inspect"`
}

// standard are Octavia's defaults.
var standard = settings{Up: true, Limit: -1, ClientData: 50000, MemberConnect: 5000, MemberData: 50000}

type pool struct {
	ID, Name, Protocol, Algorithm string
	Affinity                      *affinity
	Members                       []member // sorted
	Off                           bool     // somebody disabled it
	Monitor                       *monitor
}

type affinity struct {
	Type    string `json:"type"`
	Timeout int    `json:"persistence_timeout,omitempty"` // s; 0 leaves it to the provider
}

type member struct {
	ID      string `json:"-"`
	Address string `json:"address"`
	Port    int    `json:"protocol_port"`
	Subnet  string `json:"subnet_id,omitempty"`
}

func (m member) compare(o member) int {
	return cmp.Or(cmp.Compare(m.Address, o.Address), cmp.Compare(m.Port, o.Port))
}

// same tells whether two members are one to Octavia.
func (m member) same(o member) bool { return m.compare(o) == 0 }

type monitor struct {
	ID          string `json:"-"`
	Type        string `json:"type"`
	Delay       int    `json:"delay"`   // s
	Timeout     int    `json:"timeout"` // s
	Retries     int    `json:"max_retries"`
	RetriesDown int    `json:"max_retries_down"`
}

// change is one call that brings a load balancer nearer to what it should be.
type change struct {
	what         string
	method, path string
	body         any
	done         func() // what it makes of the load balancer as it is known
}

// diff is the first change that is still needed, or nil. What is in the way goes first; then what is missing comes from the outside in, so
// that a crash between two changes leaves something that the next look understands.
func diff(is, should *balancer) *change {
	if is.Off {
		return &change{"enable", http.MethodPut, "loadbalancers/" + is.ID, map[string]any{"loadbalancer": map[string]any{"admin_state_up": true}}, func() { is.Off = false }}
	}
	for i, l := range is.Listeners {
		if w := should.listener(l); w == nil || slices.ContainsFunc(is.Listeners[:i], func(o *listener) bool { return o.Name == l.Name }) {
			return &change{"delete listener " + l.Name, http.MethodDelete, "listeners/" + l.ID, nil, func() {
				if l.Pool != nil {
					is.Loose = append(is.Loose, l.Pool)
				}
				is.Listeners = slices.Delete(is.Listeners, i, i+1)
			}}
		}
	}
	for i, p := range is.Loose {
		if should.needs(is, p) == nil {
			return &change{"delete pool " + p.Name, http.MethodDelete, "pools/" + p.ID, nil, func() { is.Loose = slices.Delete(is.Loose, i, i+1) }}
		}
	}
	for _, w := range should.Listeners {
		if c := is.mend(w); c != nil {
			return c
		}
	}
	return nil
}

// final tells that a load balancer cannot be changed into what it should be, but only made anew. OVN's provider is told how long clients are
// kept when the whole is made, has one such time for all ports of a protocol, and forgets it with any of their pools.
func final(is, should *balancer) bool {
	return is.Provider == "ovn" && !maps.Equal(is.affinities(), should.affinities())
}

// affinities are those of the pools that have one, by name.
func (b *balancer) affinities() map[string]affinity {
	all := map[string]affinity{}
	pools := slices.Clone(b.Loose)
	for _, l := range b.Listeners {
		pools = append(pools, l.Pool)
	}
	for _, p := range pools {
		if p != nil && p.Affinity != nil {
			all[p.Name] = *p.Affinity
		}
	}
	return all
}

// listener is the one that l should be like. Protocol and port of a listener cannot be changed, so they are part of what it is.
func (b *balancer) listener(l *listener) *listener {
	for _, o := range b.Listeners {
		if o.Name == l.Name && o.Protocol == l.Protocol && o.Port == l.Port {
			return o
		}
	}
	return nil
}

// needs is the listener of b that could use a pool which is loose in is: one without a pool.
func (b *balancer) needs(is *balancer, p *pool) *listener {
	for _, w := range b.Listeners {
		if l := is.listener(w); w.Pool.Name == p.Name && w.Pool.Protocol == p.Protocol && (l == nil || l.Pool == nil) {
			return w
		}
	}
	return nil
}

// mend is the first change that a listener needs.
func (b *balancer) mend(w *listener) *change {
	l := b.listener(w)
	if l == nil {
		body := w.body()
		body["loadbalancer_id"] = b.ID
		return &change{"create listener " + w.Name, http.MethodPost, "listeners", map[string]any{"listener": body}, nothing}
	}
	p := l.Pool
	if p == nil {
		if i := slices.IndexFunc(b.Loose, func(o *pool) bool { return o.Name == w.Pool.Name && o.Protocol == w.Pool.Protocol }); i >= 0 {
			p = b.Loose[i]
			return &change{"join pool " + p.Name, http.MethodPut, "listeners/" + l.ID, map[string]any{"listener": map[string]any{"default_pool_id": p.ID}}, func() {
				l.Pool, b.Loose = p, slices.Delete(b.Loose, i, i+1)
			}}
		}
		body := w.Pool.head()
		body["listener_id"] = l.ID
		return &change{"create pool " + w.Pool.Name, http.MethodPost, "pools", map[string]any{"pool": body}, nothing}
	}
	if !same(p.Affinity, w.Pool.Affinity) || p.Algorithm != w.Pool.Algorithm || p.Off {
		body := map[string]any{"lb_algorithm": w.Pool.Algorithm, "session_persistence": w.Pool.Affinity, "admin_state_up": true}
		return &change{"change pool " + p.Name, http.MethodPut, "pools/" + p.ID, map[string]any{"pool": body}, func() {
			p.Algorithm, p.Affinity, p.Off = w.Pool.Algorithm, w.Pool.Affinity, false
		}}
	}
	if !slices.EqualFunc(p.Members, w.Pool.Members, member.same) {
		body := map[string]any{"members": append([]member{}, w.Pool.Members...)}
		what := fmt.Sprintf("change members of %s from %d to %d", p.Name, len(p.Members), len(w.Pool.Members))
		return &change{what, http.MethodPut, "pools/" + p.ID + "/members", body, func() { p.Members = w.Pool.Members }}
	}
	switch m, should := p.Monitor, w.Pool.Monitor; {
	case m == nil && should == nil:
	case m == nil:
		body := should.body(p.Name)
		body["pool_id"] = p.ID
		return &change{"create health monitor of " + p.Name, http.MethodPost, "healthmonitors", map[string]any{"healthmonitor": body}, nothing}
	case should == nil || m.Type != should.Type:
		return &change{"delete health monitor of " + p.Name, http.MethodDelete, "healthmonitors/" + m.ID, nil, func() { p.Monitor = nil }}
	case m.Delay != should.Delay || m.Timeout != should.Timeout || m.Retries != should.Retries || m.RetriesDown != should.RetriesDown:
		body := should.body(p.Name)
		delete(body, "type")
		return &change{"change health monitor of " + p.Name, http.MethodPut, "healthmonitors/" + m.ID, map[string]any{"healthmonitor": body}, func() {
			id := m.ID
			*m = *should
			m.ID = id
		}}
	}
	if l.settings != w.settings || !slices.Equal(l.CIDRs, w.CIDRs) {
		body := w.tuned()
		return &change{"change listener " + l.Name, http.MethodPut, "listeners/" + l.ID, map[string]any{"listener": body}, func() { l.settings, l.CIDRs = w.settings, w.CIDRs }}
	}
	return nil
}

func nothing() {}

func same[T comparable](a, b *T) bool { return a == b || a != nil && b != nil && *a == *b }

// body describes a listener alone.
func (l *listener) body() map[string]any {
	body := map[string]any{"name": l.Name, "protocol": l.Protocol, "protocol_port": l.Port}
	if l.settings != standard {
		body["connection_limit"], body["timeout_client_data"], body["timeout_member_connect"] = l.Limit, l.ClientData, l.MemberConnect
		body["timeout_member_data"], body["timeout_tcp_inspect"] = l.MemberData, l.Inspect
	}
	if len(l.CIDRs) > 0 {
		body["allowed_cidrs"] = l.CIDRs
	}
	return body
}

// tuned describes what may be changed of a listener.
func (l *listener) tuned() map[string]any {
	return map[string]any{"admin_state_up": l.Up, "connection_limit": l.Limit, "timeout_client_data": l.ClientData, "timeout_member_connect": l.MemberConnect,
		"timeout_member_data": l.MemberData, "timeout_tcp_inspect": l.Inspect, "allowed_cidrs": l.CIDRs}
}

// head describes a pool without what is in it.
func (p *pool) head() map[string]any {
	body := map[string]any{"name": p.Name, "protocol": p.Protocol, "lb_algorithm": p.Algorithm}
	if p.Affinity != nil {
		body["session_persistence"] = p.Affinity
	}
	return body
}

func (m *monitor) body(name string) map[string]any {
	return map[string]any{"name": name, "type": m.Type, "delay": m.Delay, "timeout": m.Timeout, "max_retries": m.Retries, "max_retries_down": m.RetriesDown}
}

// birth describes the whole, or with bare the load balancer alone.
func (b *balancer) birth(subnet string, bare bool) map[string]any {
	body := map[string]any{"name": b.Name, "description": b.Description, "vip_subnet_id": subnet, "vip_address": b.VIP, "provider": b.Provider}
	if bare || len(b.Listeners) == 0 {
		return body
	}
	listeners := []map[string]any{}
	for _, l := range b.Listeners {
		p := l.Pool.head()
		p["members"] = append([]member{}, l.Pool.Members...)
		if l.Pool.Monitor != nil {
			p["healthmonitor"] = l.Pool.Monitor.body(l.Pool.Name)
		}
		one := l.body()
		one["default_pool"] = p
		listeners = append(listeners, one)
	}
	body["listeners"] = listeners
	return body
}

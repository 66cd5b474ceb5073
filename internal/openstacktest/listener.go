package openstacktest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
)

type listener struct {
	part
	Description   string            `json:"description" api:"cu"`
	LoadBalancer  string            `json:"loadbalancer_id,omitempty" api:"c"`
	LoadBalancers []ref             `json:"loadbalancers"`
	Protocol      string            `json:"protocol" api:"c"`
	Port          int               `json:"protocol_port" api:"c"`
	Pool          *string           `json:"default_pool_id" api:"cu"`
	Limit         int               `json:"connection_limit" api:"cu"`
	ClientData    int               `json:"timeout_client_data" api:"cu"`    // ms
	MemberConnect int               `json:"timeout_member_connect" api:"cu"` // ms
	MemberData    int               `json:"timeout_member_data" api:"cu"`    // ms
	TCPInspect    int               `json:"timeout_tcp_inspect" api:"cu"`    // ms
	InsertHeaders map[string]string `json:"insert_headers" api:"cu"`
	AllowedCIDRs  []string          `json:"allowed_cidrs" api:"cu"`
	L7Policies    []any             `json:"l7policies"`
}

// grow makes the pools and listeners of a fully populated create.
func (q *call) grow(lb *loadBalancer, pools, listeners []fields) ([]branch, error) {
	var made []branch
	named := map[string]string{}
	// All pools are made first, those inside listeners too; names tell them apart.
	for _, f := range listeners {
		var pool fields
		if _, err := f.take("default_pool", &pool); err != nil {
			return nil, err
		}
		if f.has("default_pool") && (len(pool) > 1 || !pool.has("name")) {
			pools = append(pools, pool)
		}
	}
	for _, f := range pools {
		if !f.has("name") {
			return nil, octavia(http.StatusBadRequest, "", "Validation failure: Pools must be named when creating a fully populated loadbalancer.")
		}
		p, grown, err := q.growPool(lb, f, false)
		if err != nil {
			return nil, err
		}
		made = append(made, grown...)
		if _, ok := named[p.Name]; ok {
			return nil, octavia(http.StatusBadRequest, "", "Validation failure: Pool names must be unique when creating a fully populated loadbalancer.")
		}
		named[p.Name] = p.ID
	}
	for _, f := range listeners {
		var pool fields
		f, err := f.take("default_pool", &pool)
		if err != nil {
			return nil, err
		}
		l, err := q.newListener(lb, f)
		if err != nil {
			return nil, err
		}
		made = append(made, l)
		if pool == nil {
			continue
		}
		var name string
		if err := json.Unmarshal(pool["name"], &name); err != nil {
			return nil, fmt.Errorf("decoding the name of a pool: %w", err)
		}
		id, ok := named[name]
		if !ok {
			return nil, octavia(http.StatusBadRequest, "", "Validation failure: Pool '%s' was referenced but no full definition was found.", name)
		}
		l.Pool = &id
	}
	return made, nil
}

func createListener(q *call, f fields) (*listener, error) {
	var id string
	if err := json.Unmarshal(f["loadbalancer_id"], &id); err != nil {
		return nil, octavia(http.StatusBadRequest, "", "Invalid input for field/attribute loadbalancer_id.")
	}
	lb, ok := q.balancer.loadBalancers.get(id)
	if !ok || lb.ProjectID != q.who.ProjectID && !q.admin() {
		return nil, notFound("Load Balancer", id)
	}
	if err := q.mutable(lb.ID); err != nil {
		return nil, err
	}
	var grown []branch
	var pool fields
	f, err := f.take("default_pool", &pool)
	if err != nil {
		return nil, err
	}
	l, err := q.newListener(lb, f)
	if err != nil {
		return nil, err
	}
	if pool != nil {
		p, more, err := q.growPool(lb, pool, false)
		if err != nil {
			q.balancer.listeners.drop(l.ID)
			return nil, err
		}
		l.Pool, grown = &p.ID, more
	}
	q.pending(lb.ID, append(grown, l)...)
	return l, nil
}

// newListener checks and stores a listener, without setting anything pending.
func (q *call) newListener(lb *loadBalancer, f fields) (*listener, error) {
	l := &listener{part: q.newPart(lb.ProjectID, lb.ID), Limit: -1, ClientData: 50000, MemberConnect: 5000, MemberData: 50000, InsertHeaders: map[string]string{}, L7Policies: []any{}}
	if err := q.fill(l, f, atCreate); err != nil {
		return nil, err
	}
	l.LoadBalancer = lb.ID
	if err := q.checkProtocol(lb, l.Protocol); err != nil {
		return nil, err
	}
	if l.Port < 1 || l.Port > 65535 {
		return nil, octavia(http.StatusBadRequest, "", "Invalid input for field/attribute protocol_port. Value: '%d'.", l.Port)
	}
	transport := func(p string) bool { return p == "UDP" || p == "SCTP" }
	if q.balancer.listeners.any(func(o *listener) bool {
		return o.lb == lb.ID && o.Port == l.Port && transport(o.Protocol) == transport(l.Protocol)
	}) {
		return nil, octavia(http.StatusConflict, "", "Another Listener on this Load Balancer is already using protocol %s and protocol_port %d", l.Protocol, l.Port)
	}
	if err := q.limited("listener", "Listener", 1); err != nil {
		return nil, err
	}
	if l.Pool != nil {
		p, ok := q.balancer.pools.get(*l.Pool)
		if !ok || p.lb != lb.ID {
			return nil, notFound("Pool", *l.Pool)
		}
		if err := l.speaks(p); err != nil {
			return nil, err
		}
	}
	if len(l.AllowedCIDRs) > 0 && lb.Provider == "ovn" {
		return nil, unsupported("OVN provider does not support allowed_cidrs option")
	}
	q.balancer.listeners.add(l)
	return l, nil
}

// speaks refuses a pool of another transport; those above TCP have pools of each other's.
func (l *listener) speaks(p *lbPool) error {
	if p.Protocol != l.Protocol && (l.Protocol == "UDP" || l.Protocol == "SCTP" || p.Protocol == "UDP" || p.Protocol == "SCTP") {
		return octavia(http.StatusBadRequest, "", "Validation failure: The pool protocol '%s' is invalid while the listener protocol is '%s'.", p.Protocol, l.Protocol)
	}
	return nil
}

func unsupported(reason string) error {
	return octavia(http.StatusNotImplemented, "", "Provider 'ovn' does not support a requested option: %s", reason)
}

// checkProtocol knows which protocols there are, and which the OVN provider has.
func (q *call) checkProtocol(lb *loadBalancer, protocol string) error {
	l4 := []string{"TCP", "UDP", "SCTP"}
	if slices.Contains(l4, protocol) {
		return nil
	}
	if !slices.Contains([]string{"HTTP", "HTTPS", "TERMINATED_HTTPS", "PROXY", "PROXYV2", "PROMETHEUS"}, protocol) {
		return octavia(http.StatusBadRequest, "", "Invalid input for field/attribute protocol. Value: '%s'.", protocol)
	}
	if lb.Provider == "ovn" {
		return unsupported("OVN provider does not support " + protocol + " protocol")
	}
	return nil
}

func updateListener(q *call, l *listener, f fields) error {
	if l.Pool != nil && f.has("default_pool_id") {
		p, ok := q.balancer.pools.get(*l.Pool)
		if !ok || p.lb != l.lb {
			return notFound("Pool", *l.Pool)
		}
		return l.speaks(p)
	}
	return nil
}

func removeListener(*call, *listener) error { return nil }

func (c *Cloud) showListener(l *listener) *listener {
	v := clone(l)
	v.LoadBalancer, v.LoadBalancers = "", []ref{{l.lb}}
	return v
}

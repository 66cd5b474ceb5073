package openstacktest

import (
	"encoding/json"
	"net/http"
	"slices"
)

type lbPool struct {
	part
	Description   string       `json:"description" api:"cu"`
	LoadBalancer  string       `json:"loadbalancer_id,omitempty" api:"c"`
	ListenerID    string       `json:"listener_id,omitempty" api:"c"`
	LoadBalancers []ref        `json:"loadbalancers"`
	Listeners     []ref        `json:"listeners"`
	Members       []ref        `json:"members"`
	MonitorID     *string      `json:"healthmonitor_id"`
	Protocol      string       `json:"protocol" api:"c"`
	Algorithm     string       `json:"lb_algorithm" api:"cu"`
	Persistence   *persistence `json:"session_persistence" api:"cu"`
}

type persistence struct {
	Type       string  `json:"type"`
	CookieName *string `json:"cookie_name"`
	Timeout    *int    `json:"persistence_timeout"`
}

type monitor struct {
	part
	PoolID         string  `json:"pool_id,omitempty" api:"c"`
	Pools          []ref   `json:"pools"`
	Type           string  `json:"type" api:"c"`
	Delay          int     `json:"delay" api:"cu"`   // s
	Timeout        int     `json:"timeout" api:"cu"` // s
	MaxRetries     int     `json:"max_retries" api:"cu"`
	MaxRetriesDown int     `json:"max_retries_down" api:"cu"`
	URLPath        *string `json:"url_path" api:"cu"`
	HTTPMethod     *string `json:"http_method" api:"cu"`
	HTTPVersion    *string `json:"http_version" api:"cu"`
	ExpectedCodes  *string `json:"expected_codes" api:"cu"`
	DomainName     *string `json:"domain_name" api:"cu"`
}

func (p *lbPool) monitor(c *Cloud) *monitor {
	m, ok := c.balancer.monitors.first(func(m *monitor) bool { return m.PoolID == p.ID })
	if !ok {
		return nil
	}
	return m
}

func createPool(q *call, f fields) (*lbPool, error) {
	var id, listenerID string
	if f.has("loadbalancer_id") {
		if err := json.Unmarshal(f["loadbalancer_id"], &id); err != nil {
			return nil, octavia(http.StatusBadRequest, "", "Invalid input for field/attribute loadbalancer_id.")
		}
	}
	var l *listener
	if f.has("listener_id") {
		if err := json.Unmarshal(f["listener_id"], &listenerID); err != nil {
			return nil, octavia(http.StatusBadRequest, "", "Invalid input for field/attribute listener_id.")
		}
		var ok bool
		if l, ok = q.balancer.listeners.get(listenerID); !ok {
			return nil, notFound("Listener", listenerID)
		}
		id = l.lb
	}
	lb, ok := q.balancer.loadBalancers.get(id)
	if !ok || lb.ProjectID != q.who.ProjectID && !q.admin() {
		return nil, notFound("Load Balancer", id)
	}
	if err := q.mutable(lb.ID); err != nil {
		return nil, err
	}
	if l != nil && l.Pool != nil {
		return nil, octavia(http.StatusConflict, "", "This listener already has a default pool")
	}
	p, grown, err := q.growPool(lb, f, true)
	if err != nil {
		return nil, err
	}
	if l != nil {
		l.Pool = &p.ID
		grown = append(grown, l)
	}
	q.pending(lb.ID, grown...)
	return p, nil
}

// growPool checks and stores a pool with the members and the monitor in its body,
// without setting anything pending; on error nothing stays. Octavia looks at the
// timeout of persistence only where a pool is made alone.
func (q *call) growPool(lb *loadBalancer, f fields, alone bool) (*lbPool, []branch, error) {
	var members []fields
	var hm fields
	f, err := f.take("members", &members)
	if err != nil {
		return nil, nil, err
	}
	if f, err = f.take("healthmonitor", &hm); err != nil {
		return nil, nil, err
	}
	p := &lbPool{part: q.newPart(lb.ProjectID, lb.ID)}
	if err := q.fill(p, f, atCreate); err != nil {
		return nil, nil, err
	}
	p.LoadBalancer = lb.ID
	if err := q.checkProtocol(lb, p.Protocol); err != nil {
		return nil, nil, err
	}
	if err := q.checkAlgorithm(lb, p.Algorithm); err != nil {
		return nil, nil, err
	}
	if alone {
		if err := p.checkPersistence(); err != nil {
			return nil, nil, err
		}
	}
	if err := q.limited("pool", "Pool", 1); err != nil {
		return nil, nil, err
	}
	if s := p.Persistence; s != nil && s.Timeout != nil {
		lb.affinity[p.Protocol] = *s.Timeout
	}
	q.balancer.pools.add(p)
	made := []branch{p}
	err = func() error {
		if hm != nil {
			m, err := q.newMonitor(p, hm)
			if err != nil {
				return err
			}
			made = append(made, m)
		}
		for _, f := range members {
			m, err := q.newMember(p, f)
			if err != nil {
				return err
			}
			made = append(made, m)
		}
		return nil
	}()
	if err != nil {
		_ = removePool(q, p) // never refuses
		q.balancer.pools.drop(p.ID)
		return nil, nil, err
	}
	return p, made, nil
}

func (q *call) checkAlgorithm(lb *loadBalancer, algorithm string) error {
	if !slices.Contains([]string{"ROUND_ROBIN", "LEAST_CONNECTIONS", "SOURCE_IP", "SOURCE_IP_PORT"}, algorithm) {
		return octavia(http.StatusBadRequest, "", "Invalid input for field/attribute lb_algorithm. Value: '%s'.", algorithm)
	}
	if lb.Provider == "ovn" && algorithm != "SOURCE_IP_PORT" {
		return unsupported("OVN provider does not support " + algorithm + " algorithm")
	}
	if lb.Provider != "ovn" && algorithm == "SOURCE_IP_PORT" {
		return octavia(http.StatusNotImplemented, "", "Provider '%s' does not support a requested option: LB algorithm: SOURCE_IP_PORT is not supported", lb.Provider)
	}
	return nil
}

func (p *lbPool) checkPersistence() error {
	if s := p.Persistence; s != nil && s.Timeout != nil && *s.Timeout != 0 && p.Protocol != "UDP" && p.Protocol != "SCTP" {
		return octavia(http.StatusBadRequest, "", "Validation failure: persistence_timeout and persistence_granularity is only for UDP and SCTP protocol pools.")
	}
	return nil
}

func updatePool(q *call, p *lbPool, f fields) error {
	lb, _ := q.balancer.loadBalancers.get(p.lb)
	if err := q.checkAlgorithm(lb, p.Algorithm); err != nil {
		return err
	}
	if err := p.checkPersistence(); err != nil {
		return err
	}
	// The OVN provider writes "None" where there is no timeout, which OVN cannot
	// read, and leaves the old one where there is no persistence.
	if s := p.Persistence; s != nil && f.has("session_persistence") {
		if delete(lb.affinity, p.Protocol); s.Timeout != nil {
			lb.affinity[p.Protocol] = *s.Timeout
		}
	}
	return nil
}

// Affinity is how many seconds a load balancer of the OVN provider keeps a client
// with its member; 0 is not at all. OVN has one number for all ports of a protocol.
func (c *Cloud) Affinity(lb, protocol string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	found, _ := c.balancer.loadBalancers.first(func(l *loadBalancer) bool { return l.Name == lb })
	if found == nil {
		return 0
	}
	return found.affinity[protocol]
}

func removePool(q *call, p *lbPool) error {
	if lb, ok := q.balancer.loadBalancers.get(p.lb); ok {
		delete(lb.affinity, p.Protocol)
	}
	for _, m := range q.balancer.members.where(func(m *member) bool { return m.PoolID == p.ID }) {
		q.balancer.members.drop(m.ID)
	}
	for _, m := range q.balancer.monitors.where(func(m *monitor) bool { return m.PoolID == p.ID }) {
		q.balancer.monitors.drop(m.ID)
	}
	for _, l := range q.balancer.listeners.rows {
		if l.Pool != nil && *l.Pool == p.ID {
			l.Pool = nil
		}
	}
	return nil
}

func (c *Cloud) showPool(p *lbPool) *lbPool {
	v := clone(p)
	v.LoadBalancer, v.ListenerID, v.LoadBalancers, v.Listeners, v.Members = "", "", []ref{{p.lb}}, []ref{}, []ref{}
	for _, l := range c.balancer.listeners.rows {
		if l.Pool != nil && *l.Pool == p.ID {
			v.Listeners = append(v.Listeners, ref{l.ID})
		}
	}
	for _, m := range c.balancer.members.rows {
		if m.PoolID == p.ID {
			v.Members = append(v.Members, ref{m.ID})
		}
	}
	if m := p.monitor(c); m != nil {
		v.MonitorID = &m.ID
	}
	return v
}

func createMonitor(q *call, f fields) (*monitor, error) {
	var id string
	if err := json.Unmarshal(f["pool_id"], &id); err != nil {
		return nil, octavia(http.StatusBadRequest, "", "Invalid input for field/attribute pool_id.")
	}
	p, ok := q.balancer.pools.get(id)
	if !ok || p.ProjectID != q.who.ProjectID && !q.admin() {
		return nil, notFound("Pool", id)
	}
	if err := q.mutable(p.lb); err != nil {
		return nil, err
	}
	m, err := q.newMonitor(p, f)
	if err != nil {
		return nil, err
	}
	q.pending(p.lb, m, p)
	return m, nil
}

func (q *call) newMonitor(p *lbPool, f fields) (*monitor, error) {
	m := &monitor{part: q.newPart(p.ProjectID, p.lb), MaxRetriesDown: 3}
	if err := q.fill(m, f, atCreate); err != nil {
		return nil, err
	}
	m.PoolID = p.ID
	if p.monitor(q.Cloud) != nil {
		return nil, octavia(http.StatusConflict, "", "This pool already has a health monitor")
	}
	lb, _ := q.balancer.loadBalancers.get(p.lb)
	if lb.Provider == "ovn" && m.Type != "TCP" && m.Type != "UDP-CONNECT" {
		return nil, unsupported("OVN provider does not support " + m.Type + " health monitor type. Supported types: TCP, UDP-CONNECT")
	}
	if m.Delay < 1 || m.Timeout < 1 || m.MaxRetries < 1 || m.MaxRetries > 10 {
		return nil, octavia(http.StatusBadRequest, "", "Invalid input for a health monitor: delay, timeout or max_retries.")
	}
	if err := q.limited("health_monitor", "Health Monitor", 1); err != nil {
		return nil, err
	}
	q.balancer.monitors.add(m)
	return m, nil
}

func updateMonitor(*call, *monitor, fields) error { return nil }
func removeMonitor(*call, *monitor) error         { return nil }

func (c *Cloud) showMonitor(m *monitor) *monitor {
	v := clone(m)
	v.PoolID, v.Pools = "", []ref{{m.PoolID}}
	return v
}

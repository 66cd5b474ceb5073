package openstacktest

import "net/http"

type loadBalancer struct {
	part
	Description   string  `json:"description" api:"cu"`
	VIP           string  `json:"vip_address" api:"c"`
	VIPPort       string  `json:"vip_port_id" api:"c"`
	VIPSubnet     string  `json:"vip_subnet_id" api:"c"`
	VIPNetwork    string  `json:"vip_network_id" api:"c"`
	VIPQoS        *string `json:"vip_qos_policy_id" api:"cu"`
	VNICType      string  `json:"vip_vnic_type"`
	AdditionalVIP []any   `json:"additional_vips"`
	Provider      string  `json:"provider" api:"c"`
	Flavor        *string `json:"flavor_id" api:"c"`
	Zone          *string `json:"availability_zone" api:"c"`
	Listeners     []ref   `json:"listeners"`
	Pools         []ref   `json:"pools"`
	late          bool    // ACTIVE once more while it is being deleted
	ownPort       bool    // the VIP port was made by Octavia and goes with it

	affinity map[string]int // by protocol, as OVN has it, in s
}

type ref struct {
	ID string `json:"id"`
}

func (c *Cloud) treeRoutes(on func(string, string, int, func(*call) (any, error))) {
	with := func(do func(*call, *loadBalancer) (any, error)) func(*call) (any, error) {
		return func(q *call) (any, error) {
			lb, ok := q.balancer.loadBalancers.get(q.PathValue("id"))
			if !ok || lb.ProjectID != q.who.ProjectID && !q.admin() {
				return nil, notFound("Load Balancer", q.PathValue("id"))
			}
			return do(q, lb)
		}
	}
	shown := func(do func(*call, *loadBalancer) (any, error)) func(*call) (any, error) {
		return with(func(q *call, lb *loadBalancer) (any, error) {
			if q.look(lb); lb.gone {
				return nil, notFound("Load Balancer", lb.ID)
			}
			return do(q, lb)
		})
	}
	on("GET", "/loadbalancers", 200, func(q *call) (any, error) {
		return list(q, "loadbalancers", "Load Balancer", q.balancer.loadBalancers.where(func(lb *loadBalancer) bool { return lb.ProjectID == q.who.ProjectID || q.admin() }), octavia)
	})
	on("POST", "/loadbalancers", 201, createBalancer)
	on("GET", "/loadbalancers/{id}", 200, shown(func(q *call, lb *loadBalancer) (any, error) {
		return map[string]any{"loadbalancer": q.show(lb)}, nil
	}))
	for _, path := range []string{"/loadbalancers/{id}/status", "/loadbalancers/{id}/statuses"} {
		on("GET", path, 200, shown(func(q *call, lb *loadBalancer) (any, error) {
			return map[string]any{"statuses": map[string]any{"loadbalancer": q.statusTree(lb)}}, nil
		}))
	}
	on("GET", "/loadbalancers/{id}/stats", 200, shown(func(*call, *loadBalancer) (any, error) {
		return map[string]any{"stats": map[string]int{"active_connections": 0, "bytes_in": 0, "bytes_out": 0, "request_errors": 0, "total_connections": 0}}, nil
	}))
	on("PUT", "/loadbalancers/{id}", 200, with(updateBalancer))
	on("DELETE", "/loadbalancers/{id}", 204, with(deleteBalancer))
}

// createBalancer makes a load balancer, with the whole tree below it when the
// body has one.
func createBalancer(q *call) (any, error) {
	f, err := q.object("loadbalancer")
	if err != nil {
		return nil, err
	}
	var listeners, pools []fields
	for key, dst := range map[string]*[]fields{"listeners": &listeners, "pools": &pools} {
		if f, err = f.take(key, dst); err != nil {
			return nil, err
		}
	}
	lb := &loadBalancer{part: q.newPart(q.who.ProjectID, ""), Provider: q.knobs.provider, VNICType: "normal", AdditionalVIP: []any{}, affinity: map[string]int{}}
	lb.lb = lb.ID
	if err := q.fill(lb, f, atCreate); err != nil {
		return nil, err
	}
	if lb.Provider != q.knobs.provider {
		return nil, octavia(http.StatusBadRequest, "", "Provider '%s' is not enabled.", lb.Provider)
	}
	if q.knobs.refuseTrees && len(listeners)+len(pools) > 0 {
		return nil, octavia(http.StatusNotImplemented, "", "Provider '%s' does not support a requested action: This provider does not support creating fully populated load balancers.", lb.Provider)
	}
	if err := q.limited("load_balancer", "Load Balancer", 1); err != nil {
		return nil, err
	}
	if err := q.placeVIP(lb); err != nil {
		return nil, err
	}
	q.balancer.loadBalancers.add(lb)
	made := []branch{lb}
	grown, err := q.grow(lb, pools, listeners)
	if err != nil {
		// The OVN provider forgets the VIP port it made for a tree that Octavia
		// then refuses; nothing points to it but its name.
		lb.ownPort = lb.ownPort && lb.Provider != "ovn"
		q.dropBalancer(lb)
		q.balancer.loadBalancers.drop(lb.ID)
		return nil, err
	}
	q.pending(lb.ID, append(made, grown...)...)
	return map[string]any{"loadbalancer": q.showTree(lb)}, nil
}

// showTree is the answer to a create: the rows themselves, not only their ids.
func (q *call) showTree(lb *loadBalancer) any {
	v := struct {
		*loadBalancer
		Listeners []any `json:"listeners"`
		Pools     []any `json:"pools"`
	}{q.showBalancer(lb), []any{}, []any{}}
	for _, l := range q.balancer.listeners.rows {
		if l.lb == lb.ID {
			v.Listeners = append(v.Listeners, q.show(l))
		}
	}
	for _, p := range q.balancer.pools.rows {
		if p.lb != lb.ID {
			continue
		}
		full := struct {
			*lbPool
			Members []any `json:"members"`
			Monitor any   `json:"healthmonitor"`
		}{q.showPool(p), []any{}, nil}
		for _, m := range q.balancer.members.rows {
			if m.PoolID == p.ID {
				full.Members = append(full.Members, m)
			}
		}
		if m := p.monitor(q.Cloud); m != nil {
			full.Monitor = m
		}
		v.Pools = append(v.Pools, full)
	}
	return v
}

// placeVIP finds or makes the VIP's port.
func (q *call) placeVIP(lb *loadBalancer) error {
	if lb.VIPPort != "" {
		p, ok := q.network.ports.get(lb.VIPPort)
		if !ok || p.ProjectID != q.who.ProjectID && !q.admin() {
			return octavia(http.StatusBadRequest, "", "Port %s not found.", lb.VIPPort)
		}
		if p.DeviceID != "" || len(p.FixedIPs) == 0 {
			return octavia(http.StatusBadRequest, "", "Validation failure: Port %s is already used or has no address.", p.ID)
		}
		lb.VIP, lb.VIPSubnet, lb.VIPNetwork = p.FixedIPs[0].Address, p.FixedIPs[0].SubnetID, p.NetworkID
		if lb.Provider != "ovn" {
			p.DeviceID, p.DeviceOwner = "lb-"+lb.ID, ownerAmphoraVIP
		}
		touch(p)
		return nil
	}
	if lb.VIPSubnet != "" {
		s, ok := q.network.subnets.get(lb.VIPSubnet)
		if !ok || s.ProjectID != q.who.ProjectID && !q.admin() {
			return octavia(http.StatusBadRequest, "", "Subnet %s not found.", lb.VIPSubnet)
		}
		lb.VIPNetwork = s.NetworkID
	}
	n, ok := q.network.networks.get(lb.VIPNetwork)
	if !ok {
		return octavia(http.StatusBadRequest, "", "Validation failure: VIP must contain one of: vip_port_id, vip_network_id, vip_subnet_id.")
	}
	if q.exceeds("network", "port", q.who.ProjectID, 1) {
		return octavia(http.StatusInternalServerError, "", "Provider '%s' reports error: Quota exceeded for resources: ['port'].", lb.Provider)
	}
	var wanted []fixedIP
	if lb.VIPSubnet != "" || lb.VIP != "" {
		wanted = []fixedIP{{lb.VIPSubnet, lb.VIP}}
	}
	p := q.newPort(n.ID, lb.ProjectID)
	var err error
	if p.FixedIPs, err = q.allocate(n.ID, wanted, nil); err != nil {
		return octavia(http.StatusInternalServerError, "", "Provider '%s' reports error: %s", lb.Provider, neutronMessage(err))
	}
	if len(p.FixedIPs) == 0 {
		return octavia(http.StatusBadRequest, "", "Validation failure: Supplied network does not contain a subnet.")
	}
	p.Groups = []string{q.defaultGroup(lb.ProjectID).ID}
	// OVN's VIP ports have no device at all: only the name says what they are.
	p.Name = "ovn-lb-vip-" + lb.ID
	if lb.Provider != "ovn" {
		p.Name, p.DeviceID, p.DeviceOwner, p.AdminStateUp = "octavia-lb-"+lb.ID, "lb-"+lb.ID, ownerAmphoraVIP, false
	}
	q.network.ports.add(p)
	lb.VIP, lb.VIPSubnet, lb.VIPPort, lb.ownPort = p.FixedIPs[0].Address, p.FixedIPs[0].SubnetID, p.ID, true
	return nil
}

func updateBalancer(q *call, lb *loadBalancer) (any, error) {
	f, err := q.object("loadbalancer")
	if err != nil {
		return nil, err
	}
	if lb.Provisioning != "ACTIVE" {
		return nil, q.wrongState(lb)
	}
	fresh := clone(lb)
	if err := q.fill(fresh, f, atUpdate); err != nil {
		return nil, err
	}
	overwrite(lb, fresh)
	q.pending(lb.ID)
	return map[string]any{"loadbalancer": q.show(lb)}, nil
}

// wrongState refuses a change of a load balancer itself; it counts as a poll.
func (q *call) wrongState(lb *loadBalancer) error {
	state := lb.Provisioning
	q.look(lb)
	return octavia(http.StatusConflict, "", "Invalid state %s of loadbalancer resource %s", state, lb.ID)
}

func deleteBalancer(q *call, lb *loadBalancer) (any, error) {
	inTree := func(r branch) bool { return r.node().lb == lb.ID }
	children := q.balancer.listeners.any(func(r *listener) bool { return inTree(r) }) || q.balancer.pools.any(func(r *lbPool) bool { return inTree(r) })
	if children && q.URL.Query().Get("cascade") != "true" {
		return nil, octavia(http.StatusBadRequest, "", "Validation failure: Cannot delete Load Balancer %s - it has children", lb.ID)
	}
	if lb.Provisioning != "ACTIVE" && lb.Provisioning != "ERROR" {
		return nil, q.wrongState(lb)
	}
	late := lb.Provider == "ovn" && q.settling(lb)
	lb.Provisioning, lb.UpdatedAt = "PENDING_DELETE", octaviaTime()
	if q.knobs.failDeletions > 0 {
		q.knobs.failDeletions--
		q.later(lb, func() { lb.Provisioning = "ERROR" })
		return nil, nil
	}
	if lb.late {
		// The provider is at it already. The second deletion finds rows gone under it, and its end is what is kept of the load balancer.
		q.later(lb, func() { lb.Provisioning, lb.late = "ERROR", false })
		return nil, nil
	}
	gone := func() {
		q.Cloud.dropBalancer(lb)
		q.balancer.loadBalancers.drop(lb.ID)
	}
	q.later(lb, func() {
		if !late {
			gone()
			return
		}
		// The OVN provider reports the state of the tree it was still building:
		// the load balancer is ACTIVE once more, and goes all the same.
		lb.Provisioning, lb.late = "ACTIVE", true
		q.Cloud.later(lb, gone)
	})
	return nil, nil
}

// settling tells that something below the load balancer is in transition.
func (q *call) settling(lb *loadBalancer) bool {
	b := &q.balancer
	for _, s := range []shelf{b.listeners, b.pools, b.members, b.monitors} {
		for _, r := range s.all() {
			if r.(branch).node().lb == lb.ID && r.head().change != nil {
				return true
			}
		}
	}
	return false
}

// dropBalancer removes what belongs to a load balancer; a floating IP on the VIP
// stays, without its port.
func (c *Cloud) dropBalancer(lb *loadBalancer) {
	b := &c.balancer
	for _, r := range b.listeners.where(func(r *listener) bool { return r.lb == lb.ID }) {
		b.listeners.drop(r.ID)
	}
	for _, r := range b.members.where(func(r *member) bool { return r.lb == lb.ID }) {
		b.members.drop(r.ID)
	}
	for _, r := range b.monitors.where(func(r *monitor) bool { return r.lb == lb.ID }) {
		b.monitors.drop(r.ID)
	}
	for _, r := range b.pools.where(func(r *lbPool) bool { return r.lb == lb.ID }) {
		b.pools.drop(r.ID)
	}
	p, ok := c.network.ports.get(lb.VIPPort)
	if !ok {
		return
	}
	if lb.ownPort {
		c.freePort(p)
		c.network.ports.drop(p.ID)
		return
	}
	p.DeviceID, p.DeviceOwner = "", ""
}

func (c *Cloud) showBalancer(lb *loadBalancer) *loadBalancer {
	v := clone(lb)
	v.Listeners, v.Pools = []ref{}, []ref{}
	for _, r := range c.balancer.listeners.rows {
		if r.lb == lb.ID {
			v.Listeners = append(v.Listeners, ref{r.ID})
		}
	}
	for _, r := range c.balancer.pools.rows {
		if r.lb == lb.ID {
			v.Pools = append(v.Pools, ref{r.ID})
		}
	}
	return v
}

// statusTree is the answer of /status.
func (q *call) statusTree(lb *loadBalancer) map[string]any {
	line := func(r branch) map[string]any {
		p := r.node()
		return map[string]any{"id": p.ID, "name": p.Name, "provisioning_status": p.Provisioning, "operating_status": p.Operating}
	}
	pool := func(r *lbPool) map[string]any {
		m := line(r)
		members := []any{}
		for _, x := range q.balancer.members.rows {
			if x.PoolID == r.ID {
				l := line(x)
				l["address"], l["protocol_port"] = x.Address, x.Port
				members = append(members, l)
			}
		}
		m["members"] = members
		if hm := r.monitor(q.Cloud); hm != nil {
			l := line(hm)
			l["type"] = hm.Type
			m["health_monitor"] = l
		}
		return m
	}
	tree := line(lb)
	listeners := []any{}
	for _, r := range q.balancer.listeners.rows {
		if r.lb != lb.ID {
			continue
		}
		l := line(r)
		l["pools"] = []any{}
		if r.Pool != nil {
			if p, ok := q.balancer.pools.get(*r.Pool); ok {
				l["pools"] = []any{pool(p)}
			}
		}
		listeners = append(listeners, l)
	}
	tree["listeners"] = listeners
	return tree
}

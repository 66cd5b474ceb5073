package openstacktest

import "slices"

// look polls a thing that is being shown, and what decides its state: a port
// follows its server, a listener its load balancer.
func (c *Cloud) look(r row) {
	if b, ok := r.(branch); ok {
		c.lookTree(b.node().lb)
		return
	}
	c.poll(r)
	switch r := r.(type) {
	case *port:
		if s, ok := c.compute.servers.get(r.DeviceID); ok {
			c.poll(s)
		}
		if s, ok := c.compute.servers.first(func(s *server) bool { return slices.Contains(s.ports, r.ID) }); ok && r.DeviceID != s.ID {
			c.poll(s)
		}
	case *trunk:
		if p, ok := c.network.ports.get(r.PortID); ok {
			c.look(p)
		}
	}
}

// lookTree polls a load balancer with everything below it, whichever part of the
// tree was asked for: time passes for all of it.
func (c *Cloud) lookTree(id string) {
	b := &c.balancer
	for _, s := range []shelf{b.loadBalancers, b.listeners, b.pools, b.monitors, b.members} {
		for _, r := range s.all() {
			if r.(branch).node().lb == id {
				c.poll(r)
			}
		}
	}
}

// show is what a client sees of a row: the row with its computed fields.
func (c *Cloud) show(r row) any {
	switch r := r.(type) {
	case *network:
		v := clone(r)
		v.Subnets = []string{}
		for _, s := range c.network.subnets.rows {
			if s.NetworkID == r.ID {
				v.Subnets = append(v.Subnets, s.ID)
			}
		}
		return v
	case *port:
		return c.showPort(r)
	case *group:
		return c.showGroup(r)
	case *floatingIP:
		return c.showFloatingIP(r)
	case *loadBalancer:
		return c.showBalancer(r)
	case *listener:
		return c.showListener(r)
	case *lbPool:
		return c.showPool(r)
	case *monitor:
		return c.showMonitor(r)
	}
	return r
}

// vanish removes a thing behind everybody's back, with what cannot be without it.
func (c *Cloud) vanish(r row) {
	id := r.head().ID
	switch r := r.(type) {
	case *server:
		c.unbind(r)
	case *loadBalancer:
		c.dropBalancer(r)
	case *lbPool:
		_ = removePool(&call{Cloud: c}, r) // never refuses
	case *port:
		c.freePort(r)
		if t, ok := c.trunkOf(id); ok {
			c.vanish(t)
		}
		if t, ok := c.trunkWith(id); ok {
			t.Subports = slices.DeleteFunc(slices.Clone(t.Subports), func(s subport) bool { return s.PortID == id })
		}
	case *trunk:
		for _, s := range r.Subports {
			c.release(s)
		}
	case *network:
		for _, p := range c.network.ports.where(func(p *port) bool { return p.NetworkID == id }) {
			c.vanish(p)
		}
		for _, s := range c.network.subnets.where(func(s *subnet) bool { return s.NetworkID == id }) {
			c.network.subnets.drop(s.ID)
		}
	case *router:
		c.dropPorts(id, ownerRouterGateway)
		c.dropPorts(id, ownerRouterInterface)
	case *floatingIP:
		c.dropPorts(id, ownerFloatingIP)
	case *group:
		for _, x := range c.network.rules.where(func(x *rule) bool { return x.GroupID == id }) {
			c.network.rules.drop(x.ID)
		}
	}
	for _, s := range c.tables() {
		s.drop(id)
	}
}

package openstacktest

import (
	"net/http"
	"slices"
)

type floatingIP struct {
	standard
	Address     string       `json:"floating_ip_address" api:"c"`
	NetworkID   string       `json:"floating_network_id" api:"c"`
	SubnetID    string       `json:"subnet_id,omitempty" api:"c"`
	PortID      *string      `json:"port_id" api:"cu"`
	FixedIP     *string      `json:"fixed_ip_address" api:"cu"`
	RouterID    *string      `json:"router_id"`
	Status      string       `json:"status"`
	DNSName     string       `json:"dns_name" api:"c"`
	DNSDomain   string       `json:"dns_domain" api:"c"`
	PortDetails *portDetails `json:"port_details"`
	QoSPolicy   *string      `json:"qos_policy_id" api:"cu"`
}

type portDetails struct {
	Name         string `json:"name"`
	NetworkID    string `json:"network_id"`
	MAC          string `json:"mac_address"`
	AdminStateUp bool   `json:"admin_state_up"`
	Status       string `json:"status"`
	DeviceID     string `json:"device_id"`
	DeviceOwner  string `json:"device_owner"`
}

func (f *floatingIP) detach() {
	f.PortID, f.FixedIP, f.RouterID, f.Status = nil, nil, nil, "DOWN"
}

func (c *Cloud) floatingIPCollection() collection[*floatingIP] {
	return collection[*floatingIP]{
		table: c.network.floatingIPs, plural: "floatingips", noBulk: true, singular: "floatingip", title: "FloatingIP",
		fresh:  func(*call) *floatingIP { return &floatingIP{Status: "DOWN"} },
		create: createFloatingIP,
		update: func(q *call, was, f *floatingIP, given fields) error {
			if !given.has("port_id") {
				return nil
			}
			if f.PortID == nil || *f.PortID == "" {
				f.detach()
				return nil
			}
			if !given.has("fixed_ip_address") {
				f.FixedIP = nil
			}
			return q.attach(f)
		},
		remove: func(q *call, f *floatingIP) error {
			q.dropPorts(f.ID, ownerFloatingIP)
			return nil
		},
	}
}

func createFloatingIP(q *call, f *floatingIP, given fields) error {
	n, err := q.networkCollection().lookup(q, f.NetworkID)
	if err != nil {
		return err
	}
	if !n.External {
		return neutron(http.StatusBadRequest, "BadRequest", "Bad floatingip request: Network %s is not a valid external network.", n.ID)
	}
	if given.has("floating_ip_address") && !q.admin() {
		return q.forbidden("create_floatingip and rule:create_floatingip:floating_ip_address")
	}
	var wanted []fixedIP
	if f.SubnetID != "" || f.Address != "" {
		wanted = []fixedIP{{f.SubnetID, f.Address}}
	}
	got, err := q.allocate(n.ID, wanted, nil)
	if err != nil {
		return err
	}
	if len(got) == 0 {
		return neutron(http.StatusBadRequest, "ExternalIpAddressExhausted", "Unable to find any IP address on external network %s.", n.ID)
	}
	f.Address = got[0].Address
	if f.PortID != nil {
		if err := q.attach(f); err != nil {
			return err
		}
	}
	p := q.newPort(n.ID, "")
	p.DeviceOwner, p.DeviceID, p.Status, p.PortSecurity, p.FixedIPs = ownerFloatingIP, f.ID, "N/A", false, got
	q.network.ports.add(p)
	return nil
}

// attach associates f with the port it names: a router must join the port's
// subnet and the external network, and the fixed address must be free.
func (q *call) attach(f *floatingIP) error {
	p, err := q.portCollection().lookup(q, *f.PortID)
	if err != nil {
		return err
	}
	if len(p.FixedIPs) == 0 {
		return neutron(http.StatusBadRequest, "BadRequest", "Bad floatingip request: Cannot add floating IP to port %s that has no fixed IPv4 addresses.", p.ID)
	}
	fixed := p.FixedIPs[0]
	if f.FixedIP != nil {
		i := slices.IndexFunc(p.FixedIPs, func(x fixedIP) bool { return x.Address == *f.FixedIP })
		if i < 0 {
			return neutron(http.StatusBadRequest, "BadRequest", "Bad floatingip request: Port %s does not have fixed ip %s.", p.ID, *f.FixedIP)
		}
		fixed = p.FixedIPs[i]
	}
	r, ok := q.routerBetween(fixed.SubnetID, f.NetworkID)
	if !ok {
		return neutron(http.StatusNotFound, "ExternalGatewayForFloatingIPNotFound",
			"External network %s is not reachable from subnet %s.  Therefore, cannot associate Port %s with a Floating IP.", f.NetworkID, fixed.SubnetID, p.ID)
	}
	if other, ok := q.network.floatingIPs.first(func(o *floatingIP) bool {
		return o.ID != f.ID && o.PortID != nil && *o.PortID == p.ID && *o.FixedIP == fixed.Address && o.NetworkID == f.NetworkID
	}); ok {
		return neutron(http.StatusConflict, "FloatingIPPortAlreadyAssociated",
			"Cannot associate floating IP %s (%s) with port %s using fixed IP %s, as that fixed IP already has a floating IP on external network %s.",
			f.Address, f.ID, p.ID, fixed.Address, other.NetworkID)
	}
	address, id := fixed.Address, r.ID
	f.FixedIP, f.RouterID, f.Status = &address, &id, "ACTIVE"
	return nil
}

// routerBetween is the router with an interface on the subnet and its gateway on
// the external network.
func (q *call) routerBetween(subnetID, external string) (*router, bool) {
	return q.network.routers.first(func(r *router) bool {
		return r.Gateway != nil && r.Gateway.NetworkID == external && q.network.ports.any(func(p *port) bool {
			return p.DeviceID == r.ID && p.DeviceOwner == ownerRouterInterface && slices.ContainsFunc(p.FixedIPs, func(x fixedIP) bool { return x.SubnetID == subnetID })
		})
	})
}

func (c *Cloud) showFloatingIP(f *floatingIP) *floatingIP {
	v := clone(f)
	v.SubnetID = ""
	if f.PortID == nil {
		return v
	}
	if p, ok := c.network.ports.get(*f.PortID); ok {
		v.PortDetails = &portDetails{p.Name, p.NetworkID, p.MAC, p.AdminStateUp, p.Status, p.DeviceID, p.DeviceOwner}
	}
	return v
}

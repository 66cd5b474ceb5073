package openstacktest

import (
	"net/http"
	"net/netip"
	"slices"
)

type subnet struct {
	standard
	Name         string      `json:"name" api:"cu"`
	NetworkID    string      `json:"network_id" api:"c"`
	CIDR         string      `json:"cidr" api:"c"`
	IPVersion    int         `json:"ip_version" api:"c"`
	Gateway      *string     `json:"gateway_ip" api:"cu"`
	Pools        []pool      `json:"allocation_pools" api:"cu"`
	DHCP         bool        `json:"enable_dhcp" api:"cu"`
	Nameservers  []string    `json:"dns_nameservers" api:"cu"`
	HostRoutes   []hostRoute `json:"host_routes" api:"cu"`
	ServiceTypes []string    `json:"service_types" api:"cu"`
	AddressMode  *string     `json:"ipv6_address_mode" api:"c"`
	RAMode       *string     `json:"ipv6_ra_mode" api:"c"`
	External     bool        `json:"router:external"`
	PoolID       *string     `json:"subnetpool_id" api:"c"`
}

// pool is an allocation pool: a closed range of addresses.
type pool struct {
	Start string `json:"start"`
	End   string `json:"end"`
}

type hostRoute struct {
	Destination string `json:"destination"`
	NextHop     string `json:"nexthop"`
}

func (s *subnet) prefix() netip.Prefix { return netip.MustParsePrefix(s.CIDR) }

func (c *Cloud) subnetCollection() collection[*subnet] {
	return collection[*subnet]{
		table: c.network.subnets, plural: "subnets", singular: "subnet", title: "Subnet",
		fresh: func(*call) *subnet {
			return &subnet{IPVersion: 4, DHCP: true, Nameservers: []string{}, HostRoutes: []hostRoute{}, ServiceTypes: []string{}}
		},
		create: createSubnet,
		update: func(q *call, was, s *subnet, f fields) error {
			if err := checkPools(s); err != nil {
				return err
			}
			if was.DHCP != s.DHCP {
				q.metadataAddress(s)
			}
			return nil
		},
		remove: removeSubnet,
		visible: func(q *call, s *subnet) bool {
			n, ok := q.network.networks.get(s.NetworkID)
			return ok && (n.Shared || n.External)
		},
	}
}

func createSubnet(q *call, s *subnet, f fields) error {
	n, err := q.networkCollection().lookup(q, s.NetworkID)
	if err != nil {
		return err
	}
	if !q.admin() && n.ProjectID != q.who.ProjectID {
		return q.forbidden("create_subnet")
	}
	s.External = n.External
	p, err := netip.ParsePrefix(s.CIDR)
	if err != nil || p.Addr().Is4() != (s.IPVersion == 4) {
		return invalid("%s is not in a CIDR format.", s.CIDR)
	}
	p = p.Masked()
	s.CIDR = p.String()
	for _, other := range q.network.subnets.rows {
		if other.NetworkID == n.ID && other.prefix().Overlaps(p) {
			return invalid("Requested subnet with cidr: %s for network: %s overlaps with another subnet.", s.CIDR, n.ID)
		}
	}
	if !f.has("gateway_ip") {
		gateway := p.Addr().Next().String()
		s.Gateway = &gateway
	}
	if len(s.Pools) == 0 {
		s.Pools = defaultPools(p, s.Gateway)
	}
	if err := checkPools(s); err != nil {
		return err
	}
	q.metadataAddress(s)
	return nil
}

// defaultPools are all usable addresses of p but the gateway.
func defaultPools(p netip.Prefix, gateway *string) []pool {
	first, last := p.Addr().Next(), lastAddr(p)
	if p.Addr().Is4() {
		last = last.Prev() // broadcast
	}
	if gateway == nil {
		return []pool{{first.String(), last.String()}}
	}
	g, err := netip.ParseAddr(*gateway)
	if err != nil || !p.Contains(g) {
		return []pool{{first.String(), last.String()}}
	}
	var pools []pool
	if first.Less(g) {
		pools = append(pools, pool{first.String(), g.Prev().String()})
	}
	if g.Less(last) {
		pools = append(pools, pool{g.Next().String(), last.String()})
	}
	return pools
}

func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// checkPools refuses pools outside the prefix, overlapping, or holding the gateway.
func checkPools(s *subnet) error {
	p := s.prefix()
	type span struct{ from, to netip.Addr }
	var spans []span
	for _, x := range s.Pools {
		from, e1 := netip.ParseAddr(x.Start)
		to, e2 := netip.ParseAddr(x.End)
		if e1 != nil || e2 != nil || to.Less(from) {
			return neutron(http.StatusBadRequest, "InvalidAllocationPool", "The allocation pool %s-%s is not valid.", x.Start, x.End)
		}
		if !p.Contains(from) || !p.Contains(to) {
			return neutron(http.StatusBadRequest, "OutOfBoundsAllocationPool", "The allocation pool %s-%s spans beyond the subnet cidr %s.", x.Start, x.End, s.CIDR)
		}
		if slices.ContainsFunc(spans, func(o span) bool { return !to.Less(o.from) && !o.to.Less(from) }) {
			return neutron(http.StatusConflict, "OverlappingAllocationPools", "Found overlapping allocation pools: %s-%s for subnet %s.", x.Start, x.End, s.CIDR)
		}
		spans = append(spans, span{from, to})
	}
	if s.Gateway == nil {
		return nil
	}
	g, err := netip.ParseAddr(*s.Gateway)
	if err != nil {
		return neutron(http.StatusBadRequest, "HTTPBadRequest", "Invalid input for gateway_ip. Reason: '%s' is not a valid IP address.", *s.Gateway)
	}
	for _, o := range spans {
		if !g.Less(o.from) && !o.to.Less(g) {
			return neutron(http.StatusConflict, "GatewayConflictWithAllocationPools", "Gateway ip %s conflicts with allocation pool %s-%s.", g, o.from, o.to)
		}
	}
	return nil
}

func removeSubnet(q *call, s *subnet) error {
	used := func(p *port) bool {
		return slices.ContainsFunc(p.FixedIPs, func(f fixedIP) bool { return f.SubnetID == s.ID })
	}
	if q.network.ports.any(func(p *port) bool { return used(p) && p.DeviceOwner != ownerDistributed }) {
		return neutron(http.StatusConflict, "SubnetInUse", "Unable to complete operation on subnet %s: One or more ports have an IP allocation from this subnet.", s.ID)
	}
	for _, p := range q.network.ports.where(used) {
		p.FixedIPs = slices.DeleteFunc(p.FixedIPs, func(f fixedIP) bool { return f.SubnetID == s.ID })
	}
	return nil
}

// metadataPort makes the port that OVN keeps on every network for the metadata
// service; it counts against the project's quota like any other.
func (c *Cloud) metadataPort(n *network) {
	p := c.newPort(n.ID, n.ProjectID)
	p.DeviceOwner, p.DeviceID, p.PortSecurity = ownerDistributed, "ovnmeta-"+n.ID, false
	c.network.ports.add(p)
}

// metadataAddress gives that port an address on a DHCP subnet, or takes it away.
func (c *Cloud) metadataAddress(s *subnet) {
	p, ok := c.network.ports.first(func(p *port) bool { return p.NetworkID == s.NetworkID && p.DeviceOwner == ownerDistributed })
	if !ok {
		return
	}
	p.FixedIPs = slices.DeleteFunc(p.FixedIPs, func(f fixedIP) bool { return f.SubnetID == s.ID })
	if !s.DHCP || s.IPVersion != 4 {
		return
	}
	if free := c.freeAddresses(s, 1); len(free) > 0 {
		p.FixedIPs = append(p.FixedIPs, fixedIP{s.ID, free[0].String()})
	}
}

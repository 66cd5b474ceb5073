package openstacktest

import (
	"net/http"
	"net/netip"
	"strings"
)

// network is a Neutron network.
type network struct {
	standard
	Name         string   `json:"name" api:"cu"`
	AdminStateUp bool     `json:"admin_state_up" api:"cu"`
	Status       string   `json:"status"`
	Shared       bool     `json:"shared" api:"cu"`
	External     bool     `json:"router:external" api:"cu"`
	MTU          int      `json:"mtu" api:"cu"`
	DNSDomain    string   `json:"dns_domain" api:"cu"`
	PortSecurity bool     `json:"port_security_enabled" api:"cu"`
	Subnets      []string `json:"subnets"`
	ZoneHints    []string `json:"availability_zone_hints" api:"c"`
	Zones        []string `json:"availability_zones"`
	QoSPolicy    *string  `json:"qos_policy_id" api:"cu"`
	Default      *bool    `json:"is_default,omitempty"` // external networks only
	V4Scope      *string  `json:"ipv4_address_scope"`
	V6Scope      *string  `json:"ipv6_address_scope"`
}

func (c *Cloud) networkCollection() collection[*network] {
	return collection[*network]{
		table: c.network.networks, plural: "networks", singular: "network", title: "Network",
		fresh: func(*call) *network {
			return &network{AdminStateUp: true, Status: "ACTIVE", MTU: 1442, PortSecurity: true, ZoneHints: []string{}, Zones: []string{}}
		},
		create: func(q *call, n *network, f fields) error {
			if (n.External || n.Shared) && !q.admin() {
				return q.forbidden("create_network and rule:create_network:%s", map[bool]string{true: "router:external", false: "shared"}[n.External])
			}
			if n.External {
				n.Default = new(bool)
			}
			if f.has("mtu") && (n.MTU < 68 || n.MTU > 1442 && !n.External) {
				return invalid("Requested MTU is too big, maximum is 1442.")
			}
			q.metadataPort(n)
			return nil
		},
		update:  accept[*network],
		remove:  removeNetwork,
		visible: func(_ *call, n *network) bool { return n.External || n.Shared },
	}
}

// removeNetwork refuses while ports are left, save those the cloud made itself;
// these and the subnets go along.
func removeNetwork(q *call, n *network) error {
	var using []string
	for _, p := range q.network.ports.rows {
		if p.NetworkID == n.ID && p.DeviceOwner != ownerDistributed {
			using = append(using, p.ID)
		}
	}
	if len(using) > 0 {
		return neutron(http.StatusConflict, "NetworkInUse",
			"Unable to complete operation on network %s. There are one or more ports still in use on the network, id for these ports is: %s.", n.ID, strings.Join(using, ","))
	}
	for _, p := range q.network.ports.where(func(p *port) bool { return p.NetworkID == n.ID }) {
		q.network.ports.drop(p.ID)
	}
	for _, s := range q.network.subnets.where(func(s *subnet) bool { return s.NetworkID == n.ID }) {
		q.network.subnets.drop(s.ID)
	}
	return nil
}

// seedNetwork makes the external network of the seed, and demo's default group.
func (c *Cloud) seedNetwork() {
	admin := c.identity.admin.ID
	n := &network{Name: "public", AdminStateUp: true, Status: "ACTIVE", External: true, Default: new(bool), MTU: 1500, PortSecurity: true, ZoneHints: []string{}, Zones: []string{}}
	n.standard = c.newStandard(admin)
	c.network.networks.add(n)
	gateway := "172.24.4.1"
	s := &subnet{Name: "public-v4", NetworkID: n.ID, External: true, CIDR: "172.24.4.0/24", IPVersion: 4, Gateway: &gateway,
		Pools: []pool{{"172.24.4.2", "172.24.4.254"}}, Nameservers: []string{}, HostRoutes: []hostRoute{}, ServiceTypes: []string{}}
	s.standard = c.newStandard(admin)
	c.network.subnets.add(s)
	c.defaultGroup(c.identity.demo.ID)
}

func (c *Cloud) newStandard(project string) standard {
	return standard{base: base{ID: c.newID(), ProjectID: project}, TenantID: project, Tags: []string{}, Revision: 1, CreatedAt: stamp(), UpdatedAt: stamp()}
}

// listAvailability answers network-ip-availabilities; who is no admin sees none.
func listAvailability(q *call) (any, error) {
	out := []any{}
	if !q.admin() {
		return map[string]any{"network_ip_availabilities": out}, nil
	}
	want := q.URL.Query()
	for _, n := range q.network.networks.rows {
		if id := want.Get("network_id"); id != "" && id != n.ID || want.Get("network_name") != "" && want.Get("network_name") != n.Name {
			continue
		}
		total, used := 0, 0
		subnets := []any{}
		for _, s := range q.network.subnets.where(func(s *subnet) bool { return s.NetworkID == n.ID }) {
			size, taken := 0, len(q.taken(s))
			for _, p := range s.Pools {
				for a := netip.MustParseAddr(p.Start); a.Compare(netip.MustParseAddr(p.End)) <= 0; a = a.Next() {
					size++
				}
			}
			total, used = total+size, used+taken
			subnets = append(subnets, map[string]any{"subnet_id": s.ID, "subnet_name": s.Name, "cidr": s.CIDR, "ip_version": s.IPVersion, "total_ips": size, "used_ips": taken})
		}
		out = append(out, map[string]any{"network_id": n.ID, "network_name": n.Name, "tenant_id": n.ProjectID, "project_id": n.ProjectID,
			"total_ips": total, "used_ips": used, "subnet_ip_availability": subnets})
	}
	return map[string]any{"network_ip_availabilities": out}, nil
}

package openstacktest

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Device owners that decide what may be done with a port.
const (
	ownerRouterInterface = "network:router_interface"
	ownerRouterGateway   = "network:router_gateway"
	ownerFloatingIP      = "network:floatingip"
	ownerDistributed     = "network:distributed" // OVN's metadata port
	ownerSubport         = "trunk:subport"
	ownerCompute         = "compute:nova"
	ownerAmphoraVIP      = "Octavia"
)

type port struct {
	standard
	Name          string        `json:"name" api:"cu"`
	NetworkID     string        `json:"network_id" api:"c"`
	AdminStateUp  bool          `json:"admin_state_up" api:"cu"`
	Status        string        `json:"status"`
	MAC           string        `json:"mac_address" api:"c"`
	FixedIPs      []fixedIP     `json:"fixed_ips" api:"cu"`
	DeviceID      string        `json:"device_id" api:"cu"`
	DeviceOwner   string        `json:"device_owner" api:"cu"`
	Groups        []string      `json:"security_groups" api:"cu"`
	Pairs         []addressPair `json:"allowed_address_pairs" api:"cu"`
	PortSecurity  bool          `json:"port_security_enabled" api:"cu"`
	VNICType      string        `json:"binding:vnic_type" api:"cu"`
	DNSName       string        `json:"dns_name" api:"cu"`
	DNSAssignment []dnsRecord   `json:"dns_assignment"`
	DHCPOptions   []any         `json:"extra_dhcp_opts" api:"cu"`
	TrunkDetails  *trunkDetails `json:"trunk_details,omitempty"`
	QoSPolicy     *string       `json:"qos_policy_id" api:"cu"`
}

type addressPair struct {
	IP  string `json:"ip_address"`
	MAC string `json:"mac_address"`
}

type dnsRecord struct {
	IP       string `json:"ip_address"`
	Hostname string `json:"hostname"`
	FQDN     string `json:"fqdn"`
}

// trunkDetails is what the extension trunk-details adds to a parent port.
type trunkDetails struct {
	TrunkID  string           `json:"trunk_id"`
	Subports []subportDetails `json:"sub_ports"`
}

type subportDetails struct {
	subport
	MAC string `json:"mac_address"`
}

func (c *Cloud) newPort(networkID, project string) *port {
	p := &port{NetworkID: networkID, AdminStateUp: true, Status: "DOWN", VNICType: "normal", MAC: c.newMAC(), PortSecurity: true,
		FixedIPs: []fixedIP{}, Groups: []string{}, Pairs: []addressPair{}, DHCPOptions: []any{}}
	p.standard = c.newStandard(project)
	return p
}

func (c *Cloud) portCollection() collection[*port] {
	return collection[*port]{
		table: c.network.ports, plural: "ports", singular: "port", title: "Port",
		fresh:  func(q *call) *port { return q.newPort("", q.who.ProjectID) },
		create: createPort, update: updatePort, remove: removePort,
		// The ports of routers on one's own networks have no project of one's own.
		visible: func(q *call, p *port) bool {
			n, ok := q.network.networks.get(p.NetworkID)
			return ok && n.ProjectID == q.who.ProjectID
		},
	}
}

func createPort(q *call, p *port, f fields) error {
	n, err := q.networkCollection().lookup(q, p.NetworkID)
	if err != nil {
		return err
	}
	if !q.admin() && n.ProjectID != q.who.ProjectID && !n.Shared {
		return neutron(http.StatusForbidden, "HTTPForbidden", "Tenant %s not allowed to create port on this network", q.who.ProjectID)
	}
	if !q.admin() && strings.HasPrefix(p.DeviceOwner, "network:") && n.ProjectID != q.who.ProjectID {
		return q.forbidden("create_port:device_owner")
	}
	if q.network.ports.any(func(o *port) bool { return o.NetworkID == n.ID && strings.EqualFold(o.MAC, p.MAC) }) {
		return neutron(http.StatusConflict, "MacAddressInUse", "Unable to complete operation for network %s. The mac address %s is in use.", n.ID, p.MAC)
	}
	if !f.has("port_security_enabled") {
		p.PortSecurity = n.PortSecurity
	}
	switch {
	case f.has("security_groups") && len(p.Groups) > 0:
		if err := q.checkGroups(p); err != nil {
			return err
		}
	case f.has("security_groups") && !f.null("security_groups") || !p.PortSecurity || strings.HasPrefix(p.DeviceOwner, "network:"):
		p.Groups = []string{}
	default:
		p.Groups = []string{q.defaultGroup(p.ProjectID).ID}
	}
	p.completePairs()
	wanted := p.FixedIPs
	if !f.has("fixed_ips") {
		wanted = nil
	}
	p.FixedIPs, err = q.allocate(n.ID, wanted, nil)
	return err
}

// completePairs gives pairs without a MAC address the port's own.
func (p *port) completePairs() {
	p.Pairs = slices.Clone(p.Pairs)
	for i := range p.Pairs {
		p.Pairs[i].MAC = cmp.Or(p.Pairs[i].MAC, p.MAC)
	}
}

func (q *call) checkGroups(p *port) error {
	for _, id := range p.Groups {
		if g, ok := q.network.groups.get(id); !ok || g.ProjectID != p.ProjectID && !q.admin() {
			return neutron(http.StatusNotFound, "SecurityGroupNotFound", "Security group %s does not exist", id)
		}
	}
	if len(p.Groups) > 0 && !p.PortSecurity {
		return neutron(http.StatusBadRequest, "PortSecurityAndIPRequiredForSecurityGroups", "Port security must be enabled and port must have an IP address in order to use security groups.")
	}
	return nil
}

func updatePort(q *call, was, p *port, f fields) error {
	p.completePairs()
	if f.has("security_groups") || f.has("port_security_enabled") {
		if p.Groups == nil {
			p.Groups = []string{}
		}
		if err := q.checkGroups(p); err != nil {
			return err
		}
	}
	if f.has("fixed_ips") {
		if was.DeviceOwner == ownerRouterInterface {
			for _, fip := range q.network.floatingIPs.rows {
				if fip.RouterID != nil && *fip.RouterID == was.DeviceID {
					return neutron(http.StatusConflict, "RouterInterfaceInUseByFloatingIP",
						"Router interface for subnet %s on router %s cannot be deleted, as it is required by one or more floating IPs.", was.FixedIPs[0].SubnetID, was.DeviceID)
				}
			}
		}
		if p.FixedIPs == nil {
			p.FixedIPs = []fixedIP{}
		}
		got, err := q.allocate(p.NetworkID, p.FixedIPs, was)
		if err != nil {
			return err
		}
		p.FixedIPs = got
	}
	return nil
}

// undeletable are the owners whose ports only their service deletes.
func undeletable(owner string) bool {
	return slices.Contains([]string{ownerRouterInterface, ownerRouterGateway, ownerFloatingIP}, owner)
}

func removePort(q *call, p *port) error {
	if undeletable(p.DeviceOwner) {
		return neutron(http.StatusConflict, "ServicePortInUse", "Port %s cannot be deleted directly via the port API: has device owner %s.", p.ID, p.DeviceOwner)
	}
	if t, ok := q.trunkOf(p.ID); ok {
		return neutron(http.StatusConflict, "PortInUseAsTrunkParent", "Port %s is currently a parent port for trunk %s.", p.ID, t.ID)
	}
	if t, ok := q.trunkWith(p.ID); ok {
		return neutron(http.StatusConflict, "PortInUseAsSubPort", "Port %s is currently a subport for trunk %s.", p.ID, t.ID)
	}
	q.freePort(p)
	return nil
}

// freePort releases what hangs on a port that goes away.
func (c *Cloud) freePort(p *port) {
	for _, f := range c.network.floatingIPs.rows {
		if f.PortID != nil && *f.PortID == p.ID {
			f.detach()
		}
	}
}

// showPort fills what is computed.
func (c *Cloud) showPort(p *port) *port {
	v := clone(p)
	v.DNSAssignment = []dnsRecord{}
	domain := "lab.test."
	for _, f := range p.FixedIPs {
		host := p.DNSName
		if host == "" {
			host = "host-" + strings.NewReplacer(".", "-", ":", "-").Replace(f.Address)
		}
		v.DNSAssignment = append(v.DNSAssignment, dnsRecord{f.Address, host, fmt.Sprintf("%s.%s", host, domain)})
	}
	if t, ok := c.trunkOf(p.ID); ok {
		v.TrunkDetails = &trunkDetails{TrunkID: t.ID, Subports: []subportDetails{}}
		for _, s := range t.Subports {
			if child, ok := c.network.ports.get(s.PortID); ok {
				v.TrunkDetails.Subports = append(v.TrunkDetails.Subports, subportDetails{s, child.MAC})
			}
		}
	}
	return v
}

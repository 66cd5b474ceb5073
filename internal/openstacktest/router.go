package openstacktest

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
)

type router struct {
	standard
	Name         string       `json:"name" api:"cu"`
	AdminStateUp bool         `json:"admin_state_up" api:"cu"`
	Status       string       `json:"status"`
	Gateway      *gatewayInfo `json:"external_gateway_info" api:"cu"`
	Routes       []hostRoute  `json:"routes" api:"u"`
	Flavor       *string      `json:"flavor_id" api:"c"`
	ZoneHints    []string     `json:"availability_zone_hints" api:"c"`
	Zones        []string     `json:"availability_zones"`
}

type gatewayInfo struct {
	NetworkID  string    `json:"network_id"`
	EnableSNAT *bool     `json:"enable_snat"`
	FixedIPs   []fixedIP `json:"external_fixed_ips"`
}

func (c *Cloud) routerCollection() collection[*router] {
	return collection[*router]{
		table: c.network.routers, plural: "routers", noBulk: true, singular: "router", title: "Router",
		fresh: func(*call) *router {
			return &router{AdminStateUp: true, Status: "ACTIVE", Routes: []hostRoute{}, ZoneHints: []string{}, Zones: []string{}}
		},
		create: func(q *call, r *router, _ fields) error { return q.connectGateway(r) },
		update: func(q *call, was, r *router, f fields) error {
			if !f.has("external_gateway_info") {
				return nil
			}
			if err := q.gatewayFree(was, r); err != nil {
				return err
			}
			q.dropPorts(was.ID, ownerRouterGateway)
			return q.connectGateway(r)
		},
		remove: removeRouter,
	}
}

// gatewayFree refuses to take a gateway from under floating IPs.
func (q *call) gatewayFree(was, r *router) error {
	if was.Gateway == nil || r.Gateway != nil && r.Gateway.NetworkID == was.Gateway.NetworkID {
		return nil
	}
	if q.network.floatingIPs.any(func(f *floatingIP) bool { return f.RouterID != nil && *f.RouterID == was.ID }) {
		return neutron(http.StatusConflict, "RouterExternalGatewayInUseByFloatingIp",
			"Gateway cannot be updated for router %s, since a gateway to external network %s is required by one or more floating IPs.", was.ID, was.Gateway.NetworkID)
	}
	return nil
}

// connectGateway makes the port on the external network; it belongs to no project.
func (q *call) connectGateway(r *router) error {
	if r.Gateway == nil || r.Gateway.NetworkID == "" {
		r.Gateway = nil
		return nil
	}
	n, err := q.networkCollection().lookup(q, r.Gateway.NetworkID)
	if err != nil {
		return err
	}
	if !n.External {
		return neutron(http.StatusBadRequest, "BadRequest", "Bad router request: Network %s is not an external network.", n.ID)
	}
	if r.Gateway.EnableSNAT == nil {
		on := true
		r.Gateway.EnableSNAT = &on
	}
	p := q.newPort(n.ID, "")
	p.DeviceOwner, p.DeviceID, p.Status, p.PortSecurity = ownerRouterGateway, r.ID, "ACTIVE", false
	if p.FixedIPs, err = q.allocate(n.ID, r.Gateway.FixedIPs, nil); err != nil {
		return err
	}
	q.network.ports.add(p)
	r.Gateway.FixedIPs = p.FixedIPs
	return nil
}

// dropPorts removes the ports of a device that have this owner.
func (c *Cloud) dropPorts(device, owner string) {
	for _, p := range c.network.ports.where(func(p *port) bool { return p.DeviceID == device && p.DeviceOwner == owner }) {
		c.network.ports.drop(p.ID)
	}
}

func removeRouter(q *call, r *router) error {
	if err := q.gatewayFree(r, &router{}); err != nil {
		return err
	}
	var attached []string
	for _, p := range q.network.ports.rows {
		if p.DeviceID == r.ID && p.DeviceOwner == ownerRouterInterface {
			attached = append(attached, p.ID)
		}
	}
	if len(attached) > 0 {
		return neutron(http.StatusConflict, "RouterInUse", "Router %s has ports still attached: %s", r.ID, strings.Join(attached, ", "))
	}
	q.dropPorts(r.ID, ownerRouterGateway)
	return nil
}

type interfaceInfo struct {
	ID        string   `json:"id"`
	TenantID  string   `json:"tenant_id"`
	PortID    string   `json:"port_id"`
	NetworkID string   `json:"network_id"`
	SubnetID  string   `json:"subnet_id"`
	SubnetIDs []string `json:"subnet_ids"`
}

// interfaceRequest reads the body of add and remove, which has no envelope.
func interfaceRequest(q *call) (r *router, subnetID, portID string, err error) {
	if r, err = q.routerCollection().owned(q, q.PathValue("id")); err != nil {
		return nil, "", "", err
	}
	var body map[string]string
	if err := json.Unmarshal(q.body, &body); err != nil {
		return nil, "", "", neutron(http.StatusBadRequest, "BadRequest", "Bad router request: %v", err)
	}
	for key := range body {
		if key != "subnet_id" && key != "port_id" {
			q.misuse("unknown field %s", key)
		}
	}
	if body["subnet_id"] == "" && body["port_id"] == "" {
		return nil, "", "", neutron(http.StatusBadRequest, "BadRequest", "Bad router request: Either subnet_id or port_id must be specified.")
	}
	return r, body["subnet_id"], body["port_id"], nil
}

func addInterface(q *call) (any, error) {
	r, subnetID, portID, err := interfaceRequest(q)
	if err != nil {
		return nil, err
	}
	if subnetID != "" && portID != "" {
		return nil, neutron(http.StatusBadRequest, "BadRequest", "Bad router request: Cannot specify both subnet-id and port-id.")
	}
	var p *port
	if portID != "" {
		if p, err = q.portCollection().owned(q, portID); err != nil {
			return nil, err
		}
		if p.DeviceID != "" {
			return nil, neutron(http.StatusConflict, "PortInUse", "Unable to complete operation on port %s for network %s. Port already has an attached device %s.", p.ID, p.NetworkID, p.DeviceID)
		}
		if len(p.FixedIPs) == 0 {
			return nil, neutron(http.StatusBadRequest, "BadRequest", "Bad router request: Router port must have at least one fixed IP.")
		}
		subnetID = p.FixedIPs[0].SubnetID
	}
	s, err := q.subnetCollection().lookup(q, subnetID)
	if err != nil {
		return nil, err
	}
	if err := q.checkOverlap(r, s); err != nil {
		return nil, err
	}
	if p == nil {
		if p, err = q.gatewayPort(r, s); err != nil {
			return nil, err
		}
	}
	p.DeviceID, p.DeviceOwner, p.Status, p.Groups, p.PortSecurity = r.ID, ownerRouterInterface, "ACTIVE", []string{}, false
	touch(p)
	return r.info(p, s), nil
}

func (r *router) info(p *port, s *subnet) interfaceInfo {
	return interfaceInfo{r.ID, r.ProjectID, p.ID, s.NetworkID, s.ID, []string{s.ID}}
}

// checkOverlap refuses a second interface on the subnet or on an overlapping one.
func (q *call) checkOverlap(r *router, s *subnet) error {
	for _, p := range q.network.ports.where(func(p *port) bool { return p.DeviceID == r.ID && p.DeviceOwner == ownerRouterInterface }) {
		for _, f := range p.FixedIPs {
			if o, ok := q.network.subnets.get(f.SubnetID); ok && o.prefix().Overlaps(s.prefix()) {
				return neutron(http.StatusBadRequest, "BadRequest", "Bad router request: Cidr %s of subnet %s overlaps with cidr %s of subnet %s.", s.CIDR, s.ID, o.CIDR, o.ID)
			}
		}
	}
	return nil
}

// gatewayPort makes the interface port of add_router_interface by subnet.
func (q *call) gatewayPort(r *router, s *subnet) (*port, error) {
	if s.Gateway == nil {
		return nil, neutron(http.StatusBadRequest, "BadRequest", "Bad router request: Subnet for router interface must have a gateway IP.")
	}
	if err := q.quota("network", "port", 1); err != nil {
		return nil, err
	}
	p := q.newPort(s.NetworkID, r.ProjectID)
	var err error
	if p.FixedIPs, err = q.allocate(s.NetworkID, []fixedIP{{s.ID, *s.Gateway}}, nil); err != nil {
		return nil, err
	}
	q.network.ports.add(p)
	return p, nil
}

func removeInterface(q *call) (any, error) {
	r, subnetID, portID, err := interfaceRequest(q)
	if err != nil {
		return nil, err
	}
	on := func(f fixedIP) bool { return subnetID == "" || f.SubnetID == subnetID }
	p, ok := q.network.ports.first(func(p *port) bool {
		return p.DeviceID == r.ID && p.DeviceOwner == ownerRouterInterface && (portID == "" || p.ID == portID) && slices.ContainsFunc(p.FixedIPs, on)
	})
	if !ok && portID != "" {
		return nil, neutron(http.StatusNotFound, "RouterInterfaceNotFound", "Router %s does not have an interface with id %s", r.ID, portID)
	}
	if !ok {
		return nil, neutron(http.StatusNotFound, "RouterInterfaceNotFoundForSubnet", "Router %s has no interface on subnet %s", r.ID, subnetID)
	}
	s, _ := q.network.subnets.get(p.FixedIPs[0].SubnetID)
	for _, f := range q.network.floatingIPs.rows {
		if f.RouterID == nil || *f.RouterID != r.ID || f.FixedIP == nil {
			continue
		}
		if fixed, ok := q.network.ports.get(*f.PortID); ok && slices.ContainsFunc(fixed.FixedIPs, func(x fixedIP) bool { return x.SubnetID == s.ID }) {
			return nil, neutron(http.StatusConflict, "RouterInterfaceInUseByFloatingIP",
				"Router interface for subnet %s on router %s cannot be deleted, as it is required by one or more floating IPs.", s.ID, r.ID)
		}
	}
	q.network.ports.drop(p.ID)
	return r.info(p, s), nil
}

package provision

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"

	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/internal/openstack"
)

// Port is a Neutron port made before what uses it, so that its address, groups and trunk are known first.
type Port struct {
	Base
	Subnet *Subnet
	Groups []*SecurityGroup // none: the port keeps the project's default group
	Fixed  netip.Addr       // the zero value lets Neutron choose

	address netip.Addr
	device  string   // the server it is on, as found
	fresh   bool     // made by this run: no server is on it yet
	groups  []string // ids, as found
}

// Port declares a port on n, "STACK/ROLE".
func (s *Session) Port(role string, n *Subnet, groups ...*SecurityGroup) *Port {
	p := &Port{Base: s.base("port", role, s.Name(role), n), Subnet: n, Groups: groups}
	for _, g := range groups {
		p.needs = append(p.needs, g)
	}
	return p
}

// Address is the port's first address; invalid until the port exists.
func (p *Port) Address() netip.Addr { return p.address }

// Observe implements [graph.Resource].
func (p *Port) Observe(context.Context) (graph.State, error) {
	found, err := sole("port", p.name, p.s.found.Ports,
		func(x ports.Port) bool {
			return x.Name == p.name && x.NetworkID == p.Subnet.Network.id && p.s.ownsPort(x)
		}, func(x ports.Port) string { return x.ID })
	if found == nil || err != nil {
		return graph.State{}, err
	}
	p.take(found)
	state := graph.State{Phase: graph.Ready, ID: p.id, Detail: p.address.String()}
	switch {
	case p.Fixed.IsValid() && p.Fixed != p.address:
		state.Phase, state.Detail = graph.Drifted, "address is "+p.address.String()+", declared "+p.Fixed.String()
	case len(p.lacking(found)) > 0:
		state.Phase, state.Detail = graph.Drifted, "lacks security group "+strings.Join(p.lacking(found), ", ")
	}
	return state, nil
}

func (p *Port) take(found *ports.Port) {
	p.id, p.device, p.groups = found.ID, found.DeviceID, found.SecurityGroups
	if len(found.FixedIPs) > 0 {
		p.address, _ = netip.ParseAddr(found.FixedIPs[0].IPAddress)
	}
}

func (p *Port) lacking(found *ports.Port) (names []string) {
	for _, g := range p.Groups {
		if !slices.Contains(found.SecurityGroups, g.id) {
			names = append(names, g.name)
		}
	}
	return names
}

// Apply implements [graph.Resource].
func (p *Port) Apply(ctx context.Context) error {
	body := map[string]any{}
	if len(p.Groups) > 0 {
		ids := slices.Clone(p.groups) // what somebody added stays
		for _, g := range p.Groups {
			if !slices.Contains(ids, g.id) {
				ids = append(ids, g.id)
			}
		}
		body["security_groups"] = ids
	}
	if p.id != "" {
		if p.Fixed.IsValid() && p.Fixed != p.address {
			return fixed(&p.Base, "the address of a port")
		}
		err := call(ctx, p.s.Cloud, portCollection, http.MethodPut, "/"+p.id, map[string]any{"port": body})
		return openstack.Wrap(err, "setting the security groups of port %s", p.name)
	}
	at := map[string]string{"subnet_id": p.Subnet.id}
	if p.Fixed.IsValid() {
		at["ip_address"] = p.Fixed.String()
	}
	body["network_id"], body["fixed_ips"] = p.Subnet.Network.id, []map[string]string{at}
	made, err := create[ports.Port](ctx, p.s, portCollection, p.born(body))
	if err != nil {
		return openstack.Wrap(err, "creating port %s", p.name)
	}
	p.take(made)
	p.fresh = true
	p.s.note(func(v *Inventory) { v.Ports = append(slices.Clip(v.Ports), *made) })
	return nil
}

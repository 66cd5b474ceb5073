package provision

import (
	"context"
	"net/netip"
	"net/url"
	"slices"

	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/layer3/floatingips"

	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/internal/openstack"
)

// FloatingIP is a public address on a port. It has no name in Neutron; the port it serves tells which one it is.
type FloatingIP struct {
	Base
	External string
	Port     *Port

	address netip.Addr
}

// FloatingIP declares a floating IP of p from the external network. The router has to reach p's subnet first, or Neutron
// refuses the association (ExternalGatewayForFloatingIPNotFound); hence the interface.
func (s *Session) FloatingIP(role, external string, p *Port, via *RouterInterface) *FloatingIP {
	return &FloatingIP{Base: s.base("fip", role, s.Name(role), p, via), External: external, Port: p}
}

// Address is the public address; invalid until it is allocated.
func (f *FloatingIP) Address() netip.Addr { return f.address }

// Observe implements [graph.Resource].
func (f *FloatingIP) Observe(context.Context) (graph.State, error) {
	for _, x := range f.s.found.FloatingIPs {
		if x.PortID == f.Port.id {
			f.take(&x)
			return graph.State{Phase: graph.Ready, ID: f.id, Detail: f.address.String()}, nil
		}
	}
	return graph.State{}, nil
}

func (f *FloatingIP) take(x *floatingips.FloatingIP) {
	f.id = x.ID
	f.address, _ = netip.ParseAddr(x.FloatingIP)
}

// Apply implements [graph.Resource].
func (f *FloatingIP) Apply(ctx context.Context) error {
	external, err := f.s.ExternalNetwork(ctx, f.External)
	if err != nil {
		return err
	}
	body := map[string]any{"floating_network_id": external, "port_id": f.Port.id, "description": f.s.mark()}
	find := url.Values{"port_id": {f.Port.id}, "description": {f.s.mark()}, "project_id": {f.s.Cloud.ProjectID()}}
	made, err := create[floatingips.FloatingIP](ctx, f.s, fipCollection, birth{body: body, find: find})
	if err != nil {
		return openstack.Wrap(err, "allocating a floating IP on %s for %s", f.External, f.Port.name)
	}
	f.take(made)
	f.s.note(func(v *Inventory) { v.FloatingIPs = append(slices.Clip(v.FloatingIPs), *made) })
	return nil
}

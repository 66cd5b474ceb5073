package provision

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"

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

// Observe implements [graph.Resource]. A floating IP of ours that serves nobody (its port was replaced) is put to use again.
func (f *FloatingIP) Observe(context.Context) (graph.State, error) {
	for _, x := range f.s.found.FloatingIPs {
		if x.PortID == f.Port.id || x.PortID == "" && f.id == "" {
			f.take(&x)
		}
		if x.PortID == f.Port.id {
			return graph.State{Phase: graph.Ready, ID: f.id, Detail: f.address.String()}, nil
		}
	}
	if f.id != "" {
		return graph.State{Phase: graph.Drifted, ID: f.id, Detail: f.address.String() + " serves no port"}, nil
	}
	return graph.State{}, nil
}

func (f *FloatingIP) take(x *floatingips.FloatingIP) {
	f.id = x.ID
	f.address, _ = netip.ParseAddr(x.FloatingIP)
}

// Apply implements [graph.Resource].
func (f *FloatingIP) Apply(ctx context.Context) error {
	if f.id != "" {
		body := map[string]any{"floatingip": map[string]any{"port_id": f.Port.id}}
		if err := call(ctx, f.s.Cloud, fipCollection, http.MethodPut, "/"+f.id, body); err != nil {
			return openstack.Wrap(err, "giving floating IP %s to port %s", f.address, f.Port.name)
		}
		f.s.note(func(v *Inventory) {
			x := floatingips.FloatingIP{ID: f.id, FloatingIP: f.address.String(), PortID: f.Port.id, FixedIP: f.Port.address.String(), Description: f.s.mark()}
			v.FloatingIPs = put(v.FloatingIPs, x, func(x floatingips.FloatingIP) string { return x.ID })
		})
		return nil
	}
	external, err := f.s.ExternalNetwork(ctx, f.External)
	if err != nil {
		return err
	}
	body := map[string]any{"floating_network_id": external, "port_id": f.Port.id, "description": f.s.mark()}
	find := url.Values{"port_id": {f.Port.id}, "description": {f.s.mark()}}
	made, err := create[floatingips.FloatingIP](ctx, f.s, fipCollection, birth{body, find})
	if err != nil {
		return openstack.Wrap(err, "allocating a floating IP on %s for %s", f.External, f.Port.name)
	}
	f.take(made)
	f.s.note(func(v *Inventory) { v.FloatingIPs = append(v.FloatingIPs, *made) })
	return nil
}

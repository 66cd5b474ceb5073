package provision

import (
	"context"
	"net/http"
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
	External string // name or id of the external network; "" is the only one

	port     func() string // id of the port it leads to
	balancer *LoadBalancer // whose VIP that port is; nil for the port of a server
	address  netip.Addr
	spare    string // id of one that leads nowhere
}

// FloatingIP declares a floating IP of p from the external network. The router has to reach p's subnet first, or Neutron
// refuses the association (ExternalGatewayForFloatingIPNotFound); hence the interface.
func (s *Session) FloatingIP(role, external string, p *Port, via *RouterInterface) *FloatingIP {
	return &FloatingIP{Base: s.base("fip", role, s.Name(role), p, via), External: external, port: p.ID}
}

// FloatingIPOfBalancer declares a floating IP that leads to a load balancer's VIP.
func (s *Session) FloatingIPOfBalancer(role, external string, l *LoadBalancer) *FloatingIP {
	return &FloatingIP{Base: s.base("fip", role, s.Name(role), l), External: external, port: l.vipPort, balancer: l}
}

// Address is the public address; invalid until it is allocated.
func (f *FloatingIP) Address() netip.Addr { return f.address }

// Observe implements [graph.Resource]. A load balancer that is replaced leaves its floating IP behind, leading nowhere: that one is taken
// before another is allocated, since certificates carry its address.
func (f *FloatingIP) Observe(context.Context) (graph.State, error) {
	f.spare = ""
	for _, x := range f.s.found.FloatingIPs {
		if f.s.forService(x.Description) {
			continue
		}
		if x.PortID == f.port() {
			f.take(&x)
			return graph.State{Phase: graph.Ready, ID: f.id, Detail: f.address.String()}, nil
		}
		if f.balancer != nil && (x.PortID == "" || x.FixedIP == f.balancer.VIP.String()) {
			f.spare = x.ID
		}
	}
	if f.spare != "" {
		return graph.State{Phase: graph.Drifted, ID: f.spare, Detail: "leads nowhere"}, nil
	}
	return graph.State{}, nil
}

func (f *FloatingIP) take(x *floatingips.FloatingIP) {
	f.id = x.ID
	f.address, _ = netip.ParseAddr(x.FloatingIP)
}

// Apply implements [graph.Resource].
func (f *FloatingIP) Apply(ctx context.Context) error {
	if f.spare != "" {
		return f.lead(ctx)
	}
	external, err := f.s.ExternalNetwork(ctx, f.External)
	if err != nil {
		return err
	}
	body := map[string]any{"floating_network_id": external.ID, "port_id": f.port(), "description": f.s.mark()}
	find := url.Values{"port_id": {f.port()}, "description": {f.s.mark()}, "project_id": {f.s.Cloud.ProjectID()}}
	made, err := create[floatingips.FloatingIP](ctx, f.s, fipCollection, birth{body: body, find: find})
	if err != nil {
		return openstack.Wrap(err, "allocating a floating IP on %s for %s", external.Name, f.name)
	}
	f.take(made)
	f.s.note(func(v *Inventory) { v.FloatingIPs = append(slices.Clip(v.FloatingIPs), *made) })
	return nil
}

// lead makes the spare one lead to the port.
func (f *FloatingIP) lead(ctx context.Context) error {
	body := map[string]any{"floatingip": map[string]any{"port_id": f.port()}}
	if err := call(ctx, f.s.Cloud, fipCollection, http.MethodPut, "/"+f.spare, body); err != nil {
		return openstack.Wrap(err, "leading floating IP %s to %s", f.spare, f.name)
	}
	x, err := get[floatingips.FloatingIP](ctx, f.s.Cloud, fipCollection, f.spare)
	if err != nil {
		return openstack.Wrap(err, "looking at floating IP %s", f.spare)
	}
	f.take(x)
	f.s.note(func(v *Inventory) {
		v.FloatingIPs = put(v.FloatingIPs, *x, func(x floatingips.FloatingIP) string { return x.ID })
	})
	return nil
}

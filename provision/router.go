package provision

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/layer3/routers"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/subnets"

	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/internal/openstack"
)

// Router joins the stack's networks and gives them a way out, "STACK/router".
type Router struct {
	Base
	External string // name or id of the external network; "" is the only one
}

// Router declares the stack's router with its gateway on the external network.
func (s *Session) Router(external string) *Router {
	return &Router{s.base("router", "main", s.Name("router")), external}
}

// Observe implements [graph.Resource].
func (r *Router) Observe(context.Context) (graph.State, error) {
	found, err := sole("router", r.name, r.s.found.Routers,
		func(x routers.Router) bool { return x.Name == r.name }, func(x routers.Router) string { return x.ID })
	if found == nil || err != nil {
		return graph.State{}, err
	}
	r.id = found.ID
	switch {
	case found.GatewayInfo.NetworkID == "":
		return graph.State{Phase: graph.Drifted, ID: r.id, Detail: "has no external gateway"}, nil
	case len(r.s.found.Interfaces(r.id)) == 0:
		return graph.State{Phase: graph.Drifted, ID: r.id, Detail: "nothing is connected to it, and it may be half made"}, nil
	}
	return graph.State{Phase: graph.Ready, ID: r.id}, nil
}

// Apply implements [graph.Resource].
func (r *Router) Apply(ctx context.Context) error {
	external, err := r.s.ExternalNetwork(ctx, r.External)
	if err != nil {
		return err
	}
	gateway := map[string]any{"external_gateway_info": map[string]any{"network_id": external.ID}}
	if r.id != "" {
		err := remove(ctx, r.s.Cloud, routerCollection, "/"+r.id) // a run before may have left it half made, and nobody can see that
		if openstack.IsConflict(err) {                            // something is connected, so that it is whole
			err = call(ctx, r.s.Cloud, routerCollection, http.MethodPut, "/"+r.id, map[string]any{"router": gateway})
			return openstack.Wrap(err, "giving router %s its gateway on %s", r.name, external.Name)
		}
		if err != nil {
			return openstack.Wrap(err, "removing router %s, which may be half made", r.name)
		}
	}
	made, err := create[routers.Router](ctx, r.s, routerCollection, r.born(gateway))
	if err != nil {
		return openstack.Wrap(err, "creating router %s", r.name)
	}
	r.id = made.ID
	r.s.note(func(v *Inventory) {
		others := slices.DeleteFunc(slices.Clone(v.Routers), func(x routers.Router) bool { return x.Name == r.name })
		v.Routers = append(others, *made)
	})
	return nil
}

// ExternalNetwork finds an external network by name or id; "" is the only one there is, or of several the one that is called public.
func (s *Session) ExternalNetwork(ctx context.Context, name string) (networks.Network, error) {
	_, err := s.lookups.once(ctx, "external networks", func(ctx context.Context) (string, error) {
		all, err := list[networks.Network](ctx, s.Cloud, networkCollection, url.Values{"router:external": {"true"}})
		s.lookups.externals = all
		return "", err
	})
	all := s.lookups.externals
	switch {
	case err != nil:
		return networks.Network{}, err
	case name != "":
		return choose("external network", name, all, func(n networks.Network) (string, string) { return n.Name, n.ID })
	case len(all) == 0:
		return networks.Network{}, errors.New("the project sees no external network, and servers are reached from outside by one")
	case len(all) > 1:
		if public := slices.DeleteFunc(slices.Clone(all), func(n networks.Network) bool { return n.Name != "public" }); len(public) == 1 {
			return public[0], nil
		}
		var each []string
		for _, n := range all {
			each = append(each, n.Name+" ("+n.ID+")")
		}
		slices.Sort(each)
		return networks.Network{}, fmt.Errorf("the project sees %d external networks and none is named: name one of %s", len(all), strings.Join(each, ", "))
	}
	return all[0], nil
}

// ExternalRanges are the address ranges of an external network, as far as the cloud shows its subnets to us.
func (s *Session) ExternalRanges(ctx context.Context, id string) ([]netip.Prefix, error) {
	all, err := list[subnets.Subnet](ctx, s.Cloud, subnetCollection, url.Values{"network_id": {id}})
	if err != nil {
		return nil, err
	}
	var ranges []netip.Prefix
	for _, x := range all {
		p, err := netip.ParsePrefix(x.CIDR)
		if err != nil {
			return nil, fmt.Errorf("reading subnet %s: %w", x.ID, err)
		}
		ranges = append(ranges, p)
	}
	return ranges, nil
}

// RouterInterface connects the router to a subnet: by the subnet, which takes its gateway address, or by an explicit port.
type RouterInterface struct {
	Base
	Router *Router
	Subnet *Subnet
	Port   *Port // nil for an interface by subnet
}

// RouterInterface declares the interface of r on n.
func (s *Session) RouterInterface(role string, r *Router, n *Subnet) *RouterInterface {
	return &RouterInterface{Base: s.base("interface", role, s.Name("router")+" on "+n.name, r, n), Router: r, Subnet: n}
}

// RouterInterfaceByPort declares the interface of r on n that uses port p.
func (s *Session) RouterInterfaceByPort(role string, r *Router, n *Subnet, p *Port) *RouterInterface {
	i := s.RouterInterface(role, r, n)
	i.needs, i.Port = append(i.needs, p), p
	return i
}

// Observe implements [graph.Resource].
func (i *RouterInterface) Observe(context.Context) (graph.State, error) {
	for _, p := range i.s.found.Ports {
		if i.is(p) {
			i.id = p.ID
			return graph.State{Phase: graph.Ready, ID: p.ID, Detail: p.FixedIPs[0].IPAddress}, nil
		}
	}
	return graph.State{}, nil
}

func (i *RouterInterface) is(p ports.Port) bool {
	onSubnet := slices.ContainsFunc(p.FixedIPs, func(ip ports.IP) bool { return ip.SubnetID == i.Subnet.id })
	return onSubnet && p.DeviceID == i.Router.id && isInterface(p)
}

// Apply implements [graph.Resource].
func (i *RouterInterface) Apply(ctx context.Context) error {
	body := map[string]any{"subnet_id": i.Subnet.id}
	if i.Port != nil {
		body = map[string]any{"port_id": i.Port.id}
	}
	err := call(ctx, i.s.Cloud, routerCollection, http.MethodPut, "/"+i.Router.id+"/add_router_interface", body)
	// Neither answer can be trusted: the reply to what was done may be lost, and Neutron disconnects again, and says 200, what its driver refuses.
	there, looked := i.look(ctx)
	for begin := time.Now(); (err == nil || openstack.IsAmbiguous(err)) && looked == nil && !there && time.Since(begin) < consistency; {
		if looked = pause(ctx, i.s.every()); looked == nil {
			there, looked = i.look(ctx)
		}
	}
	switch {
	case there:
		return nil
	case err == nil && looked != nil:
		err = looked
	case err == nil:
		err = errors.New("it was accepted and undone, and only Neutron's log knows why: run again, or ask the operator to look for " +
			"\"Unable to add router interface\" in neutron-server's log")
	}
	return openstack.Wrap(err, "connecting router %s to %s", i.Router.name, i.Subnet.name)
}

func (i *RouterInterface) look(ctx context.Context) (there bool, err error) {
	all, err := list[ports.Port](ctx, i.s.Cloud, portCollection, url.Values{"device_id": {i.Router.id}})
	return slices.ContainsFunc(all, i.is), err
}

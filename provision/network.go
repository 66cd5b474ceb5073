package provision

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/subnets"

	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/internal/openstack"
)

// Anchor is the role of the network that is made before all but the other networks and removed last. While it exists the stack exists; its id is the
// stack's UUID.
const Anchor = "vm"

// Network is a tenant network, "STACK/ROLE_net".
type Network struct {
	Base
}

// Network declares a network with the given role: vm, pod or service.
func (s *Session) Network(role string) *Network {
	return &Network{s.base("network", role, s.Name(role+"_net"))}
}

// Observe implements [graph.Resource].
func (n *Network) Observe(context.Context) (graph.State, error) {
	found, err := sole("network", n.name, n.s.found.Networks,
		func(x networks.Network) bool { return x.Name == n.name }, func(x networks.Network) string { return x.ID })
	if found == nil || err != nil {
		return graph.State{}, err
	}
	n.id = found.ID
	return graph.State{Phase: graph.Ready, ID: n.id}, nil
}

// Apply implements [graph.Resource].
func (n *Network) Apply(ctx context.Context) error {
	made, err := create[networks.Network](ctx, n.s, networkCollection, n.born(map[string]any{}))
	if err != nil {
		return openstack.Wrap(err, "creating network %s", n.name)
	}
	n.id = made.ID
	n.s.note(func(v *Inventory) { v.Networks = append(slices.Clip(v.Networks), *made) })
	return nil
}

// Subnet is the one subnet of a network, "STACK/ROLE_subnet".
type Subnet struct {
	Base
	Network *Network
	CIDR    netip.Prefix
	Gateway netip.Addr
	DHCP    bool
	// Pool is the range that Neutron may allocate from; the zero value leaves it all but the gateway.
	Pool [2]netip.Addr
	// DNS lists the resolvers given to servers by DHCP.
	DNS []netip.Addr
}

// Subnet declares the subnet of n. Set the exported fields before the graph runs.
func (s *Session) Subnet(role string, n *Network) *Subnet {
	return &Subnet{Base: s.base("subnet", role, s.Name(role+"_subnet"), n), Network: n}
}

// Observe implements [graph.Resource].
func (n *Subnet) Observe(context.Context) (graph.State, error) {
	found, err := sole("subnet", n.name, n.s.found.Subnets,
		func(x subnets.Subnet) bool { return x.Name == n.name && x.NetworkID == n.Network.id }, func(x subnets.Subnet) string { return x.ID })
	if found == nil || err != nil {
		return graph.State{}, err
	}
	n.id = found.ID
	state := graph.State{Phase: graph.Ready, ID: n.id, Detail: found.CIDR}
	if diff := n.differs(found); diff != "" {
		state.Phase, state.Detail = graph.Drifted, diff
	}
	return state, nil
}

// differs says in what the subnet found is not the one declared, or "".
func (n *Subnet) differs(found *subnets.Subnet) string {
	var diffs []string
	note := func(what, is, want string) {
		if is != want {
			diffs = append(diffs, fmt.Sprintf("%s is %s, declared %s", what, is, want))
		}
	}
	note("CIDR", found.CIDR, n.CIDR.String())
	note("gateway", found.GatewayIP, n.Gateway.String())
	note("DHCP", fmt.Sprint(found.EnableDHCP), fmt.Sprint(n.DHCP))
	if n.Pool[0].IsValid() && len(found.AllocationPools) == 1 {
		pool := found.AllocationPools[0]
		note("allocation pool", pool.Start+"-"+pool.End, n.Pool[0].String()+"-"+n.Pool[1].String())
	}
	return strings.Join(diffs, "; ")
}

// Apply implements [graph.Resource].
func (n *Subnet) Apply(ctx context.Context) error {
	if n.id != "" {
		return fixed(&n.Base, "the address plan of a subnet")
	}
	body := map[string]any{
		"network_id": n.Network.id, "ip_version": 4, "cidr": n.CIDR.String(), "gateway_ip": n.Gateway.String(), "enable_dhcp": n.DHCP,
	}
	if n.Pool[0].IsValid() {
		body["allocation_pools"] = []map[string]string{{"start": n.Pool[0].String(), "end": n.Pool[1].String()}}
	}
	if len(n.DNS) > 0 {
		body["dns_nameservers"] = n.DNS
	}
	made, err := create[subnets.Subnet](ctx, n.s, subnetCollection, n.born(body))
	if err != nil {
		return openstack.Wrap(err, "creating subnet %s", n.name)
	}
	n.id = made.ID
	n.s.note(func(v *Inventory) { v.Subnets = append(slices.Clip(v.Subnets), *made) })
	return nil
}

// MTU is the largest packet that a network carries, in bytes, or 0 where Neutron does not tell.
func (s *Session) MTU(ctx context.Context, networkID string) (int, error) {
	n, err := get[struct{ MTU int }](ctx, s.Cloud, networkCollection, networkID)
	if err != nil {
		return 0, openstack.Wrap(err, "reading the MTU of network %s", networkID)
	}
	return n.MTU, nil
}

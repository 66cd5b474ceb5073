package provision

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/keypairs"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servergroups"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/dns/v2/recordsets"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/applicationcredentials"
	"github.com/gophercloud/gophercloud/v2/openstack/loadbalancer/v2/loadbalancers"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/layer3/floatingips"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/layer3/routers"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/groups"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/trunks"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/subnets"
	"golang.org/x/sync/errgroup"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
)

// Inventory is what the cloud holds of one stack at one moment: everything with its mark, and every port and load balancer
// on its networks, whoever made it.
type Inventory struct {
	Networks      []networks.Network
	Subnets       []subnets.Subnet
	Routers       []routers.Router
	Groups        []groups.SecGroup
	Ports         []ports.Port
	Trunks        []trunks.Trunk
	FloatingIPs   []floatingips.FloatingIP
	Servers       []servers.Server
	ServerGroups  []servergroups.ServerGroup // with [Session.Groups] alone
	LoadBalancers []loadbalancers.LoadBalancer
	RecordSets    []recordsets.RecordSet
	KeyPair       *keypairs.KeyPair
	AppCredential *applicationcredentials.ApplicationCredential
	Locks         []Lock
}

// UUID is the identity of the stack: the id of its anchor network, or "" when there is none.
func (v *Inventory) UUID() string {
	for _, n := range v.Networks {
		if strings.HasSuffix(n.Name, "/"+Anchor+"_net") {
			return n.ID
		}
	}
	return ""
}

// Discover reads the inventory, one list for each kind and all of them at once, and makes it the session's. Everything that
// resources observe afterwards comes from it.
func (s *Session) Discover(ctx context.Context) (*Inventory, error) {
	v := &Inventory{}
	project := url.Values{"project_id": {s.Cloud.ProjectID()}} // an administrator would see every project's
	marked := url.Values{"description": {s.mark()}, "project_id": {s.Cloud.ProjectID()}}
	g, each := errgroup.WithContext(ctx)
	fetch(each, g, s, networkCollection, marked, &v.Networks)
	fetch(each, g, s, subnetCollection, marked, &v.Subnets)
	fetch(each, g, s, routerCollection, marked, &v.Routers)
	fetch(each, g, s, groupCollection, marked, &v.Groups)
	fetch(each, g, s, trunkCollection, marked, &v.Trunks)
	fetch(each, g, s, fipCollection, project, &v.FloatingIPs) // those of Services have a mark of their own
	fetch(each, g, s, balancerCollection, project, &v.LoadBalancers)
	fetch(each, g, s, portCollection, nil, &v.Ports)
	fetch(each, g, s, recordSetCollection, url.Values{"description": {s.mark()}}, &v.RecordSets)
	if s.Groups {
		fetch(each, g, s, serverGroupCollection, nil, &v.ServerGroups)
	}
	g.Go(func() (err error) { v.Servers, err = s.listServers(each); return err })
	g.Go(func() (err error) { v.AppCredential, err = s.findAppCredential(each); return err })
	g.Go(func() (err error) {
		v.KeyPair, err = get[keypairs.KeyPair](each, s.Cloud, keypairCollection, s.userScoped())
		if openstack.IsNotFound(err) {
			return nil
		}
		return openstack.Wrap(err, "reading key pair %s", s.userScoped())
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if v.torn() {
		var err error
		if v.LoadBalancers, err = list[loadbalancers.LoadBalancer](ctx, s.Cloud, balancerCollection, project); err != nil {
			return nil, err
		}
		if v.Ports, err = list[ports.Port](ctx, s.Cloud, portCollection, nil); err != nil {
			return nil, err
		}
	}
	s.narrow(v)
	s.found = v
	s.made.clear()
	return v, nil
}

// torn reports whether there is the VIP port of a load balancer that is not there: they were listed at different moments, and a call that was cut
// off, be it to create or to delete, may be at work. A VIP port comes after its load balancer and goes before it, so listing them in that order
// tells.
func (v *Inventory) torn() bool {
	return slices.ContainsFunc(v.Ports, func(p ports.Port) bool {
		id, vip := strings.CutPrefix(p.Name, leakedPrefix)
		return vip && time.Since(p.CreatedAt) < time.Minute && !slices.ContainsFunc(v.LoadBalancers, func(l loadbalancers.LoadBalancer) bool { return l.ID == id })
	})
}

// fetch lists one collection in the background. A cloud without Octavia, Designate or trunks has none of these.
func fetch[T any](ctx context.Context, g *errgroup.Group, s *Session, c collection, query url.Values, into *[]T) {
	g.Go(func() error {
		all, err := list[T](ctx, s.Cloud, c, query)
		noService := (c.path == balancerCollection.path || c.path == recordSetCollection.path) && openstack.IsNoService(err)
		noTrunks := c.path == trunkCollection.path && openstack.IsNotFound(err)
		if noService || noTrunks {
			return nil
		}
		*into = all
		return err
	})
}

// narrow drops what a list's filter could not: ports and load balancers of the project that neither carry the mark nor are on
// the stack's networks, and servers that only share the name. Filters on descriptions are exact in Neutron, and are checked all
// the same: a cloud that ignores an unknown filter would otherwise hand us the whole project.
func (s *Session) narrow(v *Inventory) {
	ours := func(description string) bool { return description == s.mark() }
	v.Networks = slices.DeleteFunc(v.Networks, func(x networks.Network) bool { return !ours(x.Description) })
	v.Subnets = slices.DeleteFunc(v.Subnets, func(x subnets.Subnet) bool { return !ours(x.Description) })
	v.Routers = slices.DeleteFunc(v.Routers, func(x routers.Router) bool { return !ours(x.Description) })
	v.Groups, v.Locks = s.splitLocks(v.Groups)
	v.Trunks = slices.DeleteFunc(v.Trunks, func(x trunks.Trunk) bool { return !ours(x.Description) })
	v.FloatingIPs = slices.DeleteFunc(v.FloatingIPs, func(x floatingips.FloatingIP) bool { return !ours(x.Description) && !s.forService(x.Description) })
	v.RecordSets = slices.DeleteFunc(v.RecordSets, func(x recordsets.RecordSet) bool { return !ours(x.Description) })
	v.Servers = slices.DeleteFunc(v.Servers, func(x servers.Server) bool { return !s.ownsServer(x) })
	v.ServerGroups = slices.DeleteFunc(v.ServerGroups, func(x servergroups.ServerGroup) bool { return !s.ownsServerGroup(x) })
	v.Ports = slices.DeleteFunc(v.Ports, func(x ports.Port) bool {
		return !s.ownsPort(x) && !v.onOurs(x.NetworkID) && !(isInterface(x) && v.ofOurRouter(x))
	})
	v.LoadBalancers = slices.DeleteFunc(v.LoadBalancers, func(x loadbalancers.LoadBalancer) bool {
		return !ours(x.Description) && !v.onOurs(x.VipNetworkID)
	})
}

func (s *Session) ownsPort(x ports.Port) bool {
	return s.marked(x.Description) && x.ProjectID == s.Cloud.ProjectID()
}

// marked tells whether a description is one that the stack's objects have; those of a test are ports.
func (s *Session) marked(description string) bool {
	return description == s.mark() || description == openstack.DropTestMark(s.Stack)
}

// forService tells whether a floating IP was made by the controller in the cluster, for a Service.
func (s *Session) forService(description string) bool {
	_, ok := openstack.ServiceOf(s.Stack, description)
	return ok
}

func (s *Session) ownsServer(x servers.Server) bool {
	stack, _, ok := openstack.ServerStack(x.Metadata)
	return ok && stack == s.Stack
}
func (v *Inventory) onOurs(networkID string) bool {
	return slices.ContainsFunc(v.Networks, func(n networks.Network) bool { return n.ID == networkID })
}

// Foreign lists what hangs on the stack's networks and is not the stack's: somebody else's server, port or load balancer.
// While there is any, the networks cannot go, and it is not ours to remove.
func (s *Session) Foreign() []Object {
	v := s.found
	var all []Object
	for _, l := range v.LoadBalancers {
		if l.Description != s.mark() {
			all = append(all, Object{Kind: "load balancer", Name: l.Name, ID: l.ID, Detail: "VIP " + l.VipAddress})
		}
	}
	for _, p := range v.Ports {
		if s.ownsPort(p) || v.infrastructure(p) || v.leaked(p, s.Cloud.ProjectID()) {
			continue
		}
		o := Object{Kind: "port", Name: p.Name, ID: p.ID, Detail: address(p)}
		if p.DeviceOwner != "" {
			o.Detail = strings.TrimSpace(o.Detail + " of " + p.DeviceOwner + " " + p.DeviceID)
		}
		all = append(all, o)
	}
	return all
}

// podPort reports whether p was made for a pod, by the controller in the cluster: it carries the stack's mark and no more, and the stack itself
// has no ports of its own on the pods' network.
func (s *Session) podPort(p ports.Port) bool {
	return s.ownsPort(p) && p.Description == s.mark() && slices.ContainsFunc(s.found.Networks, func(n networks.Network) bool { return n.ID == p.NetworkID && n.Name == s.Name("pod_net") })
}

// infrastructure reports whether Neutron or Octavia made the port for something of ours and removes it with that.
func (v *Inventory) infrastructure(p ports.Port) bool {
	switch {
	case p.DeviceOwner == "network:dhcp", p.DeviceOwner == "network:distributed":
		return true
	case isInterface(p): // one on another network is somebody else's wish
		return v.ofOurRouter(p) && v.onOurs(p.NetworkID)
	case strings.HasPrefix(p.DeviceOwner, "network:ha_router"), strings.HasPrefix(p.DeviceOwner, "network:router_"):
		return v.ofOurRouter(p)
	case strings.HasPrefix(p.Name, "octavia-lb-vrrp-"): // of an amphora, whose id, not that of its load balancer, is in the name
		return slices.ContainsFunc(v.LoadBalancers, func(l loadbalancers.LoadBalancer) bool {
			return l.VipNetworkID == p.NetworkID && strings.HasPrefix(l.Provider, "amphora")
		})
	case p.DeviceOwner == ownerMonitor:
		return true
	}
	// What Octavia makes for a load balancer has, depending on the provider, no owner at all; its name or device holds the id.
	return slices.ContainsFunc(v.LoadBalancers, func(l loadbalancers.LoadBalancer) bool {
		return l.VipPortID == p.ID || strings.Contains(p.DeviceID, l.ID) || strings.Contains(p.Name, l.ID)
	})
}

// leaked reports whether p is the VIP port of a load balancer that does not exist: OVN's provider leaves it behind when it refuses
// a load balancer (seen with 2025.1). It counts only in our own project and when it has been there for a while, since load balancers
// and ports are listed at slightly different moments; deletePort asks for the load balancer once more.
func (v *Inventory) leaked(p ports.Port, project string) bool {
	return strings.HasPrefix(p.Name, leakedPrefix) && v.onOurs(p.NetworkID) && !v.infrastructure(p) && p.ProjectID == project &&
		!p.CreatedAt.IsZero() && time.Since(p.CreatedAt) > time.Minute
}

func (v *Inventory) ofOurRouter(p ports.Port) bool {
	return slices.ContainsFunc(v.Routers, func(r routers.Router) bool { return r.ID == p.DeviceID })
}

// ownerMonitor is the owner of the port, one for each subnet, from which OVN checks the health of members.
const ownerMonitor = "ovn-lb-hm:distributed"

// leakedPrefix is followed by the id of the load balancer.
const leakedPrefix = "ovn-lb-vip-"

// isInterface reports whether p is the interface of a router on a subnet; the owner differs with DVR and HA.
func isInterface(p ports.Port) bool {
	switch p.DeviceOwner {
	case "network:router_interface", "network:router_interface_distributed", "network:ha_router_replicated_interface":
		return true
	}
	return false
}

// Stacks lists the names of the stacks in a project, by their anchor networks.
func Stacks(ctx context.Context, cloud *openstack.Cloud) ([]string, error) {
	all, err := list[networks.Network](ctx, cloud, networkCollection, url.Values{"project_id": {cloud.ProjectID()}})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, n := range all {
		if stack, ok := openstack.StackOf(n.Description); ok {
			names = append(names, stack)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// ErrForeign means that a stack was not removed because something of others hangs on it.
var ErrForeign = errors.New("foreign objects are attached to the stack")

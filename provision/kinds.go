package provision

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"

	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/internal/wait"
)

// Object is one thing of a stack as it is in the cloud.
type Object struct {
	Kind, Name, ID string
	Detail         string

	router  string // the router of an interface
	zone    string // the zone of a record set
	pods    bool   // made by the controller in the cluster
	implied bool   // made by Octavia for another
}

// ForPods reports whether the object was made by the controller in the cluster, which no declaration speaks of.
func (o Object) ForPods() bool { return o.pods }

// Implied reports whether the object was made by Octavia for another one, with which it goes mostly.
func (o Object) Implied() bool { return o.implied }

// Named reports whether the object is a name, which is made when it is asked for and not with the stack.
func (o Object) Named() bool { return o.zone != "" }

func (o Object) String() string {
	name := o.Name
	if name == "" {
		name = o.ID
	}
	if o.Detail != "" {
		return fmt.Sprintf("%s %s (%s)", o.Kind, name, o.Detail)
	}
	return o.Kind + " " + name
}

// kind is one sort of thing that a stack can own.
type kind struct {
	name   string
	owned  func(*Session, *Inventory) []Object
	delete func(context.Context, *Session, Object) error
}

// kinds is the one list of what a stack can own, in stages of deletion: all of a stage at once, and a stage after all before it. It
// serves finding what is left, `unstack`, and the rows that plan shows as "-".
//
// The application credential goes at once: what lives in the stack makes nothing new with it from then on. The order of the rest
// follows what Neutron, Nova and Octavia refuse otherwise: a floating IP outlives its load balancer if it is not released first; a trunk is not deletable while its parent is bound (ML2/OVS), so servers go before trunks; parents and subports of a
// trunk cannot be deleted (PortInUseAsTrunkParent), so trunks go before ports; the anchor goes last. A test holds this order and the edges of
// a designed graph together.
var kinds = [][]kind{
	{{"recordset", ownedRecordSets, deleteRecordSet}}, // before the addresses that they name are free for somebody else
	{
		{"fip", ownedFloatingIPs, deleter(fipCollection)},
		{"appcredential", ownedAppCredential, func(ctx context.Context, s *Session, o Object) error {
			return openstack.Wrap(remove(ctx, s.Cloud, s.appCredentials(), "/"+o.ID), "deleting %s", o)
		}},
	},
	{
		{"loadbalancer", ownedBalancers, func(ctx context.Context, s *Session, o Object) error { return s.deleteBalancer(ctx, o.ID, o.Name) }},
		{"server", ownedServers, func(ctx context.Context, s *Session, o Object) error { return s.deleteServer(ctx, o.ID, o.Name) }},
	},
	{
		{"trunk", ownedTrunks, deleter(trunkCollection)},
		{"keypair", ownedKeyPair, deleter(keypairCollection)},
		{"servergroup", ownedServerGroups, deleter(serverGroupCollection)},
	},
	{
		{"interface", ownedInterfaces, deleteInterface},
		{"port", ownedPorts, deletePort},
		{"monitorport", ownedMonitorPorts, deleter(portCollection)},
	},
	{
		{"secgroup", ownedGroups, deleter(groupCollection)},
		{"router", ownedRouters, deleter(routerCollection)},
		{"subnet", ownedLooseSubnets, deleter(subnetCollection)},
		{"network", ownedNetworks(false), deleter(networkCollection)},
	},
	{{"network", ownedNetworks(true), deleter(networkCollection)}},
}

func deleter(c collection) func(context.Context, *Session, Object) error {
	return func(ctx context.Context, s *Session, o Object) error {
		return s.insist(ctx, o, func(ctx context.Context) error { return remove(ctx, s.Cloud, c, "/"+o.ID) })
	}
}

// refusals is how often the cloud may say that an object is in use before that is believed: at one look a second, about a minute. They
// are counted and not timed, so that a slow cloud gets as many as a fast one.
const refusals = 60

// insist deletes again while the cloud says that the object is in use (409): Nova unbinds ports and Octavia removes its own some time
// after what they were for is gone.
func (s *Session) insist(ctx context.Context, o Object, remove func(context.Context) error) error {
	refused := 0
	return wait.For(ctx, o.String()+" to be free", s.every(), func(ctx context.Context) (string, bool, error) {
		err := remove(ctx)
		if refused++; openstack.IsConflict(err) && refused < refusals {
			return openstack.Reason(err), false, nil
		}
		return "", err == nil, openstack.Wrap(err, "deleting it")
	})
}

// deletePort deletes a port; one that was left behind by a load balancer only when that is really not there.
func deletePort(ctx context.Context, s *Session, o Object) error {
	if balancer, ok := strings.CutPrefix(o.Name, leakedPrefix); ok {
		if _, err := get[struct{}](ctx, s.Cloud, balancerCollection, balancer); !openstack.IsNotFound(err) {
			return openstack.Wrap(cmp.Or(err, errInService), "deleting %s", o)
		}
	}
	return deleter(portCollection)(ctx, s, o)
}

var errInService = errors.New("its load balancer is there")

// deleteInterface disconnects a router from a subnet by the interface's port; an explicit port goes with it.
func deleteInterface(ctx context.Context, s *Session, o Object) error {
	return s.insist(ctx, o, func(ctx context.Context) error {
		err := call(ctx, s.Cloud, routerCollection, http.MethodPut, "/"+o.router+"/remove_router_interface", map[string]any{"port_id": o.ID})
		if openstack.IsNotFound(err) {
			return nil
		}
		return err
	})
}

// Owned lists everything of the stack that the session's inventory holds, in the order of deletion.
func (s *Session) Owned() []Object {
	var all []Object
	for _, k := range slices.Concat(kinds...) {
		all = append(all, k.owned(s, s.found)...)
	}
	return all
}

func ownedFloatingIPs(s *Session, v *Inventory) (all []Object) {
	for _, x := range v.FloatingIPs {
		all = append(all, Object{Kind: "fip", Name: x.FloatingIP, ID: x.ID, Detail: x.FixedIP, pods: s.forService(x.Description)})
	}
	return all
}

// ownedRecordSets leaves out those that are about to go: Designate shows them until its servers have heard of it.
func ownedRecordSets(_ *Session, v *Inventory) (all []Object) {
	for _, x := range v.RecordSets {
		if x.Action != "DELETE" {
			all = append(all, Object{Kind: "recordset", Name: strings.TrimSuffix(x.Name, "."), ID: x.ID, Detail: strings.Join(x.Records, " "), zone: x.ZoneID})
		}
	}
	return all
}

func deleteRecordSet(ctx context.Context, s *Session, o Object) error {
	c := recordSetCollection
	c.path = "zones/" + o.zone + "/recordsets"
	return openstack.Wrap(remove(ctx, s.Cloud, c, "/"+o.ID), "deleting %s", o)
}

func ownedBalancers(s *Session, v *Inventory) (all []Object) {
	for _, x := range v.LoadBalancers {
		if x.Description == s.mark() {
			all = append(all, Object{Kind: "loadbalancer", Name: x.Name, ID: x.ID, Detail: x.VipAddress, pods: strings.HasPrefix(x.Name, s.Name("svc/"))})
		}
	}
	return all
}

func ownedServers(_ *Session, v *Inventory) (all []Object) {
	for _, x := range v.Servers {
		all = append(all, Object{Kind: "server", Name: x.Name, ID: x.ID, Detail: x.Status})
	}
	return all
}

func ownedServerGroups(_ *Session, v *Inventory) (all []Object) {
	for _, x := range v.ServerGroups {
		all = append(all, Object{Kind: "servergroup", Name: x.Name, ID: x.ID, Detail: strings.Join(x.Policies, ", ")})
	}
	return all
}

func ownedTrunks(_ *Session, v *Inventory) (all []Object) {
	for _, x := range v.Trunks {
		all = append(all, Object{Kind: "trunk", Name: x.Name, ID: x.ID, Detail: fmt.Sprintf("%d subports", len(x.Subports))})
	}
	return all
}

func ownedKeyPair(s *Session, v *Inventory) []Object {
	if v.KeyPair == nil {
		return nil
	}
	return []Object{{Kind: "keypair", Name: v.KeyPair.Name, ID: v.KeyPair.Name}}
}

func ownedAppCredential(_ *Session, v *Inventory) []Object {
	if v.AppCredential == nil {
		return nil
	}
	return []Object{{Kind: "appcredential", Name: v.AppCredential.Name, ID: v.AppCredential.ID}}
}

func ownedInterfaces(s *Session, v *Inventory) (all []Object) {
	for _, p := range v.Ports {
		if isInterface(p) && v.infrastructure(p) {
			all = append(all, Object{Kind: "interface", Name: s.Name("router") + " on " + address(p), ID: p.ID, router: p.DeviceID})
		}
	}
	return all
}

func ownedPorts(s *Session, v *Inventory) (all []Object) {
	for _, p := range v.Ports {
		ours := s.ownsPort(p) && !strings.HasPrefix(p.DeviceOwner, "network:") // the port of an interface goes as that
		if !ours && !v.leaked(p, s.Cloud.ProjectID()) {
			continue
		}
		all = append(all, Object{Kind: "port", Name: p.Name, ID: p.ID, Detail: address(p), pods: s.podPort(p)})
	}
	return all
}

// ownedMonitorPorts are those from which OVN checks the health of members. They go with the last load balancer that needs them, unless Octavia lost
// that one (octavia-api was killed, and its operator set it to ERROR): then they stay, and hold the network.
func ownedMonitorPorts(s *Session, v *Inventory) (all []Object) {
	for _, p := range v.Ports {
		if p.DeviceOwner == ownerMonitor && p.ProjectID == s.Cloud.ProjectID() && v.onOurs(p.NetworkID) {
			all = append(all, Object{Kind: "monitorport", Name: p.Name, ID: p.ID, Detail: address(p), implied: true})
		}
	}
	return all
}

// address is a port's first address, or "" for one without.
func address(p ports.Port) string {
	if len(p.FixedIPs) == 0 {
		return ""
	}
	return p.FixedIPs[0].IPAddress
}

func ownedGroups(_ *Session, v *Inventory) (all []Object) {
	for _, x := range v.Groups {
		all = append(all, Object{Kind: "secgroup", Name: x.Name, ID: x.ID})
	}
	return all
}

func ownedRouters(_ *Session, v *Inventory) (all []Object) {
	for _, x := range v.Routers {
		all = append(all, Object{Kind: "router", Name: x.Name, ID: x.ID})
	}
	return all
}

// ownedLooseSubnets are those on networks that are not ours: a network takes its own subnets along when it goes.
func ownedLooseSubnets(_ *Session, v *Inventory) (all []Object) {
	for _, x := range v.Subnets {
		if !v.onOurs(x.NetworkID) {
			all = append(all, Object{Kind: "subnet", Name: x.Name, ID: x.ID, Detail: x.CIDR})
		}
	}
	return all
}

func ownedNetworks(anchor bool) func(*Session, *Inventory) []Object {
	return func(s *Session, v *Inventory) (all []Object) {
		for _, x := range v.Networks {
			if (x.Name == s.Name(Anchor+"_net")) == anchor {
				all = append(all, Object{Kind: "network", Name: x.Name, ID: x.ID})
			}
		}
		return all
	}
}

// deletion is the removal of one object as a resource of a graph: absent is what is declared, so it is ready when gone.
type deletion struct {
	key   graph.Key
	s     *Session
	o     Object
	how   func(context.Context, *Session, Object) error
	needs []graph.Resource
}

func (d *deletion) Key() graph.Key          { return d.key }
func (d *deletion) Needs() []graph.Resource { return d.needs }

func (d *deletion) Observe(context.Context) (graph.State, error) {
	return graph.State{Phase: graph.Pending, ID: d.o.ID, Detail: d.o.Detail}, nil
}

func (d *deletion) Apply(ctx context.Context) error { return d.how(ctx, d.s, d.o) }

// Removal is a graph that removes everything the session's inventory holds of the stack, stage by stage.
func (s *Session) Removal() *graph.Graph { return s.removal(func(Object) bool { return true }) }

// RemovalBeside is a graph that removes what no load balancer needs that cannot be removed: it keeps its networks, on which its VIP and its
// members are, and the router between them.
func (s *Session) RemovalBeside() *graph.Graph {
	return s.removal(func(o Object) bool {
		return !slices.Contains([]string{"loadbalancer", "monitorport", "interface", "router", "subnet", "network"}, o.Kind)
	})
}

// RemovalOf is a graph that removes what belongs to servers of these roles: the servers, their trunks, ports and subports.
func (s *Session) RemovalOf(roles ...string) *graph.Graph {
	names, subports := map[string]bool{}, map[string]bool{}
	for _, r := range roles {
		names[s.Name(r)] = true
	}
	for _, t := range s.found.Trunks {
		for _, p := range t.Subports {
			subports[p.PortID] = names[t.Name]
		}
	}
	return s.removal(func(o Object) bool { return names[o.Name] || subports[o.ID] })
}

func (s *Session) removal(wanted func(Object) bool) *graph.Graph {
	var g graph.Graph
	seen := map[graph.Key]bool{} // names are not unique
	var before []graph.Resource
	for _, stage := range kinds {
		var now []graph.Resource
		for _, k := range stage {
			for _, o := range k.owned(s, s.found) {
				if !wanted(o) {
					continue
				}
				key := graph.Key(o.Kind + " " + o.Name)
				if seen[key] || o.Name == "" {
					key = graph.Key(o.Kind + " " + o.ID)
				}
				seen[key] = true
				now = append(now, &deletion{key, s, o, k.delete, before})
			}
		}
		g.Add(now...)
		before = append(slices.Clip(before), now...)
	}
	return &g
}

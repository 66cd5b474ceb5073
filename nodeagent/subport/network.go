// Package subport keeps the ports of pods in Neutron: makes them in bulk, attaches them to the trunk of their node, takes them off
// again, and finds what a crash left behind. It is the logic over Neutron: [Trunk.Reconcile] brings one trunk one step nearer to what
// is wanted of it.
//
// Nothing is remembered that Neutron does not know: which port belongs to which node is told by the trunk it is on, by the list that
// was published, or by the name it was born with; VLAN ids are read from the trunk. So whoever comes next, after a crash at any call,
// sees the same.
//
// It refuses to know Kubernetes, and it writes only while its owner says that it may (see [Options.MayWrite]). A [Trunk] has no lock:
// one goroutine works on it at a time.
//
// Start reading at [Open], then [Trunk.Reconcile].
package subport

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gophercloud/gophercloud/v2"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
)

// Options say whose ports are kept, and on what. The first four must be set.
type Options struct {
	Stack         string // whose mark the objects carry
	PodNetwork    string // name of the network the ports are made on
	SecurityGroup string // name of the group they get
	// MayWrite is asked before every call that changes something; its error is returned instead of the call.
	MayWrite func() error
	// Patience is how long a subport may stay down before it is taken off and attached again. Zero means 90 s.
	Patience time.Duration
	// Pace bounds the calls that change something; whoever sees the answers must tell it of them. Nil means eight at once.
	Pace *Pace
	// Failed, if not nil, is told every error of the cloud's.
	Failed func(error)
	// Now is the clock. Nil means time.Now.
	Now func() time.Time
}

// Network is the pod network of a stack with what is on it. It is safe for concurrent use.
type Network struct {
	client  *gophercloud.ServiceClient
	project string
	o       Options

	id      string
	mtu     int
	group   string
	subnets map[string]subnet

	looking chan struct{} // held by who looks
	latest  *View         // guarded by looking
}

type subnet struct {
	bits    int
	gateway string
}

// port is what is read of a port in Neutron.
type port struct {
	ID          string
	Name        string
	Description string
	NetworkID   string    `json:"network_id"`
	MAC         string    `json:"mac_address"`
	Status      string    `json:"status"`
	DeviceID    string    `json:"device_id"`
	DeviceOwner string    `json:"device_owner"`
	FixedIPs    []fixedIP `json:"fixed_ips"`
	Groups      []string  `json:"security_groups"`
}

type fixedIP struct {
	Subnet  string `json:"subnet_id"`
	Address string `json:"ip_address"`
}

// portFields are the columns of port; a list of thousands is a fifth in size with them.
var portFields = []string{"id", "name", "description", "network_id", "mac_address", "status", "device_id", "device_owner", "fixed_ips", "security_groups"}

// trunk is what is read of a trunk in Neutron. Its status is not: under ML2/OVN it says nothing about the subports.
type trunk struct {
	ID          string
	Name        string
	Description string
	Port        string    `json:"port_id"`
	Subports    []segment `json:"sub_ports"`
}

type segment struct {
	Port string `json:"port_id"`
	Type string `json:"segmentation_type"`
	VLAN int    `json:"segmentation_id"`
}

// ErrReadOnly is wrapped by the errors of calls that were not made since [Options.MayWrite] refused.
var ErrReadOnly = errors.New("not sent")

// Open finds the pod network, its subnets and the security group by their names: three reads.
func Open(ctx context.Context, cloud *openstack.Cloud, o Options) (*Network, error) {
	client, err := cloud.Network()
	if err != nil {
		return nil, err
	}
	o.Patience = cmp.Or(o.Patience, 90*time.Second)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Pace == nil {
		o.Pace = NewPace(8)
	}
	if o.Failed == nil {
		o.Failed = func(error) {}
	}
	n := &Network{client: client, project: cloud.ProjectID(), o: o, subnets: map[string]subnet{}, looking: make(chan struct{}, 1)}
	type named struct {
		ID  string
		MTU int
	}
	networks, err := list[named](ctx, n, "networks", url.Values{"name": {o.PodNetwork}, "project_id": {n.project}})
	if err != nil {
		return nil, err
	}
	groups, err := list[named](ctx, n, "security-groups", url.Values{"name": {o.SecurityGroup}, "project_id": {n.project}})
	if err != nil {
		return nil, err
	}
	for _, x := range []struct {
		what, name string
		found      []named
	}{{"network", o.PodNetwork, networks}, {"security group", o.SecurityGroup, groups}} {
		if len(x.found) != 1 {
			return nil, fmt.Errorf("%d %ss are called %s, and one is needed: is the stack's name right?", len(x.found), x.what, x.name)
		}
	}
	n.id, n.mtu, n.group = networks[0].ID, networks[0].MTU, groups[0].ID
	subnets, err := list[struct {
		ID      string
		CIDR    string
		Gateway string `json:"gateway_ip"`
	}](ctx, n, "subnets", url.Values{"network_id": {n.id}})
	if err != nil {
		return nil, err
	}
	for _, s := range subnets {
		prefix, err := netip.ParsePrefix(s.CIDR)
		if err != nil {
			return nil, fmt.Errorf("reading subnet %s: %w", s.ID, err)
		}
		n.subnets[s.ID] = subnet{prefix.Bits(), s.Gateway}
	}
	if len(n.subnets) == 0 {
		return nil, fmt.Errorf("network %s has no subnet: run `kuryrctl stack` again", o.PodNetwork)
	}
	return n, nil
}

// list reads a collection.
func list[T any](ctx context.Context, n *Network, path string, query url.Values) ([]T, error) {
	all, err := openstack.List[T](ctx, n.client, path, strings.ReplaceAll(path, "-", "_"), query)
	if err != nil {
		n.failed(ctx, err)
	}
	return all, err
}

// write sends a request that changes something. out, if not nil, takes the answer.
func (n *Network) write(ctx context.Context, method, path string, body, out any) error {
	if err := n.o.Pace.enter(ctx); err != nil {
		return err
	}
	defer n.o.Pace.leave()
	if err := n.o.MayWrite(); err != nil {
		return fmt.Errorf("%s %s: %w: %w", method, path, ErrReadOnly, err)
	}
	opts := &gophercloud.RequestOpts{JSONBody: body, JSONResponse: out, OkCodes: []int{http.StatusOK, http.StatusCreated, http.StatusNoContent}}
	resp, err := n.client.Request(ctx, method, n.client.ServiceURL(path), opts)
	if err == nil && out == nil {
		err = resp.Body.Close()
	}
	if err != nil {
		n.failed(ctx, openstack.Wrap(err, "%s %s", method, path))
	}
	return err
}

// failed tells of an error, unless it is that the caller has ended.
func (n *Network) failed(ctx context.Context, err error) {
	if ctx.Err() == nil {
		n.o.Failed(err)
	}
}

// Addresses is how many addresses the pod network has, and how many are taken. ok is false where the cloud does not tell.
func (n *Network) Addresses(ctx context.Context) (total, used float64, ok bool) {
	var page struct {
		All []struct {
			Network string  `json:"network_id"`
			Total   float64 `json:"total_ips"` // of IPv6 there can be more than an int64 holds
			Used    float64 `json:"used_ips"`
		} `json:"network_ip_availabilities"`
	}
	if _, err := n.client.Get(ctx, n.client.ServiceURL("network-ip-availabilities")+"?network_id="+n.id, &page, nil); err != nil {
		return 0, 0, false // by default it is for administrators
	}
	for _, a := range page.All {
		if a.Network == n.id {
			return a.Total, a.Used, true
		}
	}
	return 0, 0, false
}

// View is what Neutron held at one moment: the stack's trunks, and its ports for pods.
type View struct {
	begun   time.Time
	trunks  map[string]trunk  // by node
	ports   map[string]port   // by id, ports for pods alone
	parents map[string]port   // by id
	on      map[string]string // port to node, of every subport
}

// Look is what Neutron holds, read after since. Many may ask at once: one reads, two lists in all.
func (n *Network) Look(ctx context.Context, since time.Time) (*View, error) {
	select {
	case n.looking <- struct{}{}:
		defer func() { <-n.looking }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if n.latest != nil && n.latest.begun.After(since) {
		return n.latest, nil
	}
	v := &View{begun: n.o.Now(), trunks: map[string]trunk{}, ports: map[string]port{}, parents: map[string]port{}, on: map[string]string{}}
	mark := openstack.Mark(n.o.Stack)
	query := func() url.Values { return url.Values{"description": {mark}, "project_id": {n.project}} }
	trunks, err := list[trunk](ctx, n, "trunks", query())
	if err != nil {
		return nil, err
	}
	withFields := query()
	withFields["fields"] = portFields
	ports, err := list[port](ctx, n, "ports", withFields)
	if err != nil {
		return nil, err
	}
	for _, t := range trunks {
		node, ok := strings.CutPrefix(t.Name, n.o.Stack+"/")
		if !ok || t.Description != mark {
			continue
		}
		if other, ok := v.trunks[node]; ok && other.ID < t.ID {
			continue // two of one name are for a person to sort out; the choice is at least always the same
		}
		v.trunks[node] = t
		for _, s := range t.Subports {
			v.on[s.Port] = node
		}
	}
	for _, p := range ports {
		switch {
		case p.Description != mark:
		case n.ours(p):
			v.ports[p.ID] = p
		default:
			v.parents[p.ID] = p
		}
	}
	n.latest = v
	return v, nil
}

// ours tells a port for pods from the stack's others: the mark alone is on all of them. The groups of one that is in use may have been
// changed; a loose one has those it was born with.
func (n *Network) ours(p port) bool {
	loose := p.DeviceOwner == "" && p.DeviceID == "" && slices.Contains(p.Groups, n.group)
	return p.NetworkID == n.id && (loose || p.DeviceOwner == "trunk:subport")
}

// Nodes are the names of the nodes that have a trunk, sorted.
func (v *View) Nodes() []string {
	var names []string
	for name := range v.trunks {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Ports is how many ports for pods there are, on trunks and off.
func (v *View) Ports() int { return len(v.ports) }

// Strays are ports for pods that belong to no node with a trunk: on no trunk themselves, born for none, and not claimed, as what is
// published for a node is. They are what a node that is gone leaves behind.
func (n *Network) Strays(v *View, claimed map[string]bool) []string {
	var ids []string
	for id, p := range v.ports {
		node, born := n.bornFor(p)
		_, there := v.trunks[node]
		if v.on[id] == "" && p.DeviceOwner == "" && !claimed[id] && !(born && there) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// Delete deletes ports that are on no trunk. Those that are gone already are deleted.
func (n *Network) Delete(ctx context.Context, ids []string) error {
	for _, id := range ids {
		if err := n.write(ctx, http.MethodDelete, "ports/"+id, nil, nil); err != nil && !openstack.IsNotFound(err) {
			return openstack.Wrap(err, "deleting port %s", id)
		}
	}
	return nil
}

// birthName is a new name that tells the node.
func (n *Network) birthName(node string) string {
	return n.o.Stack + "/pod-" + node + "-" + strings.ToLower(rand.Text()[:8])
}

// bornFor reads [Network.birthName] back.
func (n *Network) bornFor(p port) (node string, ok bool) {
	rest, ok := strings.CutPrefix(p.Name, n.o.Stack+"/pod-")
	dash := strings.LastIndex(rest, "-")
	if !ok || dash < 0 {
		return "", false
	}
	return rest[:dash], true
}

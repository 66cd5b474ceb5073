package provision

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/loadbalancer/v2/loadbalancers"
	"github.com/gophercloud/gophercloud/v2/openstack/loadbalancer/v2/providers"

	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/internal/wait"
)

// LoadBalancer is a TCP load balancer with one listener, one pool, a TCP health monitor and a member on each of Members.
type LoadBalancer struct {
	Base
	Subnet     *Subnet
	VIP        netip.Addr
	Port       int // of the listener
	Members    []*Port
	MemberPort int
	Provider   string // "" prefers ovn, which needs no VM of its own, before the cloud's default

	found *loadbalancers.LoadBalancer
	tree  *tree
}

// tree is what a load balancer consists of, in the words of Octavia's status call.
type tree struct {
	Listeners []struct {
		ID    string
		Pools []poolTree
	}
	Pools []poolTree
}

type poolTree struct {
	ID      string
	Members []struct {
		Address         string
		ProtocolPort    int    `json:"protocol_port"`
		OperatingStatus string `json:"operating_status"`
	}
	Monitor *struct{ ID string } `json:"health_monitor"`
}

// LoadBalancer declares "STACK/ROLE" with its VIP on n; the router's interface there must be ready first, since the provider
// looks for it.
func (s *Session) LoadBalancer(role string, n *Subnet, via *RouterInterface, members ...*Port) *LoadBalancer {
	l := &LoadBalancer{Base: s.base("loadbalancer", role, s.Name(role), n, via), Subnet: n, Members: members}
	for _, m := range members {
		l.needs = append(l.needs, m)
	}
	return l
}

// vipPort is the id of the port that holds the VIP; "" until the load balancer exists.
func (l *LoadBalancer) vipPort() string {
	if l.found == nil {
		return ""
	}
	return l.found.VipPortID
}

// Observe implements [graph.Resource].
func (l *LoadBalancer) Observe(ctx context.Context) (graph.State, error) {
	found, err := sole("load balancer", l.name, l.s.found.LoadBalancers,
		func(x loadbalancers.LoadBalancer) bool { return x.Name == l.name && x.Description == l.s.mark() }, func(x loadbalancers.LoadBalancer) string { return x.ID })
	if found == nil || err != nil {
		return graph.State{}, err
	}
	l.id, l.found = found.ID, found
	state := graph.State{Phase: graph.Ready, ID: l.id, Detail: found.VipAddress}
	switch status := found.ProvisioningStatus; {
	case status == "ERROR":
		state.Phase, state.Detail = graph.Failed, "provisioning status ERROR"
	case found.VipAddress != l.VIP.String():
		state.Phase, state.Detail = graph.Failed, "its VIP is "+found.VipAddress+", declared "+l.VIP.String()
	case status != "ACTIVE":
		state.Phase, state.Detail = graph.Pending, status
	default:
		if l.tree, err = l.readTree(ctx); err != nil {
			return graph.State{}, err
		}
		if lacks := l.lacks(); lacks != "" {
			state.Phase, state.Detail = graph.Drifted, lacks
		}
	}
	return state, nil
}

func (l *LoadBalancer) readTree(ctx context.Context) (*tree, error) {
	client, err := l.s.Cloud.LoadBalancer()
	if err != nil {
		return nil, err
	}
	var body struct {
		Statuses struct {
			LoadBalancer *tree `json:"loadbalancer"`
		}
	}
	if _, err := client.Get(ctx, client.ServiceURL("lbaas", "loadbalancers", l.id, "status"), &body, nil); err != nil {
		return nil, openstack.Wrap(err, "reading load balancer %s", l.name)
	}
	return body.Statuses.LoadBalancer, nil
}

// pool is the listener's pool, or one that a crash left without its listener.
func (t *tree) pool() *poolTree {
	if len(t.Listeners) > 0 && len(t.Listeners[0].Pools) > 0 {
		return &t.Listeners[0].Pools[0]
	}
	if len(t.Pools) > 0 {
		return &t.Pools[0]
	}
	return nil
}

// lacks says what is missing or different, or "".
func (l *LoadBalancer) lacks() string {
	switch pool := l.tree.pool(); {
	case len(l.tree.Listeners) == 0:
		return "has no listener"
	case pool == nil:
		return "has no pool"
	case pool.Monitor == nil:
		return "has no health monitor"
	case !slices.Equal(l.memberAddresses(), pool.addresses()):
		return fmt.Sprintf("members are %s, declared %s", strings.Join(pool.addresses(), " "), strings.Join(l.memberAddresses(), " "))
	}
	return ""
}

func (l *LoadBalancer) memberAddresses() []string {
	var all []string
	for _, m := range l.Members {
		all = append(all, fmt.Sprintf("%s:%d", m.address, l.MemberPort))
	}
	slices.Sort(all)
	return all
}

func (p *poolTree) addresses() []string {
	var all []string
	for _, m := range p.Members {
		all = append(all, fmt.Sprintf("%s:%d", m.Address, m.ProtocolPort))
	}
	slices.Sort(all)
	return all
}

// Apply implements [graph.Resource]. The whole tree goes in one call where the provider takes it; what is then missing, for
// whatever reason, is added piece by piece.
func (l *LoadBalancer) Apply(ctx context.Context) error {
	if l.found != nil && l.found.VipAddress != l.VIP.String() {
		return fixed(&l.Base, "the VIP of a load balancer")
	}
	if l.found != nil && l.found.ProvisioningStatus == "ERROR" {
		gone := l.id
		if err := l.s.deleteBalancer(ctx, gone, l.name); err != nil {
			return err
		}
		l.id, l.found = "", nil
		l.s.note(func(v *Inventory) {
			v.LoadBalancers = slices.DeleteFunc(slices.Clone(v.LoadBalancers), func(x loadbalancers.LoadBalancer) bool { return x.ID == gone })
		})
	}
	if l.id == "" {
		if err := l.create(ctx); err != nil {
			return openstack.Wrap(err, "creating load balancer %s", l.name)
		}
	}
	return l.complete(ctx)
}

func (l *LoadBalancer) create(ctx context.Context) error {
	provider, err := l.s.BalancerProvider(ctx, l.Provider)
	if err != nil {
		return err
	}
	bare := map[string]any{"vip_subnet_id": l.Subnet.id, "vip_address": l.VIP.String(), "provider": provider}
	whole := map[string]any{"listeners": []map[string]any{l.listener(l.poolBody(provider))}}
	for k, v := range bare {
		whole[k] = v
	}
	made, err := create[loadbalancers.LoadBalancer](ctx, l.s, balancerCollection, l.born(whole))
	if openstack.RefusesTree(err) {
		made, err = create[loadbalancers.LoadBalancer](ctx, l.s, balancerCollection, l.born(bare))
	}
	if err != nil {
		return err
	}
	l.id, l.found = made.ID, made
	return nil
}

func (l *LoadBalancer) listener(pool map[string]any) map[string]any {
	body := map[string]any{"name": l.name, "protocol": "TCP", "protocol_port": l.Port}
	if pool != nil {
		body["default_pool"] = pool
	}
	return body
}

func (l *LoadBalancer) poolBody(provider string) map[string]any {
	algorithm := "ROUND_ROBIN"
	if provider == "ovn" {
		algorithm = "SOURCE_IP_PORT" // the only one that OVN has
	}
	return map[string]any{"name": l.name, "protocol": "TCP", "lb_algorithm": algorithm, "members": l.memberBodies(), "healthmonitor": l.monitor()}
}

func (l *LoadBalancer) memberBodies() []map[string]any {
	bodies := []map[string]any{}
	for _, m := range l.Members {
		bodies = append(bodies, map[string]any{"name": m.name, "address": m.address.String(), "protocol_port": l.MemberPort, "subnet_id": m.Subnet.id})
	}
	return bodies
}

// monitor looks every 3 s. One answer brings a member in, since a first API server is waited for by everything else; 3 misses take it out.
func (l *LoadBalancer) monitor() map[string]any {
	return map[string]any{"name": l.name, "type": "TCP", "delay": 3, "timeout": 2, "max_retries": 1, "max_retries_down": 3}
}

// complete waits until the load balancer is ACTIVE and adds what it lacks, one change at a time: while one is being applied the tree
// is immutable (409). A change that does not come true however often it is asked for is an error.
func (l *LoadBalancer) complete(ctx context.Context) error {
	begin, asked, lacked := time.Now(), 0, ""
	var refusal error
	var progress progress
	return wait.For(ctx, "load balancer "+l.name+" to become ACTIVE", l.s.every(), func(ctx context.Context) (string, bool, error) {
		x, err := get[loadbalancers.LoadBalancer](ctx, l.s.Cloud, balancerCollection, l.id)
		switch {
		case openstack.IsNotFound(err) && time.Since(begin) < consistency:
			return "not listed yet", false, nil
		case err != nil:
			return "", false, openstack.Wrap(err, "looking at it")
		case x.ProvisioningStatus == "ERROR":
			return "", false, errors.New("its provider put it into ERROR; run the command again to have it replaced")
		case x.ProvisioningStatus != "ACTIVE":
			return x.ProvisioningStatus, false, progress.see(x, 1)
		}
		l.found = x
		if l.tree, err = l.readTree(ctx); err != nil {
			return "", false, err
		}
		lacks := l.lacks()
		if lacks == "" {
			l.s.note(func(v *Inventory) {
				v.LoadBalancers = put(v.LoadBalancers, *x, func(x loadbalancers.LoadBalancer) string { return x.ID })
			})
			return "", true, nil
		}
		if lacks != lacked {
			asked, lacked = 0, lacks
		}
		if asked++; asked > tries {
			return "", false, openstack.Wrap(cmp.Or(refusal, errUnchanged), "it %s", lacks)
		}
		if refusal = l.addNext(ctx); refusal != nil && !openstack.IsImmutable(refusal) && !openstack.IsAmbiguous(refusal) {
			return "", false, openstack.Wrap(refusal, "it %s", lacks)
		}
		return "it " + lacks, false, nil
	})
}

var errUnchanged = errors.New("its provider accepts the change and does not make it")

// addNext makes the first change that lacks asks for.
func (l *LoadBalancer) addNext(ctx context.Context) error {
	send := func(method, path, one string, body map[string]any) error {
		return call(ctx, l.s.Cloud, octavia(path, one, ""), method, "", map[string]any{one: body})
	}
	pool := l.tree.pool()
	switch {
	case len(l.tree.Listeners) == 0:
		body := l.listener(nil)
		if body["loadbalancer_id"] = l.id; pool != nil {
			body["default_pool_id"] = pool.ID
		}
		return send(http.MethodPost, "listeners", "listener", body)
	case pool == nil:
		body := l.poolBody(l.found.Provider)
		delete(body, "members")
		delete(body, "healthmonitor")
		body["listener_id"] = l.tree.Listeners[0].ID
		return send(http.MethodPost, "pools", "pool", body)
	case pool.Monitor == nil:
		body := l.monitor()
		body["pool_id"] = pool.ID
		return send(http.MethodPost, "healthmonitors", "healthmonitor", body)
	}
	c := octavia("pools/"+pool.ID+"/members", "", "")
	return call(ctx, l.s.Cloud, c, http.MethodPut, "", map[string]any{"members": l.memberBodies()})
}

// BalancerProvider picks the Octavia provider: the one asked for, else ovn, else amphora, else the first there is.
func (s *Session) BalancerProvider(ctx context.Context, wanted string) (string, error) {
	return s.lookups.once(ctx, "load balancer provider "+wanted, func(ctx context.Context) (string, error) {
		c := octavia("providers", "provider", "providers")
		all, err := list[providers.Provider](ctx, s.Cloud, c, nil)
		if err != nil {
			return "", err
		}
		names := make([]string, len(all))
		for i, p := range all {
			names[i] = p.Name
		}
		if wanted == "" {
			for _, name := range append([]string{"ovn", "amphora"}, names...) {
				if slices.Contains(names, name) {
					return name, nil
				}
			}
		}
		return choose("load balancer provider", wanted, names, func(n string) (string, string) { return n, n })
	})
}

// BalancerVersion is the minor number of the newest version of Octavia's API (2.N), or 0 if the cloud does not tell.
func (s *Session) BalancerVersion(ctx context.Context) int {
	client, err := s.Cloud.LoadBalancer()
	if err != nil {
		return 0
	}
	root, _, _ := strings.Cut(client.Endpoint, "/v2")
	var doc struct{ Versions []struct{ ID string } }
	if _, err := client.Get(ctx, strings.TrimSuffix(root, "/")+"/", &doc, nil); err != nil {
		return 0
	}
	newest := 0
	for _, v := range doc.Versions {
		minor, err := strconv.Atoi(strings.TrimPrefix(v.ID, "v2."))
		if err == nil {
			newest = max(newest, minor)
		}
	}
	return newest
}

// deletions is how often a load balancer is deleted whose deletion ends in ERROR: a provider that is short of time gives up on one, and does
// it the next time.
const deletions = 3

// deleteBalancer deletes a load balancer with everything in it and waits until it is gone. A floating IP on its VIP stays and
// has to be released before.
func (s *Session) deleteBalancer(ctx context.Context, id, name string) error {
	asked, pending, times := false, false, 0
	var progress progress
	return wait.For(ctx, "load balancer "+name+" to be gone", s.every()/2, func(ctx context.Context) (string, bool, error) {
		if !asked && !pending {
			// PENDING_*: Octavia takes the call later, or is at it already.
			err := remove(ctx, s.Cloud, balancerCollection, "/"+id+"?cascade=true")
			if asked = err == nil; err != nil && !openstack.IsImmutable(err) {
				return "", false, openstack.Wrap(err, "deleting load balancer %s", name)
			}
		}
		x, err := get[loadbalancers.LoadBalancer](ctx, s.Cloud, balancerCollection, id)
		switch {
		case openstack.IsNotFound(err):
			return "", true, nil
		case err != nil:
			return "", false, err
		case x.ProvisioningStatus == "ERROR" && asked:
			if times++; times == deletions {
				return "", false, fmt.Errorf("deleting it ended in ERROR, %d times", times)
			}
			asked = false
		default:
			asked = asked || x.ProvisioningStatus == "PENDING_DELETE"
		}
		pending = strings.HasPrefix(x.ProvisioningStatus, "PENDING_")
		return x.ProvisioningStatus, x.ProvisioningStatus == "DELETED", progress.see(x, 0.5)
	})
}

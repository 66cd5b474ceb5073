package provision

import (
	"context"
	"net/url"
	"slices"
	"sync"

	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"
	"golang.org/x/sync/errgroup"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
)

// Listener is where a load balancer can be reached, and what is behind it.
type Listener struct {
	ID, Name       string
	Protocol       string // "" when the listener is not in a project of ours
	Port           int    // 0 likewise
	Status, Health string // provisioning and operating status
	Members        []Member
}

// Member is one address that a listener leads to.
type Member struct {
	ID, Name, Address string
	Port              int
	Status, Health    string
}

// looks is how many load balancers are asked for at once.
const looks = 8

// Listeners looks into load balancers: one list, and one read for each of them. One that is gone by then has none.
func (s *Session) Listeners(ctx context.Context, balancers []string) (map[string][]Listener, error) {
	if len(balancers) == 0 {
		return nil, nil
	}
	type row struct {
		ID       string
		Protocol string
		Port     int `json:"protocol_port"`
	}
	all, err := list[row](ctx, s.Cloud, octavia("listeners", "listener", "listeners"), url.Values{"project_id": {s.Cloud.ProjectID()}})
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	found := map[string][]Listener{}
	g, each := errgroup.WithContext(ctx)
	g.SetLimit(looks)
	for _, id := range balancers {
		g.Go(func() error {
			in, err := s.listenersOf(each, id)
			if openstack.IsNotFound(err) {
				return nil
			}
			if err != nil {
				return openstack.Wrap(err, "looking into load balancer %s", id)
			}
			for i := range in {
				if at := slices.IndexFunc(all, func(r row) bool { return r.ID == in[i].ID }); at >= 0 {
					in[i].Protocol, in[i].Port = all[at].Protocol, all[at].Port
				}
			}
			mu.Lock()
			defer mu.Unlock()
			found[id] = in
			return nil
		})
	}
	return found, g.Wait()
}

// listenersOf reads the tree of one load balancer, which tells all but what the listeners listen to.
func (s *Session) listenersOf(ctx context.Context, id string) ([]Listener, error) {
	client, err := s.Cloud.LoadBalancer()
	if err != nil {
		return nil, err
	}
	type part struct {
		ID, Name string
		Status   string `json:"provisioning_status"`
		Health   string `json:"operating_status"`
	}
	var body struct {
		Statuses struct {
			LoadBalancer struct {
				Listeners []struct {
					part
					Pools []struct {
						Members []struct {
							part
							Address string
							Port    int `json:"protocol_port"`
						}
					}
				}
			} `json:"loadbalancer"`
		}
	}
	if _, err := client.Get(ctx, client.ServiceURL("lbaas", "loadbalancers", id, "status"), &body, nil); err != nil {
		return nil, err
	}
	var all []Listener
	for _, l := range body.Statuses.LoadBalancer.Listeners {
		x := Listener{ID: l.ID, Name: l.Name, Status: l.Status, Health: l.Health}
		for _, p := range l.Pools {
			for _, m := range p.Members {
				x.Members = append(x.Members, Member{m.ID, m.Name, m.Address, m.Port, m.Status, m.Health})
			}
		}
		all = append(all, x)
	}
	return all, nil
}

// NetworkName is what a network is called that need not be ours, or "" when the project does not see it.
func (s *Session) NetworkName(ctx context.Context, id string) (string, error) {
	n, err := get[networks.Network](ctx, s.Cloud, networkCollection, id)
	if openstack.IsNotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", openstack.Wrap(err, "looking at network %s", id)
	}
	return n.Name, nil
}

// Interfaces are the addresses of a router on the networks of the stack, by the network's id.
func (v *Inventory) Interfaces(router string) map[string]string {
	at := map[string]string{}
	for _, p := range v.Ports {
		if isInterface(p) && p.DeviceID == router && v.onOurs(p.NetworkID) && len(p.FixedIPs) > 0 {
			at[p.NetworkID] = p.FixedIPs[0].IPAddress
		}
	}
	return at
}

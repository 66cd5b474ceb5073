package stack

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/kuryrctl/kuryrctl/provision"
)

// RouterView is the stack's router: where it leads out, and its address on each of the stack's networks.
type RouterView struct {
	Name       string          `json:"name"`
	ID         string          `json:"id"`
	Status     string          `json:"status"`
	External   string          `json:"external_network,omitempty"` // its name; "" when the project does not see it
	ExternalID string          `json:"external_network_id,omitempty"`
	Addresses  []string        `json:"addresses"` // on the external network
	Interfaces []InterfaceView `json:"interfaces"`
}

// InterfaceView is the router's address on a network.
type InterfaceView struct {
	Network string `json:"network"`
	Address string `json:"address"`
}

// SubportView is a port on a node's trunk. Pod is NAMESPACE/POD, as the port is called in Neutron, and "" of one that no pod has: the name
// follows the pod by a few seconds.
type SubportView struct {
	Pod       string   `json:"pod,omitempty"`
	Name      string   `json:"name"`
	Addresses []string `json:"addresses"`
	VLAN      int      `json:"vlan"`
	MAC       string   `json:"mac"`
	Status    string   `json:"status"` // Neutron's; "" when the port was not listed
	PortID    string   `json:"port_id"`
}

// ListenerView is where a load balancer can be reached.
type ListenerView struct {
	Name     string       `json:"name"`
	ID       string       `json:"id"`
	Protocol string       `json:"protocol,omitempty"`
	Port     int          `json:"port,omitempty"`
	Status   string       `json:"provisioning_status"`
	Health   string       `json:"operating_status"`
	Members  []MemberView `json:"members"`
}

// MemberView is an address behind a listener. LeadsTo is the node or the pod that has it, if it is one of the stack's.
type MemberView struct {
	Name    string `json:"name,omitempty"`
	Address string `json:"address"`
	Port    int    `json:"port"`
	Status  string `json:"provisioning_status"`
	Health  string `json:"operating_status"`
	LeadsTo string `json:"leads_to,omitempty"`
}

// Describe is [Stack.Show] in depth: also the router's addresses, the ports on trunks, what is behind load balancers, and what floating IPs
// lead to. It makes a call more for each load balancer, and two besides.
func (s *Stack) Describe(ctx context.Context) (*View, error) {
	v, err := s.Show(ctx)
	if err != nil {
		return nil, err
	}
	i := s.session.Inventory()
	v.Gateway = gateway(i)
	for at := range v.Nodes {
		n := &v.Nodes[at]
		n.TrunkStatus, n.TrunkPorts = s.trunk(i, n.TrunkID)
	}
	balancers := make([]string, len(v.LoadBalancers))
	for at, l := range v.LoadBalancers {
		balancers[at] = l.ID
	}
	var inside map[string][]provision.Listener
	g, each := errgroup.WithContext(ctx)
	g.Go(func() (err error) { inside, err = s.session.Listeners(each, balancers); return err })
	if v.Gateway != nil && v.Gateway.ExternalID != "" {
		g.Go(func() (err error) {
			v.Gateway.External, err = s.session.NetworkName(each, v.Gateway.ExternalID)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	has := addresses(v)
	for at := range v.LoadBalancers {
		l := &v.LoadBalancers[at]
		l.Listeners = listeners(inside[l.ID], has)
	}
	lead(i, v)
	return v, nil
}

func gateway(i *provision.Inventory) *RouterView {
	if len(i.Routers) == 0 {
		return nil
	}
	r := i.Routers[len(i.Routers)-1] // the one that View.Router tells
	v := &RouterView{Name: r.Name, ID: r.ID, Status: r.Status, ExternalID: r.GatewayInfo.NetworkID, Addresses: []string{}, Interfaces: []InterfaceView{}}
	for _, ip := range r.GatewayInfo.ExternalFixedIPs {
		v.Addresses = append(v.Addresses, ip.IPAddress)
	}
	at := i.Interfaces(r.ID)
	for _, n := range i.Networks {
		if address, ok := at[n.ID]; ok {
			v.Interfaces = append(v.Interfaces, InterfaceView{n.Name, address})
		}
	}
	slices.SortFunc(v.Interfaces, func(a, b InterfaceView) int { return cmp.Compare(a.Network, b.Network) })
	return v
}

// trunk lists the subports of a trunk, those of pods first.
func (s *Stack) trunk(i *provision.Inventory, id string) (status string, all []SubportView) {
	byID := make(map[string]int, len(i.Ports))
	for at, p := range i.Ports {
		byID[p.ID] = at
	}
	for _, t := range i.Trunks {
		if t.ID != id || id == "" {
			continue
		}
		status = t.Status
		for _, sub := range t.Subports {
			x := SubportView{VLAN: sub.SegmentationID, PortID: sub.PortID, Addresses: []string{}}
			if at, ok := byID[sub.PortID]; ok {
				p := i.Ports[at]
				x.Name, x.MAC, x.Status = p.Name, p.MACAddress, p.Status
				if !strings.HasPrefix(p.Name, s.session.Name("pod-")) && strings.Contains(p.Name, "/") {
					x.Pod = p.Name
				}
				for _, ip := range p.FixedIPs {
					x.Addresses = append(x.Addresses, ip.IPAddress)
				}
			}
			all = append(all, x)
		}
	}
	slices.SortFunc(all, func(a, b SubportView) int {
		if (a.Pod == "") != (b.Pod == "") {
			return -cmp.Compare(a.Pod, b.Pod)
		}
		return cmp.Or(cmp.Compare(a.Pod, b.Pod), cmp.Compare(a.VLAN, b.VLAN))
	})
	return status, all
}

// addresses says whose an address of the stack is: a node's, or a pod's.
func addresses(v *View) map[string]string {
	has := map[string]string{}
	for _, n := range v.Nodes {
		has[n.Address] = n.Name
		for _, p := range n.TrunkPorts {
			for _, address := range p.Addresses {
				has[address] = cmp.Or(p.Pod, p.Name)
			}
		}
	}
	delete(has, "")
	return has
}

func listeners(in []provision.Listener, has map[string]string) []ListenerView {
	all := []ListenerView{}
	for _, l := range in {
		x := ListenerView{l.Name, l.ID, l.Protocol, l.Port, l.Status, l.Health, []MemberView{}}
		for _, m := range l.Members {
			x.Members = append(x.Members, MemberView{m.Name, m.Address, m.Port, m.Status, m.Health, has[m.Address]})
		}
		slices.SortFunc(x.Members, func(a, b MemberView) int {
			return cmp.Or(cmp.Compare(a.LeadsTo, b.LeadsTo), cmp.Compare(a.Address, b.Address), cmp.Compare(a.Port, b.Port))
		})
		all = append(all, x)
	}
	slices.SortFunc(all, func(a, b ListenerView) int {
		return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Name, b.Name))
	})
	return all
}

// lead says what floating IPs lead to, by the ports that they are on.
func lead(i *provision.Inventory, v *View) {
	owner := map[string]string{}
	for _, n := range v.Nodes {
		owner[n.PortID] = n.Name
		for _, p := range n.TrunkPorts {
			owner[p.PortID] = cmp.Or(p.Pod, p.Name)
		}
	}
	for _, l := range i.LoadBalancers {
		owner[l.VipPortID] = l.Name
	}
	delete(owner, "")
	for _, f := range i.FloatingIPs {
		for at := range v.FloatingIPs {
			if x := &v.FloatingIPs[at]; x.ID == f.ID {
				x.Status, x.FixedIP, x.LeadsTo = f.Status, f.FixedIP, owner[f.PortID]
			}
		}
	}
}

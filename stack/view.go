package stack

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/provision"
)

// View is everything about a stack as it is in the cloud, whoever declared it. Its JSON is stable. What only [Stack.Describe] tells is marked.
type View struct {
	Name           string             `json:"name"`
	UUID           string             `json:"uuid"`
	Cloud          string             `json:"cloud"`
	Project        string             `json:"project"`
	Nodes          []NodeView         `json:"nodes"`
	Networks       []NetworkView      `json:"networks"`
	Router         string             `json:"router_id,omitempty"`
	Gateway        *RouterView        `json:"router,omitempty"` // Describe
	SecurityGroups []GroupView        `json:"security_groups"`
	LoadBalancers  []LoadBalancerView `json:"load_balancers"`
	FloatingIPs    []FloatingIPView   `json:"floating_ips"`
}

// NodeView is a server, or the port that waits for one.
type NodeView struct {
	Name       string `json:"name"`
	Role       string `json:"role"`
	Status     string `json:"status"` // Nova's; "" when there is no server
	Address    string `json:"address"`
	FloatingIP string `json:"floating_ip,omitempty"`
	Login      string `json:"login,omitempty"`
	Subports   int    `json:"subports"`
	ServerID   string `json:"server_id,omitempty"`
	PortID     string `json:"port_id"`
	TrunkID    string `json:"trunk_id,omitempty"`

	TrunkStatus string        `json:"trunk_status,omitempty"` // Describe
	TrunkPorts  []SubportView `json:"trunk_ports,omitempty"`  // Describe; those of pods first
}

// NetworkView is a network with its subnet.
type NetworkView struct {
	Name     string `json:"name"`
	ID       string `json:"id"`
	SubnetID string `json:"subnet_id,omitempty"`
	CIDR     string `json:"cidr,omitempty"`
	Gateway  string `json:"gateway,omitempty"`
}

// GroupView is a security group.
type GroupView struct {
	Name string `json:"name"`
	ID   string `json:"id"`
}

// LoadBalancerView is an Octavia load balancer.
type LoadBalancerView struct {
	Name     string `json:"name"`
	ID       string `json:"id"`
	VIP      string `json:"vip"`
	Provider string `json:"provider"`
	Status   string `json:"provisioning_status"`
	Health   string `json:"operating_status"`

	Listeners []ListenerView `json:"listeners,omitempty"` // Describe
}

// FloatingIPView is a public address and the port it leads to.
type FloatingIPView struct {
	Address string `json:"address"`
	ID      string `json:"id"`
	PortID  string `json:"port_id,omitempty"`

	Status  string `json:"status,omitempty"`        // Describe
	FixedIP string `json:"fixed_address,omitempty"` // Describe; the address it stands for
	LeadsTo string `json:"leads_to,omitempty"`      // Describe; name of the node, pod or load balancer, if it is one of the stack's
}

// Show looks at the cloud. [provision.NotThere] says that there is no such stack.
func (s *Stack) Show(ctx context.Context) (*View, error) {
	if _, err := s.session.Discover(ctx); err != nil {
		return nil, err
	}
	if len(s.session.Owned()) == 0 {
		return nil, s.notThere(ctx)
	}
	return s.view(), nil
}

// notThere names the stacks that there are.
func (s *Stack) notThere(ctx context.Context) error {
	names, err := provision.Stacks(ctx, s.session.Cloud)
	if err != nil {
		return err
	}
	there := "there are none"
	if len(names) > 0 {
		there = "there are: " + strings.Join(names, ", ")
	}
	return &provision.NotThere{Kind: "stack", Name: s.Name, There: there}
}

// List names the stacks of a project.
func List(ctx context.Context, cloud *openstack.Cloud) ([]string, error) {
	return provision.Stacks(ctx, cloud)
}

func (s *Stack) view() *View {
	i := s.session.Inventory()
	v := &View{Name: s.Name, UUID: i.UUID(), Cloud: s.session.Cloud.Name, Project: s.session.Cloud.ProjectName()}
	v.Nodes = s.nodes(i)
	for _, n := range i.Networks {
		x := NetworkView{Name: n.Name, ID: n.ID}
		for _, sub := range i.Subnets {
			if sub.NetworkID == n.ID {
				x.SubnetID, x.CIDR, x.Gateway = sub.ID, sub.CIDR, sub.GatewayIP
			}
		}
		v.Networks = append(v.Networks, x)
	}
	for _, r := range i.Routers {
		v.Router = r.ID
	}
	for _, g := range i.Groups {
		v.SecurityGroups = append(v.SecurityGroups, GroupView{g.Name, g.ID})
	}
	for _, l := range i.LoadBalancers {
		v.LoadBalancers = append(v.LoadBalancers, LoadBalancerView{Name: l.Name, ID: l.ID, VIP: l.VipAddress, Provider: l.Provider, Status: l.ProvisioningStatus, Health: l.OperatingStatus})
	}
	for _, f := range i.FloatingIPs {
		v.FloatingIPs = append(v.FloatingIPs, FloatingIPView{Address: f.FloatingIP, ID: f.ID, PortID: f.PortID})
	}
	slices.SortFunc(v.Networks, func(a, b NetworkView) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(v.SecurityGroups, func(a, b GroupView) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(v.LoadBalancers, func(a, b LoadBalancerView) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(v.FloatingIPs, func(a, b FloatingIPView) int { return cmp.Compare(a.Address, b.Address) })
	return v
}

// nodes are recognised by their ports, which exist before and after their servers.
func (s *Stack) nodes(i *provision.Inventory) []NodeView {
	var all []NodeView
	for _, p := range i.Ports {
		name, ok := strings.CutPrefix(p.Name, s.Name+"/")
		role, number, isNode := strings.Cut(name, "-")
		if !ok || !isNode || p.NetworkID != i.UUID() || p.Description != openstack.Mark(s.Name) || role != string(Master) && role != string(Worker) || strings.Trim(number, "0123456789") != "" {
			continue
		}
		n := NodeView{Name: name, Role: role, PortID: p.ID}
		if len(p.FixedIPs) > 0 {
			n.Address = p.FixedIPs[0].IPAddress
		}
		for _, v := range i.Servers {
			if v.Name == p.Name {
				n.ServerID, n.Status, n.Login = v.ID, v.Status, v.Metadata[provision.LoginMetadata]
			}
		}
		for _, t := range i.Trunks {
			if t.PortID == p.ID {
				n.TrunkID, n.Subports = t.ID, len(t.Subports)
			}
		}
		for _, f := range i.FloatingIPs {
			if f.PortID == p.ID {
				n.FloatingIP = f.FloatingIP
			}
		}
		all = append(all, n)
	}
	slices.SortFunc(all, func(a, b NodeView) int {
		return cmp.Or(cmp.Compare(a.Role, b.Role), cmp.Compare(len(a.Name), len(b.Name)), cmp.Compare(a.Name, b.Name))
	})
	return all
}

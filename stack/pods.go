package stack

import (
	"cmp"
	"context"
	"slices"
)

// PodView is a subport on a worker's trunk and the pod that has it.
type PodView struct {
	Namespace string   `json:"namespace,omitempty"`
	Pod       string   `json:"pod,omitempty"`
	Node      string   `json:"node"`
	Addresses []string `json:"addresses"` // in CIDR form
	VLAN      int      `json:"vlan"`
	MAC       string   `json:"mac"`
	Port      string   `json:"port_id"`
	State     string   `json:"state"`       // used, free, retiring
	Status    string   `json:"port_status"` // Neutron's; "" of a port that is not there
}

// PodFilter says which subports are of interest. Empty is any.
type PodFilter struct {
	Node      string
	Namespace string // of the pod; a subport without a pod is in none
}

// Pods lists the subports of workers by node, those of pods first. A node that the stack does not have is an error.
func (s *Stack) Pods(ctx context.Context, filter PodFilter) ([]PodView, error) {
	v, err := s.Show(ctx)
	if err != nil {
		return nil, err
	}
	if filter.Node != "" && !slices.ContainsFunc(v.Nodes, func(n NodeView) bool { return n.Name == filter.Node }) {
		return nil, noNode(v, filter.Node)
	}
	status := map[string]string{}
	for _, p := range s.session.Inventory().Ports {
		status[p.ID] = p.Status
	}
	api, err := s.attach(v).API()
	if err != nil {
		return nil, err
	}
	pools, err := api.Pools(ctx)
	if err != nil {
		return nil, err
	}
	all := []PodView{}
	for _, pool := range pools {
		for _, sub := range pool.Spec.Subports {
			p := PodView{Node: pool.Name, VLAN: sub.VLAN, MAC: sub.MAC, Port: sub.Port, State: "free", Status: status[sub.Port]}
			if sub.Retiring {
				p.State = "retiring"
			}
			for _, ip := range sub.IPs {
				p.Addresses = append(p.Addresses, ip.Address)
			}
			for _, a := range pool.Status.Allocations {
				if a.Port == sub.Port {
					p.Namespace, p.Pod, p.State = a.Namespace, a.Pod, "used"
				}
			}
			if (filter.Node == "" || p.Node == filter.Node) && (filter.Namespace == "" || p.Namespace == filter.Namespace) {
				all = append(all, p)
			}
		}
	}
	slices.SortFunc(all, func(a, b PodView) int {
		return cmp.Or(-cmp.Compare(a.State, b.State), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Pod, b.Pod), cmp.Compare(a.VLAN, b.VLAN))
	})
	return all, nil
}

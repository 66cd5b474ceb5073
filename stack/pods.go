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
	State     string   `json:"state"` // used, free, retiring
}

// Pods lists the subports of all workers by node, those of pods first.
func (s *Stack) Pods(ctx context.Context) ([]PodView, error) {
	v, err := s.Show(ctx)
	if err != nil {
		return nil, err
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
			p := PodView{Node: pool.Name, VLAN: sub.VLAN, MAC: sub.MAC, Port: sub.Port, State: "free"}
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
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b PodView) int {
		return cmp.Or(-cmp.Compare(a.State, b.State), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Pod, b.Pod), cmp.Compare(a.VLAN, b.VLAN))
	})
	return all, nil
}

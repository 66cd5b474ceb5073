package provision

import (
	"context"
	"net/url"
	"strings"
	"time"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
)

// PodPort is a port that was made for a pod, or whatever else is a subport of one of the stack's trunks.
type PodPort struct {
	ID        string
	Name      string // "" of what is not the stack's
	Status    string // ACTIVE, DOWN, ...; "" of what is not the stack's
	Addresses []string
	Created   time.Time // zero of what is not the stack's, or where Neutron does not tell
	Node      string    // on whose trunk it is, "" when on none
	VLAN      int       // there
	Marked    bool      // it is the stack's, and on its pod network
}

// PodPorts reads the ports of pods as they are now: one list of trunks, then one of ports, so that what was made in between has no trunk.
func (s *Session) PodPorts(ctx context.Context) ([]PodPort, error) {
	marked := url.Values{"description": {s.mark()}, "project_id": {s.Cloud.ProjectID()}}
	trunks, err := list[struct {
		Name        string
		Description string
		Subports    []struct {
			Port string `json:"port_id"`
			VLAN int    `json:"segmentation_id"`
		} `json:"sub_ports"`
	}](ctx, s.Cloud, trunkCollection, marked)
	if err != nil {
		return nil, err
	}
	marked["fields"] = []string{"id", "name", "description", "project_id", "network_id", "status", "created_at", "fixed_ips"}
	all, err := list[struct {
		ID          string
		Name        string
		Description string
		Status      string
		Project     string    `json:"project_id"`
		Network     string    `json:"network_id"`
		Created     time.Time `json:"created_at"`
		IPs         []struct {
			Address string `json:"ip_address"`
		} `json:"fixed_ips"`
	}](ctx, s.Cloud, portCollection, marked)
	if err != nil {
		return nil, err
	}
	on := map[string]PodPort{}
	for _, t := range trunks {
		node, ours := strings.CutPrefix(t.Name, s.Stack+"/")
		if !ours || t.Description != s.mark() {
			continue
		}
		for _, sub := range t.Subports {
			on[sub.Port] = PodPort{ID: sub.Port, Node: node, VLAN: sub.VLAN}
		}
	}
	pods := ""
	for _, n := range s.Inventory().Networks {
		if n.Name == s.Name("pod_net") {
			pods = n.ID
		}
	}
	var found []PodPort
	for _, x := range all {
		if x.Description != s.mark() || x.Project != s.Cloud.ProjectID() || x.Network != pods {
			continue
		}
		p := on[x.ID]
		p.ID, p.Name, p.Status, p.Created, p.Marked = x.ID, x.Name, x.Status, x.Created, true
		for _, ip := range x.IPs {
			p.Addresses = append(p.Addresses, ip.Address)
		}
		delete(on, x.ID)
		found = append(found, p)
	}
	for _, p := range s.Inventory().Ports { // what a drop test has left is no pod's, and no stranger's
		if p.Description == openstack.DropTestMark(s.Stack) {
			delete(on, p.ID)
		}
	}
	for _, p := range on {
		found = append(found, p)
	}
	return found, nil
}

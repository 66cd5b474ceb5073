package stack_test

import (
	"testing"

	"github.com/kuryrctl/kuryrctl/internal/labtest"
	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/stack"
)

// What runs inside a stack hangs pods' ports on its trunks and makes load balancers for services. They carry the stack's mark, and
// go with it, although nothing on this machine knows of them.
func TestWhatOthersMarkedAsOursGoesWithTheStack(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	v := mustUp(t, lab, "demo", servers())
	mark := openstack.Mark("demo")
	var subport struct{ Port struct{ ID string } }
	neutron(t, lab, "POST", "ports", map[string]any{"port": map[string]any{"network_id": v.Networks[0].ID, "name": "demo/pod", "description": mark}}, &subport)
	trunk := v.Nodes[len(v.Nodes)-1].TrunkID
	neutron(t, lab, "PUT", "trunks/"+trunk+"/add_subports", map[string]any{"sub_ports": []map[string]any{
		{"port_id": subport.Port.ID, "segmentation_type": "vlan", "segmentation_id": 101}}}, nil)
	if p, err := open(t, lab, "demo").Plan(t.Context(), servers()); err != nil || p.HasChanges() {
		t.Errorf("the port of a pod is a change of the plan: %v, %+v", err, p)
	}
	vip := balancer(t, lab, map[string]any{"name": "demo/web", "description": mark, "vip_subnet_id": v.Networks[1].SubnetID, "provider": "ovn"})
	lab.Settle()
	neutron(t, lab, "POST", "floatingips", map[string]any{"floatingip": map[string]any{
		"floating_network_id": id(t, lab, "networks", "public"), "port_id": vip, "description": mark}}, nil)

	r, err := open(t, lab, "demo").Removal(t.Context())
	if err != nil || len(r.Foreign) > 0 {
		t.Fatalf("%v, foreign %+v", err, r.Foreign)
	}
	mustDown(t, lab, "demo")
	empty(t, lab)
}

// A load balancer that somebody else put on our networks, and its VIP's port with it, is theirs.
func TestAForeignLoadBalancerIsNamed(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	v := mustUp(t, lab, "demo", servers())
	balancer(t, lab, map[string]any{"name": "theirs", "vip_subnet_id": v.Networks[1].SubnetID, "provider": "ovn"})
	lab.Settle()
	r, err := open(t, lab, "demo").Removal(t.Context())
	if err != nil || len(r.Foreign) != 1 || r.Foreign[0].Name != "theirs" {
		t.Fatalf("%v, foreign %+v", err, r.Foreign)
	}
}

func TestServicesOfTheClusterAreNoDriftAndGoWithTheStack(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	v := mustUp(t, lab, "demo", servers())
	vip := balancer(t, lab, map[string]any{"name": "demo/svc/default/web/0001", "description": openstack.Mark("demo"), "vip_address": "172.30.0.20",
		"vip_subnet_id": v.Networks[1].SubnetID, "provider": "ovn", "listeners": []any{map[string]any{"name": "web", "protocol": "TCP", "protocol_port": 80}}})
	lab.Settle()
	for _, port := range []any{vip, nil} { // the second lost its way when its load balancer was made anew
		neutron(t, lab, "POST", "floatingips", map[string]any{"floatingip": map[string]any{"floating_network_id": id(t, lab, "networks", "public"), "port_id": port,
			"description": openstack.ServiceMark("demo", "default/web/0001")}}, nil)
	}
	p, err := open(t, lab, "demo").Plan(t.Context(), servers())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range p.Changes {
		if c.Action != stack.Keep {
			t.Errorf("the plan has %+v", c)
		}
	}
	r, err := open(t, lab, "demo").Removal(t.Context())
	if err != nil || len(r.Foreign) != 0 {
		t.Fatalf("%v, foreign %+v", err, r.Foreign)
	}
	mustDown(t, lab, "demo")
	empty(t, lab)
}

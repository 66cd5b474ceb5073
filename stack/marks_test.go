package stack_test

import (
	"testing"

	"github.com/gophercloud/gophercloud/v2"

	"github.com/kuryrctl/kuryrctl/internal/labtest"
	"github.com/kuryrctl/kuryrctl/internal/openstack"
)

// What runs inside a stack hangs pods' ports on its trunks and makes load balancers for services. They carry the stack's mark, and
// go with it, although nothing on this machine knows of them.
func TestWhatOthersMarkedAsOursGoesWithTheStack(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	v := mustUp(t, lab, "demo", servers())
	cloud := connect(t, lab)
	network, err := cloud.Network()
	if err != nil {
		t.Fatal(err)
	}
	balancer, err := cloud.LoadBalancer()
	if err != nil {
		t.Fatal(err)
	}
	mark := openstack.Mark("demo")
	post := func(client *gophercloud.ServiceClient, one string, body map[string]any, path ...string) map[string]any {
		t.Helper()
		var made map[string]map[string]any
		opts := &gophercloud.RequestOpts{OkCodes: []int{200, 201, 202}}
		if _, err := client.Post(t.Context(), client.ServiceURL(path...), map[string]any{one: body}, &made, opts); err != nil {
			t.Fatal(err)
		}
		return made[one]
	}
	pods, services := v.Networks[0], v.Networks[1]
	subport := post(network, "port", map[string]any{"network_id": pods.ID, "name": "demo/pod", "description": mark}, "ports")
	trunk := v.Nodes[len(v.Nodes)-1].TrunkID
	subports := map[string]any{"sub_ports": []map[string]any{{"port_id": subport["id"], "segmentation_type": "vlan", "segmentation_id": 101}}}
	if _, err := network.Put(t.Context(), network.ServiceURL("trunks", trunk, "add_subports"), subports, nil, &gophercloud.RequestOpts{OkCodes: []int{200}}); err != nil {
		t.Fatal(err)
	}
	if p, err := open(t, lab, "demo").Plan(t.Context(), servers()); err != nil || p.HasChanges() {
		t.Errorf("the port of a pod is a change of the plan: %v, %+v", err, p)
	}
	lb := post(balancer, "loadbalancer", map[string]any{"name": "demo/web", "description": mark, "vip_subnet_id": services.SubnetID, "provider": "ovn"}, "lbaas", "loadbalancers")
	lab.Settle()
	var external string
	if external, err = externalNetwork(t, network); err != nil {
		t.Fatal(err)
	}
	post(network, "floatingip", map[string]any{"floating_network_id": external, "port_id": lb["vip_port_id"], "description": mark}, "floatingips")

	r, err := open(t, lab, "demo").Removal(t.Context())
	if err != nil || len(r.Foreign) > 0 {
		t.Fatalf("%v, foreign %+v", err, r.Foreign)
	}
	mustDown(t, lab, "demo")
	empty(t, lab)
}

func externalNetwork(t *testing.T, network *gophercloud.ServiceClient) (string, error) {
	var all struct{ Networks []struct{ ID string } }
	_, err := network.Get(t.Context(), network.ServiceURL("networks")+"?router:external=true", &all, nil)
	if err != nil {
		return "", err
	}
	return all.Networks[0].ID, nil
}

// A load balancer that somebody else put on our networks, and its VIP's port with it, is theirs.
func TestAForeignLoadBalancerIsNamed(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	v := mustUp(t, lab, "demo", servers())
	balancer, err := connect(t, lab).LoadBalancer()
	if err != nil {
		t.Fatal(err)
	}
	body := map[string]any{"loadbalancer": map[string]any{"name": "theirs", "vip_subnet_id": v.Networks[1].SubnetID, "provider": "ovn"}}
	if _, err := balancer.Post(t.Context(), balancer.ServiceURL("lbaas", "loadbalancers"), body, nil, nil); err != nil {
		t.Fatal(err)
	}
	lab.Settle()
	r, err := open(t, lab, "demo").Removal(t.Context())
	if err != nil || len(r.Foreign) != 1 || r.Foreign[0].Name != "theirs" {
		t.Fatalf("%v, foreign %+v", err, r.Foreign)
	}
}

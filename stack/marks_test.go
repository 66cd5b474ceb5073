package stack_test

import (
	"testing"

	"github.com/gophercloud/gophercloud/v2"

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

func TestServicesOfTheClusterAreNoDriftAndGoWithTheStack(t *testing.T) {
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
	var made struct {
		LoadBalancer struct {
			VIPPort string `json:"vip_port_id"`
		} `json:"loadbalancer"`
	}
	body := map[string]any{"loadbalancer": map[string]any{"name": "demo/svc/default/web/0001", "description": openstack.Mark("demo"), "vip_address": "172.30.0.20",
		"vip_subnet_id": v.Networks[1].SubnetID, "provider": "ovn", "listeners": []any{map[string]any{"name": "web", "protocol": "TCP", "protocol_port": 80}}}}
	if _, err := balancer.Post(t.Context(), balancer.ServiceURL("lbaas", "loadbalancers"), body, &made, nil); err != nil {
		t.Fatal(err)
	}
	lab.Settle()
	var public struct{ Networks []struct{ ID string } }
	if _, err := network.Get(t.Context(), network.ServiceURL("networks")+"?name=public", &public, nil); err != nil {
		t.Fatal(err)
	}
	for _, port := range []any{made.LoadBalancer.VIPPort, nil} { // the second lost its way when its load balancer was made anew
		body = map[string]any{"floatingip": map[string]any{"floating_network_id": public.Networks[0].ID, "port_id": port,
			"description": openstack.ServiceMark("demo", "default/web/0001")}}
		if _, err := network.Post(t.Context(), network.ServiceURL("floatingips"), body, nil, nil); err != nil {
			t.Fatal(err)
		}
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

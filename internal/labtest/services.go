package labtest

import (
	"net/http"
	"testing"

	"github.com/gophercloud/gophercloud/v2"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
)

// Services is [Workers] with what a stack has where Services are concerned: the service network 172.30.0.0/16, the router that joins it,
// the pods and the VMs with the network public, and the API's load balancer.
func Services(t testing.TB, fake *openstacktest.Cloud, stack, provider string, workers ...string) *openstack.Cloud {
	t.Helper()
	cloud := Workers(t, fake, stack, workers...)
	network, err := cloud.Network()
	if err != nil {
		t.Fatal(err)
	}
	octavia, err := cloud.LoadBalancer()
	if err != nil {
		t.Fatal(err)
	}
	id := func(path, name string) string {
		t.Helper()
		var found map[string][]struct{ ID string }
		if _, err := network.Get(t.Context(), network.ServiceURL(path)+"?name="+name, &found, nil); err != nil || len(found[path]) != 1 {
			t.Fatalf("looking for %s: %v, %v", name, found, err)
		}
		return found[path][0].ID
	}
	make := func(client *gophercloud.ServiceClient, path, one string, body map[string]any) string {
		t.Helper()
		body["description"] = openstack.Mark(stack)
		var made map[string]struct{ ID string }
		resp, err := client.Post(t.Context(), client.ServiceURL(path), map[string]any{one: body}, &made, nil)
		if err != nil || resp.StatusCode != http.StatusCreated {
			t.Fatalf("making %v: %v", body, err)
		}
		return made[one].ID
	}
	service := make(network, "networks", "network", map[string]any{"name": stack + "/service_net"})
	subnet := make(network, "subnets", "subnet", map[string]any{"name": stack + "/service_subnet", "network_id": service, "cidr": "172.30.0.0/16", "ip_version": 4,
		"enable_dhcp": false, "gateway_ip": "172.30.255.254", "allocation_pools": []map[string]string{{"start": "172.30.128.1", "end": "172.30.255.253"}}})
	router := make(network, "routers", "router", map[string]any{"name": stack + "/router", "external_gateway_info": map[string]string{"network_id": id("networks", "public")}})
	for _, s := range []string{subnet, id("subnets", stack+"/pod_subnet"), id("subnets", stack+"/vm_subnet")} {
		opts := &gophercloud.RequestOpts{OkCodes: []int{http.StatusOK}}
		if _, err := network.Put(t.Context(), network.ServiceURL("routers", router, "add_router_interface"), map[string]string{"subnet_id": s}, nil, opts); err != nil {
			t.Fatal(err)
		}
	}
	make(octavia, "lbaas/loadbalancers", "loadbalancer", map[string]any{"name": stack + "/api-lb", "vip_subnet_id": subnet, "vip_address": "172.30.0.1", "provider": provider})
	fake.Settle()
	fake.ResetLog()
	return cloud
}

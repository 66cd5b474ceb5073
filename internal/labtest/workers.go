package labtest

import (
	"net/http"
	"testing"
	"time"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
)

// Workers makes in the fake cloud what a stack has where pods are concerned, without the rest: the pod network 10.10.0.0/16, the security
// group, and a trunk for each worker whose parent port is up. It returns a login.
func Workers(t testing.TB, fake *openstacktest.Cloud, stack string, names ...string) *openstack.Cloud {
	t.Helper()
	cloud, err := openstack.Connect(t.Context(), openstack.Options{Cloud: "fake", File: fake.CloudsYAML(), Backoff: time.Microsecond})
	if err != nil {
		t.Fatal(err)
	}
	network, err := cloud.Network()
	if err != nil {
		t.Fatal(err)
	}
	make := func(path, one string, body map[string]any) string {
		t.Helper()
		body["description"] = openstack.Mark(stack)
		var made map[string]struct{ ID string }
		resp, err := network.Post(t.Context(), network.ServiceURL(path), map[string]any{one: body}, &made, nil)
		if err != nil || resp.StatusCode != http.StatusCreated {
			t.Fatalf("making %v: %v", body, err)
		}
		return made[one].ID
	}
	vm := make("networks", "network", map[string]any{"name": stack + "/vm_net"})
	make("subnets", "subnet", map[string]any{"name": stack + "/vm_subnet", "network_id": vm, "cidr": "10.11.0.0/20", "ip_version": 4})
	pod := make("networks", "network", map[string]any{"name": stack + "/pod_net"})
	make("subnets", "subnet", map[string]any{"name": stack + "/pod_subnet", "network_id": pod, "cidr": "10.10.0.0/16", "ip_version": 4, "enable_dhcp": false})
	make("security-groups", "security_group", map[string]any{"name": stack + "/pod_access"})
	for _, name := range names {
		port := make("ports", "port", map[string]any{"name": stack + "/" + name, "network_id": vm})
		make("trunks", "trunk", map[string]any{"name": stack + "/" + name, "port_id": port})
		fake.Set("port", port, "status", "ACTIVE")
	}
	fake.ResetLog()
	return cloud
}

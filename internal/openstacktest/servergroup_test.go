package openstacktest_test

import (
	"testing"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servergroups"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"

	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
)

func TestAServerGroupKeepsServersApart(t *testing.T) {
	k := connect(t, openstacktest.New(t, openstacktest.Hosts(2)), "fake")
	k.compute.Microversion = "2.15"
	n := k.net("n")
	k.subnet(n.ID, "10.0.0.0/24")
	g, err := servergroups.Create(t.Context(), k.compute, servergroups.CreateOpts{Name: "g", Policies: []string{"anti-affinity"}}).Extract()
	must(t, err)
	body := func(name, group string) object {
		return object{"server": object{"name": name, "imageRef": k.imageID(), "flavorRef": k.flavorID("m1.small"), "networks": []object{{"port": k.port(n.ID, name).ID}}},
			"os:scheduler_hints": object{"group": group}}
	}
	novaRefused(t, k.do(k.compute, "POST", "servers", body("x", nobody), nil), 400, "could not be found")
	hosts := map[string]bool{}
	for _, name := range []string{"a", "b"} {
		var made struct{ Server struct{ ID string } }
		must(t, k.do(k.compute, "POST", "servers", body(name, g.ID), &made))
		k.becomes(made.Server.ID, "ACTIVE")
		s, err := servers.Get(t.Context(), k.compute, made.Server.ID).Extract()
		must(t, err)
		hosts[s.HostID] = true
	}
	var third struct{ Server struct{ ID string } }
	must(t, k.do(k.compute, "POST", "servers", body("c", g.ID), &third))
	k.becomes(third.Server.ID, "ERROR")
	g, err = servergroups.Get(t.Context(), k.compute, g.ID).Extract()
	must(t, err)
	if len(hosts) != 2 || hosts[""] || len(g.Members) != 3 {
		t.Errorf("hosts %v, members %v", hosts, g.Members)
	}
	must(t, servergroups.Delete(t.Context(), k.compute, g.ID).ExtractErr())
}

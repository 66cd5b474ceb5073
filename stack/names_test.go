package stack_test

import (
	"testing"

	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/internal/labtest"
	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
	"github.com/kuryrctl/kuryrctl/stack"
)

// router makes what the controller makes for the router's Service: a load balancer with a floating IP.
func router(t *testing.T, lab *labtest.Lab) (address string) {
	t.Helper()
	port := balancer(t, lab, map[string]any{"name": "demo/svc/kuryr-router/router/0a1b2c3d", "description": openstack.Mark("demo"),
		"vip_subnet_id": id(t, lab, "subnets", "demo/service_subnet")})
	var made struct {
		FloatingIP struct {
			Address string `json:"floating_ip_address"`
		}
	}
	neutron(t, lab, "POST", "floatingips", map[string]any{"floatingip": map[string]any{
		"floating_network_id": id(t, lab, "networks", "public"), "port_id": port, "description": openstack.Mark("demo")}}, &made)
	return made.FloatingIP.Address
}

func TestTheNamesOfApplicationsFollowTheRouter(t *testing.T) {
	lab := labtest.New(t, []string{"demo"}, openstacktest.Polls(0))
	mustUp(t, lab, "demo", servers())
	c := servers()
	c.DNS.AppsDomain = "kuryr.internal"
	s := open(t, lab, "demo")
	n, err := s.Names(t.Context(), c)
	if err != nil || n.Without == "" || len(n.Records) != 3 {
		t.Fatalf("without a router: %+v, %v", n, err)
	}
	want := router(t, lab)
	if n, err = s.Names(t.Context(), c); err != nil || n.Without != "" || n.Records[0].Name != "*.kuryr.internal" || n.Records[0].Address.String() != want {
		t.Errorf("with a router at %s: %+v, %v", want, n, err)
	}
	c.DNS.AppsAddress = "192.0.2.1"
	if n, err = s.Names(t.Context(), c); err != nil || n.Records[0].Address.String() != "192.0.2.1" {
		t.Errorf("with an address that is given: %+v, %v", n, err)
	}
}

func TestNamesInDesignateGoWithTheStackFromAnyMachine(t *testing.T) {
	lab := labtest.New(t, []string{"demo"}, openstacktest.Polls(0), openstacktest.Zones("kuryr.internal"))
	c := servers()
	c.DNS.Designate = true
	for _, want := range []graph.EventKind{graph.Done, graph.Unchanged} {
		var last graph.Event
		if _, err := open(t, lab, "demo").Up(t.Context(), c, stack.UpOptions{Parallel: 8, On: func(e graph.Event) { last = e }}); err != nil {
			t.Fatal(err)
		}
		if last.Key != "names" || last.Kind != want {
			t.Errorf("the run ends with %+v, not %s", last, want)
		}
	}
	if !lab.Has("recordset", "worker-0.kuryr.internal.") {
		t.Fatalf("no such name: %v", lab.Left())
	}
	p, err := open(t, lab, "demo").Plan(t.Context(), c)
	if err != nil || p.HasChanges() {
		t.Errorf("a stack with names is not as declared: %+v, %v", p, err)
	}
	lab.State = t.TempDir() // of another machine
	mustDown(t, lab, "demo")
	empty(t, lab)
}

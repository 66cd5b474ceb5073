package stack_test

import (
	"slices"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/loadbalancer/v2/loadbalancers"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/layer3/floatingips"

	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/internal/labtest"
	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
	"github.com/kuryrctl/kuryrctl/stack"
)

// router makes what the controller makes for the router's Service: a load balancer with a floating IP.
func router(t *testing.T, lab *labtest.Lab, v *stack.View) (address string) {
	t.Helper()
	cloud, err := openstack.Connect(t.Context(), openstack.Options{Cloud: "fake", File: lab.CloudsYAML(), Backoff: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	octavia, err := cloud.LoadBalancer()
	if err != nil {
		t.Fatal(err)
	}
	neutron, err := cloud.Network()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(v.Networks, func(n stack.NetworkView) bool { return n.Name == "demo/service_net" })
	lb, err := loadbalancers.Create(t.Context(), octavia, loadbalancers.CreateOpts{Name: "demo/svc/kuryr-router/router/0a1b2c3d", Description: openstack.Mark("demo"), VipSubnetID: v.Networks[i].SubnetID}).Extract()
	if err != nil {
		t.Fatal(err)
	}
	var public struct {
		Networks []struct{ ID string }
	}
	if _, err := neutron.Get(t.Context(), neutron.ServiceURL("networks")+"?name=public", &public, nil); err != nil {
		t.Fatal(err)
	}
	f, err := floatingips.Create(t.Context(), neutron, floatingips.CreateOpts{FloatingNetworkID: public.Networks[0].ID, PortID: lb.VipPortID, Description: openstack.Mark("demo")}).Extract()
	if err != nil {
		t.Fatal(err)
	}
	return f.FloatingIP
}

func TestTheNamesOfApplicationsFollowTheRouter(t *testing.T) {
	lab := labtest.New(t, []string{"demo"}, openstacktest.Polls(0))
	v := mustUp(t, lab, "demo", servers())
	c := servers()
	c.DNS.AppsDomain = "kuryr.internal"
	s := open(t, lab, "demo")
	n, err := s.Names(t.Context(), c)
	if err != nil || n.Without == "" || len(n.Records) != 3 {
		t.Fatalf("without a router: %+v, %v", n, err)
	}
	want := router(t, lab, v)
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

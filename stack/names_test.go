package stack_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kuryrctl/kuryrctl/internal/dnstest"
	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/internal/labtest"
	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
	"github.com/kuryrctl/kuryrctl/provision"
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

// named declares a stack whose names are at a name server.
func named(t *testing.T) (stack.Config, *dnstest.Server) {
	t.Helper()
	server := dnstest.New(t, "lab.test")
	c := servers()
	c.DNSDomain = "lab.test"
	c.DNS.Update = stack.DNSUpdate{Server: server.Address, KeyFile: filepath.Join(t.TempDir(), "key")}
	must(t, os.WriteFile(c.DNS.Update.KeyFile, []byte(dnstest.Key), 0o600))
	return c, server
}

func syncNames(t *testing.T, s *stack.Stack, c stack.Config) error {
	t.Helper()
	n, err := s.Names(t.Context(), c)
	must(t, err)
	_, err = s.SyncNames(t.Context(), c, n, stack.UpOptions{Verb: "dns"})
	return err
}

func TestNamesAreWrittenUnderTheLock(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"}, openstacktest.Polls(0))
	c, server := named(t)
	under := func(verb string, run func() error) {
		t.Helper()
		lock := make(chan string, 1)
		server.Before(func() { lock <- lockIn(lab) })
		must(t, run())
		select {
		case got := <-lock:
			if !strings.Contains(got, " "+verb+" ") {
				t.Errorf("%s writes names under the lock %q", verb, got)
			}
		default:
			t.Errorf("%s has written no names", verb)
		}
		if lock := lockIn(lab); lock != "" {
			t.Errorf("after %s there is still %s", verb, lock)
		}
	}
	idle := func(run func() error) {
		t.Helper()
		updates := server.Updates()
		lab.ResetLog()
		must(t, run())
		if w := lab.Writes(); len(w) > 0 || server.Updates() != updates {
			t.Errorf("with nothing to change: %d updates of names, writes %v", server.Updates()-updates, w)
		}
	}
	build := func() error { _, err := up(t, lab, "demo", c); return err }
	sync := func() error { return syncNames(t, open(t, lab, "demo"), c) }
	unstack := func() error { return remove(t, open(t, lab, "demo"), stack.UpOptions{Verb: "unstack"}) }

	must(t, build())
	idle(build)
	idle(sync)
	c.DNS.AppsAddress = "192.0.2.1"
	under("stack", build) // in which nothing else has changed
	c.DNS.AppsAddress = "192.0.2.2"
	under("dns", sync)
	must(t, remove(t, elsewhere(t, lab, connect(t, lab), stack.Options{}), stack.UpOptions{})) // which knows nothing of names
	empty(t, lab)
	under("unstack", unstack)
	if all := server.Records(); len(all) > 0 {
		t.Errorf("left: %v", all)
	}
	idle(unstack)
}

// The one who is refused had looked before the other came.
func TestAnUnstackThatIsRefusedLeavesTheNames(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"}, openstacktest.Polls(0))
	c, server := named(t)
	mustUp(t, lab, "demo", c)
	s := open(t, lab, "demo")
	r, err := s.Removal(t.Context())
	must(t, err)
	there := server.Records()
	c.DNS.AppsAddress = "192.0.2.1"
	server.Before(func() {
		if err := s.Down(t.Context(), r, stack.UpOptions{Parallel: 8}); !errors.As(err, new(*provision.HeldError)) {
			t.Errorf("got %v", err)
		}
		if now := server.Records(); !slices.Equal(now, there) {
			t.Errorf("names are\n%v, and were\n%v", now, there)
		}
	})
	must(t, syncNames(t, elsewhere(t, lab, connect(t, lab), stack.Options{}), c))
	mustDown(t, lab, "demo")
	if all := server.Records(); len(all) > 0 {
		t.Errorf("left: %v", all)
	}
	empty(t, lab)
}

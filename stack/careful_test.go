package stack_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/internal/labtest"
	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
	"github.com/kuryrctl/kuryrctl/internal/wait"
	"github.com/kuryrctl/kuryrctl/stack"
)

// The cases in which a careless tool harms what is not its own, or loops for ever.

func TestALoadBalancerOfOurNameWithoutOurMarkIsNotTouched(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	mustUp(t, lab, "demo", servers())
	lab.Set("loadbalancer", "demo/api-lb", "description", "somebody's")
	lab.Set("loadbalancer", "demo/api-lb", "provisioning_status", "ERROR")
	lab.ResetLog()
	if _, err := up(t, lab, "demo", servers()); err == nil {
		t.Error("the VIP is taken, and nobody said so")
	}
	for _, w := range lab.Writes() {
		if w.Method == "DELETE" && !strings.Contains(w.Path, "security-groups") { // the run's own lock is one
			t.Errorf("deleted: %+v", w)
		}
	}
}

func TestAProviderThatNeverDoesWhatItAcceptsIsGivenUp(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"}, openstacktest.RefuseTrees())
	lab.Fail("POST /v2.0/lbaas/listeners", -1, 500, `{"faultstring": "boom"}`, nil)
	_, err := up(t, lab, "demo", servers())
	if err == nil || !strings.Contains(err.Error(), "it has no listener: boom") {
		t.Fatalf("got %v", err)
	}
	sent := 0
	for _, w := range lab.Writes() {
		if strings.HasSuffix(w.Path, "/listeners") {
			sent++
		}
	}
	if sent > 5 {
		t.Errorf("the listener was asked for %d times", sent)
	}
	lab.Heal()
	mustUp(t, lab, "demo", servers())
}

// A replica of a database, or a cell, that is late: what was just made is not there yet.
func TestWhatIsNewMayBeMissingAtFirst(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	lab.Fail("GET /v2.0/lbaas/loadbalancers/*", 2, 404, `{"faultcode": "Client", "faultstring": "Not found"}`, nil)
	_, err := open(t, lab, "demo").Up(t.Context(), servers(), stack.UpOptions{Parallel: 8, On: func(e graph.Event) {
		if e.Key == "server.master-0" && e.Kind == graph.Started {
			lab.Fail("GET /v2.1/servers/detail", 2, 200, `{"servers": []}`, nil)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsStillInUseIsDeletedAgain(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	mustUp(t, lab, "demo", servers())
	for _, match := range []string{"DELETE /v2.0/trunks/*", "DELETE /v2.0/networks/*", "PUT /v2.0/routers/*/remove_router_interface"} {
		lab.Fail(match, 3, 409, `{"NeutronError": {"type": "InUse", "message": "still in use", "detail": ""}}`, nil)
	}
	mustDown(t, lab, "demo")
	empty(t, lab)
}

// A removal that was killed goes on in the cloud: a load balancer may go between two lists of the next, and its port is in the one.
func TestThePortOfALoadBalancerThatGoesMeanwhileIsNotSomebodys(t *testing.T) {
	t.Parallel()
	for _, provider := range []string{"ovn", "amphora"} {
		lab := labtest.New(t, []string{"demo"}, openstacktest.Provider(provider))
		mustUp(t, lab, "demo", servers())
		lab.Fail("GET /v2.0/lbaas/loadbalancers", 1, 200, `{"loadbalancers": []}`, nil)
		r, err := open(t, lab, "demo").Removal(t.Context())
		if err != nil || len(r.Foreign) > 0 || len(r.Objects) == 0 {
			t.Errorf("%s: %v, foreign %v, ours %v", provider, err, r.Foreign, r.Objects)
		}
	}
}

func TestAServerThatLostItsPortIsLeftToAPerson(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	mustUp(t, lab, "demo", servers())
	lab.Delete("trunk", "demo/worker-0")
	lab.Delete("port", "demo/worker-0")
	_, err := up(t, lab, "demo", servers())
	if err == nil || !strings.Contains(err.Error(), "server demo/worker-0 is not on port demo/worker-0: delete the server") {
		t.Fatalf("got %v", err)
	}
	mustDown(t, lab, "demo")
	empty(t, lab)
}

func TestAPausedServerIsNotWaitedForForEver(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	mustUp(t, lab, "demo", servers())
	lab.Set("server", "demo/worker-0", "status", "PAUSED")
	if _, err := up(t, lab, "demo", servers()); err == nil || !strings.Contains(err.Error(), "server demo/worker-0 is PAUSED") {
		t.Fatalf("got %v", err)
	}
}

func TestAServerThatCannotBootIsNamedWithItsFault(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"}, openstacktest.Polls(1000000)) // nothing gets ready by itself
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got error
	_, err := open(t, lab, "demo").Up(ctx, servers(), stack.UpOptions{Parallel: 8, On: func(e graph.Event) {
		switch {
		case e.Key == "server.worker-0" && e.Kind == graph.Waiting:
			lab.Set("server", "demo/worker-0", "fault", map[string]any{"code": 500, "message": "No valid host was found."})
			lab.Set("server", "demo/worker-0", "status", "ERROR")
		case e.Key == "server.worker-0" && e.Kind == graph.Error:
			got = e.Err
			cancel() // the others would wait for ever
		}
	}})
	if err == nil || got == nil || !strings.Contains(got.Error(), "demo/worker-0 to become ACTIVE: the cloud could not boot it: No valid host was found.") {
		t.Fatalf("got %v, and for the server %v", err, got)
	}
}

func TestAnotherKeyUnderOurNameIsNoticedBeforeAnythingIsMade(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	mustUp(t, lab, "demo", servers())
	path := filepath.Join(lab.State, "stacks", lab.ProjectID(), "demo", "id_ed25519.pub")
	if err := os.WriteFile(path, []byte("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := open(t, lab, "demo").Plan(t.Context(), servers())
	if err != nil || !p.HasChanges() {
		t.Errorf("plan sees nothing (%v)", err)
	}
	if _, err := up(t, lab, "demo", servers()); err == nil || !strings.Contains(err.Error(), "made from another key") {
		t.Fatalf("got %v", err)
	}
}

// kubeadm would reset the master that has etcd.
func TestTheMastersOfAClusterDoNotPartTheirWorkLater(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	two, one := servers(), servers()
	two.Masters.Count = 2
	mustUp(t, lab, "demo", two)
	must(t, os.WriteFile(filepath.Join(lab.State, "stacks", lab.ProjectID(), "demo", "kubeconfig"), []byte("of a cluster"), 0o600))
	lab.ResetLog()
	if _, err := up(t, lab, "demo", one); err == nil || !strings.Contains(err.Error(), "masters.count 1: the cluster of demo was made with 2") {
		t.Errorf("up: %v", err)
	}
	if _, err := open(t, lab, "demo").Plan(t.Context(), one); err == nil || !strings.Contains(err.Error(), "masters.count 1") {
		t.Errorf("plan: %v", err)
	}
	mustUp(t, lab, "demo", two) // it is what is remembered
	if w := lab.Writes(); len(w) > 0 {
		t.Errorf("written: %v", w)
	}
}

func TestARestrictedLoginIsToldWhy(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	lab.Fail("POST /v3/users/*/application_credentials", -1, 403, `{"error": {"code": 403, "message": "You are not authorized", "title": "Forbidden"}}`, nil)
	if _, err := up(t, lab, "demo", servers()); err == nil || !strings.Contains(err.Error(), "restricted application credential") {
		t.Fatalf("got %v", err)
	}
}

func TestGroupsThatSomebodyAddedToAPortStay(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	v := mustUp(t, lab, "demo", servers())
	var made struct {
		Group struct{ ID string } `json:"security_group"`
	}
	neutron(t, lab, "POST", "security-groups", map[string]any{"security_group": map[string]any{"name": "extra"}}, &made)
	port := "ports/" + v.Nodes[0].PortID
	only := map[string]any{"port": map[string]any{"security_groups": []string{made.Group.ID}}} // ours are gone, theirs is there
	neutron(t, lab, "PUT", port, only, nil)
	mustUp(t, lab, "demo", servers())
	var got struct {
		Port struct {
			Groups []string `json:"security_groups"`
		}
	}
	if get(t, lab, port, &got); len(got.Port.Groups) != 3 {
		t.Errorf("groups %v", got.Port.Groups)
	}
}

func TestTheFirstInterruptOfARemovalSaysOnlyThat(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	mustUp(t, lab, "demo", servers())
	s := open(t, lab, "demo")
	r, err := s.Removal(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	close(stop)
	if err := s.Down(wait.WithStop(t.Context(), stop), r, stack.UpOptions{}); !errors.Is(err, wait.ErrStopping) || errors.Is(err, stack.ErrLeftovers) {
		t.Fatalf("got %v", err)
	}
	mustDown(t, lab, "demo")
	empty(t, lab)
}

// An administrator sees every project. What is another's stays another's, even under the same name.
func TestAnAdministratorDoesNotTakeAnotherProjectsStack(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	mustUp(t, lab, "demo", servers())
	before := left(lab)
	admin, err := openstack.Connect(t.Context(), openstack.Options{Cloud: "fake-admin", File: lab.CloudsYAML(), Backoff: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	s, err := stack.Open(admin, "demo", stack.Options{Dial: lab.Dial, State: t.TempDir(), Poll: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if names, err := stack.List(t.Context(), admin); err != nil || len(names) != 0 {
		t.Errorf("stacks of the administrator's project: %v, %v", names, err)
	}
	r, err := s.Removal(t.Context())
	if err != nil || len(r.Objects) != 0 {
		t.Fatalf("%v, would remove %v", err, r.Objects)
	}
	// A lost reply makes the run look for what it may have made: it must not find the other project's.
	lab.Drop("POST /v2.0/networks", 1, openstacktest.BeforeWrite)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	on := func(e graph.Event) {
		if e.Key == "host.master-0" && e.Kind == graph.Started { // the cloud's part is made; its hosts answer to nobody here
			cancel()
		}
	}
	if _, err := s.Up(ctx, servers(), stack.UpOptions{Parallel: 8, On: on}); err == nil {
		t.Error("the run ended well without hosts")
	}
	if r, err = s.Removal(t.Context()); err != nil || len(r.Objects) == 0 {
		t.Fatalf("%v, %v", err, r)
	}
	if err := s.Down(t.Context(), r, stack.UpOptions{Parallel: 8}); err != nil {
		t.Fatal(err)
	}
	if after := left(lab); strings.Join(before, "\n") != strings.Join(after, "\n") {
		t.Errorf("before:\n%s\nafter:\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
}

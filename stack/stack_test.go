package stack_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/internal/labtest"
	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
	"github.com/kuryrctl/kuryrctl/provision"
	"github.com/kuryrctl/kuryrctl/stack"
)

func TestAStackIsBuiltFoundAgainAndLeavesNothing(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	v := mustUp(t, lab, "demo", servers())
	writes, reads := len(lab.Writes()), len(lab.Reads())
	t.Logf("built with %d writes and %d reads", writes, reads)
	if writes > 24 || writes+reads > 55 { // the lock is two writes and two reads of them
		t.Errorf("%d writes and %d requests in all; the budget is 24 and 55", writes, writes+reads)
	}
	if len(v.Nodes) != 3 || v.UUID == "" || len(v.Networks) != 3 || len(v.LoadBalancers) != 1 || v.LoadBalancers[0].VIP != "172.30.0.1" {
		t.Fatalf("view: %+v", v)
	}
	for _, n := range v.Nodes {
		if n.Status != "ACTIVE" || n.ServerID == "" || n.Address == "" || (n.TrunkID != "") != (n.Role == "worker") || (n.FloatingIP != "") != (n.Name == "master-0") || n.Login != "debian" {
			t.Errorf("node %+v", n)
		}
	}
	shown, err := open(t, lab, "demo").Show(t.Context())
	if err != nil || fmt.Sprint(shown) != fmt.Sprint(v) {
		t.Errorf("the report of the run and what is shown afterwards differ (%v):\n%+v\n%+v", err, v, shown)
	}

	lab.ResetLog()
	mustUp(t, lab, "demo", servers())
	if w, r := lab.Writes(), lab.Reads(); len(w) != 0 || len(r) > 12 {
		t.Errorf("an idle run made %d writes and %d reads: %v", len(w), len(r), w)
	}
	p, err := open(t, lab, "demo").Plan(t.Context(), servers())
	if err != nil || p.HasChanges() {
		t.Errorf("plan of what was just built: %+v, %v", p, err)
	}

	lab.ResetLog()
	mustDown(t, lab, "demo")
	t.Logf("removed with %d writes and %d reads", len(lab.Writes()), len(lab.Reads()))
	empty(t, lab)
	if _, err := os.Stat(filepath.Join(lab.State, "stacks", lab.ProjectID(), "demo")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("secrets of a removed stack are still there (%v)", err)
	}
}

func TestEveryTopologyGetsTheRightAPIMembers(t *testing.T) {
	t.Parallel()
	for masters, members := range map[int][]string{1: {"demo/master-0"}, 2: {"demo/master-1"}, 3: {"demo/master-0", "demo/master-1", "demo/master-2"}} {
		t.Run(fmt.Sprint(masters), func(t *testing.T) {
			t.Parallel()
			lab := labtest.New(t, []string{"demo"})
			c := servers()
			c.Masters.Count = masters
			mustUp(t, lab, "demo", c)
			var got []string
			for _, x := range left(lab) {
				if name, ok := strings.CutPrefix(x, "member "); ok {
					got = append(got, name)
				}
			}
			if !slices.Equal(got, members) {
				t.Fatalf("members %v, want %v", got, members)
			}
			mustDown(t, lab, "demo")
			empty(t, lab)
		})
	}
}

func TestPlanWritesNothingAndTellsWhatIsMissing(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	p, err := open(t, lab, "demo").Plan(t.Context(), servers())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range p.Changes {
		if c.Action != stack.Create {
			t.Errorf("on an empty cloud: %+v", c)
		}
	}
	if len(lab.Writes()) != 0 {
		t.Errorf("plan wrote: %v", lab.Writes())
	}
	mustUp(t, lab, "demo", servers())
	lab.Delete("trunk", "demo/worker-1")
	lab.Set("server", "demo/worker-0", "status", "SHUTOFF")
	smaller := servers()
	smaller.Workers.Count = 1
	if p, err = open(t, lab, "demo").Plan(t.Context(), servers()); err != nil {
		t.Fatal(err)
	}
	rows := map[string]stack.Action{}
	for _, c := range p.Changes {
		rows[c.Key] = c.Action
	}
	if rows["trunk.worker-1"] != stack.Create || rows["server.worker-0"] != stack.Repair || rows["network.vm"] != stack.Keep {
		t.Errorf("rows: %v", rows)
	}
	if p, err = open(t, lab, "demo").Plan(t.Context(), smaller); err != nil {
		t.Fatal(err)
	}
	extra := 0
	for _, c := range p.Changes {
		if c.Action == stack.Extra {
			extra++
		}
	}
	if extra != 2 { // the second worker's port and server; its trunk is gone
		t.Errorf("%d extra rows: %+v", extra, p.Changes)
	}
}

func TestDriftIsRepaired(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string]func(*labtest.Lab){
		"a server stopped":         func(l *labtest.Lab) { l.Set("server", "demo/worker-0", "status", "SHUTOFF") },
		"a server in ERROR":        func(l *labtest.Lab) { l.Set("server", "demo/worker-0", "status", "ERROR") },
		"a load balancer in ERROR": func(l *labtest.Lab) { l.Set("loadbalancer", "demo/api-lb", "provisioning_status", "ERROR") },
		"a member gone":            func(l *labtest.Lab) { l.Delete("member", "demo/master-0") },
		"a health monitor gone":    func(l *labtest.Lab) { l.Delete("healthmonitor", "demo/api-lb") },
		"a key pair gone":          func(l *labtest.Lab) { l.Delete("keypair", "kuryrctl-demo-"+l.ProjectID()[:8]) },
		"a credential's secret gone": func(l *labtest.Lab) {
			os.Remove(filepath.Join(l.State, "stacks", l.ProjectID(), "demo", "application-credential.json"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lab := labtest.New(t, []string{"demo"})
			mustUp(t, lab, "demo", servers())
			before := left(lab)
			harm(lab)
			p, err := open(t, lab, "demo").Plan(t.Context(), servers())
			if err != nil || !p.HasChanges() {
				t.Fatalf("plan sees nothing (%v): %+v", err, p)
			}
			mustUp(t, lab, "demo", servers())
			if after := left(lab); !slices.Equal(before, after) {
				t.Errorf("before:\n%v\nafter:\n%v", before, after)
			}
			if p, err = open(t, lab, "demo").Plan(t.Context(), servers()); err != nil || p.HasChanges() {
				t.Errorf("plan after the repair: %+v, %v", p, err)
			}
			mustDown(t, lab, "demo")
			empty(t, lab)
		})
	}
}

func TestALoadBalancerThatIsNotDeletedAtFirstIsDeletedOnceMore(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"}, openstacktest.FailDeletions(2))
	mustUp(t, lab, "demo", servers())
	mustDown(t, lab, "demo")
	empty(t, lab)

	lab = labtest.New(t, []string{"demo"}, openstacktest.FailDeletions(3))
	mustUp(t, lab, "demo", servers())
	if err := down(t, lab, "demo"); err == nil || !strings.Contains(err.Error(), "deleting it ended in ERROR, 3 times") {
		t.Errorf("after three deletions: %v", err)
	}
	mustDown(t, lab, "demo")
	empty(t, lab)
}

func TestStacksOfSimilarNamesNeverTouchEachOther(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo", "demo-2"})
	second := servers()
	second.Networks.VM.CIDR = prefix(t, "10.12.0.0/24")
	mustUp(t, lab, "demo-2", second)
	before := left(lab)
	mustUp(t, lab, "demo", servers())
	p, err := open(t, lab, "demo-2").Plan(t.Context(), second)
	if err != nil || p.HasChanges() {
		t.Errorf("demo changed the plan of demo-2: %+v, %v", p, err)
	}
	mustDown(t, lab, "demo")
	if after := left(lab); !slices.Equal(before, after) {
		t.Errorf("demo-2 before:\n%v\nafter:\n%v", before, after)
	}
	names, err := stack.List(t.Context(), connect(t, lab))
	if err != nil || !slices.Equal(names, []string{"demo-2"}) {
		t.Errorf("stacks: %v, %v", names, err)
	}
	mustDown(t, lab, "demo-2")
	empty(t, lab)
}

func TestForeignObjectsStopTheRemovalBeforeItsFirstWrite(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	v := mustUp(t, lab, "demo", servers())
	neutron(t, lab, "POST", "ports", map[string]any{"port": map[string]any{"network_id": v.Networks[2].ID, "name": "somebody's"}}, nil)
	s := open(t, lab, "demo")
	r, err := s.Removal(t.Context())
	if err != nil || len(r.Foreign) != 1 || r.Foreign[0].Name != "somebody's" {
		t.Fatalf("foreign: %+v, %v", r, err)
	}
	lab.ResetLog()
	if err := s.Down(t.Context(), r, stack.UpOptions{}); !errors.Is(err, provision.ErrForeign) || len(lab.Writes()) != 0 {
		t.Fatalf("%v after %d writes", err, len(lab.Writes()))
	}
	other := provision.NewSession(connect(t, lab), "demo")
	_, err = other.Discover(t.Context())
	must(t, err)
	claim, err := other.Claim(t.Context(), provision.Lock{Owner: "b", Who: "bob@there", Verb: "stack"}, nil)
	must(t, err)
	if err := remove(t, s, stack.UpOptions{}); !errors.As(err, new(*provision.HeldError)) {
		t.Errorf("what may be of a run that goes on is held to be somebody's: %v", err)
	}
	must(t, claim.Release(t.Context()))
	lab.Delete("port", "somebody's")
	mustDown(t, lab, "demo")
	empty(t, lab)
}

// Octavia lost the load balancer, and with it the port from which OVN checked the health of its members.
func TestALostMonitorsPortGoesWithTheStack(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	v := mustUp(t, lab, "demo", servers())
	port := map[string]any{"network_id": v.Networks[0].ID, "name": "ovn-lb-hm-subnet", "device_owner": "ovn-lb-hm:distributed"}
	neutron(t, lab, "POST", "ports", map[string]any{"port": port}, nil)
	if p, err := open(t, lab, "demo").Plan(t.Context(), servers()); err != nil || p.HasChanges() {
		t.Errorf("while its load balancer is there: %+v, %v", p, err)
	}
	mustDown(t, lab, "demo")
	empty(t, lab)
}

// Two servers took the last room at once, and Nova counted once more.
func TestAQuotaThatASecondCountFindsUsedUpIsTold(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"}, openstacktest.Polls(5))
	_, err := open(t, lab, "demo").Up(t.Context(), servers(), stack.UpOptions{Parallel: 8, On: func(e graph.Event) {
		if e.Key == "server.worker-0" && e.Kind == graph.Waiting {
			lab.Set("server", "demo/worker-0", "fault", map[string]any{"code": 403, "message": "Quota exceeded for instances: Requested 1, but already used 1 of 1 instances"})
			lab.Set("server", "demo/worker-0", "status", "ERROR")
		}
	}})
	if !openstack.IsQuota(err) || !strings.Contains(err.Error(), "already used 1 of 1") {
		t.Errorf("%v", err)
	}
}

func TestAMissingFlavorIsKnownBeforeTheFirstWrite(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	c := servers()
	c.Workers.Flavor, c.Image = "m1.lagre", "debain-13"
	_, err := up(t, lab, "demo", c)
	if err == nil || len(lab.Writes()) != 0 || !strings.Contains(err.Error(), `flavor "m1.lagre"`) || !strings.Contains(err.Error(), `image "debain-13"`) {
		t.Fatalf("%d writes, %v", len(lab.Writes()), err)
	}
	if !strings.Contains(err.Error(), "m1.large") {
		t.Errorf("the error does not say what there is: %v", err)
	}
}

func TestAProviderThatRefusesTreesGetsThemPieceByPiece(t *testing.T) {
	t.Parallel()
	for _, provider := range []string{"ovn", "amphora"} {
		t.Run(provider, func(t *testing.T) {
			t.Parallel()
			lab := labtest.New(t, []string{"demo"}, openstacktest.RefuseTrees(), openstacktest.Provider(provider))
			mustUp(t, lab, "demo", servers())
			whole := labtest.New(t, []string{"demo"}, openstacktest.Provider(provider))
			mustUp(t, whole, "demo", servers())
			if got, want := left(lab), left(whole); !slices.Equal(got, want) {
				t.Fatalf("got:\n%v\nwant:\n%v", got, want)
			}
		})
	}
}

func TestTheOVSRulesOfTrunksAreObeyed(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"}, openstacktest.MechanismOVS())
	mustUp(t, lab, "demo", servers())
	mustDown(t, lab, "demo")
	empty(t, lab)
}

func TestAFullQuotaIsKnownBeforeTheFirstWriteAndAnAdministratorRaisesIt(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"}, openstacktest.Quota("network", "port", 5), openstacktest.Quota("compute", "instances", 2))
	_, err := up(t, lab, "demo", servers())
	var short *stack.ShortError
	if !errors.As(err, &short) || len(lab.Writes()) != 0 {
		t.Fatalf("%d writes, %v", len(lab.Writes()), err)
	}
	for _, want := range []string{"port: 11 more are needed and 5 are free", "`openstack quota set --ports 11 demo`", "instances: 3 more are needed and 2 are free"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	admin, err := openstack.Connect(t.Context(), openstack.Options{Cloud: "fake-admin", File: lab.CloudsYAML()})
	if err != nil {
		t.Fatal(err)
	}
	s, err := stack.Open(connect(t, lab), "demo", stack.Options{Dial: lab.Dial, State: lab.State, Poll: time.Millisecond, Admin: admin})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	if _, err := s.Up(t.Context(), servers(), stack.UpOptions{Parallel: 8}); err != nil {
		t.Fatal(err)
	}
	mustDown(t, lab, "demo")
	empty(t, lab)
}

func TestAnotherMachineIsToldWhereTheKeyIs(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	mustUp(t, lab, "demo", servers())
	lab.State = t.TempDir()
	lab.ResetLog()
	if _, err := up(t, lab, "demo", servers()); !errors.Is(err, stack.ErrElsewhere) || len(lab.Writes()) != 0 {
		t.Fatalf("%v after %d writes", err, len(lab.Writes()))
	}
	mustDown(t, lab, "demo")
	empty(t, lab)
}

func TestAHostWithAnotherKeyIsNeverTrusted(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	mustUp(t, lab, "demo", servers())
	lab.Host("demo/worker-0").SetHostKey(nil)
	_, err := up(t, lab, "demo", servers())
	if err == nil || !strings.Contains(err.Error(), "host.worker-0") || !strings.Contains(err.Error(), "SHA256:") {
		t.Fatalf("got %v", err)
	}
}

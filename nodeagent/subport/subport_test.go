package subport_test

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
	"github.com/kuryrctl/kuryrctl/nodeagent/subport"
)

func TestEveryWriteMayBeTheLast(t *testing.T) {
	fake := openstacktest.New(t, roomy()...)
	straight := newWorld(t, fake, "straight")
	straight.life()
	writes := len(fake.Writes())
	if writes < 10 {
		t.Fatalf("only %d writes", writes)
	}
	t.Logf("%d writes", writes)
	for i := range writes + 1 {
		for how, cut := range map[string]func(int){"before": fake.CutAfter, "without its reply": fake.CutReply} {
			for _, lose := range []bool{false, true} {
				w := newWorld(t, fake, fmt.Sprintf("cut%d%c%v", i, how[0], lose))
				if how != "before" && i == 0 {
					continue
				}
				cut(i)
				w.lose = lose
				w.life()
				fake.Heal()
				if t.Failed() {
					t.Fatalf("stopped %s write %d (unpublished: %v)", how, i, lose)
				}
			}
		}
	}
}

func TestWhatSomebodyElseTookIsLeftToThem(t *testing.T) {
	for what, description := range map[string]string{"a stranger": "", "a drop test": openstack.DropTestMark("demo")} {
		t.Run(what, func(t *testing.T) { leftToThem(t, description) })
	}
}

func leftToThem(t *testing.T, description string) {
	w := newWorld(t, openstacktest.New(t), "demo")
	if err := w.step(); err != nil {
		t.Fatal(err)
	}
	// Behind its back somebody takes VLAN 4.
	pod := get[struct{ ID string }](w, "networks?name=demo/pod_net")[0].ID
	theirs := w.post("ports", "port", map[string]any{"network_id": pod, "name": "theirs", "description": description})
	trunk := get[struct{ ID string }](w, "trunks?name=demo/worker-0")[0].ID
	w.put("trunks/"+trunk+"/add_subports", map[string]any{"sub_ports": []segment{{theirs, "vlan", 4}}})
	w.want.Pods = 4
	if err := w.step(); !openstack.IsConflict(err) {
		t.Fatalf("want a conflict: %v", err)
	}
	w.fake.ResetLog()
	if err := w.step(); err != nil {
		t.Fatal(err)
	}
	if n := len(w.fake.Writes()); n != 1 {
		t.Errorf("the ports that were made already took %d writes, want one", n)
	}
	on := w.onTrunk()
	if on[theirs] != 4 || len(w.want.Published) != 6 || len(on) != 7 {
		t.Errorf("on the trunk %v, published %v", on, w.want.Published)
	}
	for _, s := range w.want.Published {
		if s.VLAN == 4 || s.Port == theirs {
			t.Errorf("%+v is somebody else's", s)
		}
	}
}

func TestQuotaIsUsedToTheLastPort(t *testing.T) {
	w := newWorld(t, openstacktest.New(t, openstacktest.Quota("network", "port", 2+2+5)), "demo") // two parents, two metadata ports
	w.want.Min, w.want.Batch = 8, 8
	for range 6 {
		_ = w.step() // some are refused
	}
	reads := len(w.fake.Reads())
	var err error
	for range 10 {
		err = w.step()
	}
	if n := len(w.fake.Reads()) - reads; n > 0 {
		t.Errorf("a quota that is used up costs %d reads", n)
	}
	if subport.Refusal(err) != "QuotaExceeded" || len(w.want.Published) != 5 {
		t.Errorf("%d published, %v", len(w.want.Published), err)
	}
	w.want.Max = 5
	w.settle()
	w.check()
}

func TestNoAddressesIsToldApart(t *testing.T) {
	w := newWorld(t, openstacktest.New(t), "demo")
	w.fake.Fail("POST /v2.0/ports", 1, 409, `{"NeutronError": {"type": "IpAddressGenerationFailure", "message": "No more IP addresses available on network x.", "detail": ""}}`, http.Header{})
	if err := w.step(); subport.Refusal(err) != "NoAddresses" {
		t.Errorf("got %v (%s)", err, subport.Refusal(err))
	}
	w.settle()
	w.check()
}

func TestNothingIsWrittenWithoutTheLease(t *testing.T) {
	w := newWorld(t, openstacktest.New(t), "demo")
	w.write = errors.New("stolen")
	if err := w.step(); !errors.Is(err, subport.ErrReadOnly) || subport.Refusal(err) != "NotLeading" {
		t.Errorf("got %v", err)
	}
	if n := len(w.fake.Writes()); n > 0 {
		t.Errorf("%d writes", n)
	}
}

func TestWhatStaysDownIsAttachedAnewWithItsVLAN(t *testing.T) {
	w := newWorld(t, openstacktest.New(t), "demo")
	w.settle()
	if w.result.Check <= 0 || w.result.Check > 90*time.Second {
		t.Errorf("new subports are looked at in %s", w.result.Check)
	}
	before := w.onTrunk()
	down := w.want.Published[1].Port
	w.fake.Settle()
	w.fake.Set("port", down, "status", "DOWN")
	w.fake.ResetLog()
	w.now = w.now.Add(2 * time.Minute)
	if err := w.step(); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(w.result.Revived, []string{down}) || len(w.fake.Writes()) != 2 || len(w.fake.Reads()) != 2 {
		t.Errorf("revived %v with %v", w.result.Revived, w.fake.Writes())
	}
	if after := w.onTrunk(); !maps.Equal(before, after) {
		t.Errorf("was %v, is %v", before, after)
	}
	w.fake.Settle()
	w.now = w.now.Add(4 * time.Minute)
	if err := w.step(); err != nil || len(w.result.Revived) > 0 || w.result.Check != 0 {
		t.Errorf("%v, revived %v, again in %s", err, w.result.Revived, w.result.Check)
	}
}

func TestAServerThatIsOffIsNoReason(t *testing.T) {
	w := newWorld(t, openstacktest.New(t), "demo")
	w.fake.Set("port", "demo/worker-0", "status", "DOWN")
	w.settle()
	w.now = w.now.Add(time.Hour)
	if err := w.step(); err != nil || len(w.result.Revived) > 0 {
		t.Errorf("%v, revived %v", err, w.result.Revived)
	}
}

func TestWhatAPodHasIsKeptWhateverTheNodeSays(t *testing.T) {
	w := newWorld(t, openstacktest.New(t), "demo")
	w.settle()
	w.pods(1)
	w.want.Released[w.allocated[0]] = true
	w.settle()
	if w.onTrunk()[w.allocated[0]] == 0 {
		t.Error("a pod lost its port")
	}
}

func TestATrunkThatWasMadeAnewGetsItsSubportsBack(t *testing.T) {
	w := newWorld(t, openstacktest.New(t), "demo")
	w.settle()
	w.pods(2)
	names := map[string]string{}
	for _, port := range w.allocated {
		names[port] = "default/" + port[:4]
	}
	if _, err := w.trunk.Name(t.Context(), names, 9); err != nil {
		t.Fatal(err)
	}
	w.settle()
	before := w.onTrunk()
	w.fake.Delete("trunk", "demo/worker-0")
	parent := get[portBody](w, "ports?name=demo/worker-0")[0].ID
	w.post("trunks", "trunk", map[string]any{"name": "demo/worker-0", "port_id": parent, "description": openstack.Mark("demo")})
	w.fake.Fail("PUT /v2.0/trunks/*/add_subports", 1, 409, `{"NeutronError": {"type": "TrunkInErrorState", "message": "no", "detail": ""}}`, http.Header{})
	w.restart()
	if err := w.step(); !openstack.IsConflict(err) || len(w.want.Published) != len(before) {
		t.Errorf("%d are published, want %d: %v", len(w.want.Published), len(before), err)
	}
	w.settle()
	w.check()
	if after := w.onTrunk(); !maps.Equal(before, after) {
		t.Errorf("was %v, is %v", before, after)
	}
}

func TestPortsAreNamedForTheirPods(t *testing.T) {
	w := newWorld(t, openstacktest.New(t), "demo")
	w.settle()
	port := w.want.Published[0].Port
	name := func(as string, k int) bool {
		t.Helper()
		all := map[string]string{}
		for _, s := range w.want.Published {
			all[s.Port] = ""
		}
		all[port] = as
		done, err := w.trunk.Name(t.Context(), all, k)
		if err != nil {
			t.Fatal(err)
		}
		return done
	}
	w.fake.ResetLog()
	if name("default/web", 0) || !name("default/web", 1) || !name("default/web", 0) || w.ports()[port].Name != "default/web" {
		t.Errorf("it is called %s", w.ports()[port].Name)
	}
	if !name("", 1) || !strings.HasPrefix(w.ports()[port].Name, "demo/pod-worker-0-") {
		t.Errorf("it is called %s", w.ports()[port].Name)
	}
	if n := len(w.fake.Writes()); n != 2 {
		t.Errorf("%d writes, want 2", n)
	}
}

func TestOnlyWhatBelongsToNobodyIsStray(t *testing.T) {
	w := newWorld(t, openstacktest.New(t), "demo")
	w.settle()
	other := w.network.Trunk("worker-1")
	if _, err := other.Refresh(t.Context(), time.Hour, nil); err != nil {
		t.Fatal(err)
	}
	r, err := other.Reconcile(t.Context(), subport.Want{New: true, Min: 2, Max: 5, Batch: 2})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Name(t.Context(), map[string]string{r.Subports[0].Port: "default/web"}, 1); err != nil {
		t.Fatal(err)
	}
	strays := func(claimed map[string]bool) []string {
		t.Helper()
		v, err := w.network.Look(t.Context(), w.now.Add(time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		return w.network.Strays(v, claimed)
	}
	if s := strays(nil); len(s) > 0 {
		t.Errorf("stray: %v", s)
	}
	w.fake.Delete("trunk", "demo/worker-1") // as scaling down does
	if s := strays(map[string]bool{r.Subports[0].Port: true, r.Subports[1].Port: true}); len(s) > 0 {
		t.Errorf("claimed and stray: %v", s)
	}
	gone := strays(nil)
	if len(gone) != 2 {
		t.Errorf("stray: %v, want the two of the trunk that is gone", gone)
	}
	if err := w.network.Delete(t.Context(), append(gone, gone...)); err != nil {
		t.Error(err)
	}
	w.check()
}

// TestAnyOrderOfEventsEndsWell: pods come and go, controllers die at any call, calls are refused, lists are not published; once that
// ends, everything is as it should be, and no pod has lost its port on the way.
func TestAnyOrderOfEventsEndsWell(t *testing.T) {
	fake := openstacktest.New(t, roomy()...)
	n := 0
	rapid.Check(t, func(r *rapid.T) {
		n++
		w := newWorld(t, fake, fmt.Sprintf("w%d", n))
		defer fake.Heal()
		for range rapid.IntRange(1, 12).Draw(r, "events") {
			switch rapid.IntRange(0, 9).Draw(r, "event") {
			case 0, 1:
				w.pods(rapid.IntRange(0, 12).Draw(r, "pods"))
			case 2:
				w.want.Shrink = !w.want.Shrink
			case 3:
				fake.CutAfter(rapid.IntRange(0, 4).Draw(r, "cut after"))
			case 4:
				fake.CutReply(rapid.IntRange(1, 4).Draw(r, "cut reply"))
			case 5:
				fake.Fail("PUT /v2.0/trunks/*/*", 1, 409, `{"NeutronError": {"type": "DuplicateSubPort", "message": "taken", "detail": ""}}`, http.Header{})
			case 6:
				w.lose = true
			case 7:
				w.want.Max = rapid.IntRange(2, 12).Draw(r, "max")
			case 8:
				fake.Fail("* /v2.0/*", rapid.IntRange(1, 3).Draw(r, "refusals"), 429, `{"NeutronError": {"type": "TooMany", "message": "slow down", "detail": ""}}`, http.Header{"Retry-After": {"0"}})
			case 9:
				kind := rapid.SampledFrom([]string{"OverQuota", "IpAddressGenerationFailure"}).Draw(r, "used up")
				fake.Fail("POST /v2.0/ports", 1, 409, fmt.Sprintf(`{"NeutronError": {"type": %q, "message": "none left", "detail": ""}}`, kind), http.Header{})
			}
			if err := w.step(); err != nil && rapid.Bool().Draw(r, "dies") {
				fake.Heal()
				w.restart()
			}
			fake.Heal()
			on := w.onTrunk()
			for port := range w.want.Allocated {
				if on[port] == 0 {
					r.Fatalf("%s is a pod's and was taken off the trunk", port)
				}
			}
		}
		w.lose = false
		w.settle()
		if err := w.problem(); err != nil {
			r.Fatal(err)
		}
		w.want.Gone = true
		w.settle()
		if left := w.ports(); len(left) > 0 {
			r.Fatalf("left behind: %v", left)
		}
	})
}

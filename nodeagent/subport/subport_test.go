package subport_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"pgregory.net/rapid"

	"github.com/kuryrctl/kuryrctl/internal/labtest"
	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
	"github.com/kuryrctl/kuryrctl/nodeagent/subport"
)

// world is what is outside of one trunk: the cloud, and what the cluster remembers.
type world struct {
	t     testing.TB
	fake  *openstacktest.Cloud
	cloud *openstack.Cloud
	stack string
	now   time.Time
	write error // what MayWrite says

	network *subport.Network
	trunk   *subport.Trunk

	want      subport.Want
	allocated []string // in the order of pods
	lose      bool     // the next list is not published: the controller dies before
	result    subport.Result
}

func newWorld(t testing.TB, fake *openstacktest.Cloud, stack string) *world {
	t.Helper()
	w := &world{t: t, fake: fake, stack: stack, now: time.Unix(1e9, 0), cloud: labtest.Workers(t, fake, stack, "worker-0", "worker-1")}
	w.want = subport.Want{Min: 2, Max: 10, Batch: 3, New: true, Allocated: map[string]bool{}, Released: map[string]bool{}}
	w.restart()
	return w
}

// restart forgets all that a controller knows.
func (w *world) restart() {
	w.t.Helper()
	network, err := subport.Open(w.t.Context(), w.cloud, subport.Options{
		Stack: w.stack, PodNetwork: w.stack + "/pod_net", SecurityGroup: w.stack + "/pod_access",
		MayWrite: func() error { return w.write },
		Now:      func() time.Time { w.now = w.now.Add(time.Millisecond); return w.now },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.network, w.trunk = network, network.Trunk("worker-0")
}

// step is one pass, with what the daemon does after it: it gives up what is to retire and is free.
func (w *world) step() error {
	has, err := w.trunk.Refresh(w.t.Context(), time.Hour, w.want.Published)
	if err != nil || !has {
		return errors.Join(err, map[bool]error{false: errors.New("no trunk")}[has || err != nil])
	}
	w.result, err = w.trunk.Reconcile(w.t.Context(), w.want)
	if w.lose {
		w.lose = false
		return errors.New("died before publishing")
	}
	if !w.want.Gone {
		w.want.Published, w.want.New = w.result.Subports, false
	}
	there := map[string]bool{}
	for _, s := range w.want.Published {
		there[s.Port] = true
		if s.Retiring && !w.want.Allocated[s.Port] {
			w.want.Released[s.Port] = true
		}
	}
	maps.DeleteFunc(w.want.Released, func(port string, _ bool) bool { return !there[port] })
	return err
}

// settle makes passes until nothing changes. What fails is tried again, and a cloud that is cut off is healed and met by a new controller.
func (w *world) settle() {
	w.t.Helper()
	for quiet, tries := 0, 0; quiet < 2; tries++ {
		if tries > 40 {
			w.t.Fatalf("it does not settle: %+v", w.result)
		}
		before := len(w.fake.Writes())
		if err := w.step(); err != nil {
			w.fake.Heal()
			w.restart()
			quiet = 0
			continue
		}
		if quiet++; len(w.fake.Writes()) > before {
			quiet = 0
		}
	}
}

// pods makes k pods have a subport each, or as many as there are.
func (w *world) pods(k int) {
	for len(w.allocated) > k {
		delete(w.want.Allocated, w.allocated[0])
		w.allocated = w.allocated[1:]
	}
	for _, s := range w.want.Published {
		if len(w.allocated) < k && !s.Retiring && !w.want.Allocated[s.Port] && !w.want.Released[s.Port] {
			w.want.Allocated[s.Port] = true
			w.allocated = append(w.allocated, s.Port)
		}
	}
	w.want.Pods = max(k-len(w.allocated), 0)
}

type segment struct {
	Port string `json:"port_id"`
	Type string `json:"segmentation_type"`
	VLAN int    `json:"segmentation_id"`
}

type portBody struct {
	ID, Name, Description, Status string
	Owner                         string `json:"device_owner"`
}

// get reads a collection of the stack past the code under test.
func get[T any](w *world, path string) (all []T) {
	w.t.Helper()
	network, err := w.cloud.Network()
	if err != nil {
		w.t.Fatal(err)
	}
	var page map[string][]T
	if _, err := network.Get(context.Background(), network.ServiceURL(path), &page, nil); err != nil {
		// The cloud was cut off after the last write: whoever comes next is a new controller.
		w.fake.Heal()
		w.restart()
		if _, err := network.Get(context.Background(), network.ServiceURL(path), &page, nil); err != nil {
			w.t.Fatal(err)
		}
	}
	for _, v := range page {
		return v
	}
	return nil
}

func (w *world) put(path string, body any) error {
	network, err := w.cloud.Network()
	if err != nil {
		return err
	}
	_, err = network.Put(context.Background(), network.ServiceURL(path), body, nil, &gophercloud.RequestOpts{OkCodes: []int{http.StatusOK}})
	return err
}

// onTrunk is what is on the trunk of worker-0: VLAN ids by port.
func (w *world) onTrunk() map[string]int {
	on := map[string]int{}
	type trunk struct {
		ID       string
		Subports []segment `json:"sub_ports"`
	}
	for _, t := range get[trunk](w, "trunks?name="+w.stack+"/worker-0") {
		for _, s := range t.Subports {
			on[s.Port] = s.VLAN
		}
	}
	return on
}

// ports are the stack's ports for pods.
func (w *world) ports() map[string]portBody {
	all := map[string]portBody{}
	for _, p := range get[portBody](w, "ports?description="+strings.ReplaceAll(openstack.Mark(w.stack), " ", "%20")) {
		if !strings.HasPrefix(p.Name, w.stack+"/worker-") {
			all[p.ID] = p
		}
	}
	return all
}

// problem holds cloud and cluster together, for a world that has settled.
func (w *world) problem() error {
	on, ports := w.onTrunk(), w.ports()
	var all []error
	if len(on) != len(ports) {
		all = append(all, fmt.Errorf("%d ports for pods, %d on the trunk", len(ports), len(on)))
	}
	seen := map[int]bool{}
	for _, s := range w.want.Published {
		if on[s.Port] != s.VLAN || seen[s.VLAN] {
			all = append(all, fmt.Errorf("%s is published with VLAN %d and is on the trunk with %d (twice: %v)", s.Port, s.VLAN, on[s.Port], seen[s.VLAN]))
		}
		all, seen[s.VLAN] = append(all, s.Problem()), true
	}
	if len(w.want.Published) != len(on) {
		all = append(all, fmt.Errorf("%d published, %d on the trunk", len(w.want.Published), len(on)))
	}
	for port := range w.want.Allocated {
		if on[port] == 0 {
			all = append(all, fmt.Errorf("%s is a pod's and was taken off the trunk", port))
		}
	}
	if w.result.Free < w.result.Wanted && len(on) < w.want.Max {
		all = append(all, fmt.Errorf("%d free, %d wanted", w.result.Free, w.result.Wanted))
	}
	return errors.Join(all...)
}

func (w *world) check() {
	w.t.Helper()
	if err := w.problem(); err != nil {
		w.t.Error(err)
	}
}

// life is a day in the life of a trunk.
func (w *world) life() {
	w.t.Helper()
	w.settle()
	w.check()
	w.want.Pods = 4
	w.settle()
	w.pods(4)
	w.settle()
	w.check()
	w.pods(0)
	w.want.Shrink = true
	w.settle()
	w.check()
	if n := len(w.want.Published); n != w.want.Min {
		w.t.Errorf("%d are left of an idle pool, want %d", n, w.want.Min)
	}
	w.want.Gone = true
	w.settle()
	if left := w.ports(); len(left) > 0 {
		w.t.Errorf("left behind: %v", left)
	}
}

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

func roomy() []openstacktest.Option {
	var all []openstacktest.Option
	for _, r := range []string{"network", "subnet", "port", "security_group", "security_group_rule"} {
		all = append(all, openstacktest.Quota("network", r, -1))
	}
	return all
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
	// Behind its back: VLAN 4, and one of its own ports with another VLAN than it will ask for.
	network, err := w.cloud.Network()
	if err != nil {
		t.Fatal(err)
	}
	var made struct{ Port struct{ ID string } }
	pod := get[struct{ ID string }](w, "networks?name=demo/pod_net")[0].ID
	if _, err := network.Post(t.Context(), network.ServiceURL("ports"), map[string]any{"port": map[string]any{"network_id": pod, "name": "theirs", "description": description}}, &made, nil); err != nil {
		t.Fatal(err)
	}
	trunk := get[struct{ ID string }](w, "trunks?name=demo/worker-0")[0].ID
	if err := w.put("trunks/"+trunk+"/add_subports", map[string]any{"sub_ports": []segment{{made.Port.ID, "vlan", 4}}}); err != nil {
		t.Fatal(err)
	}
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
	if on[made.Port.ID] != 4 || len(w.want.Published) != 6 || len(on) != 7 {
		t.Errorf("on the trunk %v, published %v", on, w.want.Published)
	}
	for _, s := range w.want.Published {
		if s.VLAN == 4 || s.Port == made.Port.ID {
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
	network, err := w.cloud.Network()
	if err != nil {
		t.Fatal(err)
	}
	parent := get[portBody](w, "ports?name=demo/worker-0")[0].ID
	body := map[string]any{"trunk": map[string]any{"name": "demo/worker-0", "port_id": parent, "description": openstack.Mark("demo")}}
	if _, err := network.Post(t.Context(), network.ServiceURL("trunks"), body, nil, nil); err != nil {
		t.Fatal(err)
	}
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

package subport_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2"

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

// post makes one thing of a collection past the code under test, and returns its id.
func (w *world) post(path, one string, body map[string]any) string {
	w.t.Helper()
	network, err := w.cloud.Network()
	if err != nil {
		w.t.Fatal(err)
	}
	var made map[string]struct{ ID string }
	if _, err := network.Post(w.t.Context(), network.ServiceURL(path), map[string]any{one: body}, &made, nil); err != nil {
		w.t.Fatal(err)
	}
	return made[one].ID
}

func (w *world) put(path string, body any) {
	w.t.Helper()
	network, err := w.cloud.Network()
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := network.Put(w.t.Context(), network.ServiceURL(path), body, nil, &gophercloud.RequestOpts{OkCodes: []int{http.StatusOK}}); err != nil {
		w.t.Fatal(err)
	}
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

func roomy() []openstacktest.Option {
	var all []openstacktest.Option
	for _, r := range []string{"network", "subnet", "port", "security_group", "security_group_rule"} {
		all = append(all, openstacktest.Quota("network", r, -1))
	}
	return all
}

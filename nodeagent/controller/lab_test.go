package controller_test

import (
	"cmp"
	"context"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kuryrctl/kuryrctl/internal/clustertest"
	"github.com/kuryrctl/kuryrctl/internal/labtest"
	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
	"github.com/kuryrctl/kuryrctl/nodeagent/controller"
	"github.com/kuryrctl/kuryrctl/nodeagent/vif"
)

// lab is a cluster and a cloud, with controllers between them.
type lab struct {
	t     *testing.T
	kube  *clustertest.Server
	fake  *openstacktest.Cloud
	cloud *openstack.Cloud
}

func newLab(t *testing.T, workers []string, options ...openstacktest.Option) *lab {
	t.Helper()
	l := &lab{t: t, kube: clustertest.New(t), fake: openstacktest.New(t, options...)}
	l.cloud = labtest.Workers(t, l.fake, "demo", workers...)
	for _, name := range append(slices.Clone(workers), "master-0") {
		l.kube.AddNode(corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	return l
}

// start runs a controller until the returned function is called, or the test ends.
func (l *lab) start(change func(*controller.Options)) (*controller.Controller, func()) {
	l.t.Helper()
	cfg, err := clientcmd.RESTConfigFromKubeConfig(l.kube.Kubeconfig())
	if err != nil {
		l.t.Fatal(err)
	}
	o := controller.Options{Kube: cfg, Cloud: l.cloud, Stack: "demo", Min: 3, Max: 50, Batch: 5, TTL: time.Hour, LeaseNamespace: "kube-system",
		Identity: "a", Backoff: time.Millisecond, Lease: 3 * time.Second}
	if change != nil {
		change(&o)
	}
	c, err := controller.New(o)
	if err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(l.t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	ended := false
	stop := func() {
		if cancel(); !ended {
			ended = true
			if err := <-done; err != nil && ctx.Err() == nil {
				l.t.Errorf("the controller ended: %v", err)
			}
		}
	}
	l.t.Cleanup(stop)
	return c, stop
}

// until waits for changes in the cluster until what is asked is true.
func (l *lab) until(what string, is func() bool) {
	l.t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		changed := l.kube.Changed()
		if is() {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			p := l.pool("worker-0")
			l.t.Fatalf("still not: %s\n%+v\n%v", what, p, l.fake.Left())
		}
	}
}

const pools = "kuryr.openstack.org/v1alpha1/subportpools/"

func (l *lab) pool(name string) (p vif.SubportPool) {
	l.kube.Object(pools+name, &p)
	return p
}

func (l *lab) ready(name string) bool {
	p := l.pool(name)
	return meta.IsStatusConditionTrue(p.Status.Conditions, vif.Ready)
}

// condition is "Status Reason" of a condition of a pool.
func (l *lab) condition(name, kind string) string {
	p := l.pool(name)
	c := meta.FindStatusCondition(p.Status.Conditions, kind)
	if c == nil {
		return ""
	}
	return string(c.Status) + " " + c.Reason
}

// status changes the status of a pool, as its daemon does.
func (l *lab) status(name string, f func(*vif.SubportPoolStatus)) {
	l.t.Helper()
	p := l.pool(name)
	f(&p.Status)
	l.kube.Edit(pools+name, func(o map[string]any) {
		s, ok := o["status"].(map[string]any)
		if !ok {
			s = map[string]any{}
			o["status"] = s
		}
		allocations := []any{}
		for _, a := range p.Status.Allocations {
			allocations = append(allocations, map[string]any{"port": a.Port, "namespace": a.Namespace, "pod": a.Pod, "uid": a.UID, "container": a.Container, "since": "2026-01-01T00:00:00Z"})
		}
		s["allocations"], s["released"] = allocations, p.Status.Released
	})
}

func (l *lab) addPods(node string, names ...string) {
	for _, name := range names {
		l.kube.AddPod(corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("uid-" + name)}, Spec: corev1.PodSpec{NodeName: node}})
	}
}

// allocate gives a free subport to each pod that has none, as the daemon does.
func (l *lab) allocate(node string, names ...string) {
	l.t.Helper()
	l.status(node, func(s *vif.SubportPoolStatus) {
		taken := map[string]bool{}
		for _, a := range s.Allocations {
			taken[a.Port] = true
		}
		for _, sub := range l.pool(node).Spec.Subports {
			if len(names) > 0 && !taken[sub.Port] && !sub.Retiring {
				s.Allocations = append(s.Allocations, vif.Allocation{Port: sub.Port, Namespace: "default", Pod: names[0], UID: "uid-" + names[0], Container: "c-" + names[0]})
				names = names[1:]
			}
		}
	})
}

// check holds cloud and cluster together: what is on the trunks is published, once, and nothing else is there.
func (l *lab) check(workers ...string) {
	l.t.Helper()
	ports := map[string]bool{}
	for _, w := range workers {
		vlans := map[int]bool{}
		for _, s := range l.pool(w).Spec.Subports {
			if err := s.Problem(); err != nil || ports[s.Port] || vlans[s.VLAN] {
				l.t.Errorf("%s: subport %+v: %v, port twice %v, VLAN twice %v", w, s, err, ports[s.Port], vlans[s.VLAN])
			}
			if !l.fake.Has("port", s.Port) {
				l.t.Errorf("%s: port %s is published and not there", w, s.Port)
			}
			ports[s.Port], vlans[s.VLAN] = true, true
		}
	}
	left := 0
	for _, thing := range l.fake.Left() {
		if strings.HasPrefix(thing, "port ") && !strings.HasPrefix(thing, "port demo/worker") {
			left++
		}
	}
	if left != len(ports) {
		l.t.Errorf("there are %d ports for pods, and %d are published", left, len(ports))
	}
}

func (l *lab) writes() (all []string) {
	for _, r := range l.fake.Writes() {
		parts := strings.Split(r.Path, "/")
		all = append(all, fmt.Sprintf("%s %s", r.Method, cmp.Or(parts[len(parts)-1], r.Path)))
	}
	return all
}

// renewals waits until controllers have asked k times for the lease: long enough for what they do at once.
func (l *lab) renewals(k int) {
	l.t.Helper()
	asked := len(l.kube.Requests())
	l.until("the lease was asked for again", func() bool {
		n := 0
		for _, r := range l.kube.Requests()[asked:] {
			if strings.HasSuffix(r, controller.LeaseName) {
				n++
			}
		}
		return n >= k
	})
}

// events counts the Events with a reason.
func (l *lab) events(reason string) (n int) {
	for _, path := range l.kube.Paths() {
		var e struct{ Reason, Note string }
		if strings.HasPrefix(path, "events.k8s.io/") && l.kube.Object(path, &e) && e.Reason == reason {
			n++
		}
	}
	return n
}

// metric asks a controller as Prometheus does.
func metric(t *testing.T, c *controller.Controller, name string) string {
	t.Helper()
	w := httptest.NewRecorder()
	c.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for line := range strings.Lines(w.Body.String()) {
		if v, ok := strings.CutPrefix(line, "kuryr_controller_"+name+" "); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

const lease = "coordination.k8s.io/v1/namespaces/kube-system/leases/" + controller.LeaseName

package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kuryrctl/kuryrctl/bootstrap/cluster"
	"github.com/kuryrctl/kuryrctl/internal/clustertest"
	"github.com/kuryrctl/kuryrctl/internal/wait"
)

var soon = cluster.DrainOptions{Every: time.Millisecond}

// each makes step hear of every look that was not the last.
func each(ctx context.Context, step func(seen string)) (with context.Context) {
	_ = wait.In(ctx, &wait.Place{Seen: func(_, seen string) { step(seen) }}, func(ctx context.Context) error { with = ctx; return nil })
	return with
}

func pod(name, node, owner string, labels map[string]string) corev1.Pod {
	p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: labels}, Spec: corev1.PodSpec{NodeName: node}}
	p.Status.Phase = corev1.PodRunning
	if yes := true; owner != "" {
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: owner, Name: "x", Controller: &yes}}
	}
	return p
}

// busy is a cluster whose worker-0 has one pod of every sort.
func busy(t *testing.T) *clustertest.Server {
	s := clustertest.New(t)
	s.AddNode(corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "worker-0", Labels: map[string]string{"a": "b"}}, Spec: corev1.NodeSpec{ProviderID: "openstack:///x"}})
	s.AddPod(pod("web-0", "worker-0", "ReplicaSet", map[string]string{"app": "web"}))
	s.AddPod(pod("web-1", "worker-0", "ReplicaSet", map[string]string{"app": "web"}))
	s.AddPod(pod("web-2", "worker-1", "ReplicaSet", map[string]string{"app": "web"}))
	s.AddPod(pod("agent", "worker-0", "DaemonSet", nil))
	static, done := pod("static", "worker-0", "Node", nil), pod("done", "worker-0", "", nil)
	static.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
	done.Status.Phase = corev1.PodSucceeded
	s.AddPod(static)
	s.AddPod(done)
	return s
}

func TestDrainCordonsEvictsAndWaitsForTheLastPodToEnd(t *testing.T) {
	s := busy(t)
	s.EndAfter(3)
	c := connect(t, s)
	var saw []string
	o := soon
	o.Grace = 1500 * time.Millisecond
	err := c.Drain(each(t.Context(), func(seen string) {
		saw = append(saw, seen)
	}), "worker-0", o)
	if err != nil {
		t.Fatal(err)
	}
	ending := "there: default/web-0 (ending), default/web-1 (ending)"
	if diff := cmp.Diff([]string{strings.ReplaceAll(ending, "ending", "evicted"), ending, ending, ending}, saw); diff != "" {
		t.Errorf("seen (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"default/agent", "default/done", "default/static", "default/web-2"}, s.Pods()); diff != "" {
		t.Errorf("pods (-want +got):\n%s", diff)
	}
	if n, _ := s.Node("worker-0"); !n.Spec.Unschedulable || n.Spec.ProviderID == "" || n.Labels["a"] != "b" {
		t.Errorf("node %+v", n)
	}
	for _, e := range s.Evictions() {
		if g := e.DeleteOptions.GracePeriodSeconds; g == nil || *g != 2 {
			t.Errorf("grace of %s: %v, want 2", e.Name, g)
		}
	}
	if err := c.Drain(t.Context(), "worker-0", soon); err != nil { // again: nothing to do
		t.Error(err)
	}
	if n := len(s.Evictions()); n != 2 {
		t.Errorf("%d evictions", n)
	}
	if err := c.Drain(t.Context(), "worker-9", soon); err != nil { // gone
		t.Error(err)
	}
}

func TestDrainWaitsForABudgetAndSaysForWhich(t *testing.T) {
	s := busy(t)
	c := connect(t, s)
	// The server's wish to wait an hour must not be slept through out of sight.
	budget := clustertest.Budget{Namespace: "default", Name: "web", Match: map[string]string{"app": "web"}, MinAvailable: 2, RetryAfter: 3600}
	s.SetBudgets(budget)
	blocked := "default/web-1 (The disruption budget web needs 2 healthy pods and has 2 currently)"
	looks := 0
	err := c.Drain(each(t.Context(), func(seen string) {
		if looks++; looks == 3 {
			if !strings.Contains(seen, blocked) || strings.Contains(seen, "web-0") {
				t.Errorf("saw %q", seen)
			}
			s.AddPod(pod("web-3", "worker-1", "ReplicaSet", map[string]string{"app": "web"})) // its replacement is up
		}
	}), "worker-0", soon)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"default/agent", "default/done", "default/static", "default/web-2", "default/web-3"}, s.Pods()); diff != "" {
		t.Errorf("pods (-want +got):\n%s", diff)
	}

	budget.MinAvailable = 9
	s.SetBudgets(budget)
	s.AddPod(pod("web-4", "worker-0", "ReplicaSet", map[string]string{"app": "web"}))
	ctx, cancel := context.WithCancelCause(t.Context())
	looks = 0
	s.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost || looks < 2 {
			return false
		}
		cancel(errors.New("enough"))
		<-r.Context().Done()
		return true
	})
	err = c.Drain(each(ctx, func(string) { looks++ }), "worker-0", soon)
	wantError(t, err, "waiting for the pods of node worker-0 to leave: still there: ",
		"default/web-4 (The disruption budget web needs 9 healthy pods and has 3 currently)", "enough")
}

func TestDrainEndsInTime(t *testing.T) {
	s := busy(t)
	c := connect(t, s)
	s.Intercept(func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true })
	o := soon
	o.Timeout = 20 * time.Millisecond
	if err := c.Drain(t.Context(), "worker-0", o); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
}

func TestDrainStopsBeforePodsThatNothingStartsAnew(t *testing.T) {
	s := busy(t)
	c := connect(t, s)
	for i := range 7 {
		s.AddPod(pod(fmt.Sprintf("alone-%d", i), "worker-0", "", nil))
	}
	err := c.Drain(t.Context(), "worker-0", soon)
	wantError(t, err, "default/alone-0", "default/alone-4 and 2 more", "force")
	if n := len(s.Evictions()); n != 0 {
		t.Fatalf("%d evictions", n)
	}
	o := soon
	o.Force = true
	if err := c.Drain(t.Context(), "worker-0", o); err != nil {
		t.Fatal(err)
	}
	if slices.Contains(s.Pods(), "default/alone-0") {
		t.Error("alone-0 is still there")
	}
}

func TestDrainNeverEvictsAPodThatCameBackUnderTheSameName(t *testing.T) {
	s := busy(t)
	c := connect(t, s)
	moved := false
	s.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if !moved && strings.HasSuffix(r.URL.Path, "/web-0/eviction") { // between the look and the eviction
			moved = true
			s.DeletePod("default", "web-0")
			again := pod("web-0", "worker-1", "StatefulSet", nil)
			again.UID = types.UID("another")
			s.AddPod(again)
		}
		return false
	})
	if err := c.Drain(t.Context(), "worker-0", soon); err != nil {
		t.Fatal(err)
	}
	for _, e := range s.Evictions() {
		if e.Name == "web-0" {
			t.Error("the new web-0 was evicted")
		}
	}
}

func TestDrainOutlastsAServerThatFailsAndStopsAtARefusal(t *testing.T) {
	for name, fail := range map[string]http.HandlerFunc{
		"failing": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "etcdserver: request timed out", 500) },
		"busy": func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "too many requests", http.StatusTooManyRequests)
		},
		"dropped": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			s := busy(t)
			c := connect(t, s)
			left := 4
			s.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodPatch || r.Method == http.MethodGet && name == "dropped" || left == 0 {
					return false // client-go itself tries a dropped GET again, after a second
				}
				left--
				fail(w, r)
				return true
			})
			if err := c.Drain(t.Context(), "worker-0", soon); err != nil {
				t.Fatal(err)
			}
			if left != 0 {
				t.Errorf("%d failures were not met", left)
			}
		})
	}
	s := busy(t)
	c := connect(t, s)
	s.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost {
			http.Error(w, "no", http.StatusForbidden)
		}
		return r.Method == http.MethodPost
	})
	wantError(t, c.Drain(t.Context(), "worker-0", soon), "evicting default/web-0: ")
}

func TestDrainBeginsNothingOnceAskedToStop(t *testing.T) {
	s := busy(t)
	c := connect(t, s)
	stop, evictions := make(chan struct{}), 0
	s.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost {
			if evictions++; evictions == 1 {
				close(stop)
			}
		}
		return false
	})
	err := c.Drain(wait.WithStop(t.Context(), stop), "worker-0", soon)
	wantError(t, err, "default/web-0 (evicted)", wait.ErrStopping.Error())
	if n := len(s.Evictions()); n != 1 {
		t.Fatalf("%d evictions after being asked to stop at the first", n)
	}
}

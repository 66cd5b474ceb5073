package controller_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
	"github.com/kuryrctl/kuryrctl/nodeagent/controller"
	"github.com/kuryrctl/kuryrctl/nodeagent/vif"
)

func TestAPoolIsFilledWithTwoWrites(t *testing.T) {
	l := newLab(t, []string{"worker-0"})
	l.start(nil)
	l.until("ready", func() bool { return l.ready("worker-0") })
	l.check("worker-0")
	p := l.pool("worker-0")
	if len(p.Spec.Subports) != 5 || p.Spec.Trunk == "" || p.Spec.ParentMAC == "" || p.Spec.Min != 3 || p.Spec.Max != 50 || p.Spec.Batch != 5 {
		t.Errorf("published %+v", p.Spec)
	}
	for i, s := range p.Spec.Subports {
		if s.VLAN != i+1 || s.MTU != 1442 || len(s.IPs) != 1 || !strings.HasSuffix(s.IPs[0].Address, "/16") || s.IPs[0].Gateway != "10.10.0.1" {
			t.Errorf("published %+v", s)
		}
	}
	if got, want := l.writes(), []string{"POST ports", "PUT add_subports"}; !slices.Equal(got, want) {
		t.Errorf("it took %v, want %v", got, want)
	}
	if l.kube.Object(pools+"master-0", &p) {
		t.Error("a node without a trunk has a pool")
	}
}

func TestABurstOfPodsTakesFewCalls(t *testing.T) {
	l := newLab(t, []string{"worker-0"}, openstacktest.Polls(0))
	l.start(func(o *controller.Options) { o.Max = 120 })
	l.until("ready", func() bool { return l.ready("worker-0") })
	before := l.cloud.Calls()
	var names []string
	for i := range 100 {
		names = append(names, fmt.Sprintf("web-%d", i))
	}
	l.addPods("worker-0", names...)
	l.until("a subport for each pod, and three", func() bool { return len(l.pool("worker-0").Spec.Subports) >= 103 })
	after := l.cloud.Calls()
	calls := after.Reads + after.Writes - before.Reads - before.Writes
	t.Logf("%d calls for 100 pods", calls)
	if calls > 30 {
		t.Errorf("%d calls for 100 pods, want 0.3 for each at most", calls)
	}
	l.allocate("worker-0", names...)
	l.until("every pod is told its port, every port named for its pod", func() bool {
		for _, name := range names {
			if p, _ := l.kube.Pod("default", name); p.Annotations[vif.AnnotationPort] == "" || !l.fake.Has("port", "default/"+name) {
				return false
			}
		}
		return true
	})
	l.check("worker-0")
	for _, a := range l.pool("worker-0").Status.Allocations {
		if p, _ := l.kube.Pod(a.Namespace, a.Pod); p.Annotations[vif.AnnotationPort] != a.Port {
			t.Errorf("%s is told %s, and has %s", a.Pod, p.Annotations[vif.AnnotationPort], a.Port)
		}
	}
}

func TestIdleSubportsRetireWhenTheNodeAgrees(t *testing.T) {
	l := newLab(t, []string{"worker-0"})
	l.start(func(o *controller.Options) { o.TTL, o.Batch = 20*time.Millisecond, 2 })
	l.until("ready", func() bool { return l.ready("worker-0") })
	l.addPods("worker-0", "a", "b", "c", "d", "e", "f")
	l.until("enough for six", func() bool { return len(l.pool("worker-0").Spec.Subports) >= 9 })
	l.allocate("worker-0", "a")
	for _, name := range []string{"b", "c", "d", "e", "f"} {
		l.kube.DeletePod("default", name)
	}
	var retiring []string
	l.until("some retire", func() bool {
		retiring = nil
		for _, s := range l.pool("worker-0").Spec.Subports {
			if s.Retiring {
				retiring = append(retiring, s.Port)
			}
		}
		return len(retiring) > 0
	})
	total := len(l.pool("worker-0").Spec.Subports)
	for _, port := range retiring {
		if !l.fake.Has("port", port) {
			t.Errorf("port %s went before the node gave it up", port)
		}
	}
	l.status("worker-0", func(s *vif.SubportPoolStatus) { s.Released = retiring })
	l.until("they are gone", func() bool { return len(l.pool("worker-0").Spec.Subports) == total-len(retiring) })
	for _, port := range retiring {
		if l.fake.Has("port", port) {
			t.Errorf("port %s is still there", port)
		}
	}
	l.check("worker-0")
	if left := len(l.pool("worker-0").Spec.Subports); left != 4 {
		t.Errorf("%d are left, want the pod's and three", left)
	}
}

func TestANodeThatIsGoneLeavesNothing(t *testing.T) {
	for _, trunk := range []string{"stays", "goes first"} {
		t.Run("its trunk "+trunk, func(t *testing.T) {
			l := newLab(t, []string{"worker-0", "worker-1"})
			l.start(nil)
			l.until("ready", func() bool { return l.ready("worker-0") && l.ready("worker-1") })
			l.addPods("worker-1", "web")
			l.allocate("worker-1", "web")
			l.until("named", func() bool { return l.fake.Has("port", "default/web") })
			if trunk != "stays" {
				l.fake.Delete("trunk", "demo/worker-1")
			}
			l.kube.RemoveNode("worker-1")
			l.until("its pool is gone", func() bool { return l.pool("worker-1").Name == "" })
			l.until("its ports are gone", func() bool {
				return len(slices.DeleteFunc(l.fake.Left(), func(s string) bool {
					return !strings.HasPrefix(s, "port demo/pod-worker-1-") && s != "port default/web"
				})) == 0
			})
			l.check("worker-0")
		})
	}
}

func TestAQuotaThatIsUsedUpIsToldAndHeals(t *testing.T) {
	l := newLab(t, []string{"worker-0"})
	l.fake.Fail("POST /v2.0/ports", -1, 409, `{"NeutronError": {"type": "OverQuota", "message": "Quota exceeded for resources: ['port'].", "detail": ""}}`, nil)
	l.start(nil)
	l.until("told", func() bool { return l.condition("worker-0", vif.QuotaExceeded) == "True QuotaExceeded" })
	if c := l.condition("worker-0", vif.Ready); c != "False QuotaExceeded" {
		t.Errorf("ready is %s", c)
	}
	l.until("an event", func() bool { return l.events("QuotaExceeded") == 1 })
	l.fake.Heal()
	l.until("healed", func() bool {
		return l.ready("worker-0") && l.condition("worker-0", vif.QuotaExceeded) == "False WithinQuota"
	})
	l.until("an event", func() bool { return l.events("PoolFilled") == 1 })
	if n := l.events("QuotaExceeded"); n != 1 {
		t.Errorf("%d events say that the quota is used up, want one", n)
	}
	l.check("worker-0")
}

func TestARefusalIsNotMetWithMoreRequests(t *testing.T) {
	l := newLab(t, []string{"worker-0"})
	l.fake.Fail("POST /v2.0/ports", -1, 409, `{"NeutronError": {"type": "OverQuota", "message": "Quota exceeded for resources: ['port'].", "detail": ""}}`, nil)
	l.start(func(o *controller.Options) { o.Backoff = time.Hour })
	l.until("told", func() bool { return l.condition("worker-0", vif.QuotaExceeded) == "True QuotaExceeded" })
	for i := range 20 {
		l.addPods("worker-0", fmt.Sprintf("web-%d", i))
		l.status("worker-0", func(*vif.SubportPoolStatus) {})
	}
	l.renewals(3)
	if n := len(l.fake.Writes()); n != 1 {
		t.Errorf("%d writes while the quota is used up, want one", n)
	}
}

func TestAStolenLeaseEndsTheWriting(t *testing.T) {
	l := newLab(t, []string{"worker-0"})
	first, _ := l.start(nil)
	l.until("ready", func() bool { return l.ready("worker-0") })
	if metric(t, first, "leading") != "1" || metric(t, first, `subports{node="worker-0"}`) != "5" {
		t.Error("the metrics do not say who leads, or how many subports there are")
	}
	l.kube.Edit(lease, func(o map[string]any) {
		spec := o["spec"].(map[string]any)
		spec["holderIdentity"], spec["leaseDurationSeconds"] = "thief", 3600
	})
	l.until("it was noticed", func() bool { return metric(t, first, "leading") == "0" })
	l.fake.ResetLog()
	l.addPods("worker-0", "a", "b", "c", "d", "e")
	spec := l.pool("worker-0").Spec
	l.start(func(o *controller.Options) { o.Identity = "b" }) // waits, as the thief renews nothing
	l.renewals(4)
	if w := l.fake.Writes(); len(w) > 0 {
		t.Errorf("it went on writing: %v", w)
	}
	if len(l.pool("worker-0").Spec.Subports) != len(spec.Subports) {
		t.Error("it went on publishing")
	}
	l.kube.Edit(lease, func(o map[string]any) { o["spec"].(map[string]any)["holderIdentity"] = "" })
	l.until("one goes on", func() bool { return len(l.pool("worker-0").Spec.Subports) >= 8 })
	l.check("worker-0")
}

func TestTheNextControllerGoesOnWhereverOneStopped(t *testing.T) {
	for i := 1; i < 5; i++ { // before the first, it does not get as far as a pool
		for _, how := range []string{"before", "without its reply"} {
			t.Run(fmt.Sprintf("write %d %s", i, how), func(t *testing.T) {
				l := newLab(t, []string{"worker-0"})
				if how == "before" {
					l.fake.CutAfter(i)
				} else {
					l.fake.CutReply(i)
				}
				l.addPods("worker-0", "a", "b", "c", "d") // 7 are needed, 5 are made at first
				_, stop := l.start(func(o *controller.Options) { o.Lease = time.Second })
				l.until("cut off", func() bool { return l.condition("worker-0", vif.Ready) != "" && len(l.fake.Writes()) >= i })
				stop()
				l.fake.Heal()
				l.start(func(o *controller.Options) { o.Identity, o.Lease = "b", time.Second })
				l.until("filled", func() bool { return l.ready("worker-0") && len(l.pool("worker-0").Spec.Subports) >= 7 })
				l.check("worker-0")
				if n := len(l.pool("worker-0").Spec.Subports); n > 10 {
					t.Errorf("%d subports, want 10 at most", n)
				}
			})
		}
	}
}

func TestAPoolThatWasDeletedIsPublishedAgain(t *testing.T) {
	l := newLab(t, []string{"worker-0"})
	l.start(nil)
	l.until("ready", func() bool { return l.ready("worker-0") })
	was := l.pool("worker-0")
	l.fake.ResetLog()
	l.kube.Remove(pools + "worker-0")
	l.until("ready again", func() bool { return l.ready("worker-0") })
	if is := l.pool("worker-0"); is.UID == was.UID || fmt.Sprint(is.Spec) != fmt.Sprint(was.Spec) || len(l.fake.Writes()) > 0 {
		t.Errorf("was %+v, is %+v after %v", was.Spec, is.Spec, l.fake.Writes())
	}
}

package controller_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kuryrctl/kuryrctl/nodeagent/controller"
)

// annotate makes a node have these annotations and no others.
func (l *lab) annotate(node string, annotations map[string]string) {
	l.kube.EditNode(node, func(n *corev1.Node) { n.Annotations = annotations })
}

func TestAnnotationsOfNodesAndNamespacesCount(t *testing.T) {
	l := newLab(t, []string{"worker-0", "worker-1"})
	l.kube.SetNamespace(corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default", UID: "u1", Annotations: map[string]string{"kuryr.openstack.org/pool-min": "6"}}})
	l.annotate("worker-0", map[string]string{"kuryr.openstack.org/pool-min": "1", "kuryr.openstack.org/pool-batch": "1", "kuryr.openstack.org/pool-max": "9", "kuryr.openstack.org/pool-ttl": "soon"})
	l.start(nil)
	l.until("ready", func() bool { return l.ready("worker-0") && l.ready("worker-1") })
	if s := l.pool("worker-0").Spec; len(s.Subports) != 1 || s.Min != 1 || s.Max != 9 || s.Batch != 1 {
		t.Errorf("worker-0: %+v", s)
	}
	if s := l.pool("worker-1").Spec; len(s.Subports) != 5 || s.Min != 3 {
		t.Errorf("worker-1: %+v", s)
	}
	l.until("what is wrong is told", func() bool { return l.events("BadSetting") == 1 })
	l.addPods("worker-0", "a") // of a namespace that wants six
	l.until("six and one", func() bool { return len(l.pool("worker-0").Spec.Subports) >= 7 })
	l.kube.SetNamespace(corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default", UID: "u1", Annotations: map[string]string{"kuryr.openstack.org/pool-min": "8", "kuryr.openstack.org/pool-max": "80"}}})
	l.until("as many as there may be", func() bool { return len(l.pool("worker-0").Spec.Subports) == 9 })
	if s := l.pool("worker-1").Spec; s.Min != 3 {
		t.Errorf("worker-1 has no pod of that namespace: %+v", s)
	}
	l.until("what is wrong is told", func() bool { return l.events("BadSetting") == 2 })
	var notes []string
	for _, path := range l.kube.Paths() {
		var e struct {
			Reason, Note string
			Regarding    corev1.ObjectReference
		}
		if strings.HasPrefix(path, "events.k8s.io/") && l.kube.Object(path, &e) && e.Reason == "BadSetting" {
			notes = append(notes, e.Regarding.Kind+" "+e.Regarding.Name+": "+e.Note)
		}
	}
	for _, want := range []string{"Node worker-0: the annotation kuryr.openstack.org/pool-ttl is ignored: it says \"soon\"", "Namespace default: the annotation kuryr.openstack.org/pool-max is ignored"} {
		if !strings.Contains(strings.Join(notes, "\n"), want) {
			t.Errorf("%q is not among %q", want, notes)
		}
	}
	l.check("worker-0", "worker-1")
}

// offered is what a node's status says of subports: capacity and allocatable.
func (l *lab) offered(node string) string {
	n, _ := l.kube.Node(node)
	said := func(list corev1.ResourceList) string {
		q, ok := list[controller.Subports]
		if !ok {
			return "-"
		}
		return q.String()
	}
	return said(n.Status.Capacity) + " " + said(n.Status.Allocatable)
}

func TestTheSchedulerIsToldHowManySubportsANodeCanHave(t *testing.T) {
	l := newLab(t, []string{"worker-0"})
	l.start(nil)
	l.until("told", func() bool { return l.offered("worker-0") == "50 50" })
	if o := l.offered("master-0"); o != "- -" {
		t.Errorf("a node without a trunk offers %s", o)
	}
	l.annotate("worker-0", map[string]string{"kuryr.openstack.org/pool-max": "110"})
	l.until("told anew", func() bool { return l.offered("worker-0") == "110 110" })
	l.kube.EditNode("worker-0", func(n *corev1.Node) { n.Status.Capacity, n.Status.Allocatable = nil, nil }) // a kubelet that registers anew
	l.until("told again", func() bool { return l.offered("worker-0") == "110 110" })
	l.fake.Delete("trunk", "demo/worker-0")
	l.addPods("worker-0", "a", "b", "c", "d", "e", "f", "g", "h") // has it look
	l.until("withdrawn", func() bool { return l.offered("worker-0") == "- -" })
}

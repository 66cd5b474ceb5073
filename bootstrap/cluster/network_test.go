package cluster_test

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kuryrctl/kuryrctl/bootstrap/cluster"
	"github.com/kuryrctl/kuryrctl/internal/clustertest"
)

func TestPodsSayWhatTheirNetworkIsKnownBy(t *testing.T) {
	s := clustertest.New(t)
	began := metav1.NewTime(time.Now().Add(-time.Minute).Truncate(time.Second))
	s.AddPod(corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "1"}, Status: corev1.PodStatus{StartTime: &began}})
	s.AddPod(corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "etcd", UID: "2", Annotations: map[string]string{corev1.MirrorPodAnnotationKey: "hash"}},
		Spec: corev1.PodSpec{HostNetwork: true}})
	all, err := connect(t, s).Pods(t.Context(), "")
	if err != nil || len(all) != 2 {
		t.Fatalf("%v, %v", all, err)
	}
	if p := all[0]; p.Namespace != "kube-system" || p.UID != "hash" || !p.HostNetwork || !p.Started.IsZero() {
		t.Errorf("%+v", p)
	}
	if p := all[1]; p.Namespace != "default" || p.UID != "1" || p.HostNetwork || p.Ending || !p.Started.Equal(began.Time) {
		t.Errorf("%+v", p)
	}
}

func TestALeaseSaysWhoHoldsIt(t *testing.T) {
	s := clustertest.New(t)
	c := connect(t, s)
	if l, there, err := c.Lease(t.Context(), "kube-system", "x"); there || err != nil {
		t.Fatalf("%+v, %t, %v", l, there, err)
	}
	at := time.Now().Truncate(time.Microsecond)
	s.Put("coordination.k8s.io/v1/namespaces/kube-system/leases/x", map[string]any{"metadata": map[string]any{"name": "x"},
		"spec": map[string]any{"holderIdentity": "a_1", "leaseDurationSeconds": 15, "renewTime": metav1.NewMicroTime(at)}})
	l, there, err := c.Lease(t.Context(), "kube-system", "x")
	if err != nil || !there || l.Holder != "a_1" || !l.Renewed.Equal(at) || l.Lasts != 15*time.Second {
		t.Fatalf("%+v, %t, %v", l, there, err)
	}
	s.Stop()
	_, _, err = c.Lease(t.Context(), "kube-system", "x")
	wantError(t, err, "looking at lease x")
}

func TestRefusalsAreThoseOfSandboxesWithTheirLastTime(t *testing.T) {
	s := clustertest.New(t)
	now := time.Now().Truncate(time.Second)
	about := corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: "web", UID: "1"}
	s.AddEvent(corev1.Event{Reason: "Pulled", InvolvedObject: about})
	s.AddEvent(corev1.Event{Reason: "FailedCreatePodSandBox", InvolvedObject: about, Source: corev1.EventSource{Host: "worker-0"}, LastTimestamp: metav1.NewTime(now), Message: "no"})
	s.AddEvent(corev1.Event{Reason: "FailedCreatePodSandBox", InvolvedObject: about, ReportingInstance: "worker-1", EventTime: metav1.NewMicroTime(now.Add(-time.Hour)),
		Series: &corev1.EventSeries{LastObservedTime: metav1.NewMicroTime(now.Add(-time.Minute))}})
	s.AddEvent(corev1.Event{Reason: "FailedCreatePodSandBox", InvolvedObject: about, EventTime: metav1.NewMicroTime(now.Add(-2 * time.Minute))})
	all, err := connect(t, s).Refusals(t.Context())
	if err != nil || len(all) != 3 {
		t.Fatalf("%+v, %v", all, err)
	}
	if !all[0].Last.Equal(now.Add(-2*time.Minute)) || !all[1].Last.Equal(now.Add(-time.Minute)) || all[1].Node != "worker-1" {
		t.Errorf("%+v", all[:2])
	}
	if want := (cluster.Refusal{Namespace: "default", Pod: "web", UID: "1", Node: "worker-0", Message: "no", Last: all[2].Last}); all[2] != want || !all[2].Last.Equal(now) {
		t.Errorf("%+v", all[2])
	}
}

package cluster

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Pod is what the cluster says of one pod.
type Pod struct {
	Namespace   string
	Name, Node  string
	Address     string    // "" until it has one
	UID         string    // as its kubelet has it: of a static pod, its manifest's
	HostNetwork bool      // it has none of its own
	Ending      bool      // it is being deleted
	Started     time.Time // when its kubelet took it up; zero before
	Phase       string    // Pending, Running, Succeeded, Failed, Unknown
	Ready       bool      // all of its containers are
	Reason      string    // one word on why it is not, such as CrashLoopBackOff; "" where nobody says
	Message     string    // the same as a sentence
	Restarts    int       // of all its containers
	Ended       time.Time // when a container last ended and was started anew; zero if none did
}

func podOf(p *corev1.Pod) Pod {
	out := Pod{Namespace: p.Namespace, Name: p.Name, Node: p.Spec.NodeName, Address: p.Status.PodIP, UID: cmp.Or(p.Annotations[corev1.MirrorPodAnnotationKey], string(p.UID)),
		HostNetwork: p.Spec.HostNetwork, Ending: p.DeletionTimestamp != nil, Phase: string(p.Status.Phase), Reason: p.Status.Reason, Message: p.Status.Message}
	if p.Status.StartTime != nil {
		out.Started = p.Status.StartTime.Time
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			out.Ready = c.Status == corev1.ConditionTrue
		}
	}
	for _, c := range p.Status.ContainerStatuses {
		out.Restarts += int(c.RestartCount)
		if t := c.LastTerminationState.Terminated; t != nil && t.FinishedAt.After(out.Ended) {
			out.Ended = t.FinishedAt.Time
		}
		switch w, t := c.State.Waiting, c.State.Terminated; {
		case c.Ready:
		case w != nil:
			out.Reason, out.Message = w.Reason, w.Message
		case t != nil:
			out.Reason, out.Message = t.Reason, t.Message
		}
	}
	return out
}

// Pods lists the pods of a namespace, or with "" of all, by name.
func (c *Cluster) Pods(ctx context.Context, namespace string) ([]Pod, error) {
	list, err := c.core.Pods(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("listing the pods of %s: %w", namespace, err)
	}
	var pods []Pod
	for i := range list.Items {
		pods = append(pods, podOf(&list.Items[i]))
	}
	slices.SortFunc(pods, func(a, b Pod) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Namespace, b.Namespace))
	})
	return pods, nil
}

// Refusal is a pod that could not be given what it needs to start, which is mostly a network.
type Refusal struct {
	Namespace, Pod string
	UID            string
	Node           string
	Message        string
	Last           time.Time // when it was refused last
}

// Refusals lists what kubelets said lately of pods whose sandbox could not be made. The cluster keeps that for an hour.
func (c *Cluster) Refusals(ctx context.Context) ([]Refusal, error) {
	list, err := c.core.Events("").List(ctx, metav1.ListOptions{FieldSelector: "reason=FailedCreatePodSandBox"})
	if err != nil {
		return nil, fmt.Errorf("listing events: %w", err)
	}
	var all []Refusal
	for _, e := range list.Items {
		if e.Reason != "FailedCreatePodSandBox" || e.InvolvedObject.Kind != "Pod" {
			continue
		}
		r := Refusal{Namespace: e.InvolvedObject.Namespace, Pod: e.InvolvedObject.Name, UID: string(e.InvolvedObject.UID), Node: cmp.Or(e.Source.Host, e.ReportingInstance),
			Message: e.Message, Last: e.LastTimestamp.Time}
		if e.Series != nil {
			r.Last = e.Series.LastObservedTime.Time
		}
		if r.Last.IsZero() {
			r.Last = e.EventTime.Time
		}
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b Refusal) int { return a.Last.Compare(b.Last) })
	return all, nil
}

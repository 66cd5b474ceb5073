package cluster

import (
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
	Name, Node string
	Phase      string    // Pending, Running, Succeeded, Failed, Unknown
	Ready      bool      // all of its containers are
	Reason     string    // one word on why it is not, such as CrashLoopBackOff; "" where nobody says
	Message    string    // the same as a sentence
	Restarts   int       // of all its containers
	Ended      time.Time // when a container last ended and was started anew; zero if none did
}

func podOf(p *corev1.Pod) Pod {
	out := Pod{Name: p.Name, Node: p.Spec.NodeName, Phase: string(p.Status.Phase), Reason: p.Status.Reason, Message: p.Status.Message}
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

// Pods lists the pods of a namespace by name.
func (c *Cluster) Pods(ctx context.Context, namespace string) ([]Pod, error) {
	list, err := c.core.Pods(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("listing the pods of %s: %w", namespace, err)
	}
	var pods []Pod
	for i := range list.Items {
		pods = append(pods, podOf(&list.Items[i]))
	}
	slices.SortFunc(pods, func(a, b Pod) int { return strings.Compare(a.Name, b.Name) })
	return pods, nil
}

package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kuryrctl/kuryrctl/internal/wait"
)

// DrainOptions says how [Cluster.Drain] treats pods. The zero value is a careful drain.
type DrainOptions struct {
	Grace   time.Duration // for a pod to end, in whole seconds rounded up; 0 is what each pod asks for
	Timeout time.Duration // for the whole drain; 0 is 5 minutes
	Every   time.Duration // between two looks; 0 is 2 s

	// Force evicts also pods without a controller, which nothing starts anew elsewhere. Without it they stop the drain before any
	// pod is evicted.
	Force bool
}

// errDrainTime is the cause of a drain that ran out of time; what it was waiting for stands before it.
var errDrainTime = fmt.Errorf("not drained in time (what was evicted stays so, and draining again goes on from here): %w", context.DeadlineExceeded)

// Drain takes a node out of service: nothing new is scheduled to it, and its pods are evicted, as far as PodDisruptionBudgets
// allow, until the last has ended. Pods of DaemonSets, static pods and finished pods stay; what is in emptyDir volumes is lost, as
// at every end of a pod.
//
// A budget that is exhausted is waited for; running out of time gives an error that names the pods that are left, and why. It may
// be called again at any time. A node that is gone is drained. A node whose kubelet is dead cannot be drained, since nobody there
// ends its pods: look at [Node.Ready] before.
func (c *Cluster) Drain(ctx context.Context, node string, o DrainOptions) error {
	ctx, cancel := context.WithTimeoutCause(ctx, cmp.Or(o.Timeout, 5*time.Minute), errDrainTime)
	defer cancel()
	cordon := []byte(`{"spec":{"unschedulable":true}}`)
	_, err := c.core.Nodes().Patch(ctx, node, types.MergePatchType, cordon, metav1.PatchOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cordoning node %s: %w", node, err)
	}
	return wait.For(ctx, "the pods of node "+node+" to leave", cmp.Or(o.Every, 2*time.Second), func(ctx context.Context) (string, bool, error) {
		seen, done, err := c.evictAll(ctx, node, o)
		if ctx.Err() != nil {
			seen = "" // it was cut off, and what was seen before says more
		}
		return seen, done, err
	})
}

// evictAll looks at the node's pods once and asks those to leave that have not been asked yet.
func (c *Cluster) evictAll(ctx context.Context, node string, o DrainOptions) (seen string, done bool, err error) {
	list, err := c.core.Pods("").List(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("spec.nodeName", node).String()})
	if err != nil {
		seen, err = unlessFinal(err)
		return seen, false, err
	}
	pods := slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { return stays(&p) })
	if len(pods) == 0 {
		return "", true, nil
	}
	var alone []string
	for i := range pods {
		if p := &pods[i]; metav1.GetControllerOf(p) == nil && p.DeletionTimestamp == nil {
			alone = append(alone, p.Namespace+"/"+p.Name)
		}
	}
	if len(alone) > 0 && !o.Force {
		return "", false, fmt.Errorf("%s: without a controller, nothing starts it anew elsewhere; delete it, or force the drain", few(alone))
	}
	var left []string
	for i := range pods {
		if wait.Stopping(ctx) {
			break
		}
		p := &pods[i]
		why := "ending"
		if p.DeletionTimestamp == nil {
			if why, err = c.evict(ctx, p, o.Grace); err != nil {
				return "", false, fmt.Errorf("evicting %s/%s: %w", p.Namespace, p.Name, err)
			}
		}
		left = append(left, fmt.Sprintf("%s/%s (%s)", p.Namespace, p.Name, why))
	}
	return "there: " + few(left), false, nil
}

// stays reports whether a drain leaves the pod alone: its DaemonSet would start it again at once, the kubelet alone can end a
// static pod, and a finished one does nothing.
func stays(p *corev1.Pod) bool {
	owner := metav1.GetControllerOf(p)
	_, static := p.Annotations[corev1.MirrorPodAnnotationKey]
	return static || owner != nil && owner.Kind == "DaemonSet" || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// evict asks for one pod to be ended and says what came of it; an error is one that time does not mend. The request does not go
// through the typed client because that would sleep through a budget's Retry-After, out of sight and in a worker's place.
func (c *Cluster) evict(ctx context.Context, p *corev1.Pod, grace time.Duration) (seen string, err error) {
	// By uid: a StatefulSet's pod may have come back elsewhere under the same name.
	opts := &metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(p.UID))}
	if grace > 0 {
		seconds := int64((grace + time.Second - 1) / time.Second)
		opts.GracePeriodSeconds = &seconds
	}
	err = c.core.RESTClient().Post().MaxRetries(0).Namespace(p.Namespace).Resource("pods").Name(p.Name).SubResource("eviction").
		Body(&policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name}, DeleteOptions: opts}).
		Do(ctx).Error()
	switch {
	case err == nil:
		return "evicted", nil
	case apierrors.IsNotFound(err), apierrors.IsConflict(err):
		return "changed meanwhile", nil
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return "its namespace is being removed", nil
	}
	if budget, ok := apierrors.StatusCause(err, policyv1.DisruptionBudgetCause); ok {
		return budget.Message, nil
	}
	return unlessFinal(err)
}

// unlessFinal tells what may pass (a connection, a server that is restarting or too busy) from a refusal.
func unlessFinal(err error) (seen string, final error) {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		if code := status.Status().Code; code >= 400 && code < 500 && code != 429 {
			return "", err
		}
	}
	return err.Error(), nil
}

// few is a list for people: the first five, and how many more.
func few(names []string) string {
	const most = 5
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

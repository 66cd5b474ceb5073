package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kuryrctl/kuryrctl/nodeagent/vif"
)

// Subports is the extended resource by which the scheduler knows how many pods with a port a node can have. A pod asks for one; an
// admission policy sees to it (templates/files/kuryr/rbac.yaml).
const Subports corev1.ResourceName = vif.Group + "/subport"

// offer makes the node's status say that it has this many subports, or none where it has no pool. The kubelet keeps resources that it does
// not know and makes capacity allocatable itself, but only with its next report; a pod need not wait for that.
func (c *Controller) offer(ctx context.Context, n *node, name string, subports int) error {
	o, ok, _ := c.nodeStore.GetByKey(name)
	if !ok {
		return nil
	}
	is := o.(*corev1.Node)
	if n.offered > parseVersion(is.ResourceVersion) {
		return nil // the informer has not heard yet of what was written last
	}
	var quantity any
	want := ""
	if subports > 0 {
		want = strconv.Itoa(subports)
		quantity = want
	}
	if amount(is.Status.Capacity) == want && amount(is.Status.Allocatable) == want {
		return nil
	}
	if err := c.mayWrite(); err != nil {
		return err
	}
	list := map[string]any{string(Subports): quantity}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"capacity": list, "allocatable": list}})
	if err != nil {
		return err
	}
	after, err := c.kube.CoreV1().Nodes().Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	switch {
	case err == nil:
		n.offered = parseVersion(after.ResourceVersion)
	case !apierrors.IsNotFound(err) && !apierrors.IsConflict(err):
		return fmt.Errorf("telling the subports of node %s: %w", name, err)
	}
	return nil
}

// amount is how many subports a list has, "" when it does not mention them.
func amount(l corev1.ResourceList) string {
	q, ok := l[Subports]
	if !ok {
		return ""
	}
	return q.String()
}

// only keeps of a list what amount reads.
func only(l corev1.ResourceList) corev1.ResourceList {
	q, ok := l[Subports]
	if !ok {
		return nil
	}
	return corev1.ResourceList{Subports: q}
}

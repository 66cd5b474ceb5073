package cluster

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Node is what the cluster says of one node.
type Node struct {
	Name          string
	Roles         []string   // of its node-role.kubernetes.io labels, sorted; a worker of kubeadm has none
	ControlPlane  bool       // whether control-plane is among them
	Ready         bool       // the kubelet reports, and says so
	Reason        string     // one word on why it is not ready, such as NodeStatusUnknown; "" when it is
	Message       string     // the same as a sentence
	Unschedulable bool       // cordoned
	InternalIP    netip.Addr // the first one; not valid when the kubelet has not reported any
	Kubelet       string     // version, such as v1.37.1
	Runtime       string     // and version, such as containerd://2.1.9
	OSImage       string
	Created       time.Time
}

const roleLabel = "node-role.kubernetes.io/"

func nodeOf(n *corev1.Node) Node {
	out := Node{
		Name:          n.Name,
		Unschedulable: n.Spec.Unschedulable,
		Kubelet:       n.Status.NodeInfo.KubeletVersion,
		Runtime:       n.Status.NodeInfo.ContainerRuntimeVersion,
		OSImage:       n.Status.NodeInfo.OSImage,
		Created:       n.CreationTimestamp.Time,
		Reason:        "NeverReported",
		Message:       "the kubelet has not reported yet",
	}
	for label := range n.Labels {
		if role, ok := strings.CutPrefix(label, roleLabel); ok && role != "" {
			out.Roles = append(out.Roles, role)
		}
	}
	slices.Sort(out.Roles)
	out.ControlPlane = slices.Contains(out.Roles, "control-plane")
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			if out.Ready = c.Status == corev1.ConditionTrue; out.Ready {
				out.Reason, out.Message = "", ""
			} else {
				out.Reason, out.Message = c.Reason, c.Message
			}
		}
	}
	for _, a := range n.Status.Addresses {
		if ip, err := netip.ParseAddr(a.Address); err == nil && a.Type == corev1.NodeInternalIP && !out.InternalIP.IsValid() {
			out.InternalIP = ip
		}
	}
	return out
}

// Nodes lists the nodes by name.
func (c *Cluster) Nodes(ctx context.Context) ([]Node, error) {
	list, err := c.core.Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("listing nodes: %w", err)
	}
	var nodes []Node
	for i := range list.Items {
		nodes = append(nodes, nodeOf(&list.Items[i]))
	}
	slices.SortFunc(nodes, func(a, b Node) int { return strings.Compare(a.Name, b.Name) })
	return nodes, nil
}

// Node returns one node and whether there is one of that name.
func (c *Cluster) Node(ctx context.Context, name string) (Node, bool, error) {
	n, err := c.core.Nodes().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return Node{}, false, nil
	}
	if err != nil {
		return Node{}, false, fmt.Errorf("looking at node %s: %w", name, err)
	}
	return nodeOf(n), true, nil
}

// RemoveNode deletes the Node object, which may be gone already. A kubelet that still runs does not make it anew until it is
// restarted. Pods that were bound to the node are removed by the cluster.
func (c *Cluster) RemoveNode(ctx context.Context, name string) error {
	if err := c.core.Nodes().Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("removing node %s: %w", name, err)
	}
	return nil
}

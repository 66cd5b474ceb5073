package cluster

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ClusterIP is the address of a Service in the cluster: "None" of a headless one, "" while it has none.
func (c *Cluster) ClusterIP(ctx context.Context, namespace, name string) (string, error) {
	s, err := c.core.Services(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("reading service %s/%s: %w", namespace, name, err)
	}
	return s.Spec.ClusterIP, nil
}

// DeleteNamespace begins to delete a namespace with all that is in it. One that is not there is deleted.
func (c *Cluster) DeleteNamespace(ctx context.Context, name string) error {
	err := c.core.Namespaces().Delete(ctx, name, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("deleting namespace %s: %w", name, err)
	}
	return nil
}

// HasNamespace reports whether a namespace is there, be it on its way out.
func (c *Cluster) HasNamespace(ctx context.Context, name string) (bool, error) {
	_, err := c.core.Namespaces().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading namespace %s: %w", name, err)
	}
	return true, nil
}

package controller

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/kuryrctl/kuryrctl/nodeagent/vif"
)

// names are the nodes and pools there are.
func (c *Controller) names() []string {
	return append(c.nodeStore.ListKeys(), c.poolStore.ListKeys()...)
}

// watch prepares the informers.
func (c *Controller) watch() {
	on := func(names func(o any) []string) cache.ResourceEventHandler {
		add := func(o any) {
			if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = gone.Obj
			}
			for _, name := range names(o) {
				if name != "" {
					c.queue.Add(name)
				}
			}
		}
		return cache.ResourceEventHandlerFuncs{AddFunc: add, DeleteFunc: add, UpdateFunc: func(was, is any) {
			// Nodes report every few seconds that they are there, which is nothing to us.
			switch is := is.(type) {
			case *corev1.Node:
				was := was.(*corev1.Node)
				if maps.Equal(was.Annotations, is.Annotations) && amount(was.Status.Capacity) == amount(is.Status.Capacity) && amount(was.Status.Allocatable) == amount(is.Status.Allocatable) {
					return
				}
			case *corev1.Namespace:
				if maps.Equal(was.(*corev1.Namespace).Annotations, is.Annotations) {
					return
				}
			}
			add(is)
		}}
	}
	inform := func(from cache.Getter, resource, fields string, o cache.InformerOptions) cache.Store {
		o.ListerWatcher = cache.NewFilteredListWatchFromClient(from, resource, "", func(l *metav1.ListOptions) { l.FieldSelector = fields })
		o.Transform = strip
		store, informer := cache.NewInformerWithOptions(o)
		c.informers = append(c.informers, informer)
		return store
	}
	core := c.kube.CoreV1().RESTClient()
	c.nodeStore = inform(core, "nodes", "", cache.InformerOptions{
		ObjectType: &corev1.Node{},
		Handler:    on(func(o any) []string { return []string{o.(*corev1.Node).Name} }),
	})
	c.podStore = inform(core, "pods", "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed", cache.InformerOptions{
		ObjectType: &corev1.Pod{},
		Handler:    on(func(o any) []string { return []string{o.(*corev1.Pod).Spec.NodeName} }),
		Indexers: cache.Indexers{
			byNode:               func(o any) ([]string, error) { return []string{o.(*corev1.Pod).Spec.NodeName}, nil },
			cache.NamespaceIndex: cache.MetaNamespaceIndexFunc,
		},
	}).(cache.Indexer)
	c.namespaceStore = inform(core, "namespaces", "", cache.InformerOptions{
		ObjectType: &corev1.Namespace{},
		Handler:    on(func(o any) []string { return c.nodesOf(o.(*corev1.Namespace).Name) }),
	})
	c.poolStore = inform(c.pools, vif.Resource, "", cache.InformerOptions{
		ObjectType: &vif.SubportPool{},
		Handler:    on(func(o any) []string { return []string{o.(*vif.SubportPool).Name} }),
	})
}

// nodesOf are the nodes with pods of a namespace.
func (c *Controller) nodesOf(namespace string) []string {
	pods, _ := c.podStore.ByIndex(cache.NamespaceIndex, namespace) // the index is there
	nodes := map[string]bool{}
	for _, p := range pods {
		nodes[p.(*corev1.Pod).Spec.NodeName] = true
	}
	return slices.Collect(maps.Keys(nodes))
}

const (
	byNode = "node"
	// mirror is the annotation with the UID that the kubelet knows a static pod by, which is not that of its image at the API server.
	mirror = "kubernetes.io/config.mirror"
)

// strip keeps of an object what matters here: five thousand pods are then a few MiB.
func strip(o any) (any, error) {
	switch o := o.(type) {
	case *corev1.Node:
		return &corev1.Node{ObjectMeta: stripped(o.ObjectMeta), Status: corev1.NodeStatus{Capacity: only(o.Status.Capacity), Allocatable: only(o.Status.Allocatable)}}, nil
	case *corev1.Namespace:
		return &corev1.Namespace{ObjectMeta: stripped(o.ObjectMeta)}, nil
	case *vif.SubportPool:
		o.ManagedFields = nil
	case *corev1.Pod:
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: o.Namespace, Name: o.Name, UID: o.UID, ResourceVersion: o.ResourceVersion, DeletionTimestamp: o.DeletionTimestamp}}
		p.Spec.NodeName, p.Spec.HostNetwork = o.Spec.NodeName, o.Spec.HostNetwork
		for _, key := range []string{vif.AnnotationPort, mirror} {
			if v, ok := o.Annotations[key]; ok {
				metav1.SetMetaDataAnnotation(&p.ObjectMeta, key, v)
			}
		}
		return p, nil
	}
	return o, nil
}

// Package vif is the contract between the controller, which owns ports in Neutron, and the daemon of a node, which gives them to pods:
// the custom resource SubportPool of the group kuryr.openstack.org, one for each worker, and its definition for the API server. What kuryrctl
// asks of a node's kuryr-node is here too.
//
// Every field has one writer. The controller writes the spec and the conditions; the daemon writes the rest of the status.
//
// It refuses behaviour: nothing here talks to anybody. The deep copies are written by hand, since there are two types that need them.
package vif

import (
	_ "embed"
	"fmt"
	"net/netip"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Group, Version, Kind and Resource say where the API server keeps pools.
const (
	Group    = "kuryr.openstack.org"
	Version  = "v1alpha1"
	Kind     = "SubportPool"
	Resource = "subportpools"
)

// GroupVersion is the group and its version.
var GroupVersion = schema.GroupVersion{Group: Group, Version: Version}

// GVR is the resource as dynamic clients want it.
var GVR = GroupVersion.WithResource(Resource)

// Types of conditions.
const (
	Ready         = "Ready"         // the pool is as large as it should be
	QuotaExceeded = "QuotaExceeded" // the project may have no more ports
	NoAddresses   = "NoAddresses"   // the pod network has no more addresses
)

// AnnotationPort is the annotation by which the controller tells a pod's port.
const AnnotationPort = Group + "/port"

// SubportPool is the subports of one worker. It is cluster-scoped, and its name is the node's.
type SubportPool struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              SubportPoolSpec   `json:"spec"`
	Status            SubportPoolStatus `json:"status,omitzero"`
}

// SubportPoolList is what a list call returns.
type SubportPoolList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []SubportPool `json:"items"`
}

// SubportPoolSpec is what there is. The controller alone writes it.
type SubportPoolSpec struct {
	Trunk     string    `json:"trunk"`     // id in Neutron
	ParentMAC string    `json:"parentMAC"` // of the trunk's parent port, by which the node finds its interface
	Min       int       `json:"min"`       // free subports to keep
	Max       int       `json:"max"`       // subports at most
	Batch     int       `json:"batch"`     // subports made at once
	Subports  []Subport `json:"subports"`
}

// Subport is a port in Neutron that is attached to the trunk.
type Subport struct {
	Port     string `json:"port"` // id in Neutron
	MAC      string `json:"mac"`
	VLAN     int    `json:"vlan"` // on this trunk, 1 to 4094
	MTU      int    `json:"mtu"`
	IPs      []IP   `json:"ips"`                // at least one
	Retiring bool   `json:"retiring,omitempty"` // the controller wants it back: it is handed out no more
}

// IP is one address of a subport.
type IP struct {
	Address string `json:"address"` // with the length of its prefix: 10.10.0.5/16
	Gateway string `json:"gateway,omitempty"`
}

// SubportPoolStatus is what became of it. The daemon writes all but the conditions, by JSON merge patch; the controller those.
type SubportPoolStatus struct {
	Allocations []Allocation       `json:"allocations,omitempty"`
	Released    []string           `json:"released,omitempty"` // ports of retiring subports that the daemon will never hand out again
	Subports    int                `json:"subports,omitempty"` // how many the daemon knows: it sees the spec of this many
	Used        int                `json:"used,omitempty"`     // how many of them it cannot hand out now: allocated, or cooling down
	Heartbeat   metav1.Time        `json:"heartbeat,omitzero"` // of the daemon's last report
	Conditions  []metav1.Condition `json:"conditions,omitempty"`
}

// Allocation is a subport in the hands of a pod's sandbox.
type Allocation struct {
	Port      string      `json:"port"` // id in Neutron
	Namespace string      `json:"namespace"`
	Pod       string      `json:"pod"`
	UID       string      `json:"uid"`       // the pod's
	Container string      `json:"container"` // the sandbox's id at the container runtime
	Since     metav1.Time `json:"since"`
}

//go:embed subportpools.yaml
var manifest []byte

// CRD is the definition of SubportPool, YAML for the API server.
func CRD() []byte { return slices.Clone(manifest) }

// AddToScheme registers the types. It is a runtime.SchemeBuilder's function.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion, &SubportPool{}, &SubportPoolList{})
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}

// Problem says what makes a subport unfit for a pod, or nil. The API server's schema keeps most of it; addresses it cannot judge.
func (s Subport) Problem() error {
	switch {
	case s.Port == "":
		return fmt.Errorf("a subport without a port id (VLAN %d)", s.VLAN)
	case s.VLAN < 1 || s.VLAN > 4094:
		return fmt.Errorf("subport %s: VLAN %d is not between 1 and 4094", s.Port, s.VLAN)
	case len(s.IPs) == 0:
		return fmt.Errorf("subport %s has no address", s.Port)
	}
	for _, ip := range s.IPs {
		p, err := netip.ParsePrefix(ip.Address)
		if err != nil {
			return fmt.Errorf("subport %s: address %q is not ADDRESS/LENGTH", s.Port, ip.Address)
		}
		if ip.Gateway == "" {
			continue
		}
		if g, err := netip.ParseAddr(ip.Gateway); err != nil || g.Is4() != p.Addr().Is4() {
			return fmt.Errorf("subport %s: gateway %q of %s is no address of its kind", s.Port, ip.Gateway, ip.Address)
		}
	}
	return nil
}

// DeepCopy returns a copy that shares nothing.
func (s Subport) DeepCopy() Subport {
	s.IPs = slices.Clone(s.IPs)
	return s
}

// DeepCopy returns a copy that shares nothing.
func (p *SubportPool) DeepCopy() *SubportPool {
	if p == nil {
		return nil
	}
	c := *p
	p.ObjectMeta.DeepCopyInto(&c.ObjectMeta)
	c.Spec.Subports = slices.Clone(p.Spec.Subports)
	for i, s := range c.Spec.Subports {
		c.Spec.Subports[i] = s.DeepCopy()
	}
	c.Status.Allocations = slices.Clone(p.Status.Allocations)
	c.Status.Released = slices.Clone(p.Status.Released)
	c.Status.Conditions = slices.Clone(p.Status.Conditions)
	return &c
}

// DeepCopyObject is what a runtime.Object has.
func (p *SubportPool) DeepCopyObject() runtime.Object { return p.DeepCopy() }

// DeepCopyObject is what a runtime.Object has.
func (l *SubportPoolList) DeepCopyObject() runtime.Object {
	c := *l
	l.ListMeta.DeepCopyInto(&c.ListMeta)
	c.Items = slices.Clone(l.Items)
	for i := range c.Items {
		c.Items[i] = *l.Items[i].DeepCopy()
	}
	return &c
}

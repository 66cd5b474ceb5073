package lbaas

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Reason is why an Event about a Service was written. docs/events.md says what to do about each.
type Reason string

// The reasons there are.
const (
	LoadBalancerReady       Reason = "LoadBalancerReady"
	LoadBalancerFailed      Reason = "LoadBalancerFailed"
	LoadBalancerPending     Reason = "LoadBalancerPending"
	LoadBalancerRepaired    Reason = "LoadBalancerRepaired"
	LoadBalancerUndeletable Reason = "LoadBalancerUndeletable"
	QuotaExceeded           Reason = "QuotaExceeded"
	AddressInUse            Reason = "AddressInUse"
	FloatingIPUnavailable   Reason = "FloatingIPUnavailable"
	CloudError              Reason = "CloudError"

	AddressFamilyNotSupported Reason = "AddressFamilyNotSupported"
	AnnotationInvalid         Reason = "AnnotationInvalid"
	AnnotationNotSupported    Reason = "AnnotationNotSupported"
	OptionNotSupported        Reason = "OptionNotSupported"
	ExternalIPsNotServed      Reason = "ExternalIPsNotServed"
	NodePortNotServed         Reason = "NodePortNotServed"
	TrafficPolicyNotServed    Reason = "TrafficPolicyNotServed"
	SourceRangeInvalid        Reason = "SourceRangeInvalid"
	EndpointNotOpen           Reason = "EndpointNotOpen"
)

// reasons are those with the type of their Events.
var reasons = map[Reason]string{
	LoadBalancerReady:         corev1.EventTypeNormal,
	LoadBalancerFailed:        corev1.EventTypeWarning,
	LoadBalancerPending:       corev1.EventTypeWarning,
	LoadBalancerUndeletable:   corev1.EventTypeWarning,
	LoadBalancerRepaired:      corev1.EventTypeWarning,
	QuotaExceeded:             corev1.EventTypeWarning,
	AddressInUse:              corev1.EventTypeWarning,
	FloatingIPUnavailable:     corev1.EventTypeWarning,
	CloudError:                corev1.EventTypeWarning,
	AddressFamilyNotSupported: corev1.EventTypeWarning,
	AnnotationInvalid:         corev1.EventTypeWarning,
	AnnotationNotSupported:    corev1.EventTypeWarning,
	OptionNotSupported:        corev1.EventTypeWarning,
	ExternalIPsNotServed:      corev1.EventTypeWarning,
	NodePortNotServed:         corev1.EventTypeWarning,
	TrafficPolicyNotServed:    corev1.EventTypeWarning,
	SourceRangeInvalid:        corev1.EventTypeWarning,
	EndpointNotOpen:           corev1.EventTypeWarning,
}

// event writes an Event about a Service. They are written when something begins or changes and not while it lasts; one that cannot be
// written is only logged. A namespace that is being deleted takes none, and one that is gone has no place for it.
func (t *term) event(ctx context.Context, about *corev1.Service, reason Reason, note string) {
	if about == nil || t.mayWrite() != nil {
		return
	}
	const most = 1000 // the API server takes 1024 bytes
	if len(note) > most {
		note = note[:most]
	}
	e := &eventsv1.Event{
		ObjectMeta:          metav1.ObjectMeta{Namespace: about.Namespace, GenerateName: about.Name + "-"},
		EventTime:           metav1.NowMicro(),
		ReportingController: "kuryr.openstack.org/services",
		ReportingInstance:   t.o.Identity,
		Action:              "Reconcile",
		Reason:              string(reason),
		Type:                reasons[reason],
		Note:                note,
		Regarding:           corev1.ObjectReference{APIVersion: "v1", Kind: "Service", Namespace: about.Namespace, Name: about.Name, UID: about.UID},
	}
	_, err := t.kube.EventsV1().Events(e.Namespace).Create(ctx, e, metav1.CreateOptions{})
	switch {
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause), apierrors.IsNotFound(err):
		t.o.Log.Info("no event", "reason", reason, "note", note, "namespace", e.Namespace)
	case err != nil && ctx.Err() == nil:
		t.o.Log.Warn("writing an event", "reason", reason, "error", err)
	}
}

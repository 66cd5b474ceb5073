package controller

import (
	"cmp"
	"context"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kuryrctl/kuryrctl/nodeagent/vif"
)

// Reason is why an Event was written. docs/events.md says what to do about each.
type Reason string

// The reasons there are. Events are about a SubportPool where docs/events.md says nothing else.
const (
	PoolFilled     Reason = "PoolFilled"
	PoolAtMax      Reason = "PoolAtMax"
	QuotaExceeded  Reason = "QuotaExceeded"
	NoAddresses    Reason = "NoAddresses"
	CloudError     Reason = "CloudError"
	NoTrunk        Reason = "NoTrunk"
	SubportRevived Reason = "SubportRevived"
	BadSetting     Reason = "BadSetting"
	LeaksFound     Reason = "LeaksFound"
	LeaksRemoved   Reason = "LeaksRemoved"
)

// reasons are those with the type of their Events.
var reasons = map[Reason]string{
	PoolFilled:     corev1.EventTypeNormal,
	PoolAtMax:      corev1.EventTypeWarning,
	QuotaExceeded:  corev1.EventTypeWarning,
	NoAddresses:    corev1.EventTypeWarning,
	CloudError:     corev1.EventTypeWarning,
	NoTrunk:        corev1.EventTypeWarning,
	SubportRevived: corev1.EventTypeWarning,
	BadSetting:     corev1.EventTypeWarning,
	LeaksFound:     corev1.EventTypeWarning,
	LeaksRemoved:   corev1.EventTypeNormal,
}

// event writes an Event. They are written when something begins or changes and not while it lasts, so they are few; one that cannot be
// written is only logged.
func (c *Controller) event(ctx context.Context, about corev1.ObjectReference, reason Reason, note string) {
	if c.mayWrite() != nil {
		return
	}
	const most = 1000 // the API server takes 1024 bytes
	if len(note) > most {
		note = note[:most]
	}
	e := &eventsv1.Event{
		ObjectMeta:          metav1.ObjectMeta{Namespace: cmp.Or(about.Namespace, metav1.NamespaceDefault), GenerateName: about.Name + "-"},
		EventTime:           metav1.NowMicro(),
		ReportingController: vif.Group + "/controller",
		ReportingInstance:   c.o.Identity,
		Action:              "Reconcile",
		Reason:              string(reason),
		Type:                reasons[reason],
		Note:                note,
		Regarding:           about,
	}
	if _, err := c.kube.EventsV1().Events(e.Namespace).Create(ctx, e, metav1.CreateOptions{}); err != nil {
		c.o.Log.Warn("writing an event", "reason", reason, "error", err)
	}
}

// about is a pool as Events refer to it.
func about(p *vif.SubportPool) corev1.ObjectReference {
	return corev1.ObjectReference{APIVersion: typeMeta.APIVersion, Kind: vif.Kind, Name: p.Name, UID: p.UID}
}

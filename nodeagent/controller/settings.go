package controller

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kuryrctl/kuryrctl/nodeagent/vif"
)

// settings are those of one node's pool: the controller's own, what the node's annotations say instead, and what the namespaces of its
// pods ask for beyond that.
type settings struct {
	min, max, batch int
	ttl             time.Duration
}

// The annotations, of nodes and, but for the maximum, of namespaces. A namespace has no say in the maximum: it says what its pods need, while
// the maximum bounds what a node takes from everybody else, and the scheduler is told it.
const (
	annotationMin   = vif.Group + "/pool-min"
	annotationMax   = vif.Group + "/pool-max"
	annotationBatch = vif.Group + "/pool-batch"
	annotationTTL   = vif.Group + "/pool-ttl"
)

const (
	mostSubports = 4094 // VLAN ids
	mostBatch    = 50
	leastTTL     = time.Second
)

// asked is what annotations ask for; what they do not mention is nil.
type asked struct {
	min, max, batch *int
	ttl             *time.Duration
}

// ask reads annotations. What is not understood is left out, and told by what should be there instead, by annotation.
func ask(annotations map[string]string, node bool) (a asked, bad map[string]string) {
	bad = map[string]string{}
	number := func(key string, least, most int) *int {
		text, ok := annotations[key]
		if !ok {
			return nil
		}
		v, err := strconv.Atoi(text)
		if err != nil || v < least || v > most {
			bad[key] = fmt.Sprintf("a number from %d to %d", least, most)
			return nil
		}
		return &v
	}
	a.min = number(annotationMin, 0, mostSubports)
	a.batch = number(annotationBatch, 1, mostBatch)
	if node {
		a.max = number(annotationMax, 0, mostSubports)
	} else if _, ok := annotations[annotationMax]; ok {
		bad[annotationMax] = "on nodes, not on a namespace"
	}
	if text, ok := annotations[annotationTTL]; ok {
		if d, err := time.ParseDuration(text); err != nil || d < leastTTL {
			bad[annotationTTL] = "a duration of a second or more, such as 90s or 10m"
		} else {
			a.ttl = &d
		}
	}
	return a, bad
}

// join is what holds for a node: its own word counts instead of the controller's, and of namespaces the largest if it is larger still. No
// more can be kept free than there may be.
func (s settings) join(node asked, namespaces ...asked) settings {
	override(&s.min, node.min)
	override(&s.max, node.max)
	override(&s.batch, node.batch)
	override(&s.ttl, node.ttl)
	for _, n := range namespaces {
		raise(&s.min, n.min)
		raise(&s.batch, n.batch)
		raise(&s.ttl, n.ttl)
	}
	s.min = min(s.min, s.max)
	return s
}

func override[T any](v, with *T) {
	if with != nil {
		*v = *with
	}
}

func raise[T cmp.Ordered](v, to *T) {
	if to != nil {
		*v = max(*v, *to)
	}
}

// settings are those of a node, as of now. Of annotations that are not understood an Event tells once in each term.
func (c *Controller) settings(ctx context.Context, name string) settings {
	s := settings{min: c.o.Min, max: c.o.Max, batch: c.o.Batch, ttl: c.o.TTL}
	var own asked
	if o, ok, _ := c.nodeStore.GetByKey(name); ok {
		n := o.(*corev1.Node)
		a, bad := ask(n.Annotations, true)
		own = a
		c.complain(ctx, corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: n.Name, UID: n.UID}, n.Annotations, bad)
	}
	namespaces := map[string]bool{}
	for _, p := range c.pods(name) {
		if !p.Spec.HostNetwork {
			namespaces[p.Namespace] = true
		}
	}
	var theirs []asked
	for _, namespace := range slices.Sorted(maps.Keys(namespaces)) {
		o, ok, _ := c.namespaceStore.GetByKey(namespace)
		if !ok {
			continue
		}
		n := o.(*corev1.Namespace)
		a, bad := ask(n.Annotations, false)
		theirs = append(theirs, a)
		c.complain(ctx, corev1.ObjectReference{APIVersion: "v1", Kind: "Namespace", Namespace: n.Name, Name: n.Name, UID: n.UID}, n.Annotations, bad)
	}
	return s.join(own, theirs...)
}

// complain writes an Event for each annotation that is not understood, unless it was told of this value in this term.
func (c *Controller) complain(ctx context.Context, about corev1.ObjectReference, annotations, bad map[string]string) {
	for _, key := range slices.Sorted(maps.Keys(bad)) {
		what := about.Kind + " " + about.Name + " " + key
		c.mu.Lock()
		told, before := c.complaints[what]
		c.complaints[what] = annotations[key]
		c.mu.Unlock()
		if before && told == annotations[key] {
			continue
		}
		value := annotations[key]
		if len(value) > 100 {
			value = value[:100] + "..."
		}
		c.event(ctx, about, BadSetting, fmt.Sprintf("the annotation %s is ignored: it says %q and should be %s", key, value, bad[key]))
	}
}

// ours are the annotations that matter here.
func ours(annotations map[string]string) map[string]string {
	kept := map[string]string{}
	for key, v := range annotations {
		if strings.HasPrefix(key, vif.Group+"/pool-") {
			kept[key] = v
		}
	}
	return kept
}

// stripped is an object's identity with our annotations, all that is kept of nodes and namespaces.
func stripped(o metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: o.Name, UID: o.UID, ResourceVersion: o.ResourceVersion, Annotations: ours(o.Annotations)}
}

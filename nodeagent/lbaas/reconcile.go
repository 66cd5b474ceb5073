package lbaas

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
)

// item is what one term knows of one Service. The queue gives a Service to one worker at a time, so it needs no lock.
type item struct {
	about     *corev1.Service // as it was last
	balancers []*balancer     // that bear its name, whatever its UID was
	floating  []publicIP      // that are marked for it, or lead to one of these
	asked     *balancer       // what the latest change asked for
	at        time.Time       // what is known of the cloud is from then, with our own changes
	stale     time.Time       // what is known from before then is worth nothing

	doomed   string    // id of the latest load balancer whose deletion Octavia took
	since    time.Time // when it did; zero once that ended in ERROR
	pending  time.Time // since when the load balancer is under way
	underWay []part    // what of it was, at the last look
	stalled  time.Time // since when that has been the same
	rebuilt  int       // how often it was, one after the other
	rebuild  time.Time // not before
	bare     bool      // it cannot be made with what is in it
	fails    int       // passes that failed, one after the other
	pause    time.Time // nothing is tried before
	told     map[wish]bool
	alarm    Reason // of the last Event that told of something wrong, until all is well again
	ready    bool
	rules    []rule
}

// soon is when what goes on is looked at again.
const soon = time.Millisecond

func (t *term) item(key string) *item {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, ok := t.items[key]
	if !ok {
		n = &item{told: map[wish]bool{}}
		t.items[key] = n
	}
	return n
}

func (t *term) forget(key string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.items, key)
}

// sweep looks at everything at once, and has every Service looked at, and what is there without one.
func (t *term) sweep(ctx context.Context) (time.Duration, error) {
	v, err := t.cloud.look(ctx, time.Now().Add(-t.o.Resync))
	if err != nil {
		return min(time.Minute, t.o.Resync), err
	}
	count := 0
	for key, all := range v.balancers {
		count += len(all)
		t.queue.Add(key)
	}
	for _, f := range v.floating {
		if key, ok := ownerOf(t.o.Stack, f); ok {
			t.queue.Add(key)
		}
	}
	for _, key := range t.services.ListKeys() {
		t.queue.Add(key)
	}
	t.queue.Add(firewall)
	t.set("load_balancers", count)
	return t.o.Resync, nil
}

// ownerOf is the key of the Service that a floating IP was made for.
func ownerOf(stack string, f publicIP) (string, bool) {
	service, ok := openstack.ServiceOf(stack, f.Description)
	at := strings.LastIndex(service, "/")
	if !ok || at < 0 {
		return "", false
	}
	return service[:at], true
}

// visit makes a pass over a Service, unless one failed a moment ago: what goes on in the cluster must not make us ask a cloud that refuses
// more often than the backoff says.
func (t *term) visit(ctx context.Context, key string) (time.Duration, error) {
	n := t.item(key)
	if left := time.Until(n.pause); left > 0 {
		return left, nil
	}
	s := t.service(key)
	if s != nil {
		n.about = s
	} else if n.about == nil {
		namespace, name, _ := strings.Cut(key, "/")
		n.about = &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	}
	again, err := t.reconcile(ctx, n, key, s)
	if err == nil {
		if !n.ending() { // a deletion that was taken has not succeeded before its load balancer is gone
			n.fails = 0
		}
		return again, nil
	}
	again = t.backoff(n.fails)
	n.fails, n.pause, n.stale = n.fails+1, time.Now().Add(again), time.Now()
	reason := reasonOf(err)
	if reason == "" && n.fails > 3 {
		reason = CloudError
	}
	if reason != "" && ctx.Err() == nil && !errors.Is(err, errReadOnly) {
		t.alarm(ctx, n, reason, err.Error())
	}
	return again, err
}

// backoff is how long to wait after so many failures before.
func (t *term) backoff(fails int) time.Duration {
	return min(t.o.Backoff<<min(fails, 16), max(time.Minute, t.o.Backoff))
}

// reasonOf is that of the Event which tells of an error, or "" where the next pass may know better.
func reasonOf(err error) Reason {
	switch {
	case openstack.IsQuota(err):
		return QuotaExceeded
	case errors.As(err, new(*unavailable)):
		return FloatingIPUnavailable
	case errors.As(err, new(*inUse)):
		return AddressInUse
	case errors.As(err, new(*undeleted)):
		return LoadBalancerUndeletable
	case openstack.IsConflict(err), openstack.IsAmbiguous(err), openstack.IsNotFound(err), errors.Is(err, errReadOnly):
		return ""
	}
	return CloudError
}

// alarm writes an Event about the Service when something begins to be wrong.
func (t *term) alarm(ctx context.Context, n *item, r Reason, note string) {
	if n.ready = false; n.alarm != r {
		n.alarm = r
		t.event(ctx, n.about, r, note)
	}
}

// reconcile makes one pass over a Service, and says when to come again if nothing happens before.
func (t *term) reconcile(ctx context.Context, n *item, key string, s *corev1.Service) (time.Duration, error) {
	t.add("service_passes_total", 1)
	notBefore := time.Now().Add(-t.o.Resync)
	if n.stale.After(notBefore) {
		notBefore = n.stale
	}
	v, err := t.cloud.look(ctx, notBefore)
	if err != nil {
		return 0, err
	}
	if v.begin.After(n.at) && v.begin.After(n.stale) {
		if gone := t.take(n, key, v); gone != nil && served(s) {
			t.alarm(ctx, n, LoadBalancerRepaired, "load balancer "+gone.Name+" was gone, and is made anew")
		}
	}
	f := t.cloud.facts
	if f.provider = v.provider; len(n.balancers) > 0 {
		f.provider = n.balancers[0].Provider
	}
	if f.provider == "" && served(s) {
		return 0, fmt.Errorf("the API's load balancer %s/api-lb, whose provider the others take, is not there: `kuryrctl stack` makes it again", t.o.Stack)
	}
	f.pieces = t.pieces(n)
	var w want
	if s != nil {
		w = desired(s, t.endpoints(key), f)
	}
	t.grant(ctx, n, s, w)
	if done, err := t.release(ctx, n, s, w); done || err != nil {
		return soon, err
	}
	if w.tree == nil {
		again, err := t.discard(ctx, n, func(*balancer) bool { return true })
		if err == nil && again == 0 && s == nil {
			t.forget(key)
		}
		return again, err
	}
	w.tree.Description = openstack.Mark(t.o.Stack)
	if again, err := t.discard(ctx, n, func(b *balancer) bool { return b.Name != w.tree.Name || b.VIP != w.tree.VIP }); again > 0 || err != nil {
		return again, err
	}
	again, err := t.build(ctx, n, w)
	if err != nil || len(n.balancers) == 0 {
		return again, err
	}
	b := n.balancers[0]
	address, err := t.publish(ctx, n, s, w, b)
	if address != "" || errors.As(err, new(*unavailable)) {
		err = cmp.Or(err, t.report(ctx, s, w, address))
	}
	if err != nil {
		return again, err
	}
	if again == 0 {
		n.rebuilt = 0
		if !n.ready {
			if n.ready = true; n.alarm != "" || !n.pending.IsZero() {
				t.event(ctx, s, LoadBalancerReady, "the Service answers at "+strings.Join(slices.DeleteFunc(slices.Compact([]string{b.VIP, address}), func(a string) bool { return a == "" }), " and "))
			}
			n.alarm = ""
		}
		n.pending = time.Time{}
	}
	return again, nil
}

// take makes what a view shows of a Service what is known of it. It returns a load balancer that is not there any more without our doing.
func (t *term) take(n *item, key string, v *view) (gone *balancer) {
	for _, b := range n.balancers {
		if b.ID != n.doomed && !slices.ContainsFunc(v.balancers[key], func(o *balancer) bool { return o.ID == b.ID }) {
			gone = b
		}
	}
	n.balancers, n.floating, n.at = v.balancers[key], nil, v.begin
	for _, f := range v.floating {
		owner, _ := ownerOf(t.o.Stack, f)
		if owner == key || slices.ContainsFunc(n.balancers, func(b *balancer) bool { return b.VIPPort != "" && b.VIPPort == f.Port }) {
			n.floating = append(n.floating, f)
		}
	}
	return gone
}

// grant tells which wishes are not, and has the firewall looked at when what it must let in has changed.
func (t *term) grant(ctx context.Context, n *item, s *corev1.Service, w want) {
	told := map[wish]bool{}
	for _, x := range w.wishes {
		if told[x] = true; !n.told[x] {
			t.event(ctx, s, x.reason, x.note)
		}
	}
	n.told = told
	if !slices.Equal(n.rules, w.rules) {
		n.rules = w.rules
		t.queue.Add(firewall)
	}
}

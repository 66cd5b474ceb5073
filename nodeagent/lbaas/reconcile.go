package lbaas

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
)

// item is what one term knows of one Service. The queue gives a Service to one worker at a time, so it needs no lock.
type item struct {
	balancers []*balancer // that bear its name, whatever its UID was
	floating  []publicIP  // that are marked for it, or lead to one of these
	asked     *balancer   // what the latest change asked for
	at        time.Time   // what is known of the cloud is from then, with our own changes
	stale     time.Time   // what is known from before then is worth nothing

	doomed  string    // id of the latest load balancer whose deletion Octavia took
	since   time.Time // when it did
	pending time.Time // since when the load balancer is under way
	rebuilt int       // how often it was, one after the other
	rebuild time.Time // not before
	bare    bool      // it cannot be made with what is in it
	fails   int       // passes that failed, one after the other
	pause   time.Time // nothing is tried before
	told    map[wish]bool
	alarm   Reason // of the last Event that told of something wrong, until all is well again
	ready   bool
	rules   []rule
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
	again, err := t.reconcile(ctx, n, key, s)
	if err == nil {
		n.fails = 0
		return again, nil
	}
	again = t.backoff(n.fails)
	n.fails, n.pause, n.stale = n.fails+1, time.Now().Add(again), time.Now()
	reason := reasonOf(err)
	if reason == "" && n.fails > 3 {
		reason = CloudError
	}
	if reason != "" && ctx.Err() == nil && !errors.Is(err, errReadOnly) {
		t.alarm(ctx, n, s, reason, err.Error())
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
	case openstack.IsConflict(err), openstack.IsAmbiguous(err), openstack.IsNotFound(err), errors.Is(err, errReadOnly):
		return ""
	}
	return CloudError
}

// alarm writes an Event when something begins to be wrong.
func (t *term) alarm(ctx context.Context, n *item, s *corev1.Service, r Reason, note string) {
	if n.ready = false; n.alarm != r {
		n.alarm = r
		t.event(ctx, s, r, note)
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
			t.alarm(ctx, n, s, LoadBalancerRepaired, "load balancer "+gone.Name+" was gone, and is made anew")
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
	again, err := t.build(ctx, n, s, w)
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

// release gives back a floating IP that the Service does not ask for, if it was made for it.
func (t *term) release(ctx context.Context, n *item, s *corev1.Service, w want) (done bool, err error) {
	for i, f := range n.floating {
		// A crash may have left a second one, that leads nowhere.
		spare := f.Port == "" && slices.ContainsFunc(n.floating, func(o publicIP) bool { return o.ID != f.ID && o.Port != "" })
		if _, ours := ownerOf(t.o.Stack, f); !ours || !spare && w.floating != nil && f.Description == markOf(t.o.Stack, s) && w.floating.is(f) {
			continue
		}
		if err := t.cloud.write(ctx, t.cloud.network, http.MethodDelete, "floatingips/"+f.ID, nil, nil); err != nil && !openstack.IsNotFound(err) {
			return false, openstack.Wrap(err, "releasing floating IP %s", f.Address)
		}
		t.o.Log.Info("released a floating IP", "address", f.Address)
		n.floating, n.at = slices.Delete(n.floating, i, i+1), time.Now()
		return true, nil
	}
	return false, nil
}

// discard removes load balancers with everything in them, one a pass.
func (t *term) discard(ctx context.Context, n *item, unwanted func(*balancer) bool) (time.Duration, error) {
	i := slices.IndexFunc(n.balancers, unwanted)
	if i < 0 {
		return 0, nil
	}
	return t.remove(ctx, n, i)
}

// second is after how many polls a load balancer that is still there is deleted once more. One of three members was seen to take five.
const second = 30

// remove deletes a load balancer, or looks whether it is gone.
func (t *term) remove(ctx context.Context, n *item, i int) (time.Duration, error) {
	b := n.balancers[i]
	if b.Status == "PENDING_DELETE" || b.ID == n.doomed {
		// The OVN provider tells of changes that were in its queue when the deletion came: the load balancer is ACTIVE once more, and goes all
		// the same. A second deletion beside the first fails half-way, and has it come back in ERROR after it was gone.
		err := t.cloud.refresh(ctx, b, nil)
		switch {
		case openstack.IsNotFound(err) || err == nil && b.Status == "DELETED":
			n.drop(i)
			return soon, nil
		case err != nil || b.Status == "PENDING_DELETE" || b.ID == n.doomed && b.Status != "ERROR" && time.Since(n.since) < second*t.o.Poll:
			return t.o.Poll, err
		}
	}
	err := t.cloud.lb(ctx, http.MethodDelete, "loadbalancers/"+b.ID+"?cascade=true", nil, nil)
	switch {
	case openstack.IsNotFound(err):
		n.drop(i)
		return soon, nil
	case openstack.IsImmutable(err):
		return t.o.Poll, nil
	case err != nil:
		return 0, openstack.Wrap(err, "deleting load balancer %s", b.Name)
	}
	t.o.Log.Info("deleting a load balancer", "name", b.Name)
	b.Status, n.doomed, n.since, n.at = "PENDING_DELETE", b.ID, time.Now(), time.Now()
	return t.o.Poll, nil
}

// drop notes that a load balancer is gone. A floating IP that led to it stays, and leads nowhere.
func (n *item) drop(i int) {
	for j := range n.floating {
		if n.floating[j].Port == n.balancers[i].VIPPort {
			n.floating[j].Port = ""
		}
	}
	n.balancers, n.at = slices.Delete(slices.Clone(n.balancers), i, i+1), time.Now()
}

// build brings the load balancer one step nearer to what it should be. It returns 0 when it is that.
func (t *term) build(ctx context.Context, n *item, s *corev1.Service, w want) (time.Duration, error) {
	if len(n.balancers) == 0 {
		return t.create(ctx, n, s, w)
	}
	b := n.balancers[0]
	if b.ID == n.doomed {
		return t.remove(ctx, n, 0)
	}
	if b.Status != "ACTIVE" && b.Status != "ERROR" {
		err := t.cloud.refresh(ctx, b, n.asked)
		switch {
		case openstack.IsNotFound(err) || err == nil && b.Status == "DELETED":
			t.alarm(ctx, n, s, LoadBalancerRepaired, "load balancer "+b.Name+" was gone, and is made anew")
			n.drop(0)
			return soon, nil
		case err != nil:
			return 0, err
		}
	}
	switch {
	case b.Status == "ERROR" || b.Broken != "":
		t.alarm(ctx, n, s, LoadBalancerFailed, fmt.Sprintf("%s of load balancer %s (%s) went into ERROR: it is made anew", cmp.Or(b.Broken, "the whole"), b.Name, b.ID))
		if wait := time.Until(n.rebuild); wait > 0 {
			return wait, nil
		}
		n.rebuilt++
		n.rebuild = time.Now().Add(min(t.o.Backoff<<min(n.rebuilt, 16), max(5*time.Minute, t.o.Backoff)))
		t.add("load_balancers_rebuilt_total", 1)
		return t.remove(ctx, n, 0)
	case b.Status != "ACTIVE":
		if n.pending.IsZero() {
			n.pending = time.Now()
		}
		if n.ready = false; time.Since(n.pending) > t.o.Patience {
			t.alarm(ctx, n, s, LoadBalancerPending, fmt.Sprintf("load balancer %s (%s) is %s for more than %s; Octavia takes no change meanwhile", b.Name, b.ID, b.Status, t.o.Patience))
		}
		return min(max(t.o.Poll, time.Since(n.pending)/8), 15*t.o.Poll), nil
	}
	if final(b, w.tree) {
		t.o.Log.Info("making a load balancer anew, since its session affinity cannot be changed", "name", b.Name)
		return t.remove(ctx, n, 0)
	}
	c := diff(b, w.tree)
	if c == nil {
		return 0, nil
	}
	err := t.cloud.lb(ctx, c.method, c.path, c.body, nil)
	switch {
	case openstack.IsImmutable(err):
		b.Status = "PENDING_UPDATE" // by whom ever
		return t.o.Poll, nil
	case c.method == http.MethodDelete && openstack.IsNotFound(err):
	case err != nil:
		return 0, openstack.Wrap(err, "asking load balancer %s to %s", b.Name, c.what)
	}
	t.o.Log.Info("changed a load balancer", "name", b.Name, "change", c.what)
	c.done()
	b.Status, n.asked, n.at = "PENDING_UPDATE", w.tree, time.Now()
	n.pending = n.at
	return t.o.Poll, nil
}

// pieces tells that a load balancer is made piece by piece.
func (t *term) pieces(n *item) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return n.bare || t.noTrees
}

// create makes the load balancer, with everything in it where the provider can.
func (t *term) create(ctx context.Context, n *item, s *corev1.Service, w want) (time.Duration, error) {
	bare := t.pieces(n)
	var made struct {
		LoadBalancer struct {
			ID      string
			VIPPort string `json:"vip_port_id"`
			Status  string `json:"provisioning_status"`
		} `json:"loadbalancer"`
	}
	err := t.cloud.lb(ctx, http.MethodPost, "loadbalancers", map[string]any{"loadbalancer": w.tree.birth(t.cloud.facts.vipSubnet, bare)}, &made)
	switch {
	case !bare && (openstack.RefusesTree(err) || strings.Contains(openstack.Reason(err), "persistence_timeout")):
		t.o.Log.Info("a load balancer is not made at once", "name", w.tree.Name, "reason", openstack.Reason(err))
		t.mu.Lock()
		n.bare, t.noTrees = true, t.noTrees || strings.Contains(openstack.Reason(err), "fully populated")
		t.mu.Unlock()
		return soon, nil
	case err != nil && !openstack.IsQuota(err) && !errors.Is(err, errReadOnly) && ctx.Err() == nil:
		err = openstack.Wrap(err, "creating load balancer %s", w.tree.Name)
		if openstack.IsAmbiguous(err) && n.fails == 0 {
			return 0, err // it may well be there
		}
		again, holder, evicted := t.cloud.evict(ctx, w.tree.VIP, t.o.LeakAge)
		switch {
		case evicted != nil:
			return 0, errors.Join(err, evicted)
		case again > 0:
			return again, nil
		case holder != "":
			err = &inUse{w.tree.VIP, holder, err}
		}
		return 0, err
	case err != nil:
		return 0, openstack.Wrap(err, "creating load balancer %s", w.tree.Name)
	}
	b := &balancer{ID: made.LoadBalancer.ID, Name: w.tree.Name, Description: w.tree.Description, Status: made.LoadBalancer.Status, VIP: w.tree.VIP,
		VIPPort: made.LoadBalancer.VIPPort, Provider: w.tree.Provider}
	t.o.Log.Info("made a load balancer", "name", b.Name, "vip", b.VIP, "listeners", len(w.tree.Listeners))
	n.balancers, n.asked, n.at, n.pending, n.ready = []*balancer{b}, w.tree, time.Now(), time.Now(), false
	if b.Status == "ACTIVE" {
		b.Status = "PENDING_CREATE" // what is in it is not known yet
	}
	return t.o.Poll, nil
}

// inUse is an address that something else has.
type inUse struct {
	vip, holder string
	err         error
}

func (e *inUse) Error() string {
	return fmt.Sprintf("%s has the address %s: %v", e.holder, e.vip, e.err)
}
func (e *inUse) Unwrap() error { return e.err }

// unavailable is a floating IP that cannot be had.
type unavailable struct{ text string }

func (e *unavailable) Error() string { return e.text }

// keptFor is the description of a floating IP that outlives its Service. It bears no mark: from then on it is the user's.
func keptFor(s *corev1.Service) string { return "kept for service " + s.Namespace + "/" + s.Name }

// publish gives the VIP its floating IP. It returns the address that clients use from outside, "" while there is none.
func (t *term) publish(ctx context.Context, n *item, s *corev1.Service, w want, b *balancer) (string, error) {
	if w.floating == nil {
		if w.report {
			return b.VIP, nil
		}
		return "", nil
	}
	if b.VIPPort == "" || b.Status == "PENDING_DELETE" || b.Status == "ERROR" {
		return "", nil
	}
	description := markOf(t.o.Stack, s)
	if w.floating.keep {
		description = keptFor(s)
	}
	set := func(f publicIP, body map[string]any, what string) (string, error) {
		if err := t.cloud.write(ctx, t.cloud.network, http.MethodPut, "floatingips/"+f.ID, map[string]any{"floatingip": body}, nil); err != nil {
			return "", openstack.Wrap(err, "%s floating IP %s", what, f.Address)
		}
		f.Port, n.at = b.VIPPort, time.Now()
		if d, ok := body["description"].(string); ok {
			f.Description = d
		}
		n.floating = append(slices.DeleteFunc(n.floating, func(o publicIP) bool { return o.ID == f.ID }), f)
		return f.Address, nil
	}
	here := slices.IndexFunc(n.floating, func(f publicIP) bool { return f.Port == b.VIPPort })
	if here >= 0 {
		f := n.floating[here]
		switch ours := f.Description == markOf(t.o.Stack, s) || f.Description == keptFor(s); {
		case w.floating.address != "" && f.Address != w.floating.address:
			if _, err := set(f, map[string]any{"port_id": nil}, "taking away"); err != nil {
				return "", err
			}
			n.floating = slices.DeleteFunc(n.floating, func(o publicIP) bool { return o.ID == f.ID })
		case ours && f.Description != description:
			return set(f, map[string]any{"description": description}, "describing")
		default:
			return f.Address, nil
		}
	}
	lead := map[string]any{"port_id": b.VIPPort}
	for _, f := range n.floating {
		if f.Port == "" && f.Description == description {
			return set(f, lead, "leading to the VIP the")
		}
	}
	address := w.floating.address
	if address == "" && w.floating.keep && len(s.Status.LoadBalancer.Ingress) > 0 {
		address = s.Status.LoadBalancer.Ingress[0].IP // it may have lost its way when the load balancer was made anew
	}
	if address != "" {
		found, err := list[publicIP](ctx, t.cloud.network, "floatingips", url.Values{"floating_ip_address": {address}, "project_id": {t.cloud.project}})
		switch {
		case err != nil:
			return "", err
		case len(found) > 0 && found[0].Port == "" && (w.floating.address != "" || found[0].Description == description):
			return set(found[0], lead, "leading to the VIP the")
		case len(found) > 0 && w.floating.address != "":
			return "", &unavailable{fmt.Sprintf("floating IP %s, which spec.loadBalancerIP asks for, leads to port %s", address, found[0].Port)}
		}
	}
	body := map[string]any{"floating_network_id": w.floating.network, "port_id": b.VIPPort, "description": description}
	if w.floating.subnet != "" {
		body["subnet_id"] = w.floating.subnet
	}
	if w.floating.address != "" {
		body["floating_ip_address"] = w.floating.address
	}
	var made struct{ FloatingIP publicIP }
	err := t.cloud.write(ctx, t.cloud.network, http.MethodPost, "floatingips", map[string]any{"floatingip": body}, &made)
	switch {
	case openstack.IsForbidden(err) && w.floating.address != "":
		return "", &unavailable{fmt.Sprintf("the project has no floating IP %s, which spec.loadBalancerIP asks for, and may not choose one: allocate it first", address)}
	case openstack.IsQuota(err) || openstack.IsConflict(err) || openstack.IsNotFound(err) || openstack.IsAmbiguous(err) || errors.Is(err, errReadOnly):
		return "", openstack.Wrap(err, "allocating a floating IP")
	case err != nil:
		return "", &unavailable{openstack.Wrap(err, "allocating a floating IP").Error()}
	}
	t.o.Log.Info("allocated a floating IP", "address", made.FloatingIP.Address, "name", b.Name)
	n.floating, n.at = append(n.floating, made.FloatingIP), time.Now()
	return made.FloatingIP.Address, nil
}

// report writes the address into the Service's status; "" is that there is none.
func (t *term) report(ctx context.Context, s *corev1.Service, w want, address string) error {
	if !w.report {
		return nil
	}
	mode := corev1.LoadBalancerIPModeVIP
	should := []corev1.LoadBalancerIngress{{IP: address, IPMode: &mode}}
	switch {
	case address == "":
		should = nil
	case w.hostname != "":
		should = []corev1.LoadBalancerIngress{{Hostname: w.hostname}}
	}
	if reflect.DeepEqual(s.Status.LoadBalancer.Ingress, should) {
		return nil
	}
	if err := t.mayWrite(); err != nil {
		return fmt.Errorf("%w: %w", errReadOnly, err)
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": s.UID}, "status": map[string]any{"loadBalancer": map[string]any{"ingress": should}}})
	if err != nil {
		return err
	}
	_, err = t.kube.CoreV1().Services(s.Namespace).Patch(ctx, s.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("writing the status of service %s/%s: %w", s.Namespace, s.Name, err)
	}
	return nil
}

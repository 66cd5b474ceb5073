package lbaas

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
)

// build brings the load balancer one step nearer to what it should be. It returns 0 when it is that.
func (t *term) build(ctx context.Context, n *item, w want) (time.Duration, error) {
	if len(n.balancers) == 0 {
		return t.create(ctx, n, w)
	}
	b := n.balancers[0]
	if b.ID == n.doomed {
		return t.remove(ctx, n, 0)
	}
	if b.Status != "ACTIVE" && b.Status != "ERROR" {
		err := t.cloud.refresh(ctx, b, n.asked)
		switch {
		case openstack.IsNotFound(err) || err == nil && b.Status == "DELETED":
			t.alarm(ctx, n, LoadBalancerRepaired, "load balancer "+b.Name+" was gone, and is made anew")
			n.drop(0)
			return soon, nil
		case err != nil:
			return 0, err
		}
	}
	if b.Status != "ACTIVE" || len(b.UnderWay) == 0 {
		n.underWay = nil
	}
	switch {
	case b.Status == "ERROR" || b.Broken != "":
		return t.rebuild(ctx, n, fmt.Sprintf("%s of load balancer %s (%s) went into ERROR: it is made anew", cmp.Or(b.Broken, "the whole"), b.Name, b.ID))
	case b.Status != "ACTIVE":
		return t.pending(ctx, n, b), nil
	case len(b.UnderWay) > 0:
		return t.settle(ctx, n, b)
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
		return t.pending(ctx, n, b), nil
	case c.method == http.MethodDelete && openstack.IsNotFound(err):
	case err != nil:
		return 0, openstack.Wrap(err, "asking load balancer %s to %s", b.Name, c.what)
	}
	t.o.Log.Info("changed a load balancer", "name", b.Name, "change", c.what)
	c.done()
	b.Status, n.asked, n.at = "PENDING_UPDATE", w.tree, time.Now()
	n.pending, n.underWay = n.at, nil
	return t.o.Poll, nil
}

// rebuild removes a load balancer that is to be made anew, less and less often when that has to be done over and over.
func (t *term) rebuild(ctx context.Context, n *item, note string) (time.Duration, error) {
	t.alarm(ctx, n, LoadBalancerFailed, note)
	if wait := time.Until(n.rebuild); wait > 0 {
		n.balancers[0].Status = "PENDING_UPDATE" // so that the next pass looks: it may have mended itself
		return wait, nil
	}
	n.rebuilt++
	n.rebuild = time.Now().Add(min(t.o.Backoff<<min(n.rebuilt, 16), max(5*time.Minute, t.o.Backoff)))
	t.add("load_balancers_rebuilt_total", 1)
	return t.remove(ctx, n, 0)
}

// pending is how long to wait before the next look at a load balancer that is under way.
func (t *term) pending(ctx context.Context, n *item, b *balancer) time.Duration {
	if n.pending.IsZero() {
		n.pending = time.Now()
	}
	if n.ready = false; time.Since(n.pending) > t.o.Patience {
		t.alarm(ctx, n, LoadBalancerPending, fmt.Sprintf("load balancer %s (%s) is %s for more than %s; Octavia takes no change meanwhile", b.Name, b.ID, b.Status, t.o.Patience))
	}
	return min(max(t.o.Poll, time.Since(n.pending)/8), 15*t.o.Poll)
}

// settle waits for the parts of a load balancer that is ACTIVE. The OVN provider is done with the whole first and with its parts, one by one, within
// seconds. What it had not begun with when octavia-api was killed stays PENDING for ever, and takes no change: only the whole can go.
func (t *term) settle(ctx context.Context, n *item, b *balancer) (time.Duration, error) {
	if !slices.Equal(n.underWay, b.UnderWay) {
		n.underWay, n.pending, n.stalled = b.UnderWay, time.Now(), time.Now()
	}
	if time.Since(n.stalled) > t.o.Settle {
		lost := b.UnderWay[0]
		return t.rebuild(ctx, n, fmt.Sprintf("%s of load balancer %s (%s) is %s for more than %s, and the whole is not: Octavia has lost it, and it is made anew",
			lost.what, b.Name, b.ID, lost.status, t.o.Settle))
	}
	again := t.pending(ctx, n, b)
	b.Status = "PENDING_UPDATE" // so that the next pass looks
	return again, nil
}

// pieces tells that a load balancer is made piece by piece.
func (t *term) pieces(n *item) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return n.bare || t.noTrees
}

// create makes the load balancer, with everything in it where the provider can.
func (t *term) create(ctx context.Context, n *item, w want) (time.Duration, error) {
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
	n.balancers, n.asked, n.at, n.pending, n.ready, n.underWay = []*balancer{b}, w.tree, time.Now(), time.Now(), false, nil
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
	if strings.HasPrefix(b.Status, "PENDING_") || b.ID == n.doomed {
		// The OVN provider tells of changes that were in its queue when the deletion came: the load balancer is ACTIVE once more, and goes all
		// the same. A second deletion beside the first fails half-way, and has it come back in ERROR after it was gone.
		err := t.cloud.refresh(ctx, b, nil)
		switch {
		case openstack.IsNotFound(err) || err == nil && b.Status == "DELETED":
			n.drop(i)
			return soon, nil
		case err != nil:
			return 0, err
		case strings.HasPrefix(b.Status, "PENDING_"):
			return t.pending(ctx, n, b), nil
		case b.ID == n.doomed && b.Status == "ERROR" && !n.since.IsZero():
			n.since = time.Time{}
			return 0, &undeleted{fmt.Sprintf("deleting load balancer %s (%s): Octavia took the call, and put %s into ERROR", b.Name, b.ID, cmp.Or(b.Broken, "the whole"))}
		case b.ID == n.doomed && b.Status != "ERROR" && time.Since(n.since) < second*t.o.Poll:
			return t.o.Poll, nil
		}
	}
	err := t.cloud.lb(ctx, http.MethodDelete, "loadbalancers/"+b.ID+"?cascade=true", nil, nil)
	switch {
	case openstack.IsNotFound(err):
		n.drop(i)
		return soon, nil
	case openstack.IsImmutable(err):
		b.Status = "PENDING_UPDATE" // by whom ever
		return t.pending(ctx, n, b), nil
	case err != nil:
		return 0, openstack.Wrap(err, "deleting load balancer %s", b.Name)
	}
	t.o.Log.Info("deleting a load balancer", "name", b.Name)
	b.Status, n.doomed, n.since, n.at = "PENDING_DELETE", b.ID, time.Now(), time.Now()
	n.pending = n.since
	return t.o.Poll, nil
}

// undeleted is a load balancer whose deletion was taken and not made.
type undeleted struct{ text string }

func (e *undeleted) Error() string { return e.text }

// ending tells that a load balancer was doomed and is still there.
func (n *item) ending() bool {
	return slices.ContainsFunc(n.balancers, func(b *balancer) bool { return b.ID == n.doomed })
}

// drop notes that a load balancer is gone. A floating IP that led to it stays, and leads nowhere.
func (n *item) drop(i int) {
	for j := range n.floating {
		if n.floating[j].Port == n.balancers[i].VIPPort {
			n.floating[j].Port = ""
		}
	}
	n.balancers, n.at, n.pending = slices.Delete(slices.Clone(n.balancers), i, i+1), time.Now(), time.Time{}
}

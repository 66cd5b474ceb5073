package controller

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kuryrctl/kuryrctl/nodeagent/subport"
	"github.com/kuryrctl/kuryrctl/nodeagent/vif"
)

// node is what one term of leadership knows of one node. The queue gives a node to one worker at a time, so it needs no lock.
type node struct {
	trunk   *subport.Trunk
	last    *vif.SubportPool // as the API server returned it last
	offered uint64           // version of the node when its subports were told last
	short   time.Time        // since when less is free than is wanted; zero when there is not
	idle    time.Time        // since when more is free than is wanted; zero when there is not
	fails   int              // passes that failed, one after the other
	pause   time.Time        // nothing is tried before
	alarm   Reason           // of the last Event that told of something wrong, until all is well again
}

// soon is when what goes on is looked at again.
const soon = time.Millisecond

// names is how many ports are named in one pass: a call each, which must not keep others waiting.
const names = 4

func (c *Controller) node(name string) *node {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, ok := c.nodes[name]
	if !ok {
		n = &node{trunk: c.network.Trunk(name)}
		c.nodes[name] = n
	}
	return n
}

// pool is the newest of what the informer and our own calls have shown. It is nil when there is none.
func (c *Controller) pool(ctx context.Context, n *node, name string) (*vif.SubportPool, error) {
	o, ok, _ := c.poolStore.GetByKey(name) // from memory: it cannot fail
	if ok {
		p := o.(*vif.SubportPool)
		if n.last != nil && n.last.UID == p.UID && version(n.last) > version(p) {
			p = n.last
		}
		return p, nil
	}
	if n.last == nil {
		return nil, nil
	}
	// It was made a moment ago and the informer has not heard of it, or it was deleted.
	p := &vif.SubportPool{}
	err := c.pools.Get().Resource(vif.Resource).Name(name).Do(ctx).Into(p)
	switch {
	case apierrors.IsNotFound(err):
		n.last = nil
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("reading the subport pool of %s: %w", name, err)
	}
	n.last = p
	return p, nil
}

// version reads a resource version, which may be compared within one kind of object.
func version(p *vif.SubportPool) uint64 { return parseVersion(p.ResourceVersion) }

func parseVersion(text string) uint64 {
	v, _ := strconv.ParseUint(text, 10, 64)
	return v
}

// visit makes a pass over a node, unless one failed a moment ago: what goes on in the cluster must not make us ask a cloud that
// refuses more often than the backoff says.
func (c *Controller) visit(ctx context.Context, name string) (time.Duration, error) {
	n := c.node(name)
	if left := time.Until(n.pause); left > 0 {
		return left, nil
	}
	begin := time.Now()
	again, err := c.reconcile(ctx, n, name)
	c.count.observe("reconcile_duration_seconds", "", time.Since(begin))
	if err == nil {
		n.fails = 0
		return again, nil
	}
	again = min(c.o.Backoff<<min(n.fails, 16), max(time.Minute, c.o.Backoff))
	n.fails, n.pause = n.fails+1, time.Now().Add(again)
	return again, err
}

// reconcile makes one pass over a node, and says when to come again if nothing happens before.
func (c *Controller) reconcile(ctx context.Context, n *node, name string) (time.Duration, error) {
	pool, err := c.pool(ctx, n, name)
	if err != nil {
		return 0, err
	}
	_, exists, _ := c.nodeStore.GetByKey(name)
	var spec vif.SubportPoolSpec
	if pool != nil {
		spec = pool.Spec
	}
	has, err := n.trunk.Refresh(ctx, c.o.Resync, spec.Subports)
	switch {
	case err != nil && pool != nil:
		return 0, errors.Join(err, c.tell(ctx, n, pool, verdict{err: err}))
	case err != nil:
		return 0, err
	case !exists:
		return 0, c.dismiss(ctx, n, name, pool, has)
	case !has:
		err := c.offer(ctx, n, name, 0)
		if pool != nil {
			err = errors.Join(err, c.tell(ctx, n, pool, verdict{noTrunk: true}))
		}
		return 0, err
	}
	s := c.settings(ctx, name)
	w := c.want(n, s, name, pool)
	if n.short.IsZero() && w.Short() {
		n.short = time.Now()
	}
	r, err := n.trunk.Reconcile(ctx, w)
	c.count.add("reconciles_total", 1)
	fresh := vif.SubportPoolSpec{Trunk: n.trunk.ID(), ParentMAC: n.trunk.ParentMAC(), Min: s.min, Max: s.max, Batch: s.batch, Subports: r.Subports}
	if fresh.Subports == nil {
		fresh.Subports = []vif.Subport{}
	}
	pool, published := c.publish(ctx, n, name, pool, fresh)
	if published != nil {
		if apierrors.IsConflict(published) || apierrors.IsAlreadyExists(published) {
			return soon, err // it was read again
		}
		return 0, errors.Join(err, published)
	}
	if !r.Idle {
		n.idle = time.Time{}
	} else if n.idle.IsZero() || w.Shrink {
		n.idle = time.Now()
	}
	for _, port := range r.Revived {
		c.event(ctx, about(pool), SubportRevived, fmt.Sprintf("port %s stayed down and was attached anew", port))
	}
	c.count.node(name, r)
	if !n.short.IsZero() && r.Free >= r.Wanted {
		c.count.observe("pool_fill_duration_seconds", "", time.Since(n.short))
		n.short = time.Time{}
	}
	if told := c.tell(ctx, n, pool, verdict{err: err, result: &r, full: len(r.Subports) >= s.max}); told != nil || err != nil {
		return 0, errors.Join(err, told)
	}
	if err := c.offer(ctx, n, name, s.max); err != nil {
		return 0, err
	}
	if r.Again {
		return soon, nil
	}
	return c.decorate(ctx, n, s, pool, r)
}

// dismiss removes what is left of a node that is gone.
func (c *Controller) dismiss(ctx context.Context, n *node, name string, pool *vif.SubportPool, has bool) error {
	if has {
		if _, err := n.trunk.Reconcile(ctx, subport.Want{Gone: true}); err != nil {
			return err
		}
	}
	if pool == nil {
		return nil
	}
	if err := c.mayWrite(); err != nil {
		return err
	}
	if err := c.pools.Delete().Resource(vif.Resource).Name(name).Do(ctx).Error(); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("deleting the subport pool of %s: %w", name, err)
	}
	c.suspect(pool)
	c.count.forget(name)
	c.mu.Lock()
	delete(c.nodes, name)
	c.mu.Unlock()
	c.queue.Add(sweep) // what its trunk, if that is gone too, has left behind
	return nil
}

// want says what is wanted of a node's trunk.
func (c *Controller) want(n *node, s settings, name string, pool *vif.SubportPool) subport.Want {
	w := subport.Want{Min: s.min, Max: s.max, Batch: s.batch, New: pool == nil, Allocated: map[string]bool{}, Released: map[string]bool{}}
	has := map[string]bool{}
	if pool != nil {
		w.Published = pool.Spec.Subports
		for _, a := range pool.Status.Allocations {
			w.Allocated[a.Port], has[a.UID] = true, true
		}
		for _, port := range pool.Status.Released {
			w.Released[port] = true
		}
	}
	for _, p := range c.pods(name) {
		if !p.Spec.HostNetwork && p.DeletionTimestamp == nil && !has[uid(p)] {
			w.Pods++
		}
	}
	w.Shrink = !n.idle.IsZero() && time.Since(n.idle) >= s.ttl
	return w
}

func (c *Controller) pods(name string) []*corev1.Pod {
	all, _ := c.podStore.ByIndex(byNode, name) // the index is there
	pods := make([]*corev1.Pod, len(all))
	for i, o := range all {
		pods[i] = o.(*corev1.Pod)
	}
	return pods
}

// uid is what the kubelet of its node calls a pod.
func uid(p *corev1.Pod) string { return cmp.Or(p.Annotations[mirror], string(p.UID)) }

// publish writes the spec if it has changed. After a conflict it reads the pool again, for the next pass.
func (c *Controller) publish(ctx context.Context, n *node, name string, pool *vif.SubportPool, spec vif.SubportPoolSpec) (*vif.SubportPool, error) {
	if pool != nil && reflect.DeepEqual(pool.Spec, spec) {
		return pool, nil
	}
	if err := c.mayWrite(); err != nil {
		return pool, err
	}
	out := &vif.SubportPool{}
	var err error
	if pool == nil {
		made := &vif.SubportPool{TypeMeta: typeMeta, ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}
		err = c.pools.Post().Resource(vif.Resource).Body(made).Do(ctx).Into(out)
	} else {
		changed := pool.DeepCopy()
		changed.TypeMeta, changed.Spec = typeMeta, spec
		err = c.pools.Put().Resource(vif.Resource).Name(name).Body(changed).Do(ctx).Into(out)
	}
	switch {
	case err == nil:
		n.last = out
		return out, nil
	case apierrors.IsNotFound(err):
		n.last = nil
		return nil, apierrors.NewConflict(vif.GVR.GroupResource(), name, err)
	case apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err):
		out = &vif.SubportPool{}
		if readErr := c.pools.Get().Resource(vif.Resource).Name(name).Do(ctx).Into(out); readErr != nil {
			return pool, fmt.Errorf("reading the subport pool of %s: %w", name, readErr)
		}
		n.last = out
		return out, err
	}
	return pool, fmt.Errorf("publishing the subport pool of %s: %w", name, err)
}

var typeMeta = metav1.TypeMeta{APIVersion: vif.Group + "/" + vif.Version, Kind: vif.Kind}

// verdict is how a pass went.
type verdict struct {
	err     error
	result  *subport.Result // nil when it did not get far enough
	full    bool
	noTrunk bool
}

// conditions says it in the pool's terms.
func (v verdict) conditions() []metav1.Condition {
	ready := metav1.Condition{Type: vif.Ready, Status: metav1.ConditionFalse}
	quota := metav1.Condition{Type: vif.QuotaExceeded, Status: metav1.ConditionFalse, Reason: "WithinQuota"}
	addresses := metav1.Condition{Type: vif.NoAddresses, Status: metav1.ConditionFalse, Reason: "AddressesLeft"}
	refusal := subport.Refusal(v.err)
	switch {
	case v.noTrunk:
		ready.Reason, ready.Message = string(NoTrunk), "the node's trunk is gone; `kuryrctl stack` makes it again"
	case v.err != nil:
		ready.Reason, ready.Message = refusal, v.err.Error()
	case v.result.Free >= v.result.Wanted:
		ready.Status, ready.Reason = metav1.ConditionTrue, string(PoolFilled)
	case v.full:
		ready.Reason, ready.Message = string(PoolAtMax), "the node has as many subports as it may have ("+annotationMax+")"
	default:
		ready.Reason, ready.Message = "Filling", "subports are being made"
	}
	switch refusal {
	case string(QuotaExceeded):
		quota.Status, quota.Reason, quota.Message = metav1.ConditionTrue, refusal, v.err.Error()
	case string(NoAddresses):
		addresses.Status, addresses.Reason, addresses.Message = metav1.ConditionTrue, refusal, v.err.Error()
	}
	return []metav1.Condition{ready, quota, addresses}
}

// tell writes the conditions if they have changed, and an Event where a state begins that somebody may have to do something about.
func (c *Controller) tell(ctx context.Context, n *node, pool *vif.SubportPool, v verdict) error {
	if r := subport.Refusal(v.err); r == "NotLeading" || r == "Conflict" || ctx.Err() != nil {
		return nil // neither is news: the next pass knows better
	}
	was := meta.FindStatusCondition(pool.Status.Conditions, vif.Ready)
	all := slices.Clone(pool.Status.Conditions)
	changed := false
	for _, cond := range v.conditions() {
		if old := meta.FindStatusCondition(all, cond.Type); old != nil && old.Status == cond.Status && old.Reason == cond.Reason {
			continue // a request id in the message alone is no change
		}
		changed = meta.SetStatusCondition(&all, cond) || changed
	}
	if !changed {
		return nil
	}
	if err := c.mayWrite(); err != nil {
		return err
	}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": all}})
	if err != nil {
		return err
	}
	out := &vif.SubportPool{}
	err = c.pools.Patch(types.MergePatchType).Resource(vif.Resource).Name(pool.Name).SubResource("status").Body(patch).Do(ctx).Into(out)
	if err != nil {
		return fmt.Errorf("writing the conditions of the subport pool of %s: %w", pool.Name, err)
	}
	n.last = out
	now := meta.FindStatusCondition(all, vif.Ready)
	reason := Reason(now.Reason)
	switch kind, known := reasons[reason]; {
	case known && kind == corev1.EventTypeWarning && reason != n.alarm:
		n.alarm = reason
		c.event(ctx, about(pool), reason, now.Message)
	case reason == PoolFilled && (n.alarm != "" || was == nil || reasons[Reason(was.Reason)] == corev1.EventTypeWarning):
		n.alarm = ""
		c.event(ctx, about(pool), reason, "the node has as many free subports as it should")
	}
	return nil
}

// decorate does what people like to see and nothing waits for: ports are named for their pods, and pods told their ports.
func (c *Controller) decorate(ctx context.Context, n *node, s settings, pool *vif.SubportPool, r subport.Result) (time.Duration, error) {
	again := r.Check
	if !n.idle.IsZero() {
		again = min(cmp.Or(again, s.ttl), max(s.ttl-time.Since(n.idle), soon))
	}
	wanted := map[string]string{}
	for _, s := range r.Subports {
		wanted[s.Port] = ""
	}
	ports := map[string]string{}
	for _, a := range pool.Status.Allocations {
		if _, ok := wanted[a.Port]; ok {
			wanted[a.Port], ports[a.UID] = a.Namespace+"/"+a.Pod, a.Port
		}
	}
	for _, p := range c.pods(pool.Name) {
		port := ports[uid(p)]
		if port == "" || p.Annotations[vif.AnnotationPort] == port {
			continue
		}
		if err := c.mayWrite(); err != nil {
			return 0, err
		}
		patch := fmt.Appendf(nil, `{"metadata":{"uid":%q,"annotations":{%q:%q}}}`, p.UID, vif.AnnotationPort, port)
		if _, err := c.kube.CoreV1().Pods(p.Namespace).Patch(ctx, p.Name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return 0, fmt.Errorf("annotating pod %s/%s: %w", p.Namespace, p.Name, err)
		}
	}
	all, err := n.trunk.Name(ctx, wanted, names)
	if err == nil && !all {
		again = soon
	}
	return again, err
}

package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"

	"github.com/kuryrctl/kuryrctl/nodeagent/vif"
)

// What is asked of the API server, and how often.
const (
	reportEvery    = 500 * time.Millisecond // at most
	heartbeatEvery = time.Minute
	callTimeout    = 15 * time.Second
	watchFor       = 5 * time.Minute // the server ends it then, and it is begun anew
	retryFirst     = 200 * time.Millisecond
	retryLast      = 10 * time.Second
)

// client speaks to the API server about pools, and nothing else.
type client struct {
	rest   rest.Interface
	params runtime.ParameterCodec
}

func newClient(c *rest.Config) (client, error) {
	s := runtime.NewScheme()
	metav1.AddToGroupVersion(s, schema.GroupVersion{Version: "v1"}) // the server's own Status
	if err := vif.AddToScheme(s); err != nil {
		return client{}, err
	}
	c = rest.CopyConfig(c)
	c.GroupVersion, c.APIPath, c.NegotiatedSerializer = &vif.GroupVersion, "/apis", serializer.NewCodecFactory(s).WithoutConversion()
	r, err := rest.RESTClientFor(c)
	if err != nil {
		return client{}, fmt.Errorf("preparing to speak to the API server: %w", err)
	}
	return client{rest: r, params: runtime.NewParameterCodec(s)}, nil
}

// follow keeps the ledger up to the API server's pool. Whatever goes wrong, it begins anew.
func (d *Daemon) follow(ctx context.Context, c client) error {
	delay := retryFirst
	for ctx.Err() == nil {
		well, err := d.followOnce(ctx, c)
		if well {
			delay = retryFirst
		}
		if ctx.Err() != nil {
			break
		}
		if err == nil {
			continue
		}
		d.Log.Warn("following the pool", "error", err, "retry", delay)
		d.mu.Lock()
		d.server = "the API server cannot be asked: " + err.Error()
		d.mu.Unlock()
		pause(ctx, delay/2+rand.N(delay/2))
		delay = min(delay*2, retryLast)
	}
	return nil
}

// followOnce lists and watches until the watch cannot go on. The list is the latest there is, not what a cache of the server remembers:
// the ledger must never see the past. well says that the server has answered.
func (d *Daemon) followOnce(ctx context.Context, c client) (well bool, err error) {
	options := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", d.Node).String()}
	var list vif.SubportPoolList
	call, cancel := context.WithTimeout(ctx, callTimeout)
	err = c.rest.Get().Resource(vif.Resource).VersionedParams(&options, c.params).Do(call).Into(&list)
	cancel()
	if err != nil {
		return false, fmt.Errorf("listing pools: %w", err)
	}
	var pool *vif.SubportPool
	if len(list.Items) > 0 {
		pool = &list.Items[0]
	}
	if err := d.publish(pool); err != nil {
		return true, err
	}
	d.mu.Lock()
	d.server = ""
	d.mu.Unlock()
	version := list.ResourceVersion
	for {
		version, err = d.watch(ctx, c, options, version)
		if err != nil || ctx.Err() != nil { // also when too much has happened for the server to tell all of it
			return true, err
		}
	}
}

// watch takes over what happens, until the server ends the watch, and returns the version to go on from.
func (d *Daemon) watch(ctx context.Context, c client, options metav1.ListOptions, version string) (string, error) {
	seconds := int64(watchFor / time.Second)
	options.Watch, options.ResourceVersion, options.TimeoutSeconds, options.AllowWatchBookmarks = true, version, &seconds, true
	ctx, cancel := context.WithTimeout(ctx, watchFor+callTimeout) // a server that is gone ends nothing
	defer cancel()
	begin := time.Now()
	w, err := c.rest.Get().Resource(vif.Resource).VersionedParams(&options, c.params).Watch(ctx)
	if err != nil {
		return version, fmt.Errorf("watching the pool: %w", err)
	}
	defer w.Stop()
	seen := 0
	for e := range w.ResultChan() {
		seen++
		if e.Type == watch.Error {
			return version, fmt.Errorf("watching the pool: %w", apierrors.FromObject(e.Object))
		}
		p, ok := e.Object.(*vif.SubportPool)
		if !ok {
			return version, fmt.Errorf("watching the pool: the server sent a %T", e.Object)
		}
		version = p.ResourceVersion
		switch {
		case e.Type == watch.Bookmark:
		case p.Name != d.Node:
			return version, fmt.Errorf("watching the pool: the server sent that of %s", p.Name)
		case e.Type == watch.Deleted:
			err = d.publish(nil)
		default:
			err = d.publish(p)
		}
		if err != nil {
			return version, err
		}
	}
	if seen == 0 && time.Since(begin) < time.Second {
		return version, errors.New("watching the pool: the connection was closed at once")
	}
	return version, nil
}

// report tells the API server who has what, soon after it changed and as a sign of life.
func (d *Daemon) report(ctx context.Context, c client) error {
	var told string
	delay := retryFirst
	last := time.Time{}
	for ctx.Err() == nil {
		d.mu.Lock()
		changed, pool := d.changed, d.ledger.pool
		status, next := d.summary(time.Now())
		d.mu.Unlock()
		text, err := json.Marshal(status)
		if err != nil {
			return err
		}
		if pool != nil { // one that was made anew has been told nothing
			text = append(text, pool.UID...)
		}
		if pool != nil && (string(text) != told || time.Since(last) >= heartbeatEvery) {
			err := d.patch(ctx, c, status)
			if err == nil {
				told, last, delay = string(text), time.Now(), retryFirst
				pause(ctx, reportEvery)
			}
			if err != nil && ctx.Err() == nil {
				d.Log.Warn("reporting the allocations", "error", err, "retry", delay)
				d.metrics.unreported()
				pause(ctx, delay/2+rand.N(delay/2))
				delay = min(delay*2, retryLast)
				continue
			}
		}
		due := last.Add(heartbeatEvery)
		if !next.IsZero() && next.Before(due) {
			due = next
		}
		if pool == nil {
			due = time.Time{}
		}
		d.mu.Lock()
		d.wait(ctx, changed, due)
		d.mu.Unlock()
	}
	return nil
}

// summary is the daemon's part of the status, without the time, and when it changes by itself. The caller holds the lock.
func (d *Daemon) summary(now time.Time) (map[string]any, time.Time) {
	allocations := []vif.Allocation{}
	for _, t := range d.ledger.taken {
		allocations = append(allocations, vif.Allocation{Port: t.Subport.Port, Namespace: t.Namespace, Pod: t.Pod, UID: t.UID, Container: t.Container,
			Since: metav1.NewTime(t.Since.Truncate(time.Second))})
	}
	slices.SortFunc(allocations, func(a, b vif.Allocation) int { return strings.Compare(a.Port, b.Port) })
	released := []string{}
	for port := range d.ledger.released {
		released = append(released, port)
	}
	slices.Sort(released)
	n := d.ledger.count(now)
	_, next := d.ledger.stand(now)
	return map[string]any{"allocations": allocations, "released": released, "subports": n.known, "used": n.used + n.cooling}, next
}

func (d *Daemon) patch(ctx context.Context, c client, status map[string]any) error {
	status["heartbeat"] = metav1.Now()
	body, err := json.Marshal(map[string]any{"status": status})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return c.rest.Patch(types.MergePatchType).Resource(vif.Resource).Name(d.Node).SubResource("status").Body(body).Do(ctx).Error()
}

// pause waits, or returns at once when ctx is done.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

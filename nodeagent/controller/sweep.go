package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kuryrctl/kuryrctl/nodeagent/vif"
)

// sweep looks at everything at once, has every node looked at, and removes ports that are nobody's. What one look alone takes for nobody's is
// only reported: it is removed when a later look, in the same term, says so too. What belonged to the pool of a node that this
// controller has dismissed needs no second one.
func (c *Controller) sweep(ctx context.Context) (time.Duration, error) {
	c.mu.Lock()
	since := time.Now().Add(-c.o.Resync)
	if c.told.After(since) {
		since = c.told
	}
	before := maps.Clone(c.suspects) // others may be added while this looks
	c.mu.Unlock()
	view, err := c.network.Look(ctx, since)
	if err != nil {
		return time.Minute, err
	}
	c.count.set("ports", float64(view.Ports()))
	if total, used, ok := c.network.Addresses(ctx); ok {
		c.count.set("addresses", total)
		c.count.set("addresses_used", used)
	}
	trunks := view.Nodes()
	claimed := map[string]bool{}
	for _, o := range c.poolStore.List() {
		p := o.(*vif.SubportPool)
		if _, there, _ := c.nodeStore.GetByKey(p.Name); !there && !slices.Contains(trunks, p.Name) {
			continue // a pool that is being deleted, or is about to be
		}
		for _, s := range p.Spec.Subports {
			claimed[s.Port] = true
		}
	}
	for _, name := range append(c.names(), trunks...) {
		c.queue.Add(name)
	}
	leaks := c.network.Strays(view, claimed)
	c.count.set("leaks", float64(len(leaks)))
	var sure, suspect []string
	c.mu.Lock()
	maps.DeleteFunc(c.suspects, func(id string, _ bool) bool { return before[id] && !slices.Contains(leaks, id) })
	for _, id := range leaks {
		if before[id] {
			sure = append(sure, id)
		} else {
			suspect = append(suspect, id)
			c.suspects[id] = true
		}
	}
	if len(suspect) > 0 {
		c.told = time.Now()
	}
	c.mu.Unlock()
	if len(suspect) > 0 {
		c.o.Log.Warn("ports belong to no node", "ports", len(suspect), "some", some(suspect))
		c.event(ctx, c.lease(), LeaksFound, fmt.Sprintf("%d ports of pods belong to no node, and are removed unless the next look finds whose they are: %s", len(suspect), some(suspect)))
	}
	if err := c.network.Delete(ctx, sure); err != nil {
		return time.Minute, err
	}
	if len(sure) > 0 {
		c.count.set("leaks", float64(len(suspect)))
		c.count.add("leaks_removed_total", float64(len(sure)))
		c.o.Log.Info("removed ports that belonged to no node", "ports", len(sure), "some", some(sure))
		c.event(ctx, c.lease(), LeaksRemoved, fmt.Sprintf("%d ports of pods belonged to no node, and were removed: %s", len(sure), some(sure)))
	}
	if len(suspect) > 0 {
		return min(c.o.Resync, time.Minute), nil
	}
	return c.o.Resync, nil
}

// suspect makes the ports of a pool that is deleted need no second look.
func (c *Controller) suspect(pool *vif.SubportPool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range pool.Spec.Subports {
		c.suspects[s.Port] = true
	}
	c.told = time.Now()
}

// some names the first few of many.
func some(ids []string) string {
	const few = 5
	text := strings.Join(ids[:min(len(ids), few)], ", ")
	if len(ids) > few {
		text += ", ..."
	}
	return text
}

// lease is what Events are about that concern no single node.
func (c *Controller) lease() corev1.ObjectReference {
	return corev1.ObjectReference{APIVersion: "coordination.k8s.io/v1", Kind: "Lease", Namespace: c.o.LeaseNamespace, Name: LeaseName}
}

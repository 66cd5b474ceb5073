package openstacktest

import (
	"encoding/json"
	"slices"
	"strings"
)

// row is a resource of any service.
type row interface{ head() *base }

// base is what every resource has.
type base struct {
	ID        string `json:"id"`
	ProjectID string `json:"project_id" api:"c"`

	seed   bool    // there from the start
	gone   bool    // no longer in its table
	change *change // in progress
}

func (b *base) head() *base { return b }

// change is a transition that arrives when it was looked at often enough.
type change struct {
	left int
	done func()
}

// later lets done happen after the thing was polled; a change under way is
// replaced, as a delete overtakes a build.
func (c *Cloud) later(r row, done func()) {
	if c.knobs.polls <= 0 {
		done()
		return
	}
	r.head().change = &change{left: c.knobs.polls, done: done}
}

// poll counts one look at a thing in transition.
func (c *Cloud) poll(r row) {
	h := r.head()
	if h.change == nil {
		return
	}
	if h.change.left--; h.change.left > 0 {
		return
	}
	done := h.change.done
	h.change = nil
	done()
}

// table holds the resources of one kind in order of creation.
type table[T row] struct {
	kind string
	rows []T
	byID map[string]T
}

func newTable[T row](kind string) *table[T] { return &table[T]{kind: kind, byID: map[string]T{}} }

func (t *table[T]) get(id string) (T, bool) { r, ok := t.byID[id]; return r, ok }

func (t *table[T]) add(r T) {
	t.rows = append(t.rows, r)
	t.byID[r.head().ID] = r
}

func (t *table[T]) drop(id string) {
	if r, ok := t.byID[id]; ok {
		r.head().gone = true
	}
	delete(t.byID, id)
	t.rows = slices.DeleteFunc(t.rows, func(r T) bool { return r.head().ID == id })
}

// where lists the rows that satisfy want; the slice is the caller's.
func (t *table[T]) where(want func(T) bool) []T {
	return slices.DeleteFunc(slices.Clone(t.rows), func(r T) bool { return !want(r) })
}

func (t *table[T]) first(want func(T) bool) (T, bool) {
	if i := slices.IndexFunc(t.rows, want); i >= 0 {
		return t.rows[i], true
	}
	var none T
	return none, false
}

func (t *table[T]) any(want func(T) bool) bool { return slices.ContainsFunc(t.rows, want) }

func (t *table[T]) name() string { return t.kind }

func (t *table[T]) all() []row {
	rows := make([]row, len(t.rows))
	for i, r := range t.rows {
		rows[i] = r
	}
	return rows
}

// twin adds a copy of r.
func (t *table[T]) twin(r row, id, name string) error {
	raw, err := json.Marshal(name)
	if err != nil {
		return err
	}
	x := clone(r.(T))
	x.head().ID = id
	if _, err := assign(x, fields{"name": raw}, anyField); err != nil {
		return err
	}
	t.add(x)
	return nil
}

// shelf is a table whose kind does not matter.
type shelf interface {
	name() string
	all() []row
	drop(id string)
	twin(r row, id, name string) error
}

func (c *Cloud) tables() []shelf {
	n, b := &c.network, &c.balancer
	return []shelf{n.networks, n.subnets, n.ports, n.routers, n.groups, n.rules, n.floatingIPs, n.trunks,
		c.compute.servers, c.compute.keypairs, c.compute.flavors, c.compute.groups, c.images, c.volumes.types, c.volumes.volumes,
		b.loadBalancers, b.listeners, b.pools, b.members, b.monitors, c.identity.credentials, c.names.zones, c.names.recordSets}
}

// Left lists everything that was not there at the start, as "kind name" ("trunk
// demo/worker-0"), sorted; a thing without a name shows its address or id. What
// the cloud makes and removes by itself is left out while the thing it belongs to
// is listed: default rules, service ports, VIP ports.
func (c *Cloud) Left() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	left := []string{}
	for _, s := range c.tables() {
		for _, r := range s.all() {
			if !r.head().seed && !c.implied(r) {
				left = append(left, s.name()+" "+label(r))
			}
		}
	}
	slices.Sort(left)
	return left
}

// Snapshot is everything there is, what was there from the start included: "kind name" and all its fields as JSON, sorted.
func (c *Cloud) Snapshot() []string {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []string
	for _, s := range c.tables() {
		for _, r := range s.all() {
			raw, err := json.Marshal(r)
			if err != nil {
				c.t.Fatalf("openstacktest: encoding %s %s: %v", s.name(), label(r), err)
			}
			all = append(all, s.name()+" "+label(r)+" "+string(raw))
		}
	}
	slices.Sort(all)
	return all
}

// implied tells that a row lives and dies with another row.
func (c *Cloud) implied(r row) bool {
	switch r := r.(type) {
	case *rule:
		_, ok := c.network.groups.get(r.GroupID)
		return ok
	case *port:
		if c.balancer.loadBalancers.any(func(lb *loadBalancer) bool { return lb.ownPort && lb.VIPPort == r.ID }) {
			return true
		}
		return strings.HasPrefix(r.DeviceOwner, "network:") && r.DeviceOwner != ownerRouterInterface
	}
	return false
}

func label(r row) string {
	for _, key := range []string{"name", "floating_ip_address"} {
		if v, ok := column(r, key); ok && text(v) != "" {
			return text(v)
		}
	}
	return r.head().ID
}

// Set changes one field of the things of this kind and name (or id) behind the
// client's back; field is the JSON name, value anything that encodes to its type:
//
//	c.Set("server", "demo/worker-0", "status", "ERROR")
//
// A change in progress is forgotten, so the thing stays as it was set. Kinds are
// the words of Left.
func (c *Cloud) Set(kind, name, field string, value any) {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	raw, err := json.Marshal(value)
	if err != nil {
		c.t.Fatalf("openstacktest: encoding %v: %v", value, err)
	}
	for _, r := range c.find(kind, name) {
		if refused, err := assign(r, fields{field: raw}, anyField); len(refused) > 0 || err != nil {
			c.t.Fatalf("openstacktest: a %s has no field %s of this type: %v", kind, field, err)
		}
		r.head().change = nil
	}
}

// Delete removes the things of this kind and name (or id) behind the client's
// back, at once and without asking what still uses them.
func (c *Cloud) Delete(kind, name string) {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.find(kind, name) {
		c.vanish(r)
	}
}

// Copy adds another thing like the one of this kind and name (or id), called as, and returns its id: a second external network, a newer
// image. What belongs to the first, such as the subnets of a network, is not copied.
func (c *Cloud) Copy(kind, name, as string) string {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	r, id := c.find(kind, name)[0], c.newID()
	for _, s := range c.tables() {
		if s.name() == kind {
			if err := s.twin(r, id, as); err != nil {
				c.t.Fatalf("openstacktest: copying %s %s: %v", kind, name, err)
			}
		}
	}
	return id
}

// Settle finishes every transition, as if everything had been polled long enough.
func (c *Cloud) Settle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for again := true; again; {
		again = false
		for _, s := range c.tables() {
			for _, r := range s.all() {
				if h := r.head(); h.change != nil {
					done := h.change.done
					h.change, again = nil, true
					done()
				}
			}
		}
	}
}

func (c *Cloud) find(kind, name string) []row {
	c.t.Helper()
	var found []row
	for _, s := range c.tables() {
		if s.name() != kind {
			continue
		}
		for _, r := range s.all() {
			if r.head().ID == name || label(r) == name {
				found = append(found, r)
			}
		}
	}
	if len(found) == 0 {
		c.t.Fatalf("openstacktest: there is no %s %s", kind, name)
	}
	return found
}

// Has tells whether a thing of this kind and name (or id) exists.
func (c *Cloud) Has(kind, name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.tables() {
		if s.name() != kind {
			continue
		}
		all := s.all() // by id first: it costs little where there are thousands
		if slices.ContainsFunc(all, func(r row) bool { return r.head().ID == name }) || slices.ContainsFunc(all, func(r row) bool { return label(r) == name }) {
			return true
		}
	}
	return false
}

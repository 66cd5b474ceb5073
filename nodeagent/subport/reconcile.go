package subport

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/nodeagent/vif"
)

// Want is what is wanted of one trunk.
type Want struct {
	Gone            bool // the node is no more: nothing is to be left
	Min, Max, Batch int  // see vif.SubportPoolSpec
	Pods            int  // that have no subport yet
	Shrink          bool // what is idle has been so for long enough
	New             bool // nothing was ever published for the node, or that is lost
	Published       []vif.Subport
	Allocated       map[string]bool // ports that pods have
	Released        map[string]bool // ports that the node will never hand out again
}

// Short tells that less is published and free than is wanted.
func (w Want) Short() bool {
	free := 0
	for _, s := range w.Published {
		if !s.Retiring && !w.Allocated[s.Port] && !w.Released[s.Port] {
			free++
		}
	}
	return free < min(w.Pods+w.Min, w.Max)
}

// Result is what became of a trunk.
type Result struct {
	Subports []vif.Subport // to be published, by VLAN id
	Free     int           // of them, to be handed out
	Wanted   int           // of them, to be free
	Idle     bool          // there are more than wanted and a batch
	Again    bool          // there is more to do at once
	Down     int           // of them, not up
	Check    time.Duration // until subports that are down are to be looked at; 0 for never
	Revived  []string      // subports that were down for too long, and were attached anew
}

// plan is one step.
type plan struct {
	remove []string       // from the trunk and from Neutron
	revive map[string]int // ports that are down for too long, with their VLAN ids
	attach map[string]int // loose ports, with their VLAN ids
	create int            // new ports
	retire map[string]bool
	short  int // free subports that are missing after all of it
	wanted int
}

// Reconcile brings the trunk one step nearer to what is wanted: ports that were released are removed, loose ones are attached or removed,
// new ones are made in one call and attached in another. What it returns is to be published whether or not there was an error:
// it is what is on the trunk, and only what was published can be given back.
//
// Ports made in one call are a batch at first, and a batch more with each call that succeeds; a refusal halves it. A trunk that
// needs many gets there in few calls, the first ports are there soon, and where the quota has room for seven more, seven are made.
func (t *Trunk) Reconcile(ctx context.Context, w Want) (Result, error) {
	if t.window == 0 {
		t.window = max(w.Batch, 1)
	}
	p := t.plan(w)
	r := Result{Wanted: p.wanted}
	err := t.remove(ctx, p.remove)
	if err == nil && len(p.revive) > 0 {
		r.Revived = sorted(p.revive)
		for id := range p.revive {
			t.ports[id].tries++
		}
		if err = t.detach(ctx, r.Revived); err == nil {
			err = t.attach(ctx, p.revive)
		}
	}
	if err == nil {
		err = t.attach(ctx, p.attach)
	}
	if err == nil && p.create > 0 {
		err = t.grow(ctx, w, p.create)
	}
	problem := t.publish(w, p, &r)
	// Each pass makes progress that it can see, so this ends: a port less to make, or an error.
	r.Again = err == nil && p.short > 0 && p.create > 0
	return r, errors.Join(err, problem)
}

func (t *Trunk) grow(ctx context.Context, w Want, k int) error {
	had, refused := maps.Clone(t.ports), t.n.o.Pace.refused()
	slower := func(err error) error {
		if !errors.Is(err, ErrReadOnly) {
			t.window = max(k/2, 1)
		}
		return err
	}
	if err := t.create(ctx, k); err != nil {
		return slower(err)
	}
	vlans := map[string]int{}
	taken := t.taken(w)
	for _, id := range sorted(t.ports) {
		if _, old := had[id]; !old {
			vlans[id] = lowest(taken)
		}
	}
	if err := t.attach(ctx, vlans); err != nil {
		return slower(err)
	}
	if t.n.o.Pace.refused() > refused { // here or elsewhere: it is a bad time for more
		return slower(nil)
	}
	t.window = min(t.window+max(w.Batch, 1), 50)
	return nil
}

func (t *Trunk) plan(w Want) plan {
	p := plan{attach: map[string]int{}, revive: map[string]int{}, retire: map[string]bool{}}
	if w.Gone {
		p.remove = sorted(t.ports)
		return p
	}
	published := map[string]vif.Subport{}
	for _, s := range w.Published {
		published[s.Port] = s
	}
	p.wanted = min(w.Pods+w.Min, w.Max)
	total, free := 0, 0
	var loose, unknown, idle []string
	taken := t.taken(w)
	for _, id := range t.byVLAN() {
		s, known := published[id]
		_, on := t.vlans[id]
		switch {
		case w.Released[id] && !w.Allocated[id], !on && s.Retiring && !w.Allocated[id]:
			p.remove = append(p.remove, id)
			continue
		case !on && !known && !w.Allocated[id]:
			loose = append(loose, id)
			continue
		case !on: // it is published, and a pod may have it by now
			vlan := s.VLAN
			if vlan == 0 || slices.Contains(slices.Collect(maps.Values(t.vlans)), vlan) {
				vlan = lowest(taken)
			}
			p.attach[id] = vlan
		case !known && !w.Allocated[id] && !w.New:
			unknown = append(unknown, id)
		}
		total++
		if !s.Retiring && !w.Allocated[id] {
			free++
			idle = append(idle, id)
		}
	}
	// What nobody has heard of can go without asking.
	for total > w.Max && len(unknown) > 0 {
		id := unknown[len(unknown)-1]
		unknown = unknown[:len(unknown)-1]
		idle = slices.DeleteFunc(idle, func(x string) bool { return x == id })
		p.remove = append(p.remove, id)
		total, free = total-1, free-1
	}
	short := min(p.wanted-free, w.Max-total)
	for _, id := range loose {
		if short <= 0 {
			p.remove = append(p.remove, id)
			continue
		}
		p.attach[id] = lowest(taken)
		short, total = short-1, total+1
	}
	if short > 0 {
		p.create = min(max(short, w.Batch), t.window, w.Max-total)
		p.short = short - p.create
	}
	surplus := total - w.Max
	if w.Shrink {
		surplus = max(surplus, free-p.wanted)
	}
	for i := len(idle) - 1; i >= 0 && surplus > 0; i-- {
		p.retire[idle[i]] = true
		surplus--
	}
	for id, h := range t.ports {
		vlan, on := t.vlans[id]
		switch {
		case !on || !t.late(h, t.fresh) || slices.Contains(p.remove, id): // as of when its state was read
		case t.up:
			p.revive[id] = vlan
		default: // a server that is off has nothing up
			h.since = t.fresh
		}
	}
	return p
}

// taken are the VLAN ids that are on the trunk or promised.
func (t *Trunk) taken(w Want) map[int]bool {
	taken := map[int]bool{}
	for _, vlan := range t.vlans {
		taken[vlan] = true
	}
	for _, s := range w.Published {
		taken[s.VLAN] = true
	}
	return taken
}

// lowest is the lowest VLAN id that is not taken; it is from now on.
func lowest(taken map[int]bool) int {
	vlan := 1
	for taken[vlan] {
		vlan++
	}
	taken[vlan] = true
	return vlan
}

func (t *Trunk) byVLAN() []string {
	return slices.SortedFunc(maps.Keys(t.ports), func(a, b string) int { return cmp.Or(t.vlans[a]-t.vlans[b], cmp.Compare(a, b)) })
}

// publish says what is on the trunk, and keeps what was published and is only off it for a moment.
func (t *Trunk) publish(w Want, p plan, r *Result) (problem error) {
	if w.Gone {
		return nil
	}
	published := map[string]vif.Subport{}
	for _, s := range w.Published {
		published[s.Port] = s
	}
	now := t.n.o.Now()
	for id, h := range t.ports {
		old, known := published[id]
		vlan, on := t.vlans[id]
		if !on && !known {
			continue
		}
		if !on {
			vlan = old.VLAN
		}
		s, err := t.publishable(h, vlan)
		if err != nil {
			problem = errors.Join(problem, err)
			continue
		}
		s.Retiring = old.Retiring || p.retire[id]
		r.Subports = append(r.Subports, s)
		if !s.Retiring && !w.Allocated[id] && !w.Released[id] {
			r.Free++
		}
		if on && h.Status != "ACTIVE" {
			r.Down++
			left := max(h.since.Add(t.patience(h)).Sub(now), time.Second)
			r.Check = min(cmp.Or(r.Check, left), left)
		}
	}
	slices.SortFunc(r.Subports, func(a, b vif.Subport) int { return cmp.Or(a.VLAN-b.VLAN, cmp.Compare(a.Port, b.Port)) })
	r.Idle = r.Free > r.Wanted+w.Batch
	return problem
}

// patience doubles with each attempt: what does not come up by this will hardly come up by more of it.
func (t *Trunk) patience(h *held) time.Duration { return t.n.o.Patience << min(h.tries, 6) }

func (t *Trunk) late(h *held, now time.Time) bool {
	return h.Status != "ACTIVE" && !now.Before(h.since.Add(t.patience(h)))
}

// due tells that a subport should be up by now and was not when it was last looked at, long ago.
func (t *Trunk) due(now time.Time) bool {
	for id, h := range t.ports {
		if _, on := t.vlans[id]; on && t.late(h, now) {
			return true
		}
	}
	return false
}

// Refusal classes an error of [Trunk.Reconcile] by what there is to do about it.
func Refusal(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, ErrReadOnly):
		return "NotLeading"
	case openstack.IsQuota(err):
		return "QuotaExceeded"
	case IsNoAddresses(err):
		return "NoAddresses"
	case openstack.IsConflict(err), openstack.IsAmbiguous(err), openstack.IsNotFound(err):
		return "Conflict"
	}
	return "CloudError"
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

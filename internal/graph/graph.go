// Package graph is the engine under every verb: a set of resources with needs, observed or applied in the order that the needs
// allow and as parallel as they allow.
//
// It owns order, parallelism, skipping and the collection of errors. It does not know what a resource is, keeps nothing
// between runs (a run that was cut off is resumed by running again: what is ready is left alone), and has no notion of deletion.
package graph

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/kuryrctl/kuryrctl/internal/wait"
)

// Key names a resource within a graph: kind "." role, such as "trunk.worker-0".
type Key string

// Phase is how a resource stands to what was declared.
type Phase int

// The phases, from nothing to as declared.
const (
	Absent  Phase = iota // it does not exist
	Pending              // it exists and is on its way
	Drifted              // it exists and differs from what was declared; Detail says in what
	Failed               // it exists and will not become ready by waiting
	Ready                // as declared
)

func (p Phase) String() string {
	return [...]string{"absent", "pending", "drifted", "failed", "ready"}[p]
}

// State is what an observation found.
type State struct {
	Phase  Phase
	ID     string // the cloud's identifier, if it has one
	Detail string // one line for a person: an address, a difference, a fault
}

// Resource is anything that a stack consists of: a cloud object, a step on a host, an add-on of the cluster.
type Resource interface {
	// Key is unique within a graph.
	Key() Key
	// Needs lists the resources that must be ready before this one is looked at.
	Needs() []Resource
	// Observe looks and changes nothing. It is not called while a need is absent.
	Observe(context.Context) (State, error)
	// Apply creates or repairs, and returns when the resource is ready. It may be called again after a crash at any point.
	Apply(context.Context) error
}

// Graph is a set of resources. Add it in creation order; that order is also the order of rows and errors.
type Graph struct {
	all   []Resource
	index map[Key]int
}

// Add puts resources into the graph. A key that is there already, or a need that is not there yet, is a programmer's error and
// panics: a graph built this way has no cycle.
func (g *Graph) Add(rs ...Resource) {
	if g.index == nil {
		g.index = map[Key]int{}
	}
	for _, r := range rs {
		if _, dup := g.index[r.Key()]; dup {
			panic(fmt.Sprintf("graph: %s added twice", r.Key()))
		}
		for _, need := range r.Needs() {
			if _, ok := g.index[need.Key()]; !ok {
				panic(fmt.Sprintf("graph: %s needs %s, which was not added before it", r.Key(), need.Key()))
			}
		}
		g.index[r.Key()] = len(g.all)
		g.all = append(g.all, r)
	}
}

// Resources lists what was added, in that order.
func (g *Graph) Resources() []Resource { return g.all }

// Row is one resource as it was observed.
type Row struct {
	Key   Key
	State State
	Err   error // why it could not be looked at, and the state says nothing
}

// Observe looks at every resource whose needs exist. One whose need is absent is absent without a look, and one whose need could not be
// looked at is not looked at either. The error joins those of the looks that failed, in the graph's order.
func (g *Graph) Observe(ctx context.Context) ([]Row, error) {
	rows := make([]Row, len(g.all))
	errs := make([]error, len(g.all))
	g.walk(func(i int, needs []int) {
		row := &rows[i]
		row.Key = g.all[i].Key()
		for _, n := range needs {
			switch {
			case rows[n].Err != nil:
				row.Err = fmt.Errorf("it needs %s", rows[n].Key)
			case rows[n].State.Phase == Absent:
				row.Err = nil
				return
			}
		}
		if row.Err != nil {
			return
		}
		if row.State, row.Err = g.all[i].Observe(ctx); row.Err != nil {
			row.State, errs[i] = State{}, fmt.Errorf("looking at %s: %w", row.Key, row.Err)
		}
	})
	return rows, errors.Join(errs...)
}

// EventKind is what happened to a resource during [Graph.Apply].
type EventKind string

// The kinds of events. Every resource ends with exactly one of Unchanged, Done, Error and Skipped.
const (
	Started   EventKind = "started"   // being created or repaired; State says what was found
	Waiting   EventKind = "waiting"   // Detail says for what, and what was last seen
	Unchanged EventKind = "unchanged" // was ready already
	Done      EventKind = "done"      // is ready now
	Error     EventKind = "error"     // Err says why
	Skipped   EventKind = "skipped"   // a need did not become ready, or the run is stopping
)

// Event reports progress. Events arrive one at a time.
type Event struct {
	Key    Key
	Kind   EventKind
	State  State
	Detail string
	Err    error
	At     time.Time
	Took   time.Duration // since Started, for Done and Error
}

// Apply makes every resource ready, at most limit at a time; one that waits does not count. A resource that fails stops only what
// needs it. The error joins all failures in the graph's order; it is nil only if every resource is ready.
func (g *Graph) Apply(ctx context.Context, limit int, on func(Event)) error {
	run := &run{slots: make(chan struct{}, max(limit, 1)), on: on}
	errs := make([]error, len(g.all))
	g.walk(func(i int, needs []int) {
		for _, n := range needs {
			if errs[n] != nil {
				errs[i] = errSkipped
				run.report(Event{Key: g.all[i].Key(), Kind: Skipped, Detail: "needs " + string(g.all[n].Key())})
				return
			}
		}
		errs[i] = run.apply(ctx, g.all[i])
	})
	var failed []error
	skipped := false
	for _, err := range errs {
		if skipped = skipped || err == errSkipped; err != nil && err != errSkipped {
			failed = append(failed, err)
		}
	}
	if skipped && wait.Stopping(ctx) {
		failed = append(failed, stopCause(ctx))
	}
	return errors.Join(failed...)
}

// errSkipped marks a resource that was not tried; it is reported as an event and is not a failure of its own.
var errSkipped = errors.New("skipped")

// walk calls visit once for each resource, after the visits of its needs, each in a goroutine of its own.
func (g *Graph) walk(visit func(i int, needs []int)) {
	var wg sync.WaitGroup
	done := make([]chan struct{}, len(g.all))
	for i := range g.all {
		done[i] = make(chan struct{})
	}
	for i, r := range g.all {
		var needs []int
		for _, n := range r.Needs() {
			needs = append(needs, g.index[n.Key()])
		}
		wg.Go(func() {
			defer close(done[i])
			for _, n := range needs {
				<-done[n]
			}
			visit(i, needs)
		})
	}
	wg.Wait()
}

// run is one Apply: its slots and its listener.
type run struct {
	slots chan struct{}
	mu    sync.Mutex
	on    func(Event)
}

func (r *run) report(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.At = time.Now(); r.on != nil {
		r.on(e)
	}
}

func (r *run) apply(ctx context.Context, res Resource) error {
	key := res.Key()
	place := &wait.Place{Slots: r.slots, Seen: func(what, seen string) {
		r.report(Event{Key: key, Kind: Waiting, Detail: what + ": " + seen})
	}}
	return wait.In(ctx, place, func(ctx context.Context) error {
		if wait.Stopping(ctx) {
			r.report(Event{Key: key, Kind: Skipped, Detail: "stopping"})
			return errSkipped
		}
		begin := time.Now()
		state, err := res.Observe(ctx)
		if err == nil && state.Phase == Ready {
			r.report(Event{Key: key, Kind: Unchanged, State: state})
			return nil
		}
		if err == nil {
			r.report(Event{Key: key, Kind: Started, State: state})
			err = res.Apply(ctx)
		}
		if err != nil {
			r.report(Event{Key: key, Kind: Error, Err: err, Took: time.Since(begin)})
			return fmt.Errorf("%s: %w", key, err)
		}
		r.report(Event{Key: key, Kind: Done, Took: time.Since(begin)})
		return nil
	})
}

// stopCause is why a run is stopping: the end of its context, or a person's first interrupt.
func stopCause(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return wait.ErrStopping
}

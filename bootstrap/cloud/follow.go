package cloud

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/kuryrctl/kuryrctl/internal/graph"
)

// follow passes on the progress of a first process until its cloud works. Keys of events begin with prefix.
func (l *Lab) follow(ctx context.Context, p process, prefix string, on func(Event)) error {
	seen, begun := map[string]string{}, map[string]bool{}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		alive := p.alive() // before the report is read, so that its last words are
		r, err := l.report()
		if err == nil {
			for _, s := range r.Units {
				if seen[s.Name] != s.Phase {
					seen[s.Name] = s.Phase
					if e := s.event(r.Virt); e.Kind != "" {
						e.Key = graph.Key(prefix + s.Name)
						if ended := e.Kind == graph.Done || e.Kind == graph.Error; ended && !begun[s.Name] {
							on(Event{Key: e.Key, Kind: graph.Started, At: e.At}) // it was quicker than the interval between two looks
						}
						begun[s.Name] = true
						on(e)
					}
				}
			}
		}
		switch {
		case r.Ready:
			return nil
		case r.Failure != "":
			return fmt.Errorf("starting the services: %s; the logs are in %s", r.Failure, l.Logs())
		case !alive:
			return fmt.Errorf("starting the services: the first process has ended, see %s", filepath.Join(l.Logs(), "supervisor.log"))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// event is what a listener of Up hears of a unit's phase.
func (s UnitStatus) event(virt VirtStatus) Event {
	e := Event{Took: s.Took, At: time.Now(), Detail: s.Detail}
	switch s.Phase {
	case "started":
		e.Kind = graph.Started
	case "ready", "done":
		e.Kind = graph.Done
		if s.Name == "virt" {
			e.Detail = fmt.Sprintf("%s (%s)", virt.Kind, virt.Reason)
		}
	case "failed":
		e.Kind, e.Err = graph.Error, errors.New(s.Detail)
	case "skipped":
		e.Kind = graph.Skipped
	}
	return e
}

// serial makes a listener that may be called from several goroutines.
func serial(on func(Event)) func(Event) {
	if on == nil {
		return func(Event) {}
	}
	var mu sync.Mutex
	return func(e Event) {
		mu.Lock()
		defer mu.Unlock()
		on(e)
	}
}

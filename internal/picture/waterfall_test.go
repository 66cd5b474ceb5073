package picture

import (
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kuryrctl/kuryrctl/internal/graph"
)

func TestARunIsDrawnWithItsWaits(t *testing.T) {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(s int) time.Time { return begin.Add(time.Duration(s) * time.Second) }
	svg := Waterfall("demo", begin, []graph.Event{
		{Key: "network.vm", Kind: graph.Unchanged, At: at(1)},
		{Key: "port.worker-0", Kind: graph.Started, At: at(2)},
		{Key: "port.worker-0", Kind: graph.Done, At: at(3), Took: 2 * time.Second}, // looked at for a second before
		{Key: "server.worker-0", Kind: graph.Started, At: at(3)},
		{Key: "server.worker-0", Kind: graph.Waiting, Detail: "server to become ACTIVE: BUILD", At: at(5)},
		{Key: "loadbalancer.api-lb", Kind: graph.Started, At: at(6)},
		{Key: "server.worker-0", Kind: graph.Waiting, Detail: "server to become ACTIVE: BUILD, spawning", At: at(9)},
		{Key: "server.worker-0", Kind: graph.Done, At: at(15), Took: 12 * time.Second},
		{Key: "host.worker-0", Kind: graph.Started, At: at(15)},
		{Key: "host.worker-0", Kind: graph.Error, At: at(20), Took: 5 * time.Second, Err: errors.New("no <route>")},
		{Key: "node.worker-0", Kind: graph.Skipped, At: at(20)},
	})
	golden(t, "run.svg", svg)
	texts := wellFormed(t, svg)
	for _, want := range []string{"port.worker-0, 2.0s", "server.worker-0, 12.0s, waited 10.0s", "waited 10.0s for server to become ACTIVE", "host.worker-0, 5.0s ✕", "no <route>", "loadbalancer.api-lb, 14.0s ✕", "shared by all nodes"} {
		name, rest, _ := strings.Cut(want, ", ")
		if !strings.Contains(texts, name) || !strings.Contains(texts, rest) {
			t.Errorf("the picture does not say %q", want)
		}
	}
	for _, not := range []string{"network.vm", "node.worker-0"} {
		if strings.Contains(texts, not) {
			t.Errorf("%s took no time and is in the picture", not)
		}
	}
}

// Whatever is told in whatever order, bars lie within the time of the run, and waits within their bars.
func TestBarsLieWithinTheRun(t *testing.T) {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	rapid.Check(t, func(t *rapid.T) {
		var events []graph.Event
		now := begin
		for range rapid.IntRange(0, 60).Draw(t, "events") {
			now = now.Add(time.Duration(rapid.IntRange(0, 30_000).Draw(t, "later")) * time.Millisecond)
			e := graph.Event{At: now, Key: rapid.SampledFrom([]graph.Key{"network.vm", "server.master-0", "server.worker-0", "server.worker-10", "<&>.x"}).Draw(t, "key"),
				Kind:   rapid.SampledFrom([]graph.EventKind{graph.Started, graph.Waiting, graph.Unchanged, graph.Done, graph.Error, graph.Skipped}).Draw(t, "kind"),
				Detail: rapid.SampledFrom([]string{"", "one: a", "one: b", "other"}).Draw(t, "detail")}
			if e.Kind == graph.Done || e.Kind == graph.Error {
				e.Took = time.Duration(rapid.IntRange(0, 100_000).Draw(t, "took")) * time.Millisecond
			}
			events = append(events, e)
		}
		bars, end := measure(begin, events)
		for _, b := range bars {
			if b.from < 0 || b.to < b.from || b.to > end {
				t.Fatalf("bar %+v in a run of %s", b, end)
			}
			last := b.from
			for _, w := range b.waits {
				if w.from < last || w.to < w.from || w.to > b.to {
					t.Fatalf("wait %+v in bar %+v", w, b)
				}
				last = w.to
			}
		}
		wellFormed(t, Waterfall("run", begin, events))
	})
}

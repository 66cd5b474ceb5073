package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/internal/openstack"
)

// timings gathers how long each resource took.
type timings struct {
	begin time.Time
	took  []graph.Event
}

// and returns a listener that gathers events and passes them on.
func (t *timings) and(on func(graph.Event)) func(graph.Event) {
	return func(e graph.Event) {
		if e.Kind == graph.Done || e.Kind == graph.Error {
			t.took = append(t.took, e)
		}
		on(e)
	}
}

// print lists what took time, longest first, and the calls that were made.
func (t *timings) print(out io.Writer, calls openstack.Calls) {
	slices.SortStableFunc(t.took, func(a, b graph.Event) int { return cmp.Compare(b.Took, a.Took) })
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TOOK\tENDED AFTER\tRESOURCE")
	for _, e := range t.took {
		fmt.Fprintf(w, "%s\t%s\t%s\n", seconds(e.Took), seconds(e.At.Sub(t.begin)), e.Key)
	}
	w.Flush()
	fmt.Fprintf(out, "API calls: %d writes, %d reads, %d logins in %s\n", calls.Writes, calls.Reads, calls.Auths, seconds(time.Since(t.begin)))
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1fs", d.Seconds()) }

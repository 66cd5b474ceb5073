package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/internal/picture"
)

// timings gathers how long each resource took.
type timings struct {
	begin  time.Time
	took   []graph.Event
	events []graph.Event // all of them, for a picture; none is wanted of most runs
	keep   bool
}

// and returns a listener that gathers events and passes them on.
func (t *timings) and(on func(graph.Event)) func(graph.Event) {
	return func(e graph.Event) {
		if e.Kind == graph.Done || e.Kind == graph.Error {
			t.took = append(t.took, e)
		}
		if t.keep {
			t.events = append(t.events, e)
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

// draw writes the picture of the run to a file, so that what is there is the old one or the new one.
func (t *timings) draw(path, title string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".kuryrctl-timings-*")
	if err != nil {
		return fmt.Errorf("drawing the timings: %w", err)
	}
	_, err = io.WriteString(f, picture.Waterfall(title, t.begin, t.events))
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = f.Sync()
	}
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name()) // nothing to add when this fails too
		return fmt.Errorf("drawing the timings: %w", err)
	}
	return nil
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1fs", d.Seconds()) }

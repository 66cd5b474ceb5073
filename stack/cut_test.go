package stack_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/internal/labtest"
	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
	"github.com/kuryrctl/kuryrctl/internal/wait"
	"github.com/kuryrctl/kuryrctl/stack"
)

// The heart of it: whatever call a run is cut off after, the next one ends in the same state, and nothing is made twice. How many writes a run
// makes can differ by a few, so a late cut may come after the last.
func TestCutAfterEveryWriteAndRunAgain(t *testing.T) {
	t.Parallel()
	reference := labtest.New(t, []string{"demo"})
	mustUp(t, reference, "demo", servers())
	want, writes := left(reference), len(reference.Writes())
	for _, how := range []struct {
		name string
		cut  func(*labtest.Lab, int)
	}{
		{"after the answer", func(l *labtest.Lab, n int) { l.CutAfter(n) }},
		{"before the answer", func(l *labtest.Lab, n int) { l.CutReply(n) }},
	} {
		for n := 1; n <= writes; n++ {
			t.Run(fmt.Sprintf("%s of write %d", how.name, n), func(t *testing.T) {
				t.Parallel()
				lab := labtest.New(t, []string{"demo"})
				how.cut(lab, n)
				if _, err := up(t, lab, "demo", servers()); err == nil && n < writes { // the last write gives the lock back, and all is done by then
					t.Fatal("the cut was not noticed")
				}
				lab.Heal()
				mustUp(t, lab, "demo", servers())
				if got := left(lab); !slices.Equal(got, want) {
					t.Fatalf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
				mustDown(t, lab, "demo")
				empty(t, lab)
			})
		}
	}
}

func TestCutAfterEveryWriteAndRemove(t *testing.T) {
	t.Parallel()
	reference := labtest.New(t, []string{"demo"})
	mustUp(t, reference, "demo", servers())
	for n := 1; n < len(reference.Writes()); n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			lab := labtest.New(t, []string{"demo"})
			lab.CutAfter(n)
			if _, err := up(t, lab, "demo", servers()); err == nil && len(lab.Writes()) > n {
				t.Fatal("the cut was not noticed")
			}
			lab.Heal()
			lab.State = t.TempDir() // another machine: neither key nor pins
			s := open(t, lab, "demo")
			r, err := s.Removal(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Down(t.Context(), r, stack.UpOptions{Parallel: 8, BreakLock: true}); err != nil { // the dead run's lock may be there
				t.Fatal(err)
			}
			empty(t, lab)
		})
	}
}

func TestRemovalCutAfterEveryWriteIsResumed(t *testing.T) {
	t.Parallel()
	reference := labtest.New(t, []string{"demo"})
	mustUp(t, reference, "demo", servers())
	reference.ResetLog()
	mustDown(t, reference, "demo")
	for n := 1; n < len(reference.Writes()); n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			lab := labtest.New(t, []string{"demo"})
			mustUp(t, lab, "demo", servers())
			lab.ResetLog()
			lab.CutAfter(n)
			if err := down(t, lab, "demo"); err == nil && len(lab.Writes()) > n {
				t.Fatal("the cut was not noticed")
			}
			lab.Heal()
			mustDown(t, lab, "demo")
			empty(t, lab)
		})
	}
}

// neutron-server was killed when it had stored a router and its driver did not know of it yet, which nobody can see.
func TestARouterThatMayBeHalfMadeIsMadeAnew(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ before, bare bool }{
		"by this run":                          {},
		"by a run before, with its gateway":    {before: true},
		"by a run before, without its gateway": {before: true, bare: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lab := labtest.New(t, []string{"demo"})
			ctx, kill := context.WithCancel(t.Context())
			defer kill()
			killed := false
			lab.Judge(func(s openstacktest.Sent) *openstacktest.Mishap {
				if killed || s.Method != http.MethodPost || !strings.HasSuffix(s.URL.Path, "/v2.0/routers") {
					return nil
				}
				if killed = true; tt.before {
					kill()
				}
				return &openstacktest.Mishap{Applied: true}
			})
			if _, err := open(t, lab, "demo").Up(ctx, servers(), stack.UpOptions{Parallel: 8}); (err != nil) != tt.before {
				t.Fatal(err)
			}
			if tt.bare {
				lab.Set("router", "demo/router", "external_gateway_info", nil)
			}
			mustUp(t, lab, "demo", servers())
			var made, removed int
			for _, w := range lab.Writes() {
				switch {
				case w.Method == http.MethodPost && w.Path == "/v2.0/routers":
					made++
				case w.Method == http.MethodDelete && strings.HasPrefix(w.Path, "/v2.0/routers/"):
					removed++
				}
			}
			if made != 2 || removed != 1 {
				t.Errorf("%d routers made, %d removed; want 2 and 1", made, removed)
			}
			mustDown(t, lab, "demo")
			empty(t, lab)
		})
	}
}

// Neutron says 200, and disconnects again what its driver refuses.
func TestAnInterfaceThatIsUndoneIsTold(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	lab.Fail("PUT /v2.0/routers/*/add_router_interface", 1, http.StatusOK, "{}", nil)
	_, err := open(t, lab, "demo").Up(t.Context(), servers(), stack.UpOptions{Parallel: 8})
	if err == nil || !strings.Contains(err.Error(), "connecting router demo/router to demo/") || !strings.Contains(err.Error(), "accepted and undone") {
		t.Errorf("an interface that is not there is told as %v", err)
	}
	mustUp(t, lab, "demo", servers())
}

func TestAnInterruptFinishesCallsAndTheNextRunGoesOn(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	stop := make(chan struct{})
	ctx := wait.WithStop(t.Context(), stop)
	stopped := false
	_, err := open(t, lab, "demo").Up(ctx, servers(), stack.UpOptions{Parallel: 8, On: func(e graph.Event) {
		if e.Kind == graph.Done && strings.HasPrefix(string(e.Key), "trunk.") && !stopped {
			stopped = true
			close(stop)
		}
	}})
	if !errors.Is(err, wait.ErrStopping) {
		t.Fatalf("got %v", err)
	}
	for _, w := range lab.Writes() {
		if w.Status == 0 || w.Status >= 400 {
			t.Errorf("a call was cut off: %+v", w)
		}
	}
	mustUp(t, lab, "demo", servers())
}

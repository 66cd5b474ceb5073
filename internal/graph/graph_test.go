package graph_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/internal/wait"
)

// thing is a resource whose world is one boolean.
type thing struct {
	key      graph.Key
	needs    []graph.Resource
	there    bool
	fail     error
	blind    error // what looking ends with
	applied  int
	observed int
	apply    func(context.Context) error
}

func (t *thing) Key() graph.Key          { return t.key }
func (t *thing) Needs() []graph.Resource { return t.needs }
func (t *thing) Observe(context.Context) (graph.State, error) {
	t.observed++
	if t.there {
		return graph.State{Phase: graph.Ready}, t.blind
	}
	return graph.State{}, t.blind
}

func (t *thing) Apply(ctx context.Context) error {
	t.applied++
	if t.fail != nil {
		return t.fail
	}
	if t.apply != nil {
		if err := t.apply(ctx); err != nil {
			return err
		}
	}
	t.there = true
	return nil
}

func TestAFailureStopsOnlyWhatNeedsItAndARerunAppliesJustTheRest(t *testing.T) {
	net := &thing{key: "network.vm"}
	bad := &thing{key: "trunk.worker-0", needs: []graph.Resource{net}, fail: errors.New("quota exceeded")}
	server := &thing{key: "server.worker-0", needs: []graph.Resource{bad}}
	other := &thing{key: "server.master-0", needs: []graph.Resource{net}}
	var g graph.Graph
	g.Add(net, bad, server, other)

	var kinds []string
	err := g.Apply(t.Context(), 4, func(e graph.Event) { kinds = append(kinds, string(e.Key)+" "+string(e.Kind)) })
	if err == nil || err.Error() != "trunk.worker-0: quota exceeded" {
		t.Fatalf("got %v", err)
	}
	if !slices.Contains(kinds, "server.worker-0 skipped") || !slices.Contains(kinds, "server.master-0 done") {
		t.Fatalf("events: %v", kinds)
	}
	bad.fail = nil
	if err := g.Apply(t.Context(), 4, nil); err != nil {
		t.Fatal(err)
	}
	if net.applied != 1 || other.applied != 1 || bad.applied != 2 || server.applied != 1 {
		t.Fatalf("applied net %d other %d trunk %d server %d", net.applied, other.applied, bad.applied, server.applied)
	}
}

func TestObserveDoesNotLookBehindAnAbsentNeed(t *testing.T) {
	net := &thing{key: "network.vm"}
	port := &thing{key: "port.a", needs: []graph.Resource{net}}
	var g graph.Graph
	g.Add(net, port)
	rows, err := g.Observe(t.Context())
	if err != nil || port.observed != 0 || rows[1] != (graph.Row{Key: "port.a"}) {
		t.Fatalf("rows %v, err %v, port observed %d times", rows, err, port.observed)
	}
}

func TestWhatCannotBeLookedAtKeepsNothingElseFromBeingSeen(t *testing.T) {
	why := errors.New("it does not answer")
	host := &thing{key: "host.a", blind: why}
	step := &thing{key: "node.a", needs: []graph.Resource{host}}
	other := &thing{key: "host.b", there: true}
	absent := &thing{key: "port.c"}
	both := &thing{key: "node.c", needs: []graph.Resource{host, absent}}
	var g graph.Graph
	g.Add(host, step, other, absent, both)
	rows, err := g.Observe(t.Context())
	if err == nil || err.Error() != "looking at host.a: it does not answer" {
		t.Errorf("got %v", err)
	}
	if rows[0].Err != why || rows[1].Err == nil || rows[1].Err.Error() != "it needs host.a" || step.observed != 0 {
		t.Errorf("%+v, looked behind it %d times", rows[:2], step.observed)
	}
	if rows[2].State.Phase != graph.Ready || rows[2].Err != nil || rows[4] != (graph.Row{Key: "node.c"}) {
		t.Errorf("%+v", rows[2:])
	}
}

func TestErrorsComeInTheGraphsOrder(t *testing.T) {
	var g graph.Graph
	for i := range 5 {
		g.Add(&thing{key: graph.Key(fmt.Sprintf("x.%d", i)), fail: errors.New("no")})
	}
	err := g.Apply(t.Context(), 5, nil)
	if got := strings.ReplaceAll(err.Error(), "\n", " "); got != "x.0: no x.1: no x.2: no x.3: no x.4: no" {
		t.Fatal(got)
	}
}

func TestWaitingTakesNoPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g graph.Graph
		for i := range 20 { // twenty servers that take 30 s each, two places
			begin := time.Now()
			g.Add(&thing{key: graph.Key(fmt.Sprintf("server.%d", i)), apply: func(ctx context.Context) error {
				return wait.For(ctx, "boot", time.Second, func(context.Context) (string, bool, error) {
					return "BUILD", time.Since(begin) >= 30*time.Second, nil
				})
			}})
		}
		begin := time.Now()
		if err := g.Apply(t.Context(), 2, nil); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took > 31*time.Second {
			t.Fatalf("took %v: waits held places", took)
		}
	})
}

func TestStoppingFinishesWhatRunsAndSkipsTheRest(t *testing.T) {
	stop := make(chan struct{})
	first := &thing{key: "a.1", apply: func(context.Context) error { close(stop); return nil }}
	second := &thing{key: "a.2", needs: []graph.Resource{first}}
	var g graph.Graph
	g.Add(first, second)
	err := g.Apply(wait.WithStop(t.Context(), stop), 1, nil)
	if !errors.Is(err, wait.ErrStopping) || !first.there || second.applied != 0 {
		t.Fatalf("err %v, first %v, second applied %d", err, first.there, second.applied)
	}
}

func TestAddRefusesDuplicatesAndUnknownNeeds(t *testing.T) {
	for name, add := range map[string]func(*graph.Graph){
		"twice":   func(g *graph.Graph) { g.Add(&thing{key: "a"}, &thing{key: "a"}) },
		"unknown": func(g *graph.Graph) { g.Add(&thing{key: "a", needs: []graph.Resource{&thing{key: "b"}}}) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Fatal("no panic")
				}
			}()
			add(&graph.Graph{})
		})
	}
}

// Whatever the graph and whatever fails: needs come first, a bound is a bound, and what did not fail upstream is applied.
func TestApplyKeepsOrderAndBoundOnAnyGraph(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, limit := rapid.IntRange(1, 20).Draw(t, "n"), rapid.IntRange(1, 4).Draw(t, "limit")
		var mu sync.Mutex
		running, most, order := 0, 0, map[graph.Key]int{}
		things := make([]*thing, n)
		var g graph.Graph
		for i := range n {
			th := &thing{key: graph.Key(fmt.Sprint(i))}
			for j := range i {
				if rapid.IntRange(0, 4).Draw(t, "edge") == 0 {
					th.needs = append(th.needs, things[j])
				}
			}
			fails := rapid.IntRange(0, 6).Draw(t, "fails") == 0
			th.apply = func(context.Context) error {
				mu.Lock()
				running++
				most = max(most, running)
				order[th.key] = len(order)
				mu.Unlock()
				mu.Lock()
				defer mu.Unlock()
				running--
				if fails {
					return errors.New("no")
				}
				return nil
			}
			things[i] = th
			g.Add(th)
		}
		err := g.Apply(context.Background(), limit, nil)
		all := true
		for _, th := range things {
			ready := true
			for _, need := range th.needs {
				ready = ready && need.(*thing).there
				if th.applied > 0 && order[need.Key()] > order[th.key] {
					t.Fatalf("%s ran before its need %s", th.key, need.Key())
				}
			}
			if (th.applied == 1) != ready {
				t.Fatalf("%s: needs ready %v, applied %d times", th.key, ready, th.applied)
			}
			all = all && th.there
		}
		if most > limit || all != (err == nil) {
			t.Fatalf("%d at once with limit %d; all there %v, err %v", most, limit, all, err)
		}
	})
}

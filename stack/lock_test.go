package stack_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/internal/labtest"
	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
	"github.com/kuryrctl/kuryrctl/provision"
	"github.com/kuryrctl/kuryrctl/stack"
)

// elsewhere is the stack as another operator has it, on a machine of their own.
func elsewhere(t *testing.T, lab *labtest.Lab, cloud *openstack.Cloud, o stack.Options) *stack.Stack {
	t.Helper()
	o.Dial, o.State = lab.Dial, t.TempDir()
	if o.Poll == 0 {
		o.Poll = time.Millisecond
	}
	s, err := stack.Open(cloud, "demo", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// remove is unstack.
func remove(t *testing.T, s *stack.Stack, o stack.UpOptions) error {
	t.Helper()
	r, err := s.Removal(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	o.Parallel = 8
	return s.Down(t.Context(), r, o)
}

// lockIn is the name of the lock in the cloud, or "".
func lockIn(lab *labtest.Lab) string {
	for _, x := range lab.Left() {
		if name, ok := strings.CutPrefix(x, "security_group demo/lock"); ok {
			return "demo/lock" + name
		}
	}
	return ""
}

// halfWay calls then, once, when a server is about to be made.
func halfWay(then func()) func(graph.Event) {
	return func(e graph.Event) {
		if e.Key == "server.master-0" && e.Kind == graph.Started {
			then()
		}
	}
}

func TestASecondRunIsToldWhoChangesTheStack(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	var other, here, removal error
	first, second := connect(t, lab), connect(t, lab)
	_, err := open(t, lab, "demo").Up(t.Context(), servers(), stack.UpOptions{Parallel: 8, On: halfWay(func() {
		_, other = elsewhere(t, lab, first, stack.Options{}).Up(t.Context(), servers(), stack.UpOptions{Parallel: 8})
		removal = remove(t, elsewhere(t, lab, second, stack.Options{}), stack.UpOptions{})
		_, here = up(t, lab, "demo", servers())
	})})
	if err != nil {
		t.Fatal(err)
	}
	if n := first.Calls().Writes + second.Calls().Writes; n != 0 {
		t.Errorf("who was refused has changed the cloud: %d writes", n)
	}
	for _, got := range []error{other, removal} {
		var held *provision.HeldError
		if !errors.As(got, &held) || !strings.Contains(held.Lock.Who, "@") || held.Lock.Verb != "stack" || !strings.Contains(got.Error(), "--break-lock") {
			t.Errorf("another machine got %v", got)
		}
	}
	var busy *stack.BusyError
	if !errors.As(here, &busy) || !strings.Contains(here.Error(), "`kuryrctl stack` (process ") {
		t.Errorf("another process here got %v", here)
	}
	if lock := lockIn(lab); lock != "" {
		t.Errorf("after the run there is still %s", lock)
	}
	if err := remove(t, elsewhere(t, lab, connect(t, lab), stack.Options{}), stack.UpOptions{}); err != nil {
		t.Error(err)
	}
	empty(t, lab)
}

func TestTheLockOfADeadRunEnds(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	lab.CutAfter(5)
	if _, err := up(t, lab, "demo", servers()); err == nil {
		t.Fatal("the cut was not noticed")
	}
	lab.Heal()
	if err := remove(t, elsewhere(t, lab, connect(t, lab), stack.Options{}), stack.UpOptions{}); err == nil || !strings.Contains(err.Error(), "is being changed by") {
		t.Fatalf("got %v", err)
	}
	lab.Set("security_group", lockIn(lab), "updated_at", time.Now().Add(-3*time.Minute).UTC().Format(time.RFC3339))
	if err := remove(t, elsewhere(t, lab, connect(t, lab), stack.Options{}), stack.UpOptions{}); err != nil {
		t.Fatal(err)
	}
	empty(t, lab)
}

// Everybody else counts from the last renewal, however long the next one takes.
func TestALockThatCannotBeRenewedEndsTheRunInTime(t *testing.T) {
	t.Parallel()
	const lease = 200 * time.Millisecond
	lab := labtest.New(t, []string{"demo"}, openstacktest.Polls(1000000)) // nothing gets ready
	lab.Judge(func(s openstacktest.Sent) *openstacktest.Mishap {
		if s.Method == http.MethodPut && strings.Contains(s.URL.Path, "/v2.0/security-groups/") {
			return &openstacktest.Mishap{Hang: true}
		}
		return nil
	})
	begin := time.Now()
	_, err := elsewhere(t, lab, connect(t, lab), stack.Options{Lease: lease}).Up(t.Context(), servers(), stack.UpOptions{Parallel: 8})
	if !errors.Is(err, provision.ErrLost) || time.Since(begin) > 20*time.Second { // the transport waits for a minute
		t.Errorf("after %v: %v", time.Since(begin), err)
	}
}

func TestALockIsRenewedAndOneThatIsBrokenEndsTheRun(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"}, openstacktest.Polls(1000000)) // nothing gets ready: the run goes on until it is ended
	s := elsewhere(t, lab, connect(t, lab), stack.Options{Lease: 20 * time.Millisecond})
	breaker := elsewhere(t, lab, connect(t, lab), stack.Options{})
	var once sync.Once
	_, err := s.Up(t.Context(), servers(), stack.UpOptions{Parallel: 8, On: func(e graph.Event) {
		name := lockIn(lab)
		if e.Kind != graph.Waiting || name == "" || strings.Contains(name, " 0 ") { // it has not been renewed yet
			return
		}
		once.Do(func() {
			r, err := breaker.Removal(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			on := func(graph.Event) { cancel() } // the lock is what matters here
			if err := breaker.Down(ctx, r, stack.UpOptions{Parallel: 1, BreakLock: true, On: on}); errors.As(err, new(*provision.HeldError)) {
				t.Error(err)
			}
		})
	}})
	if !errors.Is(err, provision.ErrLost) {
		t.Errorf("got %v", err)
	}
}

// Whatever two do that begin at the same moment on nothing, there is one stack at the end, and nobody's lock.
func TestTwoThatBeginAtTheSameMomentMakeOneStack(t *testing.T) {
	t.Parallel()
	for range 5 {
		lab := labtest.New(t, []string{"demo"})
		var ready, done sync.WaitGroup
		ready.Add(2)
		errs := make([]error, 2)
		for i := range errs {
			s := elsewhere(t, lab, connect(t, lab), stack.Options{Poll: 20 * time.Millisecond})
			var once sync.Once
			on := func(e graph.Event) {
				if e.Kind == graph.Started { // both have looked and found nothing
					once.Do(func() { ready.Done(); ready.Wait() })
				}
			}
			done.Go(func() {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				_, errs[i] = s.Up(ctx, servers(), stack.UpOptions{Parallel: 8, On: func(e graph.Event) {
					if e.Key == "host.master-0" && e.Kind == graph.Started { // the cloud's part is made; its hosts answer to nobody here
						cancel()
					}
					on(e)
				}})
			})
		}
		done.Wait()
		refused := 0
		for _, err := range errs {
			var held *provision.HeldError
			if errors.As(err, &held) {
				refused++
			} else if !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
		}
		if refused == 0 {
			t.Errorf("nobody was refused: %v", errs)
		}
		networks := 0
		for _, x := range lab.Left() {
			if strings.HasPrefix(x, "network ") {
				networks++
			}
		}
		if networks != 3*(2-refused) || lockIn(lab) != "" {
			t.Errorf("%d were refused, %d networks, lock %q", refused, networks, lockIn(lab))
		}
	}
}

// A project without room for one more security group can be emptied all the same, and is not begun in.
func TestALockNeedsRoomWhereAStackIsMadeAndNoneWhereItIsRemoved(t *testing.T) {
	t.Parallel()
	groups := func(lab *labtest.Lab) (n int) {
		for _, x := range lab.Left() {
			if strings.HasPrefix(x, "security_group ") {
				n++
			}
		}
		return n
	}
	plain := labtest.New(t, []string{"demo"})
	mustUp(t, plain, "demo", servers())
	used := groups(plain) + 1 // and the project's own

	lab := labtest.New(t, []string{"demo"}, openstacktest.Quota("network", "security_group", used))
	if _, err := up(t, lab, "demo", servers()); !openstack.IsQuota(err) && !errors.As(err, new(*stack.ShortError)) || len(lab.Writes()) > 0 {
		t.Errorf("without room for the lock: %v after %d writes", err, len(lab.Writes()))
	}
	lab = labtest.New(t, []string{"demo"}, openstacktest.Quota("network", "security_group", used+1))
	mustUp(t, lab, "demo", servers())
	neutron(t, lab, "POST", "security-groups", map[string]any{"security_group": map[string]any{"name": "somebody's"}}, nil)
	mustDown(t, lab, "demo")
	lab.Delete("security_group", "somebody's")
	empty(t, lab)
}

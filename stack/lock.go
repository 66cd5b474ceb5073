package stack

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/provision"
)

// guard keeps a second run from changing the stack at the same time. It locks when something is about to be changed and not before, so that
// looking, and a run that finds all as declared, write nothing.
type guard struct {
	s      *Stack
	o      UpOptions
	cancel context.CancelCauseFunc

	mu    sync.Mutex
	owner string // of this machine's locks
	file  *os.File
	claim *provision.Claim
	err   error // why the stack could not be locked
	stop  func()
}

// alone runs work, which takes the guard before its first change. One who cannot have the lock is told so once, and not for each resource.
func (s *Stack) alone(ctx context.Context, o UpOptions, work func(context.Context, *guard) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	g := &guard{s: s, o: o, cancel: cancel}
	err := work(ctx, g)
	switch {
	case g.err != nil:
		err = g.err
	case errors.Is(context.Cause(ctx), provision.ErrLost):
		err = context.Cause(ctx)
	}
	switch left := g.release(ctx); {
	case left != nil && err == nil: // what was to be done is done
		s.log.Warn("the lock on the stack stays until it ends by itself", "in", provision.Lease, "error", left)
	case left != nil:
		err = errors.Join(err, left)
	}
	return err
}

// free is nil unless a lock was found that this run may not take over.
func (g *guard) free() error {
	over, err := g.mine()
	if err != nil {
		return err
	}
	return g.s.session.Held(over)
}

// mine are the locks found that this run may take over: those of a dead run on this machine, and all if they are to be broken.
func (g *guard) mine() ([]string, error) {
	locks := g.s.session.Locks()
	if len(locks) == 0 {
		return nil, nil
	}
	var ids []string
	busy := g.lockHere()
	for _, l := range locks {
		// A home directory that was copied has the same owner on two machines.
		own := l.Owner == g.owner && l.Who == whoAmI()
		if own && busy != nil {
			return nil, busy
		}
		if own || g.o.BreakLock {
			ids = append(ids, l.ID)
		}
	}
	return ids, nil
}

// lockHere locks the stack's directory, which ends with the process: so a lock in the cloud that bears this machine's name is of a
// dead run, or of one that holds the directory.
func (g *guard) lockHere() (err error) {
	if g.file != nil {
		return nil
	}
	if g.owner, err = g.s.local.identity(); err != nil {
		return err
	}
	if err := os.MkdirAll(g.s.local.dir, 0o700); err != nil {
		return fmt.Errorf("locking the stack here: %w", err)
	}
	path := filepath.Join(g.s.local.dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("locking the stack here: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			holder, _ := os.ReadFile(path)
			return &BusyError{Stack: g.s.Name, Holder: strings.TrimSpace(string(holder))}
		}
		return fmt.Errorf("locking the stack here: %w", err)
	}
	g.file = f
	if err := f.Truncate(0); err != nil {
		return fmt.Errorf("locking the stack here: %w", err)
	}
	_, err = fmt.Fprintf(f, "`kuryrctl %s` (process %d)", g.o.verb(), os.Getpid())
	return err
}

// BusyError means that another process on this machine is changing the stack.
type BusyError struct{ Stack, Holder string }

func (e *BusyError) Error() string {
	return fmt.Sprintf("%s is being changed on this machine by %s: wait for it, or end it", e.Stack, e.Holder)
}

// take locks the stack, once.
func (g *guard) take(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.claim == nil && g.err == nil {
		if g.err = g.lock(ctx); ctx.Err() != nil {
			err := g.err
			g.err = nil // it is the interrupt that is to be told
			return err
		}
	}
	return g.err
}

func (g *guard) lock(ctx context.Context) error {
	if err := g.lockHere(); err != nil {
		return err
	}
	over, err := g.mine()
	if err != nil {
		return err
	}
	if g.claim, err = g.s.session.Claim(ctx, provision.Lock{Owner: g.owner, Who: whoAmI(), Verb: g.o.verb()}, over); err != nil {
		return err
	}
	g.stop = g.renew(ctx)
	return nil
}

// renew renews the claim until it is stopped, and ends the run when there is none any more: somebody else may be at work.
func (g *guard) renew(ctx context.Context) (stop func()) {
	lease := g.s.lease
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(lease / 2)
		defer tick.Stop()
		for last := time.Now(); ; {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			switch err := g.renewBefore(ctx, last.Add(lease)); { // whoever else comes counts from last, too
			case err == nil:
				last = time.Now()
			case errors.Is(err, provision.ErrLost), ctx.Err() == nil && time.Since(last) >= lease:
				g.cancel(provision.ErrLost)
				return
			}
		}
	})
	return func() { cancel(); wg.Wait() }
}

func (g *guard) renewBefore(ctx context.Context, end time.Time) error {
	ctx, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	return g.claim.Renew(ctx)
}

// release gives everything back. A lock that a dead run on this machine left, and that nothing had to be changed under, goes too.
func (g *guard) release(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	var err error
	switch {
	case g.claim != nil:
		g.stop()
		err = g.claim.Release(ctx)
	case g.file != nil && ctx.Err() == nil:
		err = g.s.session.Unlock(ctx, g.owner, whoAmI())
	}
	if g.file != nil {
		err = errors.Join(err, g.file.Close())
	}
	return err
}

// over is gr with the guard taken before the first change.
func (g *guard) over(gr *graph.Graph) *graph.Graph {
	var all graph.Graph
	for _, r := range gr.Resources() {
		all.Add(guarded{r, g})
	}
	return &all
}

type guarded struct {
	graph.Resource
	guard *guard
}

// Apply implements [graph.Resource].
func (r guarded) Apply(ctx context.Context) error {
	if err := r.guard.take(ctx); err != nil {
		return err
	}
	return r.Resource.Apply(ctx)
}

// identity names this operator on this machine; it is made when first asked for.
func (l local) identity() (string, error) {
	home := filepath.Dir(filepath.Dir(filepath.Dir(l.dir)))
	path := filepath.Join(home, "identity")
	if known, err := os.ReadFile(path); err == nil && len(known) > 0 {
		return strings.TrimSpace(string(known)), nil
	}
	random := make([]byte, 4)
	_, _ = rand.Read(random) // never fails
	if err := os.MkdirAll(home, 0o700); err != nil {
		return "", fmt.Errorf("making this machine's identity: %w", err)
	}
	f, err := os.CreateTemp(home, "identity-*")
	if err != nil {
		return "", fmt.Errorf("making this machine's identity: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(hex.EncodeToString(random))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Link(f.Name(), path) // whoever is first
	}
	if err != nil && !errors.Is(err, os.ErrExist) {
		return "", fmt.Errorf("making this machine's identity: %w", err)
	}
	known, err := os.ReadFile(path)
	return string(known), err
}

// maxWho keeps the name of the lock below what Neutron takes, 255 characters.
const maxWho = 100

// whoAmI is user@host, for a person who wants to know whom to ask.
func whoAmI() string {
	name, host := "somebody", "a machine without a name"
	if u, err := user.Current(); err == nil && u.Username != "" {
		name = u.Username
	}
	if h, err := os.Hostname(); err == nil && h != "" {
		host = h
	}
	who := []rune(name + "@" + host)
	return string(who[:min(len(who), maxWho)])
}

func (o UpOptions) verb() string {
	if o.Verb == "" {
		return "stack"
	}
	return o.Verb
}

// Free is nil unless somebody else is changing the stack, as far as the last look at the cloud knows; breakLock is as in [UpOptions].
func (s *Stack) Free(breakLock bool) error {
	g := &guard{s: s, o: UpOptions{BreakLock: breakLock}}
	err := g.free()
	if g.file != nil {
		err = errors.Join(err, g.file.Close())
	}
	return err
}

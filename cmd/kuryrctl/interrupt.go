package main

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"

	"github.com/kuryrctl/kuryrctl/internal/wait"
)

var errInterrupted = errors.New("interrupted")

// interrupt is what a person's Ctrl-C does. As a rule it ends the run. A verb that changes a cloud asks with [interrupt.finishFirst]
// that the first one lets calls in flight end, and only the second cuts them off.
type interrupt struct {
	seen    atomic.Bool
	onFirst atomic.Pointer[func()]
}

// watch returns a context for the run; done ends the watching.
func (i *interrupt) watch(ctx context.Context, signals <-chan os.Signal) (_ context.Context, done func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-signals:
		case <-ctx.Done():
			return
		}
		i.seen.Store(true)
		if tell := i.onFirst.Load(); tell != nil {
			close(stop)
			(*tell)()
			select {
			case <-signals:
			case <-ctx.Done():
				return
			}
		}
		cancel(errInterrupted)
	})
	return wait.WithStop(ctx, stop), func() {
		cancel(nil)
		wg.Wait()
	}
}

// finishFirst lets calls in flight end after the first interrupt, of which tell is told.
func (i *interrupt) finishFirst(tell func()) { i.onFirst.Store(&tell) }

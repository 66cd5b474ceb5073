// Package wait is the one way in which kuryrctl waits for something: by name, with what was last seen, and without
// holding a place that somebody else could work in.
//
// It owns the polling loop and the two things a caller may hang on a context: a [Place] (how many may work at once, who
// hears about waits) and a request to stop. It knows nothing of OpenStack, SSH or terminals.
package wait

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrStopping is returned by [For] when the run was asked to stop (see [WithStop]): calls in flight were finished, nothing
// new was begun, and running the same command again goes on from here.
var ErrStopping = errors.New("stopping as asked")

// Cond looks once. It returns what it saw (shown while waiting and in the error of a deadline), whether the wait is over, and an
// error when it can never be over: errors end the wait at once.
type Cond func(context.Context) (seen string, done bool, err error)

// For calls cond at once and then every interval until it is done, fails, the context ends, or the run is asked to stop. While
// it sleeps it gives up the caller's [Place].
func For(ctx context.Context, what string, every time.Duration, cond Cond) error {
	begin, last := time.Now(), ""
	for {
		seen, done, err := cond(ctx)
		if last = cmp.Or(seen, last); ctx.Err() != nil { // a look that was cut off has seen nothing
			seen = last
		}
		if ctx.Err() != nil && !done {
			return ended(ctx, what, seen, begin)
		}
		if err != nil {
			return fmt.Errorf("waiting for %s: %w", what, err)
		}
		if done {
			return nil
		}
		if err := sleep(ctx, what, seen, every); err != nil {
			if ctx.Err() != nil {
				return ended(ctx, what, seen, begin)
			}
			return fmt.Errorf("waiting for %s (%s): %w", what, seen, err)
		}
	}
}

func ended(ctx context.Context, what, seen string, begin time.Time) error {
	if seen == "" {
		seen = "not there"
	}
	return fmt.Errorf("waiting for %s: still %s after %s: %w", what, seen, time.Since(begin).Round(100*time.Millisecond), context.Cause(ctx))
}

func sleep(ctx context.Context, what, seen string, every time.Duration) error {
	p, _ := ctx.Value(placeKey{}).(*Place)
	if p != nil {
		if p.Seen != nil {
			p.Seen(what, seen)
		}
		p.leave()
		defer p.enter()
	}
	t := time.NewTimer(every)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-stopChannel(ctx):
		return ErrStopping
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Place is one worker's claim on a bounded number of slots. Slots is shared by all workers; Seen, if set, hears of each look
// that was not the last.
type Place struct {
	Slots chan struct{}
	Seen  func(what, seen string)
}

func (p *Place) enter() {
	if p.Slots != nil {
		p.Slots <- struct{}{}
	}
}

func (p *Place) leave() {
	if p.Slots != nil {
		<-p.Slots
	}
}

// In runs work holding a slot of p; every [For] below it gives the slot up while it sleeps.
func In(ctx context.Context, p *Place, work func(context.Context) error) error {
	p.enter()
	defer p.leave()
	return work(context.WithValue(ctx, placeKey{}, p))
}

type (
	placeKey struct{}
	stopKey  struct{}
)

// WithStop returns a context whose waits end with [ErrStopping] once stop is closed, while calls in flight go on: the first
// interrupt of a person, as opposed to the end of the context, which cuts calls off.
func WithStop(ctx context.Context, stop <-chan struct{}) context.Context {
	return context.WithValue(ctx, stopKey{}, stop)
}

// Stopping reports whether the run was asked to stop: begin nothing new.
func Stopping(ctx context.Context) bool {
	select {
	case <-stopChannel(ctx):
		return true
	default:
		return ctx.Err() != nil
	}
}

func stopChannel(ctx context.Context) <-chan struct{} {
	stop, _ := ctx.Value(stopKey{}).(<-chan struct{})
	return stop
}

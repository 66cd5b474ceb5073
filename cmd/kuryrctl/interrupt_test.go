package main

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/kuryrctl/kuryrctl/internal/wait"
)

func TestTheFirstInterruptEndsWhatOnlyLooks(t *testing.T) {
	signals := make(chan os.Signal, 1)
	var i interrupt
	ctx, done := i.watch(t.Context(), signals)
	defer done()
	signals <- os.Interrupt
	<-ctx.Done()
	if !errors.Is(context.Cause(ctx), errInterrupted) || !i.seen.Load() {
		t.Errorf("the run ended with %v", context.Cause(ctx))
	}
}

func TestTheFirstInterruptOfAChangeLetsCallsEnd(t *testing.T) {
	signals := make(chan os.Signal, 2)
	var i interrupt
	ctx, done := i.watch(t.Context(), signals)
	defer done()
	told := make(chan struct{})
	i.finishFirst(func() { close(told) })
	signals <- os.Interrupt
	<-told
	if !wait.Stopping(ctx) || ctx.Err() != nil {
		t.Fatalf("stopping %t, context %v", wait.Stopping(ctx), ctx.Err())
	}
	signals <- os.Interrupt
	<-ctx.Done()
	if !errors.Is(context.Cause(ctx), errInterrupted) {
		t.Errorf("the run ended with %v", context.Cause(ctx))
	}
}

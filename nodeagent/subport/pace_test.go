package subport

import (
	"context"
	"errors"
	"testing"
)

func TestAPaceHalvesOnRefusalsAndGrowsBack(t *testing.T) {
	p := NewPace(4)
	for _, c := range []struct{ status, times, want int }{{201, 9, 4}, {429, 1, 2}, {503, 1, 1}, {409, 5, 1}, {0, 3, 1}, {404, 3, 1}, {200, 1, 2}, {204, 20, 4}} {
		for range c.times {
			p.Answered(c.status)
		}
		if p.Limit() != c.want {
			t.Errorf("after %d times %d it is %d, want %d", c.times, c.status, p.Limit(), c.want)
		}
	}
}

func TestNoMoreCallsBeginThanThePaceLets(t *testing.T) {
	p := NewPace(2)
	for range 2 {
		if err := p.enter(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	p.Answered(429)
	began := make(chan error, 1)
	go func() { began <- p.enter(t.Context()) }()
	p.leave() // one is still under way, and one is what may be
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	cancel(stop)
	if err := p.enter(ctx); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
	select {
	case <-began:
		t.Error("two are under way")
	default:
	}
	p.leave()
	if err := <-began; err != nil || p.under != 1 {
		t.Errorf("%v, %d under way", err, p.under)
	}
}

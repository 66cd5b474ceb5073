package subport

import (
	"context"
	"net/http"
	"sync"
)

// Pace bounds how many calls that change something are under way at once: as many as it may be, until Neutron says that it is too much (429,
// 503, or 409 where two changes meet); then half as many, down to one, and one more for each round that succeeds. It is safe for
// concurrent use.
type Pace struct {
	most float64

	mu       sync.Mutex
	limit    float64
	under    int           // calls under way
	refusals int           // ever
	ended    chan struct{} // closed when a call ends
}

// NewPace is a pace of that many calls at once at most.
func NewPace(most int) *Pace {
	return &Pace{most: float64(most), limit: float64(most), ended: make(chan struct{})}
}

// Answered takes account of an answer to one sending of a request that changes something; a call may be sent more than once.
func (p *Pace) Answered(status int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable, status == http.StatusConflict:
		p.refusals++
		p.limit = max(p.limit/2, 1)
	case status != 0 && status < 400:
		p.limit = min(p.limit+1/p.limit, p.most)
	}
}

// Limit is how many calls may be under way now.
func (p *Pace) Limit() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return int(p.limit)
}

func (p *Pace) refused() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.refusals
}

// enter waits until one more call may begin.
func (p *Pace) enter(ctx context.Context) error {
	for {
		p.mu.Lock()
		ended := p.ended
		if p.under < int(p.limit) {
			p.under++
			p.mu.Unlock()
			return nil
		}
		p.mu.Unlock()
		select {
		case <-ended:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (p *Pace) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.under--
	close(p.ended)
	p.ended = make(chan struct{})
}

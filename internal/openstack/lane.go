package openstack

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"time"
)

// lane is the way to one service: how many requests may be on it, and until when it is closed because the service asked for
// a pause. A slot is held only while a request is in flight; who waits to retry holds none.
//
// How many is found out, as TCP does it: a service that says that it is too much (429, 503) gets half as many at once, and one more again after
// as many answers as it may have requests. Other errors tell nothing about load.
type lane struct {
	slots chan struct{} // has one element for each request in flight, and for each slot that is withheld

	mu    sync.Mutex
	until time.Time
	limit int // how many may be in flight: cap(slots) less what is withheld
	owed  int // slots to withhold that are in use yet
	cuts  int // how often limit was cut
	good  int // answers since limit changed

	served bool // the service has answered before, with no error of its own
	missed bool // a warning has said that it is away since it answered last
}

func newLane(most int) *lane { return &lane{slots: make(chan struct{}, most), limit: most} }

// lane finds a request's service by its address: host and first path element tell services apart both where each has a port of its
// own and where all are behind one.
func (t *transport) lane(req *http.Request) *lane {
	first, _, _ := strings.Cut(strings.TrimPrefix(req.URL.Path, "/"), "/")
	key := req.URL.Host + "/" + first
	t.mu.Lock()
	defer t.mu.Unlock()
	l, ok := t.lanes[key]
	if !ok {
		l = newLane(t.parallel)
		t.lanes[key] = l
	}
	return l
}

// enter waits for a slot and returns the count of cuts so far, for [lane.learn].
func (l *lane) enter(ctx context.Context) (cuts int, err error) {
	for {
		select {
		case l.slots <- struct{}{}:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
		l.mu.Lock()
		wait, cuts := time.Until(l.until), l.cuts
		l.mu.Unlock()
		if wait <= 0 {
			return cuts, nil
		}
		l.leave()
		if err := sleep(ctx, wait); err != nil {
			return 0, err
		}
	}
}

func (l *lane) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.owed > 0 {
		l.owed-- // the slot stays taken
		return
	}
	<-l.slots
}

// learn adjusts the limit to the status of an answer to a request that entered after so many cuts. All that were in flight together are
// refused together; they are one sign, not many.
func (l *lane) learn(cuts, status int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if status < http.StatusInternalServerError {
		l.served, l.missed = true, false
	}
	switch {
	case status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable:
		if cuts < l.cuts {
			return
		}
		half := max(1, l.limit/2)
		l.owed += l.limit - half
		l.limit, l.good = half, 0
		l.cuts++
	case status < http.StatusInternalServerError && l.limit < cap(l.slots):
		if l.good++; l.good < l.limit {
			return
		}
		l.limit, l.good = l.limit+1, 0
		if l.owed > 0 {
			l.owed--
			return
		}
		<-l.slots // one that was withheld
	}
}

func (l *lane) hasServed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.served
}

// miss reports whether nobody has missed the service since it answered last: one word is enough for all that wait.
func (l *lane) miss() (first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	first, l.missed = !l.missed, true
	return first
}

// pause closes the lane for everybody: one refusal for too many requests concerns them all.
func (l *lane) pause(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if until := time.Now().Add(d); until.After(l.until) {
		l.until = until
	}
}

package openstack

import (
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestALaneIsHalvedByARefusalAndGrowsByOneWithEachRound(t *testing.T) {
	l := newLane(8)
	in := func(n int) (cuts int) {
		t.Helper()
		for range n {
			var err error
			if cuts, err = l.enter(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		return cuts
	}
	out := func(n, cuts, status int) {
		for range n {
			l.leave()
			l.learn(cuts, status)
		}
	}
	wants := func(limit, taken int) {
		t.Helper()
		if l.limit != limit || len(l.slots) != taken {
			t.Fatalf("limit %d with %d slots taken, want %d with %d", l.limit, len(l.slots), limit, taken)
		}
	}
	out(8, in(8), http.StatusTooManyRequests) // eight at once are one sign
	wants(4, 4)
	out(4, in(4), http.StatusServiceUnavailable)
	wants(2, 6)
	out(2, in(2), http.StatusTooManyRequests)
	out(1, in(1), http.StatusTooManyRequests)
	wants(1, 7)
	out(1, in(1), http.StatusBadGateway) // of a proxy: says nothing
	out(1, in(1), http.StatusOK)
	wants(2, 6)
	out(2, in(2), http.StatusConflict) // an answer like any other
	wants(3, 5)
	cuts := in(3)
	out(1, cuts, http.StatusTooManyRequests)
	wants(1, 7) // of the two that are withheld now, both are in flight
	out(1, cuts, http.StatusOK)
	wants(2, 7)
	out(1, cuts, http.StatusTooManyRequests) // sent before the cut: the same sign
	wants(2, 6)
	for range 100 {
		out(1, in(1), http.StatusNoContent)
	}
	wants(8, 0)
}

func TestAServiceGetsAsMuchAsItCanTake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most, refused atomic.Int32
		var room atomic.Int32
		room.Store(2)
		tr, _ := over(Options{Backoff: time.Millisecond}, func(_ int, req *http.Request) (*http.Response, error) {
			n := now.Add(1)
			defer now.Add(-1)
			if n > room.Load() {
				refused.Add(1)
				return reply(429, "Retry-After", "1"), nil
			}
			most.Store(max(most.Load(), n))
			return reply(200), sleep(req.Context(), 100*time.Millisecond)
		})
		work := func(requests int) {
			var group sync.WaitGroup
			for range requests {
				group.Go(func() {
					resp, err := tr.RoundTrip(request(t.Context(), "GET", ports, ""))
					if err != nil || resp.StatusCode != 200 {
						t.Error(resp, err)
					}
				})
			}
			group.Wait()
		}
		work(100)
		if refused.Load() > 50 {
			t.Errorf("a service that takes two at once refused %d of 100 requests", refused.Load())
		}
		room.Store(100)
		work(100)
		if most.Load() != 8 {
			t.Errorf("a service that has recovered gets %d at once, want all 8", most.Load())
		}
	})
}

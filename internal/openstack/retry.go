package openstack

import (
	"context"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	maxTries     = 5
	maxRateTries = 10 // for 429: nothing was done, and the cloud asks to come again
	// maxAwayTries, about two minutes and four at most, is for a service that has answered before and is away now: it is restarted or moved.
	// One that never answered has a wrong address rather, which a person wants to hear of at once.
	maxAwayTries = 15
	maxBackoff   = 30 * time.Second // bound of one random wait
	maxWait      = 2 * time.Minute  // a cloud that asks for more has an outage, which is for a person to hear of
)

// retry decides whether req is sent again, and when. The rule is one: a request that may have been applied is sent again only
// if applying it twice is the same as once (RFC 9110 9.2.2). So GET, HEAD, PUT, DELETE and logins are repeated after transport errors and
// 500, 502, 503, 504; POST and PATCH only when they never left, or when the reply says that nothing was done.
func (t *transport) retry(req *http.Request, resp *http.Response, away, sent bool, err error, try int) (time.Duration, bool) {
	if req.Body != nil && req.Body != http.NoBody && req.GetBody == nil {
		return 0, false
	}
	repeatable := isRepeatable(req)
	limit := maxTries
	if away {
		limit = maxAwayTries
	}
	if err != nil {
		return t.jitter(try), try < limit && !isFinal(err) && (repeatable || !sent)
	}
	switch resp.StatusCode {
	case http.StatusTooManyRequests:
		limit = maxRateTries
	case http.StatusServiceUnavailable:
		if !repeatable && !notApplied(resp.StatusCode, resp.Header) {
			return 0, false
		}
	case http.StatusInternalServerError, http.StatusBadGateway, http.StatusGatewayTimeout:
		if !repeatable {
			return 0, false
		}
	default:
		return 0, false
	}
	wait, asked := retryAfter(resp.Header, time.Now())
	if wait > maxWait {
		return 0, false
	}
	if !asked {
		return t.jitter(try), try < limit
	}
	if away {
		limit = maxTries // it says itself for how long it is away
	}
	// Not all at once when the time has come.
	return wait + t.jitter(1), try < limit
}

// isAway tells that nobody is at the service's address, or nobody behind the proxy there.
func isAway(resp *http.Response, sent bool) bool {
	if resp == nil {
		return !sent
	}
	return resp.StatusCode == http.StatusBadGateway || resp.StatusCode == http.StatusServiceUnavailable
}

func isRepeatable(req *http.Request) bool {
	switch req.Method {
	case http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete:
		return true
	}
	return isAuth(req)
}

// notApplied tells that the service declined before doing anything: rate limiting, or 503 with the time to come again
// (RFC 9110 15.6.4). A 503 without one is as likely a proxy that lost its backend half way.
func notApplied(status int, h http.Header) bool {
	return status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable && h.Get("Retry-After") != ""
}

// retryAfter reads the header in both its forms, seconds and a date (RFC 9110 10.2.3).
func retryAfter(h http.Header, now time.Time) (time.Duration, bool) {
	value := strings.TrimSpace(h.Get("Retry-After"))
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second, true
	}
	if at, err := http.ParseTime(value); err == nil {
		return at.Sub(now), true
	}
	return 0, false
}

// jitter is a wait between nothing and the bound of this try: "full jitter", which spreads many callers best.
func (t *transport) jitter(try int) time.Duration {
	bound := min(t.backoff<<(try-1), maxBackoff)
	return rand.N(bound) + 1
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

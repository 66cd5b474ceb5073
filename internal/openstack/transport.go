package openstack

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kuryrctl/kuryrctl/internal/redact"
)

const (
	dialTimeout   = 10 * time.Second
	headerTimeout = 60 * time.Second // from the last byte of a request to the first of its reply
	bodyTimeout   = 60 * time.Second // from there to the last
	// idleTimeout is below the 5 s after which Apache closes a kept connection: a POST sent while the server closes cannot be told
	// from one whose reply was lost.
	idleTimeout = 4 * time.Second
	// maxReply bounds what is kept of one reply. The largest is a page of a thousand ports, about 2 MiB.
	maxReply = 64 << 20
)

// resentHeader marks, within this process only, a reply to a write that was sent more than once and may have been applied
// before (see [IsAmbiguous]).
const resentHeader = "Kuryrctl-Resent"

// transport is all that happens between gophercloud and the wire: a place in the service's lane, counting, sending, reading
// the whole reply, redaction, a log record, and the decision to send again.
type transport struct {
	next     http.RoundTripper
	log      *slog.Logger
	parallel int
	backoff  time.Duration

	reads, writes, auths atomic.Int64
	skew                 atomic.Int64 // time.Duration

	mu        sync.Mutex
	lanes     map[string]*lane
	observers []func(Sent)
	chains    map[string]Chain // by host and port
}

func newTransport(o Options, tlsConfig *tls.Config) *transport {
	t := &transport{log: o.Log, parallel: o.Parallel, backoff: o.Backoff, lanes: map[string]*lane{}, chains: map[string]Chain{}}
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	if t.parallel <= 0 {
		t.parallel = 8
	}
	if t.backoff <= 0 {
		t.backoff = 250 * time.Millisecond
	}
	wire := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSClientConfig:       tlsConfig,
		TLSHandshakeTimeout:   dialTimeout,
		ResponseHeaderTimeout: headerTimeout,
		IdleConnTimeout:       idleTimeout,
		MaxIdleConnsPerHost:   t.parallel,
		ForceAttemptHTTP2:     true,
	}
	if o.Dial != nil {
		wire.DialContext = o.Dial
		wire.Proxy = nil // a proxy that this process can reach is not one that the other end of Dial can
	}
	t.next = wire
	return t
}

// RoundTrip sends req until there is an answer worth returning; see retry.go for what is sent again.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		defer req.Body.Close()
	}
	l := t.lane(req)
	resent := false
	tries := map[bool]int{} // of a service that is away, and of one that is there: it is slow and errs when it comes back
	for try := 1; ; try++ {
		cuts, err := l.enter(req.Context())
		if err != nil {
			return nil, &sendError{method: req.Method, sent: resent, err: err}
		}
		resp, sent, err := t.once(req, try)
		l.leave()
		if resp != nil {
			l.learn(cuts, resp.StatusCode)
		}

		away := isAway(resp, sent) && l.hasServed()
		tries[away]++
		wait, again := t.retry(req, resp, away, sent, err, tries[away])
		if resp != nil && resent {
			resp.Header.Set(resentHeader, "1")
		}
		if sent && isWrite(req.Method) && (err != nil || !notApplied(resp.StatusCode, resp.Header)) {
			resent = true // from here on; the reply at hand answers the first sending
		}
		if !again {
			if err != nil {
				return nil, &sendError{method: req.Method, sent: resent, err: err}
			}
			return resp, nil
		}
		if resp != nil && notApplied(resp.StatusCode, resp.Header) {
			l.pause(wait)
		}
		if away && wait > time.Second && l.miss() {
			t.log.WarnContext(req.Context(), "a service that has answered before is away: waiting for it, some minutes at most", "at", req.URL.Host)
		}
		t.log.DebugContext(req.Context(), "sending again", "method", req.Method, "url", safeURL(req.URL), "wait", wait)
		if err := sleep(req.Context(), wait); err != nil {
			return nil, &sendError{method: req.Method, sent: resent, err: err}
		}
	}
}

// once sends req and reads the whole reply, so that a connection lost half way through a body is an error here, where it can be
// retried, and the lane is free when the caller begins to decode. sent tells that the service may have seen the request.
func (t *transport) once(req *http.Request, try int) (_ *http.Response, sent bool, _ error) {
	var wrote atomic.Bool
	ctx, cancel := context.WithCancelCause(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		WroteHeaders: func() { wrote.Store(true) },
	}))
	defer cancel(nil)
	attempt := req.Clone(ctx)
	if req.GetBody != nil {
		body, err := req.GetBody()
		if err != nil {
			return nil, false, fmt.Errorf("reading the request's body again: %w", err)
		}
		attempt.Body = body
	}
	begin := time.Now()
	t.count(req)
	resp, err := t.next.RoundTrip(attempt)
	sent = wrote.Load() || err == nil
	if err == nil {
		err = readBody(resp, cancel)
	}
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	took := time.Since(begin)
	t.tell(req, resp, took)
	record := []any{"method", req.Method, "url", safeURL(req.URL), "try", try, "took", took.Round(time.Microsecond)}
	if err != nil {
		t.log.DebugContext(ctx, "request", append(record, "error", err.Error())...)
		return nil, sent, err
	}
	t.log.DebugContext(ctx, "request", append(record, "status", resp.StatusCode, "request_id", requestID(resp.Header))...)
	if err := checkBody(req, resp); err != nil {
		return nil, true, err
	}
	if isAuth(req) {
		t.measureSkew(resp, begin.Add(took/2))
	}
	return resp, true, nil
}

// readBody replaces resp.Body by its content.
func readBody(resp *http.Response, cancel context.CancelCauseFunc) error {
	defer resp.Body.Close()
	timer := time.AfterFunc(bodyTimeout, func() { cancel(fmt.Errorf("the reply did not end within %s", bodyTimeout)) })
	defer timer.Stop()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxReply+1))
	if err != nil {
		return fmt.Errorf("reading the reply: %w", err)
	}
	if len(data) > maxReply {
		return &pageError{fmt.Sprintf("the reply is larger than %d MiB", maxReply>>20)}
	}
	setBody(resp, data)
	return nil
}

func setBody(resp *http.Response, data []byte) {
	resp.Body = io.NopCloser(bytes.NewReader(data))
	resp.ContentLength = int64(len(data))
}

// pageError is a reply that no retry will mend: some other server answers at this address.
type pageError struct{ text string }

func (e *pageError) Error() string { return e.text }

// checkBody redacts the body of an error and refuses a web page where JSON was due.
func checkBody(req *http.Request, resp *http.Response) error {
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= 400 {
		data = redact.Values(data, secretsOf(req))
	} else if resp.StatusCode < 300 && isHTML(data) {
		return &pageError{fmt.Sprintf("a web page (%q) came instead of an answer: is this the address of an OpenStack API?", htmlText(string(data)))}
	}
	setBody(resp, data)
	return nil
}

func (t *transport) count(req *http.Request) {
	switch {
	case isAuth(req):
		t.auths.Add(1)
	case isWrite(req.Method):
		t.writes.Add(1)
	default:
		t.reads.Add(1)
	}
}

// tell tells the observers of one sending; resp is nil when there was no answer.
func (t *transport) tell(req *http.Request, resp *http.Response, took time.Duration) {
	s := Sent{Method: req.Method, Path: req.URL.Path, Login: isAuth(req), Took: took}
	if resp != nil {
		s.Status = resp.StatusCode
	}
	t.mu.Lock()
	if resp != nil && resp.TLS != nil {
		t.chains[req.URL.Host] = chainShown(req.URL.Host, resp.TLS)
	}
	observers := t.observers
	t.mu.Unlock()
	for _, f := range observers {
		f(s)
	}
}

func isAuth(req *http.Request) bool {
	return req.Method == http.MethodPost && strings.HasSuffix(req.URL.Path, "/auth/tokens")
}

// measureSkew compares the cloud's time, cut to whole seconds, with the middle of the login's. The time is the Date header's or, since
// uWSGI alone sends none, that of the token.
func (t *transport) measureSkew(resp *http.Response, middle time.Time) {
	at, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		data, _ := io.ReadAll(resp.Body) // from memory: it cannot fail
		setBody(resp, data)
		var body struct {
			Token struct {
				IssuedAt time.Time `json:"issued_at"`
			}
		}
		if json.Unmarshal(data, &body) != nil || body.Token.IssuedAt.IsZero() {
			return
		}
		at = body.Token.IssuedAt.Truncate(time.Second)
	}
	t.skew.Store(int64(at.Add(500 * time.Millisecond).Sub(middle)))
}

// sendError is a request without a reply.
type sendError struct {
	method string
	sent   bool // the service may have seen it
	err    error
}

func (e *sendError) Error() string { return e.err.Error() }
func (e *sendError) Unwrap() error { return e.err }

// checkRedirect follows what is harmless: reads, on one host, not from https to http. net/http would carry X-Auth-Token to any host
// and turn a POST into a GET.
func checkRedirect(req *http.Request, via []*http.Request) error {
	from := via[0]
	downgrade := from.URL.Scheme == "https" && req.URL.Scheme != "https"
	if len(via) >= 5 || isWrite(from.Method) || downgrade || req.URL.Hostname() != from.URL.Hostname() {
		return http.ErrUseLastResponse
	}
	return nil
}

// isFinal tells of transport errors that sending again would only repeat.
func isFinal(err error) bool {
	var page *pageError
	var cert *tls.CertificateVerificationError
	var dns *net.DNSError
	var op *net.OpError
	return errors.As(err, &page) || errors.As(err, &cert) || errors.As(err, &dns) && dns.IsNotFound ||
		// The kernel has sent its SYN four times by then.
		errors.As(err, &op) && op.Op == "dial" && op.Timeout()
}

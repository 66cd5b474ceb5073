package openstacktest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// The prefixes of the services on the one server.
const (
	prefixIdentity = "/identity"
	prefixNetwork  = "/networking"
	prefixCompute  = "/compute"
	prefixImage    = "/image"
	prefixVolume   = "/block-storage"
	prefixBalancer = "/load-balancer"
	prefixNames    = "/dns"
)

// route is one method and path of one service.
type route struct {
	service string // the catalog's type: identity, network, compute, image, block-storage, load-balancer, dns
	status  int    // of success; 0 is 200
	open    bool   // needs no token
	do      func(*call) (any, error)
}

// call is a request being answered. The Cloud is locked for its whole life.
type call struct {
	*Cloud
	*http.Request
	route  route
	path   string // without the service's prefix
	body   []byte
	header http.Header // of the answer
	status int         // of success, where it is not the route's
	who    *session    // nil on open routes
}

// apiError is an answer that is not a success, in its service's own form.
type apiError struct {
	status int
	body   any
}

func (e *apiError) Error() string { return fmt.Sprintf("%d: %v", e.status, e.body) }

// on registers one route; path is below the service's prefix.
func (c *Cloud) on(method, prefix, path string, r route) {
	r.service = serviceOf(prefix)
	if r.status == 0 {
		r.status = http.StatusOK
	}
	c.mux.HandleFunc(method+" "+prefix+path, c.handle(r))
}

func serviceOf(prefix string) string {
	if prefix == prefixNetwork {
		return "network"
	}
	return strings.TrimPrefix(prefix, "/")
}

// split separates a service's prefix from the rest of a path.
func split(path string) (prefix, rest string) {
	for _, p := range []string{prefixIdentity, prefixNetwork, prefixCompute, prefixImage, prefixVolume, prefixBalancer, prefixNames} {
		if rest, ok := strings.CutPrefix(path, p); ok {
			return p, rest
		}
	}
	return "", path
}

// handle answers a request: latency, faults, token, the handler, the log.
func (c *Cloud) handle(rt route) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the client is gone
		}
		if c.knobs.latency > 0 {
			select {
			case <-time.After(c.knobs.latency):
			case <-r.Context().Done():
				return
			}
		}
		_, path := split(r.URL.Path)
		q := &call{Cloud: c, Request: r, route: rt, path: path, body: body, header: http.Header{}}
		status, answer, hang := q.run()
		if hang {
			<-r.Context().Done()
		}
		if status == 0 {
			sever(w)
			return
		}
		for k, v := range q.header {
			w.Header()[k] = v
		}
		w.WriteHeader(status)
		if r.Method != http.MethodHead {
			_, _ = w.Write(answer) // a client that hung up is its own affair
		}
	}
}

// run locks the Cloud and decides the answer. Status 0 means the connection is to be closed without one; hang, not before the client is gone.
func (q *call) run() (status int, answer []byte, hang bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	entry := Request{Service: q.route.service, Method: q.Method, Path: q.path, auth: q.Method == http.MethodPost && q.path == "/v3/auth/tokens"}
	defer func() {
		entry.Status = status
		q.log = append(q.log, entry)
	}()
	id := "req-" + q.newID()
	q.header.Set("X-Openstack-Request-Id", id)
	q.header.Set("Content-Type", "application/json")
	q.header.Set("Date", time.Now().Add(q.knobs.clock).UTC().Format(http.TimeFormat))

	m := q.faults.judge(Sent{entry, q.URL, q.Header, q.body})
	if m == nil || m.Applied {
		status, answer = q.serve()
	}
	if m == nil {
		return status, answer, false
	}
	if m.Status != 0 {
		for k, vs := range m.Header {
			q.header[http.CanonicalHeaderKey(k)] = vs
		}
		if !strings.HasPrefix(m.Body, "{") && m.Header.Get("Content-Type") == "" {
			q.header.Set("Content-Type", "text/html")
		}
	}
	return m.Status, []byte(m.Body), m.Hang
}

// serve checks the token and runs the handler.
func (q *call) serve() (int, []byte) {
	if !q.route.open {
		s, ok := q.identity.session(q.Header.Get("X-Auth-Token"))
		if !ok {
			return encode(http.StatusUnauthorized, keystoneBody(http.StatusUnauthorized, "The request you have made requires authentication."))
		}
		if s.ProjectID == "" && q.route.service != "identity" {
			return encode(http.StatusForbidden, keystoneBody(http.StatusForbidden, "The token has no project."))
		}
		q.who = s
	}
	result, err := q.route.do(q)
	if err != nil {
		var e *apiError
		if !errors.As(err, &e) {
			q.t.Errorf("openstacktest: %s %s: %v", q.Method, q.URL.Path, err)
			e = &apiError{http.StatusInternalServerError, map[string]any{"error": err.Error()}}
		}
		return encode(e.status, e.body)
	}
	if q.status == 0 {
		q.status = q.route.status
	}
	return encode(q.status, result)
}

func encode(status int, v any) (int, []byte) {
	if v == nil {
		return status, nil
	}
	if s, ok := v.(string); ok {
		return status, []byte(s)
	}
	b, err := json.Marshal(v)
	if err != nil {
		return http.StatusInternalServerError, []byte(err.Error())
	}
	return status, b
}

// sever closes the client's connection with a reset, without a byte of answer.
func sever(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

func unknownRoute(q *call) (any, error) {
	q.t.Errorf("openstacktest: no such route: %s %s", q.Method, q.URL.Path)
	return nil, &apiError{http.StatusNotFound, "404 Not Found"}
}

// admin tells whether the caller has the role admin.
func (q *call) admin() bool { return q.who.admin }

// misuse reports a request no real client should send, and fails the test.
func (q *call) misuse(format string, args ...any) {
	q.t.Errorf("openstacktest: %s %s: %s", q.Method, q.URL.Path, fmt.Sprintf(format, args...))
}

// object decodes the body's object under key ("port"); a body without it is nil.
func (q *call) object(key string) (fields, error) {
	var env map[string]json.RawMessage
	if err := json.Unmarshal(q.body, &env); err != nil {
		return nil, fmt.Errorf("decoding %q: %w", q.body, err)
	}
	var f fields
	if raw, ok := env[key]; ok {
		if err := json.Unmarshal(raw, &f); err != nil {
			return nil, fmt.Errorf("decoding %s in %q: %w", key, q.body, err)
		}
	}
	return f, nil
}

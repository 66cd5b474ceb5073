package openstacktest

import (
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
)

// Request is one entry of the log. Status is 0 when the client got no answer.
type Request struct {
	Service string // the catalog's type: identity, network, compute, image, load-balancer
	Method  string
	Path    string // without the service's prefix
	Status  int
	auth    bool
}

func (r Request) write() bool { return r.Method != http.MethodGet && r.Method != http.MethodHead }

// Writes are the requests that could change something, in order of arrival,
// refused and dropped ones included; asking for a token is not one.
func (c *Cloud) Writes() []Request {
	return c.logged(func(r Request) bool { return r.write() && !r.auth })
}

// Reads are all GET and HEAD requests.
func (c *Cloud) Reads() []Request { return c.logged(func(r Request) bool { return !r.write() }) }

// Auths are the requests for a token.
func (c *Cloud) Auths() []Request { return c.logged(func(r Request) bool { return r.auth }) }

func (c *Cloud) logged(want func(Request) bool) []Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(c.log), func(r Request) bool { return !want(r) })
}

// ResetLog forgets the requests so far.
func (c *Cloud) ResetLog() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.log = nil
}

// When says on which side of the change a connection breaks.
type When int

const (
	BeforeWrite When = iota // nothing was done
	AfterWrite              // it was done, and the client does not know
)

// Fail answers the next requests that match, times of them, with this status,
// body and header instead of serving them. A match is a method and a path as in
// "POST /v2.0/trunks"; path segments may be patterns ("PUT /v2.0/trunks/*/add_subports",
// see path.Match) and the method may be "*". A negative times has no end.
func (c *Cloud) Fail(match string, times, status int, body string, header http.Header) {
	c.addFault(fault{match, times, Mishap{Status: status, Body: body, Header: header}})
}

// Drop breaks the connection of the next requests that match, times of them,
// before or after they were served. Matching is as in Fail.
func (c *Cloud) Drop(match string, times int, when When) {
	c.addFault(fault{match, times, Mishap{Applied: when == AfterWrite}})
}

// CutAfter lets n more writes through (with the reads between them) and breaks
// every connection after the n-th was answered, until Heal.
func (c *Cloud) CutAfter(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults.cutAfter, c.faults.cutReply, c.faults.writes = n, -1, 0
}

// CutReply serves the n-th write from now (the first is 1), loses its answer, and
// breaks every connection after it, until Heal.
func (c *Cloud) CutReply(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults.cutAfter, c.faults.cutReply, c.faults.writes = -1, n, 0
}

// Sent is a request as it was sent.
type Sent struct {
	Request
	URL    *url.URL
	Header http.Header
	Body   []byte
}

// Mishap is what befalls a request in the place of the answer that it would have had.
type Mishap struct {
	Applied bool // the request was served, and the client does not know
	Hang    bool // there is no answer for as long as the client waits

	Status int // of the answer; 0 breaks the connection
	Body   string
	Header http.Header
}

// Judge asks f about every request that no other fault befalls, a login included, until Heal; nil lets it pass. The cloud is locked
// meanwhile: f must not call it.
func (c *Cloud) Judge(f func(Sent) *Mishap) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults.each = f
}

// Heal ends every fault: cuts, what is left of Fail and Drop, and Judge.
func (c *Cloud) Heal() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults.heal()
}

func (c *Cloud) addFault(f fault) {
	method, pattern, ok := strings.Cut(f.match, " ")
	if _, err := path.Match(pattern, ""); !ok || method == "" || err != nil {
		c.t.Fatalf("openstacktest: %q is not a method and a path pattern", f.match)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults.list = append(c.faults.list, &f)
}

type fault struct {
	match string
	times int
	Mishap
}

func (f *fault) matches(method, short, full string) bool {
	m, pattern, _ := strings.Cut(f.match, " ")
	if m != "*" && m != method {
		return false
	}
	for _, p := range []string{short, full} {
		if ok, _ := path.Match(pattern, p); ok {
			return true
		}
	}
	return false
}

type faults struct {
	list     []*fault
	each     func(Sent) *Mishap
	cutAfter int // -1 when off
	cutReply int // -1 when off
	writes   int // seen since the cut was set
}

func (f *faults) heal() { *f = faults{cutAfter: -1, cutReply: -1} }

// judge is what befalls one request, or nil.
func (f *faults) judge(s Sent) *Mishap {
	if f.cutAfter >= 0 && f.writes >= f.cutAfter || f.cutReply >= 0 && f.writes >= f.cutReply {
		return &Mishap{}
	}
	write := s.write() && !s.auth
	if write {
		f.writes++
	}
	var m *Mishap
	if i := slices.IndexFunc(f.list, func(x *fault) bool { return x.times != 0 && x.matches(s.Method, s.Path, s.URL.Path) }); i >= 0 {
		f.list[i].times--
		m = &f.list[i].Mishap
	} else if f.each != nil {
		m = f.each(s)
	}
	if write && f.cutReply >= 0 && f.writes == f.cutReply {
		return &Mishap{Applied: m == nil || m.Applied}
	}
	return m
}

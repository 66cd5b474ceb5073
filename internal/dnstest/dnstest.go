// Package dnstest is a name server in one process, for tests that speak to it over the wire: one zone, queries with wildcards, and updates
// (RFC 2136) signed with TSIG, applied whole or not at all.
//
// It owns the rules that a client can trip over: prerequisites, that a wildcard answers for what is not there, who may change what. It
// refuses updates that are not signed. It knows no resolver, no transfer and no DNSSEC.
package dnstest

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	miekg "github.com/miekg/dns"
)

// Key is the key that the server knows, as tsig-keygen writes it.
const Key = `key "test-key" {
	algorithm hmac-sha256;
	secret "` + secret + `";
};
`

const secret = "c2VjcmV0IG9mIGEgdGVzdCBzZXJ2ZXIsIDMyIGJ5dGVz"

// Server is one running name server.
type Server struct {
	Address string // HOST:PORT

	zone string

	mu      sync.Mutex
	records []miekg.RR
	updates int  // that changed something
	lose    bool // the answer to the next update that changes something
	before  func()
}

// New starts a server of zone, which ends with the test.
func New(t testing.TB, zone string, records ...string) *Server {
	t.Helper()
	s := &Server{zone: miekg.CanonicalName(zone)}
	s.records = []miekg.RR{parse(t, fmt.Sprintf("%s 300 IN SOA ns.%[1]s admin.%[1]s 1 3600 600 86400 300", s.zone)), parse(t, fmt.Sprintf("%s 300 IN NS ns.%[1]s", s.zone))}
	s.Add(t, records...)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Address = l.Addr().String()
	started := make(chan struct{})
	server := &miekg.Server{Listener: l, Handler: s, TsigSecret: map[string]string{"test-key.": secret}, NotifyStartedFunc: func() { close(started) },
		MsgAcceptFunc: func(miekg.Header) miekg.MsgAcceptAction { return miekg.MsgAccept }} // the usual one refuses updates
	ended := make(chan error, 1)
	go func() { ended <- server.ActivateAndServe() }()
	<-started
	t.Cleanup(func() {
		server.Shutdown()
		if err := <-ended; err != nil {
			t.Errorf("dnstest: %v", err)
		}
	})
	return s
}

func parse(t testing.TB, text string) miekg.RR {
	t.Helper()
	rr, err := miekg.NewRR(text)
	if err != nil {
		t.Fatal(err)
	}
	return rr
}

// Add puts records there by another hand, each as a line of a zone file.
func (s *Server) Add(t testing.TB, records ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, text := range records {
		s.records = append(s.records, parse(t, text))
	}
}

// Drop removes a name by another hand.
func (s *Server) Drop(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records = slices.DeleteFunc(s.records, func(rr miekg.RR) bool { return rr.Header().Name == miekg.Fqdn(name) })
}

// Records lists what is there but SOA and NS, as "name type value", sorted.
func (s *Server) Records() (all []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, rr := range s.records {
		if h := rr.Header(); h.Rrtype != miekg.TypeSOA && h.Rrtype != miekg.TypeNS {
			all = append(all, strings.TrimSuffix(h.Name, ".")+" "+miekg.TypeToString[h.Rrtype]+" "+strings.TrimPrefix(rr.String(), h.String()))
		}
	}
	slices.Sort(all)
	return all
}

// Updates is how many updates have changed something.
func (s *Server) Updates() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.updates
}

// LoseAnswer lets the next update that changes something succeed without a word.
func (s *Server) LoseAnswer() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lose = true
}

// Before lets something happen right before the next update that would change something.
func (s *Server) Before(do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = do
}

// ServeDNS implements [miekg.Handler].
func (s *Server) ServeDNS(w miekg.ResponseWriter, q *miekg.Msg) {
	r := new(miekg.Msg)
	r.SetReply(q)
	tsig := q.IsTsig()
	switch {
	case tsig == nil && q.Opcode == miekg.OpcodeUpdate:
		r.Rcode = miekg.RcodeRefused
	case tsig != nil && w.TsigStatus() != nil:
		r.Rcode = miekg.RcodeNotAuth
		code := uint16(miekg.RcodeBadSig)
		if tsig.Hdr.Name != "test-key." {
			code = miekg.RcodeBadKey
		}
		r.Extra = append(r.Extra, &miekg.TSIG{Hdr: miekg.RR_Header{Name: tsig.Hdr.Name, Rrtype: miekg.TypeTSIG, Class: miekg.ClassANY}, Algorithm: tsig.Algorithm, OrigId: q.Id, Error: code})
		packed, err := r.Pack()
		if err == nil {
			w.Write(packed) // such an answer cannot be signed
		}
		return
	case q.Opcode == miekg.OpcodeUpdate:
		if s.update(q, r) {
			w.Close()
			return
		}
	default:
		s.answer(q.Question[0], r)
	}
	if tsig != nil {
		r.SetTsig(tsig.Hdr.Name, tsig.Algorithm, 300, int64(tsig.TimeSigned))
	}
	w.WriteMsg(r) // a client that hung up is its own affair
}

func (s *Server) find(name string, kind uint16) (found []miekg.RR) {
	for _, rr := range s.records {
		if rr.Header().Name == name && (kind == miekg.TypeANY || rr.Header().Rrtype == kind) {
			found = append(found, miekg.Copy(rr))
		}
	}
	return found
}

// there reports whether a name exists, be it only as a part of longer ones.
func (s *Server) there(name string) bool {
	return slices.ContainsFunc(s.records, func(rr miekg.RR) bool { return miekg.IsSubDomain(name, rr.Header().Name) })
}

func (s *Server) answer(q miekg.Question, r *miekg.Msg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := miekg.CanonicalName(q.Name)
	if !miekg.IsSubDomain(s.zone, name) {
		r.Rcode = miekg.RcodeRefused
		return
	}
	r.Authoritative = true
	r.Answer = s.find(name, q.Qtype)
	if !s.there(name) {
		r.Rcode = miekg.RcodeNameError
		closest := name
		for !s.there(closest) {
			_, closest, _ = strings.Cut(closest, ".")
		}
		if wild := "*." + closest; s.there(wild) {
			r.Rcode = miekg.RcodeSuccess
			for _, rr := range s.find(wild, q.Qtype) {
				rr.Header().Name = q.Name
				r.Answer = append(r.Answer, rr)
			}
		}
	}
	if len(r.Answer) == 0 {
		r.Ns = s.find(s.zone, miekg.TypeSOA)
	}
}

// update applies an update; lost is true when nobody is to hear of it.
func (s *Server) update(q, r *miekg.Msg) (lost bool) {
	s.mu.Lock()
	if do := s.before; do != nil && len(q.Ns) > 0 {
		s.before = nil
		s.mu.Unlock()
		do()
		s.mu.Lock()
	}
	defer s.mu.Unlock()
	if q.Question[0].Name != s.zone {
		r.Rcode = miekg.RcodeNotAuth
		return false
	}
	if r.Rcode = s.prerequisites(q.Answer); r.Rcode != miekg.RcodeSuccess || len(q.Ns) == 0 {
		return false
	}
	for _, rr := range q.Ns {
		s.apply(rr)
	}
	s.updates++
	lost, s.lose = s.lose, false
	return lost
}

// prerequisites are those of RFC 2136 section 3.2.
func (s *Server) prerequisites(all []miekg.RR) int {
	sets := map[string][]string{}
	for _, rr := range all {
		h := rr.Header()
		found := s.find(h.Name, h.Rrtype)
		switch h.Class {
		case miekg.ClassANY:
			if len(found) == 0 {
				if h.Rrtype == miekg.TypeANY {
					return miekg.RcodeNameError
				}
				return miekg.RcodeNXRrset
			}
		case miekg.ClassNONE:
			if len(found) > 0 {
				if h.Rrtype == miekg.TypeANY {
					return miekg.RcodeYXDomain
				}
				return miekg.RcodeYXRrset
			}
		default:
			set := fmt.Sprintf("%s %d", h.Name, h.Rrtype)
			sets[set] = append(sets[set], value(rr))
		}
	}
	for set, values := range sets {
		var there []string
		for _, rr := range s.records {
			if h := rr.Header(); fmt.Sprintf("%s %d", h.Name, h.Rrtype) == set {
				there = append(there, value(rr))
			}
		}
		slices.Sort(there)
		slices.Sort(values)
		if !slices.Equal(there, values) {
			return miekg.RcodeNXRrset
		}
	}
	return miekg.RcodeSuccess
}

// apply is section 3.4.2.
func (s *Server) apply(rr miekg.RR) {
	h := rr.Header()
	switch h.Class {
	case miekg.ClassANY, miekg.ClassNONE:
		s.records = slices.DeleteFunc(s.records, func(x miekg.RR) bool {
			return x.Header().Name == h.Name && (h.Rrtype == miekg.TypeANY || x.Header().Rrtype == h.Rrtype) && (h.Class == miekg.ClassANY || value(x) == value(rr))
		})
	default:
		if !slices.ContainsFunc(s.find(h.Name, h.Rrtype), func(x miekg.RR) bool { return value(x) == value(rr) }) {
			s.records = append(s.records, rr)
		}
	}
}

func value(rr miekg.RR) string { return strings.TrimPrefix(rr.String(), rr.Header().String()) }

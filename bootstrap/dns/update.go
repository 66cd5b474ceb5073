package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	miekg "github.com/miekg/dns"
)

// Server is a name server that takes updates (RFC 2136) of the zone which Domain is in.
//
// Whose names they are is written beside them: the TXT records of _kuryrctl-STACK at the zone's apex have the stack's uuid and, one each, the
// names made for it with their addresses. They change in the same message as the names, which a server applies whole or not at all, so there
// is no moment in which a name is nobody's.
type Server struct {
	Address string // HOST:PORT of the zone's primary
	Domain  string // without the final dot
	Key     Key
	// Dial, if set, makes the connection: a server inside the lab's cloud is dialed from its network namespace.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// exchangeTimeout bounds one question or update. Servers answer in milliseconds; one that has to write a large zone may need a moment.
const exchangeTimeout = 15 * time.Second

// ErrChanged means that somebody changed the same names at the same moment.
var ErrChanged = errors.New("somebody else has changed the stack's names at this moment; run it again")

func (s Server) String() string { return "name server " + s.Address }

// Sync implements [Place].
func (s Server) Sync(ctx context.Context, owner Owner, want []Record, before func() error) ([]Change, error) {
	u, err := s.begin(ctx)
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", s, err)
	}
	defer func() { u.conn.Close() }()
	changes, err := u.sync(ctx, owner, want, before)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx) // its end is why the connection was closed
		}
		return nil, fmt.Errorf("updating names at %s: %w", s, err)
	}
	return changes, nil
}

// update is a conversation with a server.
type update struct {
	Server
	conn net.Conn
	zone string // with the final dot
}

func (s Server) begin(ctx context.Context) (*update, error) {
	dial := s.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	limited, cancel := context.WithTimeout(ctx, exchangeTimeout)
	defer cancel()
	raw, err := dial(limited, "tcp", s.Address)
	if err != nil {
		return nil, err
	}
	return &update{Server: s, conn: raw}, nil
}

// exchange signs a message, sends it and checks the signature of the answer. One that is not signed proves nothing.
func (u *update) exchange(ctx context.Context, m *miekg.Msg) (*miekg.Msg, error) {
	m.SetTsig(u.Key.name, u.Key.algorithm, 300, time.Now().Unix())
	defer context.AfterFunc(ctx, func() { u.conn.Close() })() // the library minds deadlines only
	client := miekg.Client{Net: "tcp", Timeout: exchangeTimeout, TsigSecret: map[string]string{u.Key.name: u.Key.secret}}
	r, _, err := client.ExchangeWithConnContext(ctx, m, &miekg.Conn{Conn: u.conn}) // a Conn that is used again signs the last signature too
	if r != nil {
		if t := r.IsTsig(); t != nil && t.Error != miekg.RcodeSuccess {
			return nil, u.refusedKey(t.Error)
		}
		if r.Rcode == miekg.RcodeRefused || r.Rcode == miekg.RcodeNotAuth { // such an answer may come unsigned, and is a no in any case
			return nil, fmt.Errorf("it answers %s: it is not the primary of this zone, or %s may not change it", miekg.RcodeToString[r.Rcode], u.Key)
		}
	}
	if err != nil {
		return nil, err
	}
	if r.IsTsig() == nil {
		return nil, errors.New("its answer is not signed: it knows nothing of TSIG, or somebody stands between")
	}
	return r, nil
}

// refusedKey says in words why a key is refused (RFC 8945 section 5.3).
func (u *update) refusedKey(code uint16) error {
	switch code {
	case miekg.RcodeBadKey:
		return fmt.Errorf("it does not know the %s with this algorithm", u.Key)
	case miekg.RcodeBadSig:
		return fmt.Errorf("it has another secret for the %s", u.Key)
	case miekg.RcodeBadTime:
		return errors.New("its clock and this machine's differ by more than five minutes")
	}
	return fmt.Errorf("it refuses the %s: %s", u.Key, miekg.RcodeToString[int(code)])
}

// ask queries one name and type.
func (u *update) ask(ctx context.Context, name string, kind uint16) (*miekg.Msg, error) {
	m := new(miekg.Msg)
	m.SetQuestion(miekg.Fqdn(name), kind)
	m.RecursionDesired = false // what a cache says is of no use
	r, err := u.exchange(ctx, m)
	if err != nil {
		return nil, err
	}
	if r.Rcode != miekg.RcodeSuccess && r.Rcode != miekg.RcodeNameError {
		return nil, fmt.Errorf("asking for %s: it answers %s", name, miekg.RcodeToString[r.Rcode])
	}
	return r, nil
}

// findZone asks which zone the domain is in, as nsupdate does.
func (u *update) findZone(ctx context.Context) error {
	r, err := u.ask(ctx, u.Domain, miekg.TypeSOA)
	if err != nil {
		return err
	}
	for _, rr := range append(r.Answer, r.Ns...) {
		if soa, ok := rr.(*miekg.SOA); ok && r.Authoritative && soa.Hdr.Name != "." && miekg.IsSubDomain(soa.Hdr.Name, miekg.Fqdn(u.Domain)) {
			u.zone = miekg.CanonicalName(soa.Hdr.Name)
			return nil
		}
	}
	return fmt.Errorf("it has no zone for %s: name the server that does, or make the zone there", u.Domain)
}

func (u *update) sync(ctx context.Context, owner Owner, want []Record, before func() error) ([]Change, error) {
	if err := u.findZone(ctx); err != nil {
		return nil, err
	}
	notes, err := u.notes(ctx, owner)
	if err != nil {
		return nil, err
	}
	if owner.UUID == "" {
		owner.UUID = notes.uuid
	}
	changes := compare(notes.names, want)
	if err := u.findDrift(ctx, changes); err != nil {
		return nil, err
	}
	if Settled(changes) && (len(want) > 0 || len(notes.texts) == 0) {
		return changes, nil
	}
	if err := before(); err != nil {
		return nil, err
	}
	again, err := u.begin(ctx) // servers close a connection that is silent for seconds, as this one may have been
	if err != nil {
		return nil, err
	}
	u.conn.Close()
	u.conn = again.conn
	m := new(miekg.Msg)
	m.SetUpdate(u.zone)
	u.require(m, notes)
	var texts []string
	if len(want) > 0 {
		texts = append(texts, heading(owner))
	}
	for _, c := range changes {
		switch c.Action {
		case Made:
			m.NameNotUsed([]miekg.RR{addressRecord(c.Record)})
			m.Insert([]miekg.RR{addressRecord(c.Record)})
		case Repaired:
			m.RemoveRRset([]miekg.RR{addressRecord(c.Record)})
			m.Insert([]miekg.RR{addressRecord(c.Record)})
		case Removed:
			m.Remove([]miekg.RR{addressRecord(c.Record)}) // exactly what was made: an address that somebody has put there since stays
			continue
		}
		texts = append(texts, u.note(c.Record))
	}
	for _, text := range notes.texts {
		if !slices.Contains(texts, text) {
			m.Remove([]miekg.RR{textRecord(notes.name, text)})
		}
	}
	for _, text := range texts {
		if !slices.Contains(notes.texts, text) {
			m.Insert([]miekg.RR{textRecord(notes.name, text)})
		}
	}
	r, err := u.exchange(ctx, m)
	switch {
	case err != nil:
		return nil, err
	case r.Rcode == miekg.RcodeYXDomain:
		return nil, u.findTaken(ctx, changes)
	case r.Rcode == miekg.RcodeNXRrset || r.Rcode == miekg.RcodeNameError:
		return nil, ErrChanged
	case r.Rcode != miekg.RcodeSuccess:
		return nil, fmt.Errorf("it answers %s to the update: its log says why", miekg.RcodeToString[r.Rcode])
	}
	return changes, nil
}

// notes are what was written down of a stack's names.
type notes struct {
	name  string // of the TXT records
	uuid  string
	texts []string
	names map[string]netip.Addr
}

const heritage = "heritage=kuryrctl,stack="

func heading(o Owner) string { return heritage + o.Stack + ",uuid=" + o.UUID }

// note is one name in the notes, relative to the zone: two hundred workers must fit into one message of 64 KiB.
func (u *update) note(r Record) string {
	name := strings.TrimSuffix(strings.TrimSuffix(r.Name, strings.TrimSuffix(u.zone, ".")), ".")
	return "name=" + name + ",a=" + r.Address.String()
}

// notes reads what was written down. It is one label below the apex: with a wildcard on the domain, two labels would take the upper one out
// of the wildcard's reach.
func (u *update) notes(ctx context.Context, owner Owner) (notes, error) {
	n := notes{name: "_kuryrctl-" + owner.Stack + "." + u.zone, names: map[string]netip.Addr{}}
	r, err := u.ask(ctx, n.name, miekg.TypeTXT)
	if err != nil {
		return n, err
	}
	for _, rr := range r.Answer {
		txt, ok := rr.(*miekg.TXT)
		if !ok || miekg.CanonicalName(txt.Hdr.Name) != miekg.CanonicalName(n.name) {
			continue
		}
		n.texts = append(n.texts, strings.Join(txt.Txt, ""))
	}
	slices.Sort(n.texts)
	for _, text := range n.texts {
		if uuid, ok := strings.CutPrefix(text, heritage+owner.Stack+",uuid="); ok {
			n.uuid = uuid
			continue
		}
		relative, value, ok := strings.Cut(strings.TrimPrefix(text, "name="), ",a=")
		address, err := netip.ParseAddr(value)
		if !ok || err != nil {
			return n, fmt.Errorf("reading %s: %q is no note of kuryrctl's", n.name, text)
		}
		n.names[strings.Trim(relative+"."+strings.TrimSuffix(u.zone, "."), ".")] = address
	}
	if len(n.texts) > 0 && owner.UUID != "" && n.uuid != owner.UUID {
		return n, fmt.Errorf("reading %s: %w of this name, uuid %s: remove its names with `kuryrctl dns remove %s`, or name this stack otherwise", n.name, ErrOther, n.uuid, owner.Stack)
	}
	return n, nil
}

// require makes an update happen only if the notes are still what was read.
func (u *update) require(m *miekg.Msg, n notes) {
	if len(n.texts) == 0 {
		m.NameNotUsed([]miekg.RR{textRecord(n.name, "")})
		return
	}
	for _, text := range n.texts {
		m.Used([]miekg.RR{textRecord(n.name, text)})
	}
}

// findDrift finds the kept names that are not there as noted. They cannot simply be asked for: a wildcard answers for names that are not
// there. So an update that changes nothing is sent, on the condition that they are.
func (u *update) findDrift(ctx context.Context, changes []Change) error {
	var kept []int
	for i, c := range changes {
		if c.Action == Kept {
			kept = append(kept, i)
		}
	}
	holds := func(at []int) (bool, error) {
		m := new(miekg.Msg)
		m.SetUpdate(u.zone)
		for _, i := range at {
			m.Used([]miekg.RR{addressRecord(changes[i].Record)})
		}
		r, err := u.exchange(ctx, m)
		if err != nil {
			return false, err
		}
		switch r.Rcode {
		case miekg.RcodeSuccess, miekg.RcodeNXRrset, miekg.RcodeNameError:
			return r.Rcode == miekg.RcodeSuccess, nil
		}
		return false, fmt.Errorf("it answers %s when it is asked what is there", miekg.RcodeToString[r.Rcode])
	}
	if len(kept) == 0 {
		return nil
	}
	if all, err := holds(kept); all || err != nil {
		return err
	}
	for _, i := range kept {
		ok, err := holds([]int{i})
		if err != nil {
			return err
		}
		if !ok {
			changes[i].Action = Repaired
		}
	}
	return nil
}

// findTaken names what stood in the way of an update.
func (u *update) findTaken(ctx context.Context, changes []Change) error {
	taken := &TakenError{Where: "zone " + strings.TrimSuffix(u.zone, ".")}
	for _, c := range changes {
		if c.Action != Made {
			continue
		}
		m := new(miekg.Msg)
		m.SetUpdate(u.zone)
		m.NameNotUsed([]miekg.RR{addressRecord(c.Record)})
		r, err := u.exchange(ctx, m)
		if err != nil {
			return err
		}
		if r.Rcode == miekg.RcodeYXDomain {
			taken.Names = append(taken.Names, c.Name)
		}
	}
	if len(taken.Names) == 0 {
		return ErrChanged // the notes are there by now
	}
	return taken
}

func addressRecord(r Record) miekg.RR {
	return &miekg.A{Hdr: miekg.RR_Header{Name: miekg.Fqdn(r.Name), Rrtype: miekg.TypeA, Class: miekg.ClassINET, Ttl: TTL}, A: r.Address.AsSlice()}
}

func textRecord(name, text string) miekg.RR {
	return &miekg.TXT{Hdr: miekg.RR_Header{Name: miekg.Fqdn(name), Rrtype: miekg.TypeTXT, Class: miekg.ClassINET, Ttl: TTL}, Txt: pieces(text)}
}

// pieces cuts a text into the strings of a TXT record, which hold 255 bytes each.
func pieces(text string) (all []string) {
	for len(text) > 255 {
		all, text = append(all, text[:255]), text[255:]
	}
	return append(all, text)
}

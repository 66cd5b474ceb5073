package daemon

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kuryrctl/kuryrctl/nodeagent/link"
	"github.com/kuryrctl/kuryrctl/nodeagent/socket"
	"github.com/kuryrctl/kuryrctl/nodeagent/vif"
)

// ledger is who has which subport. It is made of what the controller published and of the records in the journal, and it does nothing
// by itself: its methods say what may be done, and apply does what the journal says was done.
type ledger struct {
	cooldown time.Duration
	pool     *vif.SubportPool // nil while there is none

	taken    map[socket.Attachment]taking
	freed    map[string]freeing // by port: who has had it, and since when nobody has
	released map[string]bool    // by port: promised to the controller
}

// taking is one allocation. It holds all of the subport, so that the answer stays the same whatever becomes of the pool.
type taking struct {
	socket.Add
	Parent  string      `json:"parentMAC"`
	Subport vif.Subport `json:"subport"`
	Since   time.Time   `json:"since"`
}

type freeing struct {
	Port   string       `json:"port"`
	VLAN   int          `json:"vlan"`
	At     time.Time    `json:"at"`
	Places []link.Place `json:"places,omitempty"` // of the last holders, latest first
}

// record is a line of the journal: exactly one of its fields is set.
type record struct {
	Take    *taking            `json:"take,omitempty"`
	Free    *socket.Attachment `json:"free,omitempty"`
	At      time.Time          `json:"at,omitzero"` // of Free
	Freed   *freeing           `json:"freed,omitempty"`
	Release string             `json:"release,omitempty"`
}

func (r record) problem() error {
	switch {
	case r.Take != nil && r.Free == nil && r.Freed == nil && r.Release == "":
		if r.Take.Container == "" || r.Take.Subport.Port == "" {
			return errors.New("it takes nothing")
		}
	case r.Take == nil && r.Free != nil && r.Freed == nil && r.Release == "":
		if r.Free.Container == "" {
			return errors.New("it frees nothing")
		}
	case r.Take == nil && r.Free == nil && r.Freed != nil && r.Release == "":
		if r.Freed.Port == "" {
			return errors.New("it has freed nothing")
		}
	case r.Take == nil && r.Free == nil && r.Freed == nil && r.Release != "":
	default:
		return errors.New("it is no record of this version")
	}
	return nil
}

// keepPlaces is how many earlier holders are remembered: more than one only when links outlive their pods again and again.
const keepPlaces = 3

func newLedger(cooldown time.Duration) *ledger {
	return &ledger{cooldown: cooldown, taken: map[socket.Attachment]taking{}, freed: map[string]freeing{}, released: map[string]bool{}}
}

// apply does what a record says. Records that repeat what was done change nothing.
func (l *ledger) apply(r record) {
	switch {
	case r.Take != nil:
		l.taken[r.Take.Attachment] = *r.Take
	case r.Free != nil:
		t, ok := l.taken[*r.Free]
		if !ok {
			return
		}
		delete(l.taken, *r.Free)
		places := []link.Place{{Netns: t.Netns, Name: t.IfName}}
		places = append(places, l.freed[t.Subport.Port].Places...)
		l.freed[t.Subport.Port] = freeing{Port: t.Subport.Port, VLAN: t.Subport.VLAN, At: r.At, Places: places[:min(len(places), keepPlaces)]}
	case r.Freed != nil:
		l.freed[r.Freed.Port] = *r.Freed
	case r.Release != "":
		l.released[r.Release] = true
	}
}

// rewind makes everything that was freed lately, or in a future that a changed clock has made, cool down anew from now on.
func (l *ledger) rewind(now time.Time) {
	for port, f := range l.freed {
		if now.Sub(f.At) < l.cooldown {
			f.At = now
			l.freed[port] = f
		}
	}
}

// publish takes over what the controller says there is. What it no longer lists is forgotten, for ports do not come back.
// A pool that is not there says nothing about its ports.
func (l *ledger) publish(p *vif.SubportPool, now time.Time) {
	l.pool = p
	if p == nil {
		return
	}
	known := map[string]bool{}
	for _, s := range l.subports() {
		known[s.Port] = true
	}
	for port := range l.released {
		if !known[port] {
			delete(l.released, port)
		}
	}
	for port, f := range l.freed {
		if !known[port] && now.Sub(f.At) >= l.cooldown {
			delete(l.freed, port)
		}
	}
}

func (l *ledger) subports() []vif.Subport {
	if l.pool == nil {
		return nil
	}
	return l.pool.Spec.Subports
}

// standing is what a subport is to a new pod.
type standing int

const (
	free standing = iota
	used
	cooling
	retired // or unfit
)

// stand says what each subport is, in the order of the pool, and when the first of those that cool down is free.
func (l *ledger) stand(now time.Time) (all []standing, next time.Time) {
	ports, vlans := map[string]bool{}, map[int]bool{}
	for _, t := range l.taken {
		ports[t.Subport.Port], vlans[t.Subport.VLAN] = true, true
	}
	cool := map[int]time.Time{} // by VLAN, which may have been another port's
	for _, f := range l.freed {
		if until := f.At.Add(l.cooldown); until.After(now) && until.After(cool[f.VLAN]) {
			cool[f.VLAN] = until
		}
	}
	for _, s := range l.subports() {
		until := cool[s.VLAN]
		if f, ok := l.freed[s.Port]; ok && f.At.Add(l.cooldown).After(until) {
			until = f.At.Add(l.cooldown)
		}
		switch {
		case ports[s.Port] || vlans[s.VLAN]:
			all = append(all, used)
		case l.released[s.Port] || s.Problem() != nil:
			all = append(all, retired)
		case until.After(now):
			all = append(all, cooling)
			if next.IsZero() || until.Before(next) {
				next = until
			}
		case s.Retiring:
			all = append(all, retired)
		default:
			all = append(all, free)
		}
	}
	return all, next
}

// counts are the numbers of subports by what they are.
type counts struct{ known, free, used, cooling, retired int }

func (l *ledger) count(now time.Time) (c counts) {
	all, _ := l.stand(now)
	for _, s := range all {
		switch s {
		case free:
			c.free++
		case used:
			c.used++
		case cooling:
			c.cooling++
		case retired:
			c.retired++
		}
	}
	c.known = len(all)
	return c
}

// choose returns the free subport that was given back longest ago; those that never were taken come first.
func (l *ledger) choose(now time.Time) (s vif.Subport, ok bool) {
	all, _ := l.stand(now)
	var candidates []vif.Subport
	for i, s := range l.subports() {
		if all[i] == free {
			candidates = append(candidates, s)
		}
	}
	if len(candidates) == 0 {
		return vif.Subport{}, false
	}
	return slices.MinFunc(candidates, func(a, b vif.Subport) int {
		return l.freed[a.Port].At.Compare(l.freed[b.Port].At)
	}), true
}

// retirable lists the ports that the controller wants back and nobody has.
func (l *ledger) retirable(now time.Time) (ports []string) {
	all, _ := l.stand(now)
	for i, s := range l.subports() {
		if s.Retiring && all[i] == retired && !l.released[s.Port] {
			ports = append(ports, s.Port)
		}
	}
	return ports
}

// stale lists the places where a subport's VLAN was before, latest first.
func (l *ledger) stale(s vif.Subport) (places []link.Place) {
	places = append(places, l.freed[s.Port].Places...)
	for _, f := range l.freed {
		if f.VLAN == s.VLAN && f.Port != s.Port {
			places = append(places, f.Places...)
		}
	}
	return places
}

// records returns what has to be in a journal for a ledger to be made from it.
func (l *ledger) records() (all []record) {
	for _, f := range l.freed {
		all = append(all, record{Freed: &f})
	}
	for port := range l.released {
		all = append(all, record{Release: port})
	}
	for _, t := range l.taken {
		all = append(all, record{Take: &t})
	}
	return all
}

// find returns the allocations that f is true for.
func (l *ledger) find(f func(taking) bool) (all []taking) {
	for _, t := range l.taken {
		if f(t) {
			all = append(all, t)
		}
	}
	return all
}

// why says in one sentence why no subport is free.
func (l *ledger) why(now time.Time) string {
	if l.pool == nil {
		return "the controller has published no subports for this node"
	}
	c := l.count(now)
	text := fmt.Sprintf("no subport is free: of %d, %d are in use, %d cool down, %d are retired", c.known, c.used, c.cooling, c.retired)
	if c.known == 0 {
		text = "the controller has no subports for this node"
	}
	told := len(text)
	for _, condition := range l.pool.Status.Conditions {
		if good := condition.Type == vif.Ready; (condition.Status == metav1.ConditionTrue) != good {
			text += fmt.Sprintf("; the controller says %s=%s: %s", condition.Type, condition.Status, condition.Message)
		}
	}
	for _, s := range l.subports() {
		if err := s.Problem(); err != nil {
			return text + "; " + err.Error()
		}
	}
	if len(text) == told { // it should have made more, or said why it cannot
		text += "; the controller gives no reason: look whether kuryr-controller runs on the masters"
	}
	return text
}

// answer is what the plugin needs to know.
func (l *ledger) answer(t taking) socket.Added {
	i := link.Interface{Port: t.Subport.Port, ParentMAC: t.Parent, VLAN: t.Subport.VLAN, MAC: t.Subport.MAC, MTU: t.Subport.MTU}
	for _, ip := range t.Subport.IPs { // they were found fit when the subport was chosen
		a := link.Address{}
		a.Prefix, _ = netip.ParsePrefix(ip.Address)
		a.Gateway, _ = netip.ParseAddr(ip.Gateway)
		i.Addresses = append(i.Addresses, a)
	}
	return socket.Added{Interface: i, Stale: l.stale(t.Subport)}
}

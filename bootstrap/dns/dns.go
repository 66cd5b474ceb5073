// Package dns makes the names of a stack resolve: address records by an update of a name server (RFC 2136, signed with TSIG), in a zone
// file for bind, or in Designate.
//
// It owns how names are written, found again and removed, and whose they are: what it did not write itself it neither changes nor removes.
// It does not know which names a stack should have, nor where a declaration or a key comes from. miekg/dns lives only here.
//
// Start reading at [Place].
package dns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Record is the address of a name.
type Record struct {
	Name    string     `json:"name"` // absolute, in small letters, without the final dot; the first label may be *
	Address netip.Addr `json:"address"`
}

// Owner says whose names they are.
type Owner struct {
	Stack string
	UUID  string // of the stack; "" is any stack of that name, which only removing can mean
}

// Place is where the names of a stack are kept.
type Place interface {
	// Sync makes the owner's names there exactly those wanted, none if there are none, and tells what became of each. It writes
	// nothing when all is as it should be. Killed at any point it goes on when it is called again. A name that somebody else has
	// gives a [TakenError], and nothing is written.
	//
	// before is called once ahead of the first write, and not when there is none; its error ends the call.
	Sync(ctx context.Context, owner Owner, want []Record, before func() error) ([]Change, error)
}

// AtOnce is for [Place.Sync] where nothing has to be done before.
func AtOnce() error { return nil }

// Action is what was done about a name.
type Action string

// The actions.
const (
	Made     Action = "+"
	Repaired Action = "~"
	Kept     Action = "="
	Removed  Action = "-"
)

// Change is what became of one name.
type Change struct {
	Action Action `json:"action"`
	Record
	Was string `json:"was,omitempty"` // the address before, if it is known and was another
}

// TTL is how long resolvers may keep an answer, in seconds: floating IPs change with every new stack.
const TTL = 300

// ErrOther is in the error of a place that is another stack's.
var ErrOther = errors.New("it belongs to another stack")

// TakenError says that names are somebody else's.
type TakenError struct {
	Names []string
	Where string
}

func (e *TakenError) Error() string {
	return fmt.Sprintf("%s is taken in %s by something that kuryrctl did not make for this stack: remove it there, or declare another dns_domain or dns.apps_domain", strings.Join(e.Names, ", "), e.Where)
}

// compare tells what has to be done so that what is there becomes what is wanted. Whether that which is as noted really is there is for the
// place to find out.
func compare(there map[string]netip.Addr, want []Record) (all []Change) {
	left := maps.Clone(there)
	for _, r := range want {
		was, ok := left[r.Name]
		delete(left, r.Name)
		switch {
		case !ok:
			all = append(all, Change{Action: Made, Record: r})
		case was != r.Address:
			all = append(all, Change{Action: Repaired, Record: r, Was: was.String()})
		default:
			all = append(all, Change{Action: Kept, Record: r})
		}
	}
	for name, address := range left {
		all = append(all, Change{Action: Removed, Record: Record{name, address}})
	}
	slices.SortFunc(all, func(a, b Change) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// Settled reports whether nothing has to be done.
func Settled(all []Change) bool {
	return !slices.ContainsFunc(all, func(c Change) bool { return c.Action != Kept })
}

// within reports whether name is domain or below it.
func within(name, domain string) bool {
	return name == domain || domain == "" || strings.HasSuffix(name, "."+domain)
}

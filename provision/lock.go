package provision

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/groups"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
)

// Lease is how long a lock holds after it was last renewed.
const Lease = 2 * time.Minute

// grace is added before somebody else's lock counts as dead: clocks are compared to about a second, and a renewal takes its time.
const grace = 10 * time.Second

// Lock says that somebody is changing a stack. It is an object of its own, a security group that nothing uses, with all that there is to
// know in its name: so it is there or not with one call, before the first network and after the last (docs/decisions/0010).
type Lock struct {
	ID      string    // of the object
	Owner   string    // who may take it over: one operator on one machine
	Who     string    // the same for a person: user@host
	Verb    string    // of kuryrctl
	Since   time.Time // by the cloud's clock, as Renewed is
	Renewed time.Time

	renewals int
}

const lockRole = "lock "

func (s *Session) lockName(l Lock) string {
	return s.Name(lockRole) + fmt.Sprintf("%s %s %d %d %s", l.Owner, l.Verb, l.Since.Unix(), l.renewals, l.Who)
}

// lockOf reads back lockName.
func (s *Session) lockOf(g groups.SecGroup) (Lock, bool) {
	rest, ok := strings.CutPrefix(g.Name, s.Name(lockRole))
	if !ok {
		return Lock{}, false
	}
	l := Lock{ID: g.ID, Renewed: g.UpdatedAt}
	if f := strings.SplitN(rest, " ", 5); len(f) == 5 {
		since, _ := strconv.ParseInt(f[2], 10, 64)
		l.Owner, l.Verb, l.Since, l.Who = f[0], f[1], time.Unix(since, 0), f[4]
		l.renewals, _ = strconv.Atoi(f[3])
	}
	if l.Renewed.IsZero() { // a Neutron without standard-attr-timestamp; a renewal comes each half of a lease
		l.Renewed = l.Since.Add(time.Duration(l.renewals) * Lease / 2)
	}
	return l, true
}

// now is the time in the cloud.
func (s *Session) now() time.Time { return time.Now().Add(s.Cloud.ClockSkew()) }

// dead reports whether the lock's holder has not been heard of for too long.
func (s *Session) dead(l Lock) bool { return s.now().Sub(l.Renewed) > Lease+grace }

// HeldError means that somebody else is changing the stack.
type HeldError struct {
	Stack string
	Lock  Lock
	now   time.Time
}

func (e *HeldError) Error() string {
	ago := func(t time.Time) time.Duration { return max(e.now.Sub(t), 0).Round(time.Second) }
	return fmt.Sprintf("%s is being changed by %s, with `kuryrctl %s` since %s (%s ago; last heard of %s ago): wait for it to end; "+
		"if that run is dead, its lock ends %s after it was last heard of, or now with --break-lock",
		e.Stack, e.Lock.Who, e.Lock.Verb, e.Lock.Since.Format(time.DateTime), ago(e.Lock.Since), ago(e.Lock.Renewed), Lease+grace)
}

// errChanged means that what was found is not true any more.
var errChanged = errors.New("somebody else has changed the stack in this moment: run the command again")

// Locks are those on the stack, as found.
func (s *Session) Locks() []Lock { return s.found.Locks }

// Held is the [HeldError] of what was found, or nil. Locks whose id is in over do not count, nor do dead ones.
func (s *Session) Held(over []string) error {
	if others := s.alive(s.found.Locks, over); len(others) > 0 {
		return &HeldError{s.Stack, others[0], s.now()}
	}
	return nil
}

func (s *Session) alive(locks []Lock, over []string) []Lock {
	return slices.DeleteFunc(slices.Clone(locks), func(l Lock) bool { return slices.Contains(over, l.ID) || s.dead(l) })
}

const (
	settling = 20 // looks for the others to withdraw, by one who was first
	certain  = 2  // looks in a row that must show nobody: a database of several nodes may show late what is new
)

// Claim locks the stack, or returns a [HeldError]. It takes the place of dead locks and of those in over.
//
// OpenStack has nothing that only one of two can make, so each makes its own and then looks, twice: who sees no other has the lock, for whoever comes
// later sees it. Of two who see each other the one with the smaller id waits for the other to withdraw; if that does not, it had seen nobody, and
// the first withdraws.
func (s *Session) Claim(ctx context.Context, mine Lock, over []string) (*Claim, error) {
	if err := s.Held(over); err != nil {
		return nil, err
	}
	mine.Since = s.now()
	b := Base{s: s, name: s.lockName(mine)}
	raws, err := s.post(ctx, groupCollection, []birth{b.born(map[string]any{})})
	if err != nil {
		return nil, openstack.Wrap(err, "locking %s", s.Stack)
	}
	var made groups.SecGroup
	if err := json.Unmarshal(raws[0], &made); err != nil {
		return nil, fmt.Errorf("locking %s: %w", s.Stack, err)
	}
	mine.ID = made.ID
	c := &Claim{s: s, lock: mine}
	if err := c.settle(ctx, over); err != nil {
		return nil, errors.Join(err, c.Release(ctx))
	}
	return c, nil
}

// settle looks until it is clear that the claim is the only one.
func (c *Claim) settle(ctx context.Context, over []string) error {
	s, over := c.s, append(slices.Clip(over), c.lock.ID)
	for look, alone := 1, 0; ; look++ {
		there, locks, err := s.listGroups(ctx)
		if err != nil {
			return openstack.Wrap(err, "locking %s", s.Stack)
		}
		seen := slices.ContainsFunc(locks, func(l Lock) bool { return l.ID == c.lock.ID })
		others := s.alive(locks, over)
		switch {
		case len(others) > 0:
			alone = 0
			first := slices.MinFunc(others, func(a, b Lock) int { return cmp.Compare(a.ID, b.ID) })
			if first.ID < c.lock.ID || look >= settling {
				return &HeldError{s.Stack, first, s.now()}
			}
		case !seen: // an answer from before
			if alone = 0; look >= settling {
				return fmt.Errorf("locking %s: the lock was made, and is not listed: somebody has broken it, or Neutron's database is late; run again", s.Stack)
			}
		default:
			if alone++; alone < certain {
				break
			}
			if !slices.Equal(ids(there), ids(s.found.Groups)) {
				return errChanged
			}
			return s.removeLocks(ctx, slices.DeleteFunc(locks, func(l Lock) bool { return l.ID == c.lock.ID }))
		}
		if err := pause(ctx, s.every()/4); err != nil {
			return err
		}
	}
}

func ids(all []groups.SecGroup) []string {
	var ids []string
	for _, g := range all {
		ids = append(ids, g.ID)
	}
	slices.Sort(ids)
	return ids
}

// listGroups lists the stack's groups, locks apart.
func (s *Session) listGroups(ctx context.Context) ([]groups.SecGroup, []Lock, error) {
	all, err := list[groups.SecGroup](ctx, s.Cloud, groupCollection, url.Values{"description": {s.mark()}, "project_id": {s.Cloud.ProjectID()}})
	rest, locks := s.splitLocks(all)
	return rest, locks, err
}

// splitLocks parts the stack's groups from its locks.
func (s *Session) splitLocks(all []groups.SecGroup) (rest []groups.SecGroup, locks []Lock) {
	for _, g := range all {
		if l, ok := s.lockOf(g); g.Description != s.mark() {
			continue
		} else if ok {
			locks = append(locks, l)
		} else {
			rest = append(rest, g)
		}
	}
	return rest, locks
}

func (s *Session) removeLocks(ctx context.Context, locks []Lock) error {
	for _, l := range locks {
		if err := remove(ctx, s.Cloud, groupCollection, "/"+l.ID); err != nil {
			return openstack.Wrap(err, "removing the lock of %s", l.Who)
		}
	}
	return nil
}

// Unlock removes locks that were found of a run that is no more.
func (s *Session) Unlock(ctx context.Context, owner, who string) error {
	return s.removeLocks(ctx, slices.DeleteFunc(slices.Clone(s.found.Locks), func(l Lock) bool { return l.Owner != owner || l.Who != who }))
}

// Claim is a lock that this run holds.
type Claim struct {
	s    *Session
	lock Lock
}

// ErrLost means that the lock is not there any more: somebody broke it.
var ErrLost = errors.New("the lock on the stack was taken away, with --break-lock or because the cloud could not be reached for too long: what was being changed may be half done")

// Renew tells everybody that this run lives. Neutron keeps the time of a change only when something changes, so the name counts.
func (c *Claim) Renew(ctx context.Context) error {
	c.lock.renewals++
	body := map[string]any{"security_group": map[string]any{"name": c.s.lockName(c.lock)}}
	err := call(ctx, c.s.Cloud, groupCollection, http.MethodPut, "/"+c.lock.ID, body)
	if openstack.IsNotFound(err) {
		return ErrLost
	}
	return openstack.Wrap(err, "renewing the lock on %s", c.s.Stack)
}

// Release removes the lock, also when ctx has ended.
func (c *Claim) Release(ctx context.Context) error {
	limit := 5 * time.Second // a person waits
	if ctx.Err() == nil {
		limit = time.Minute
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	return c.s.removeLocks(ctx, []Lock{c.lock})
}

package provision

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/gophercloud/gophercloud/v2"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
)

// birth is one object about to be created.
type birth struct {
	body map[string]any
	// beside is what the request has next to the object.
	beside map[string]any
	// find is the query that would find exactly this object among those of its collection.
	find url.Values
	// ours, if set, tells this object from a stranger that the query finds too.
	ours func(json.RawMessage) bool
}

// born describes a named object: the body gets the name and the mark, and both find it again.
func (b *Base) born(body map[string]any) birth {
	body = maps.Clone(body)
	body["name"], body["description"] = b.name, b.s.mark()
	return birth{body: body, find: url.Values{"name": {b.name}, "description": {b.s.mark()}, "project_id": {b.s.Cloud.ProjectID()}}}
}

// tries bounds how often a create call is sent: again after an unknown outcome and a look, and after a quota that was used up.
const tries = 3

// create makes one object, exactly once as far as a client can: a call whose outcome is unknown (a lost reply, a 5xx from a
// proxy) is followed by a look for the object, and only if it is not there, or removed as half made, by another call. POST is not
// idempotent in OpenStack, and sending it again blindly is how two servers come about.
func create[T any](ctx context.Context, s *Session, c collection, b birth) (*T, error) {
	var raw json.RawMessage
	var err error
	if group, ok := s.births[c.path]; ok {
		raw, err = group.create(ctx, b)
	} else {
		var raws []json.RawMessage
		if raws, err = s.post(ctx, c, []birth{b}); err == nil {
			raw = raws[0]
		}
	}
	if err != nil {
		return nil, err
	}
	out := new(T)
	if err := json.Unmarshal(raw, out); err != nil {
		return nil, fmt.Errorf("reading the new %s: %w", c.one, err)
	}
	return out, nil
}

// post creates all of bs, in one call if there are several, and returns the new objects in the same order.
func (s *Session) post(ctx context.Context, c collection, bs []birth) ([]json.RawMessage, error) {
	client, err := c.service(s.Cloud)
	if err != nil {
		return nil, err
	}
	out := make([]json.RawMessage, len(bs))
	late := false // one of the calls may be at work still
	for try := 1; ; try++ {
		err := s.postMissing(ctx, client, c, bs, out)
		full := openstack.IsQuota(err)
		late = late || openstack.IsLate(err)
		switch {
		case err == nil:
			return out, nil
		case ctx.Err() != nil:
			return nil, err
		case openstack.IsAmbiguous(err), errors.Is(err, errBadReply), try > 1 && openstack.IsConflict(err):
		case full && try < tries:
			// Neutron counts what other calls in flight have reserved, and Nova what is being deleted: both may be free in a moment.
		default:
			return nil, err
		}
		// What is new may be listed late, and a proxy that restarts needs a moment.
		if pauseErr := pause(ctx, time.Duration(try)*s.every()); pauseErr != nil {
			return nil, err
		}
		if full {
			continue // nothing was made
		}
		if lookErr := s.adopt(ctx, c, bs, out, late); lookErr != nil {
			return nil, fmt.Errorf("%w; then %w", err, lookErr)
		}
		if !slices.ContainsFunc(out, func(raw json.RawMessage) bool { return raw == nil }) {
			return out, nil
		}
		if try == tries {
			return nil, err
		}
	}
}

// errBadReply is a success whose body cannot be read: the objects may well be there.
var errBadReply = errors.New("the cloud's answer cannot be understood")

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Session) postMissing(ctx context.Context, client *gophercloud.ServiceClient, c collection, bs []birth, out []json.RawMessage) error {
	var bodies []map[string]any
	var at []int
	for i, b := range bs {
		if out[i] == nil {
			bodies, at = append(bodies, b.body), append(at, i)
		}
	}
	if len(bodies) == 0 {
		return nil
	}
	request := map[string]any{c.many: bodies}
	if len(bodies) == 1 {
		request = map[string]any{c.one: bodies[0]}
		maps.Copy(request, bs[at[0]].beside)
	}
	var reply map[string]json.RawMessage
	opts := &gophercloud.RequestOpts{OkCodes: []int{http.StatusOK, http.StatusCreated, http.StatusAccepted}}
	if _, err := client.Post(ctx, client.ServiceURL(c.path), request, &reply, opts); err != nil {
		return err
	}
	if len(bodies) == 1 {
		if out[at[0]] = reply[c.one]; reply[c.one] == nil {
			return fmt.Errorf("creating %v: %w", bodies[0]["name"], errBadReply)
		}
		return nil
	}
	return sortReply(reply[c.many], bodies, at, out)
}

// sortReply gives each born object its own part of a bulk reply, by name: the order of a bulk reply is a habit of Neutron's,
// not a promise of its API reference.
func sortReply(raw json.RawMessage, bodies []map[string]any, at []int, out []json.RawMessage) error {
	var objects []json.RawMessage
	if err := json.Unmarshal(raw, &objects); err != nil {
		return fmt.Errorf("reading a bulk reply: %w (%w)", errBadReply, err)
	}
	for _, object := range objects {
		var named struct{ Name string }
		if err := json.Unmarshal(object, &named); err != nil {
			return fmt.Errorf("reading a bulk reply: %w (%w)", errBadReply, err)
		}
		for i, body := range bodies {
			if body["name"] == named.Name {
				out[at[i]] = object
			}
		}
	}
	for i, body := range bodies {
		if out[at[i]] == nil {
			return fmt.Errorf("creating %v: %w: the bulk reply lacks it", body["name"], errBadReply)
		}
	}
	return nil
}

// adopt looks for objects that a call with an unknown outcome may have made. What may be half made is removed instead, unless the answer is only
// late: then whoever makes it is alive.
func (s *Session) adopt(ctx context.Context, c collection, bs []birth, out []json.RawMessage, late bool) error {
	for i, b := range bs {
		if out[i] != nil {
			continue
		}
		found, err := list[json.RawMessage](ctx, s.Cloud, c, b.find)
		if err != nil {
			return err
		}
		if b.ours != nil {
			found = slices.DeleteFunc(found, func(raw json.RawMessage) bool { return !b.ours(raw) })
		}
		switch len(found) {
		case 0:
		case 1:
			if !c.half || late {
				out[i] = found[0]
				break
			}
			var made struct{ ID string }
			if err := json.Unmarshal(found[0], &made); err != nil {
				return fmt.Errorf("reading a list of %s: %w", c.many, err)
			}
			if err := remove(ctx, s.Cloud, c, "/"+made.ID); err != nil {
				return fmt.Errorf("removing %s %s, which may be half made: %w", c.one, made.ID, err)
			}
		default:
			return fmt.Errorf("%d %s are called %v: delete all but one of them", len(found), c.many, b.body["name"])
		}
	}
	return nil
}

// bulk gathers creations of one collection that become possible at the same moment into one POST, as Neutron's API offers
// for most collections. Whoever comes first waits linger for the others and sends for all.
type bulk struct {
	session    *Session
	collection collection
	mu         sync.Mutex
	waiting    []*pending
}

type pending struct {
	birth birth
	done  chan struct{}
	raw   json.RawMessage
	err   error
}

// linger is how long the first of a bulk waits for others: resources whose needs end with one call start within microseconds of
// each other, so this is generous, and it is short against the round trip that it saves.
const linger = 30 * time.Millisecond

func (g *bulk) create(ctx context.Context, b birth) (json.RawMessage, error) {
	p := &pending{birth: b, done: make(chan struct{})}
	g.mu.Lock()
	g.waiting = append(g.waiting, p)
	first := len(g.waiting) == 1
	g.mu.Unlock()
	if first {
		g.gather(ctx)
		g.send(ctx)
	}
	select {
	case <-p.done:
		return p.raw, p.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// gather waits until nobody has joined for one linger.
func (g *bulk) gather(ctx context.Context) {
	for seen := 0; ; {
		select {
		case <-time.After(linger):
		case <-ctx.Done():
			return
		}
		g.mu.Lock()
		now := len(g.waiting)
		g.mu.Unlock()
		if now == seen {
			return
		}
		seen = now
	}
}

// send creates all who wait. A bulk call is all or nothing: when one object in it is refused for a reason of its own, the
// others are innocent, so they are sent one by one. A quota stops them all.
func (g *bulk) send(ctx context.Context) {
	g.mu.Lock()
	all := g.waiting
	g.waiting = nil
	g.mu.Unlock()

	bs := make([]birth, len(all))
	for i, p := range all {
		bs[i] = p.birth
	}
	raws, err := g.session.post(ctx, g.collection, bs)
	alone := err != nil && len(all) > 1 && ctx.Err() == nil && !openstack.IsAmbiguous(err) && !openstack.IsQuota(err) && !errors.Is(err, errBadReply)
	for i, p := range all {
		if p.err = err; err == nil {
			p.raw = raws[i]
		}
		if alone {
			if raws, p.err = g.session.post(ctx, g.collection, bs[i:i+1]); p.err == nil {
				p.raw = raws[0]
			}
		}
		close(p.done)
	}
}

package provision

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/flavors"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/groups"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"

	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/internal/openstack"
)

// Session is one run's view of one stack in one project: the cloud, what was found there, and what is shared between the
// resources of a run. It lives for one command and is safe for concurrent use.
type Session struct {
	Cloud *openstack.Cloud
	Stack string
	// Poll is the interval of looks at something that changes by itself (a server that boots); 0 means one second.
	Poll time.Duration

	// Groups makes Discover look for server groups too: a request more, for what is declared to have some, and for a removal.
	Groups bool

	found   *Inventory // set by Discover, read-only afterwards
	made    news       // what this run made since
	births  map[string]*bulk
	servers poller
	lookups lookups
}

// NewSession prepares a session; it makes no call.
func NewSession(cloud *openstack.Cloud, stack string) *Session {
	s := &Session{Cloud: cloud, Stack: stack, found: &Inventory{}}
	s.births = map[string]*bulk{}
	for _, c := range []collection{networkCollection, subnetCollection, groupCollection, portCollection} {
		s.births[c.path] = &bulk{session: s, collection: c}
	}
	return s
}

// news gathers what a run makes, apart from what it found, which resources read without a lock.
type news struct {
	mu    sync.Mutex
	notes []func(*Inventory)
}

func (n *news) clear() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.notes = nil
}

// note remembers something made or seen anew, for [Session.Inventory].
func (s *Session) note(apply func(*Inventory)) {
	s.made.mu.Lock()
	defer s.made.mu.Unlock()
	s.made.notes = append(s.made.notes, apply)
}

// Inventory is what the cloud holds of the stack as far as this run knows: what [Session.Discover] found and what was made
// since, without asking again. Call it when no resource is being applied.
func (s *Session) Inventory() *Inventory {
	s.made.mu.Lock()
	defer s.made.mu.Unlock()
	v := *s.found
	for _, apply := range s.made.notes {
		apply(&v)
	}
	return &v
}

// put replaces the element that is the same object as x, or appends x. It never writes to the array behind all, which may
// belong to another inventory.
func put[T any](all []T, x T, id func(T) string) []T {
	for i := range all {
		if id(all[i]) == id(x) {
			all = slices.Clone(all)
			all[i] = x
			return all
		}
	}
	return append(slices.Clip(all), x)
}

// Name is the cloud's name of what has the given role in this stack: "demo/vm_net".
func (s *Session) Name(role string) string { return s.Stack + "/" + role }

func (s *Session) mark() string { return openstack.Mark(s.Stack) }

func (s *Session) every() time.Duration {
	if s.Poll > 0 {
		return s.Poll
	}
	return time.Second
}

// userScoped names what Keystone and Nova keep per user, not per project: with the project in it, two stacks of one name in
// two projects of one user do not meet.
func (s *Session) userScoped() string {
	project := strings.ReplaceAll(s.Cloud.ProjectID(), "-", "")
	return "kuryrctl-" + s.Stack + "-" + project[:min(8, len(project))]
}

// Base is what every kind of resource has. Its zero id means that the object does not exist yet.
type Base struct {
	s     *Session
	key   graph.Key
	name  string
	needs []graph.Resource
	id    string
}

func (s *Session) base(kind, role, name string, needs ...graph.Resource) Base {
	return Base{s: s, key: graph.Key(kind + "." + role), name: name, needs: needs}
}

// After adds to what has to be ready before.
func (b *Base) After(rs ...graph.Resource) { b.needs = append(b.needs, rs...) }

// Key implements [graph.Resource].
func (b *Base) Key() graph.Key { return b.key }

// Needs implements [graph.Resource].
func (b *Base) Needs() []graph.Resource { return b.needs }

// Name is the object's name in the cloud.
func (b *Base) Name() string { return b.name }

// ID is the object's identifier in the cloud, or "" while it does not exist.
func (b *Base) ID() string { return b.id }

// sole picks the one object of this resource among those found under its name. Names are not unique in OpenStack: two
// of them are an error that lists both, since guessing would sooner or later attach a node to the wrong one.
func sole[T any](kind, name string, all []T, is func(T) bool, id func(T) string) (*T, error) {
	var hit []T
	for _, x := range all {
		if is(x) {
			hit = append(hit, x)
		}
	}
	switch len(hit) {
	case 0:
		return nil, nil
	case 1:
		return &hit[0], nil
	}
	ids := make([]string, len(hit))
	for i, x := range hit {
		ids[i] = id(x)
	}
	return nil, fmt.Errorf("%d %ss are called %s (%s): delete all but one of them", len(hit), kind, name, strings.Join(ids, ", "))
}

// fixed is the error of a difference that OpenStack or safety does not let us mend in place.
func fixed(b *Base, what string) error {
	return fmt.Errorf("changing %s: %s cannot be changed in place; run `kuryrctl unstack %s` and stack it again, or declare what is there", b.name, what, b.s.Stack)
}

// lookups are the objects that a stack uses and does not own; each is looked up once, when first needed.
type lookups struct {
	mu        sync.Mutex
	done      map[string]lookup
	flavors   []flavors.Flavor
	images    []images.Image
	unlisted  images.Image // there is one image to a stack
	externals []networks.Network
	groups    []groups.SecGroup
}

type lookup struct {
	id  string
	err error
}

func (l *lookups) once(ctx context.Context, what string, find func(context.Context) (string, error)) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done == nil {
		l.done = map[string]lookup{}
	}
	if hit, ok := l.done[what]; ok {
		return hit.id, hit.err
	}
	id, err := find(ctx)
	if ctx.Err() == nil {
		l.done[what] = lookup{id, err}
	}
	return id, err
}

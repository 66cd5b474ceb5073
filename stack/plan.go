package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/hashicorp/go-multierror"

	"github.com/kuryrctl/kuryrctl/bootstrap/cluster"
	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/internal/wait"
	"github.com/kuryrctl/kuryrctl/provision"
)

// Action is what `stack` would do about a row of a plan.
type Action string

// The actions. What is extra is reported and never touched by `stack`; what is unknown could not be looked at.
const (
	Create  Action = "+"
	Repair  Action = "~"
	Keep    Action = "="
	Extra   Action = "-"
	Unknown Action = "?"
)

// Change is one row of a plan.
type Change struct {
	Action Action `json:"action"`
	Key    string `json:"key"` // kind "." role, or kind and name of what is extra
	Phase  string `json:"phase"`
	Detail string `json:"detail,omitempty"`
	ID     string `json:"id,omitempty"`
}

// Plan joins what is declared with what is there.
type Plan struct {
	Stack   string   `json:"stack"`
	UUID    string   `json:"uuid,omitempty"` // "" while the stack does not exist
	Changes []Change `json:"changes"`
}

// HasChanges reports whether anything is not as declared, or not known to be.
func (p *Plan) HasChanges() bool {
	return slices.ContainsFunc(p.Changes, func(c Change) bool { return c.Action != Keep })
}

// discover looks at all that c can be about.
func (s *Stack) discover(ctx context.Context, c Config) (*provision.Inventory, error) {
	s.session.Groups = c.Masters.ServerGroupPolicy != "" || c.Workers.ServerGroupPolicy != ""
	return s.session.Discover(ctx)
}

// Plan looks and changes nothing. What is on a host that cannot be looked at is unknown; that the cloud cannot be looked at is an error.
func (s *Stack) Plan(ctx context.Context, c Config) (*Plan, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	found, err := s.discover(ctx, c)
	if err != nil {
		return nil, err
	}
	if err := s.keepsMasters(c, found); err != nil {
		return nil, err
	}
	lab := s.Design(c)
	rows, err := lab.Graph.Observe(ctx)
	if err != nil && (ctx.Err() != nil || !s.ofHostsAlone(lab, rows)) {
		return nil, err
	}
	return s.compare(found, rows), nil
}

// ofHostsAlone reports whether everything that could not be looked at is on hosts.
func (s *Stack) ofHostsAlone(lab *Lab, rows []graph.Row) bool {
	cloud := map[graph.Key]bool{s.bundle.Key(): true}
	for _, r := range s.withoutHosts(lab).Resources() {
		cloud[r.Key()] = true
	}
	return !slices.ContainsFunc(rows, func(row graph.Row) bool { return row.Err != nil && cloud[row.Key] })
}

// compare joins what was observed with what is there.
func (s *Stack) compare(found *provision.Inventory, rows []graph.Row) *Plan {
	p := &Plan{Stack: s.Name, UUID: found.UUID()}
	claimed := map[string]bool{}
	for _, row := range rows {
		if row.Err != nil {
			p.Changes = append(p.Changes, Change{Unknown, string(row.Key), "unknown", "cannot be looked at: " + row.Err.Error(), ""})
			continue
		}
		claimed[row.State.ID] = true
		p.Changes = append(p.Changes, Change{action(row.State.Phase), string(row.Key), row.State.Phase.String(), row.State.Detail, row.State.ID})
	}
	for _, o := range s.session.Owned() {
		if !claimed[o.ID] && !o.ForPods() && !o.Named() && !o.Implied() {
			p.Changes = append(p.Changes, Change{Extra, o.Kind + " " + o.Name, "extra", o.Detail, o.ID})
		}
	}
	return p
}

func action(p graph.Phase) Action {
	switch p {
	case graph.Absent:
		return Create
	case graph.Ready:
		return Keep
	}
	return Repair
}

// UpOptions are how a stack is built.
type UpOptions struct {
	Parallel int // resources worked on at once; what waits does not count
	On       func(graph.Event)
	// Verb is the command in one word, for whoever else wants to change the stack meanwhile; "" is stack.
	Verb string
	// BreakLock takes the stack from whoever is changing it.
	BreakLock bool
	// KeepNames leaves the names of a stack that is removed.
	KeepNames bool
}

// Up makes the stack what c declares. Running it again goes on where it was stopped and repairs what has drifted; it deletes
// nothing but servers and load balancers in ERROR, which it replaces. While somebody else is changing the stack it is a [provision.HeldError].
func (s *Stack) Up(ctx context.Context, c Config, o UpOptions) (v *View, err error) {
	err = s.alone(ctx, o, func(ctx context.Context, g *guard) error {
		v, err = s.up(ctx, c, o, g)
		return err
	})
	return v, err
}

func (s *Stack) up(ctx context.Context, c Config, o UpOptions, g *guard) (*View, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	found, err := s.discover(ctx, c)
	if err != nil {
		return nil, err
	}
	if err := g.free(); err != nil {
		return nil, err
	}
	if (found.KeyPair != nil || len(found.Servers) > 0) && !s.local.hasKey() {
		return nil, ErrElsewhere
	}
	if err := s.keepsMasters(c, found); err != nil {
		return nil, err
	}
	if err := s.local.keepDeclaration(c); err != nil {
		return nil, err
	}
	lab := s.Design(c)
	if c.Kubernetes.Install && s.bundle.named != "" {
		if err := s.bundle.open(s.bundle.named); err != nil {
			return nil, err
		}
		if err := s.local.keepBundle(s.bundle.path); err != nil {
			return nil, err
		}
	}
	if len(found.Servers) < len(lab.Nodes) {
		if err := s.preflight(ctx, c, lab); err != nil {
			return nil, err
		}
	}
	on, changed := o.On, false
	if on == nil {
		on = func(graph.Event) {}
	}
	err = g.over(lab.Graph).Apply(ctx, o.Parallel, func(e graph.Event) {
		changed = changed || e.Kind == graph.Done
		on(e)
	})
	if err != nil {
		return nil, err
	}
	if c.DNS.kept() {
		if err := s.nameUp(ctx, c, g, on); err != nil {
			return nil, err
		}
		return s.view(), nil
	}
	if changed && c.Kubernetes.Install { // the controller has made ports and load balancers meanwhile
		return s.Show(ctx)
	}
	return s.view(), nil
}

// keepsMasters refuses to go from two masters or to two where there is, or is being made, a cluster: two part their work, etcd on the first and the API
// on the second, so that kubeadm would reset the node that keeps the cluster's state.
func (s *Stack) keepsMasters(c Config, found *provision.Inventory) error {
	known, err := s.Declaration()
	if err != nil || (known.Masters.Count == 2) == (c.Masters.Count == 2) || len(found.Servers) == 0 {
		return nil
	}
	if _, err := s.KubeconfigPath(); err != nil && !known.Kubernetes.Install {
		return nil
	}
	return fmt.Errorf("masters.count %d: the cluster of %s was made with %d, and two part their work, so that this cannot change: declare %d, with its lab file (-f), "+
		"or unstack and make it anew", c.Masters.Count, s.Name, known.Masters.Count, known.Masters.Count)
}

// ErrElsewhere means that the stack was made on another machine, where its key is.
var ErrElsewhere = errors.New("the stack was made on another machine and its private key is not here")

// Removal is what `unstack` would do.
type Removal struct {
	Stack   string             `json:"stack"`
	UUID    string             `json:"uuid,omitempty"`
	Objects []provision.Object `json:"objects"` // in the order of deletion
	Foreign []provision.Object `json:"foreign"` // what is not ours and stops it
	// Hidden says what this user cannot see and therefore not remove: key pairs and application credentials belong to users.
	Hidden string `json:"hidden,omitempty"`
}

// Removal looks what there is to remove. It needs no declaration, no local file and no living server.
func (s *Stack) Removal(ctx context.Context) (*Removal, error) {
	s.session.Groups = true
	found, err := s.session.Discover(ctx)
	if err == nil && len(s.session.Foreign()) > 0 {
		// The lists are of slightly different moments: a port whose load balancer went in between looks like somebody's.
		found, err = s.session.Discover(ctx)
	}
	if err != nil {
		return nil, err
	}
	r := &Removal{Stack: s.Name, UUID: found.UUID(), Objects: s.session.Owned(), Foreign: s.session.Foreign()}
	for _, v := range found.Servers {
		if v.UserID != "" && v.UserID != s.session.Cloud.UserID() {
			r.Hidden = "another user (" + v.UserID + ") made the stack: that user's key pair and application credential kuryrctl-" + s.Name + "-* stay, and only that user can remove them"
		}
	}
	return r, nil
}

// ErrLeftovers means that something of the stack is still there after it was removed.
var ErrLeftovers = errors.New("something of the stack is left")

// Down removes the names that this machine has made, then what [Stack.Removal] found, and looks again, to prove that nothing is left. Secrets
// on this machine go last. A load balancer that Octavia does not get done with keeps its networks, and nothing else.
func (s *Stack) Down(ctx context.Context, r *Removal, o UpOptions) error {
	return s.alone(ctx, o, func(ctx context.Context, g *guard) error { return s.down(ctx, r, o, g) })
}

func (s *Stack) down(ctx context.Context, r *Removal, o UpOptions, g *guard) error {
	if err := g.free(); err != nil { // what seems to be somebody else's may be what that run is making
		return err
	}
	if len(r.Foreign) > 0 {
		return provision.ErrForeign
	}
	take := sync.OnceValue(func() error {
		err := g.take(ctx)
		if openstack.IsQuota(err) { // what makes room must not need any
			g.err = nil
			s.log.Warn("there is no room for a lock on the stack: see to it that nobody else changes it now", "error", err)
			return nil
		}
		return err
	})
	if len(r.Objects)+len(s.session.Locks()) > 0 {
		if err := take(); err != nil {
			return err
		}
	}
	if !o.KeepNames { // first: an address that is free again may be somebody else's in the next moment
		if _, err := s.removeKnownNames(ctx, take); err != nil {
			return fmt.Errorf("%w (nothing else was removed; --keep-names leaves the names as they are)", err)
		}
	}
	removing := s.session.Removal().Apply(ctx, o.Parallel, o.On)
	if removing != nil && wait.Stopping(ctx) {
		return removing
	}
	left, err := s.Removal(ctx)
	if err == nil && errors.As(removing, new(*provision.StuckError)) {
		removing = errors.Join(removing, s.session.RemovalBeside().Apply(ctx, o.Parallel, o.On))
		left, err = s.Removal(ctx)
	}
	if err != nil {
		return errors.Join(removing, err)
	}
	if len(left.Objects) > 0 {
		problems := &Problems{ErrorFormat: listed("after removing " + s.Name)}
		for _, x := range left.Objects {
			problems = multierror.Append(problems, errors.New(x.String()+" is still there"))
		}
		return errors.Join(ErrLeftovers, problems, removing)
	}
	if removing != nil && !openstack.IsNotFound(removing) {
		return removing
	}
	if err := s.unmerge(ctx); err != nil {
		return err
	}
	return s.local.forget()
}

// unmerge takes the stack out of the user's own kubeconfig, if it is there.
func (s *Stack) unmerge(ctx context.Context) error {
	config, err := os.ReadFile(s.local.kubeconfigPath())
	if err != nil {
		return nil // there was no cluster, or it was made elsewhere
	}
	path, err := cluster.UserFile()
	if err != nil {
		return err
	}
	_, err = cluster.Unmerge(ctx, path, config)
	return err
}

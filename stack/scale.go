package stack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/kuryrctl/kuryrctl/bootstrap"
	"github.com/kuryrctl/kuryrctl/bootstrap/cluster"
	"github.com/kuryrctl/kuryrctl/internal/graph"
)

// Declaration is what the stack was last declared to be on this machine.
func (s *Stack) Declaration() (Config, error) {
	c := Defaults()
	f, err := os.Open(s.local.declarationPath())
	if errors.Is(err, fs.ErrNotExist) {
		return c, fmt.Errorf("this machine does not know what %s was declared to be: run `kuryrctl stack %s` with its lab file here first", s.Name, s.Name)
	}
	if err != nil {
		return c, fmt.Errorf("reading the declaration: %w", err)
	}
	defer f.Close()
	return c, c.Decode(f, s.local.declarationPath())
}

// LastDeclared is what a stack was last declared to be on this machine, or the defaults when that is not known; no cloud is asked.
func LastDeclared(name string) Config {
	c := Defaults()
	path, err := find(name, declarationFile, fs.ErrNotExist)
	if err != nil {
		return c
	}
	f, err := os.Open(path)
	if err != nil {
		return c
	}
	defer f.Close()
	if known := Defaults(); known.Decode(f, path) == nil {
		return known
	}
	return c
}

// ScaleOptions are how workers are taken away.
type ScaleOptions struct {
	UpOptions
	Grace time.Duration // for pods that have to leave a node, each
	Force bool          // take nodes away that cannot be drained
}

// Surplus lists the workers that c does not declare, by name.
func (s *Stack) Surplus(ctx context.Context, c Config) ([]string, error) {
	v, err := s.Show(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, n := range v.Nodes {
		if number, err := strconv.Atoi(strings.TrimPrefix(n.Name, string(Worker)+"-")); n.Role == string(Worker) && err == nil && number >= c.Workers.Count {
			names = append(names, n.Name)
		}
	}
	return names, nil
}

// Scale makes the stack have the workers that c declares: what is too many is drained, forgotten by the cluster and removed, then what is
// missing is made. It can be repeated after it was stopped anywhere.
func (s *Stack) Scale(ctx context.Context, c Config, o ScaleOptions) (v *View, err error) {
	err = s.alone(ctx, o.UpOptions, func(ctx context.Context, g *guard) error {
		v, err = s.scale(ctx, c, o, g)
		return err
	})
	return v, err
}

func (s *Stack) scale(ctx context.Context, c Config, o ScaleOptions, g *guard) (*View, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	surplus, err := s.Surplus(ctx, c)
	if err != nil {
		return nil, err
	}
	if len(surplus) > 0 {
		if err := g.take(ctx); err != nil {
			return nil, err
		}
		if err := s.takeAway(ctx, c, surplus, o); err != nil {
			return nil, err
		}
	}
	return s.up(ctx, c, o.UpOptions, g)
}

func (s *Stack) takeAway(ctx context.Context, c Config, surplus []string, o ScaleOptions) error {
	if c.Kubernetes.Install {
		var leaving graph.Graph
		k := s.attach(s.view())
		for _, name := range surplus {
			leaving.Add(&leave{name: name, cluster: k, options: o})
		}
		if err := leaving.Apply(ctx, o.Parallel, o.On); err != nil {
			return err
		}
	}
	if err := s.session.RemovalOf(surplus...).Apply(ctx, o.Parallel, o.On); err != nil {
		return err
	}
	pins, err := s.pins()
	for _, name := range surplus {
		if err == nil {
			err = pins.Remove(name)
		}
	}
	return err
}

// leave is a node on its way out of the cluster.
type leave struct {
	name    string
	cluster *bootstrap.Cluster
	options ScaleOptions
}

func (l *leave) Key() graph.Key          { return graph.Key("drain." + l.name) }
func (l *leave) Needs() []graph.Resource { return nil }

// Observe implements [graph.Resource]: ready means that the cluster knows no such node.
func (l *leave) Observe(ctx context.Context) (graph.State, error) {
	api, err := l.cluster.API()
	if err != nil {
		return l.give(err)
	}
	_, there, err := api.Node(ctx, l.name)
	if err != nil {
		return l.give(err)
	}
	if !there {
		return graph.State{Phase: graph.Ready, Detail: "no node of the cluster"}, nil
	}
	return graph.State{Phase: graph.Pending, Detail: "in the cluster"}, nil
}

// give says that the cluster cannot be asked, which force does not mind.
func (l *leave) give(err error) (graph.State, error) {
	if l.options.Force {
		return graph.State{Phase: graph.Ready, Detail: "not asked: " + err.Error()}, nil
	}
	return graph.State{}, fmt.Errorf("%w; --force takes the node away without asking the cluster", err)
}

// Apply implements [graph.Resource].
func (l *leave) Apply(ctx context.Context) error {
	api, err := l.cluster.API()
	if err != nil {
		return err
	}
	if err := api.Drain(ctx, l.name, cluster.DrainOptions{Grace: l.options.Grace, Force: l.options.Force}); err != nil && !l.options.Force {
		return fmt.Errorf("%w; --force takes the node away all the same", err)
	}
	return api.RemoveNode(ctx, l.name)
}

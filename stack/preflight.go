package stack

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/go-multierror"

	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/provision"
)

var errNoTrunks = errors.New("no extension \"trunk\" in Neutron, and pods are subports of a trunk: the operator adds `trunk` to service_plugins in neutron.conf")

// preflight looks at everything that new resources need and that we do not make, so that a misspelt flavor or a full quota
// is known before the first write and not after the twentieth. All problems are reported at once.
func (s *Stack) preflight(ctx context.Context, c Config, lab *Lab) error {
	problems := &Problems{ErrorFormat: listed("the cloud lacks what the stack needs")}
	note := func(err error) bool {
		if err != nil {
			problems = multierror.Append(problems, err)
		}
		return err == nil
	}
	if image, err := s.session.Image(ctx, c.Image); note(err) {
		_, err = c.login(image)
		note(err)
	}
	for _, flavor := range c.flavors() {
		_, err := s.session.Flavor(ctx, flavor)
		note(err)
	}
	_, err := s.session.ExternalNetwork(ctx, c.PublicNet)
	note(err)
	_, err = s.session.Cloud.LoadBalancer()
	note(err)
	if extensions, err := s.session.Cloud.Extensions(ctx); note(err) && !extensions.Has("trunk") {
		note(errNoTrunks)
	}
	short, err := s.shortages(ctx, lab)
	if note(err) && len(short) > 0 && s.admin != nil && problems.Len() == 0 {
		note(s.session.RaiseQuotas(ctx, s.admin, short))
		short = nil
	}
	for _, x := range short {
		note(&ShortError{x, s.session.Cloud.ProjectName()})
	}
	return problems.ErrorOrNil()
}

// ShortError is a quota that is too small for what is declared.
type ShortError struct {
	provision.Shortage
	Project string
}

func (e *ShortError) Error() string {
	text := "the quota of " + e.Shortage.String()
	if command := provision.QuotaCommand([]provision.Shortage{e.Shortage}, e.Project); command != "" {
		text += fmt.Sprintf("; an administrator makes room with `%s`", command)
	}
	return text
}

// flavors are the flavors that c uses, each once.
func (c Config) flavors() []string {
	if c.Masters.Flavor == c.Workers.Flavor {
		return []string{c.Masters.Flavor}
	}
	return []string{c.Masters.Flavor, c.Workers.Flavor}
}

// shortages compares what the missing resources of lab take with the project's quotas.
func (s *Stack) shortages(ctx context.Context, lab *Lab) ([]provision.Shortage, error) {
	demand, err := s.demand(ctx, lab)
	if err != nil || len(demand) == 0 {
		return nil, err
	}
	quotas, err := s.session.Quotas(ctx)
	if err != nil {
		return nil, err
	}
	return provision.Shortages(quotas, demand), nil
}

// demand is what the missing resources of lab take of the project's quotas.
func (s *Stack) demand(ctx context.Context, lab *Lab) (map[string]int, error) {
	cloud := s.withoutHosts(lab)
	rows, err := cloud.Observe(ctx)
	if err != nil {
		return nil, err
	}
	demand := map[string]int{}
	for i, r := range cloud.Resources() {
		if rows[i].State.Phase != graph.Absent {
			continue
		}
		takes, err := s.session.Demand(ctx, r)
		if err != nil {
			return nil, err
		}
		for what, n := range takes {
			demand[what] += n
		}
	}
	return demand, nil
}

// withoutHosts is the part of a lab that lives in OpenStack: without hosts, since observing them means to log in, and all that needs them.
func (s *Stack) withoutHosts(lab *Lab) *graph.Graph {
	var cloud graph.Graph
	without := map[graph.Key]bool{}
	for _, r := range lab.Graph.Resources() {
		_, isHost := r.(*host)
		_, isBundle := r.(*software)
		if isHost || isBundle || slices.ContainsFunc(r.Needs(), func(n graph.Resource) bool { return without[n.Key()] }) {
			without[r.Key()] = true
			continue
		}
		cloud.Add(r)
	}
	return &cloud
}

package stack

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/flavors"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"
	"github.com/hashicorp/go-multierror"

	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/provision"
)

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
	if s.restricted() {
		note(errors.New(restrictedLogin + ": " + freeLogin))
	}
	image, err := s.session.Image(ctx, c.Image)
	if note(err) {
		_, err = c.login(image)
		note(err)
	}
	for _, kind := range c.kinds() {
		if flavor, err := s.session.Flavor(ctx, kind.Flavor); note(err) {
			if what, do := kind.misfit(flavor, image); what != "" {
				note(fmt.Errorf("flavor %s: %s: %s", kind.Flavor, what, do))
			}
		}
		note(s.volumeMissing(ctx, kind))
	}
	for _, err := range s.zonesMissing(ctx, c) {
		note(err)
	}
	if _, err := s.session.ExternalNetwork(ctx, c.PublicNet); err != nil {
		note(fmt.Errorf("public_net: %w", err))
	}
	_, err = s.session.BalancerProvider(ctx, c.OctaviaProvider)
	if openstack.IsNoService(err) {
		err = fmt.Errorf("%w: the API and every Service are reached at load balancers of Octavia, and a stack that ends at servers has the API's too; "+
			"look at region_name and interface in clouds.yaml, or ask the operator for it", err)
	}
	note(err)
	if have, err := s.session.Cloud.Extensions(ctx); note(err) {
		for _, x := range extensions {
			if x.Needed && !have.Has(x.Alias) {
				note(fmt.Errorf("no extension %q in Neutron, and %s: %s", x.Alias, x.Why, enableExtensions))
			}
		}
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

const (
	restrictedLogin = "the login is a restricted application credential, and cannot make the one that the stack's controllers log in with"
	freeLogin       = "log in with a password, or with one made by openstack application credential create --unrestricted"
)

// restricted reports whether the login may not make the credential that the stack lacks.
func (s *Stack) restricted() bool {
	return s.session.Cloud.Restricted() && s.session.Inventory().AppCredential == nil
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

// zonesMissing are the declared availability zones that Nova does not have.
func (s *Stack) zonesMissing(ctx context.Context, c Config) (missing []error) {
	if len(c.Masters.AvailabilityZones)+len(c.Workers.AvailabilityZones) == 0 {
		return nil
	}
	there, err := s.session.ComputeZones(ctx)
	if err != nil {
		return []error{err}
	}
	for _, role := range []Role{Master, Worker} {
		for _, zone := range c.of(role).AvailabilityZones {
			if !slices.Contains(there, zone) {
				missing = append(missing, fmt.Errorf("%ss.availability_zones: Nova has no zone %q that takes servers (there are: %s)", role, zone, strings.Join(there, ", ")))
			}
		}
	}
	return missing
}

// volumeMissing says why servers cannot boot from the volume that is declared for them, or nil.
func (s *Stack) volumeMissing(ctx context.Context, n Nodes) error {
	if n.RootVolume.Size == 0 {
		return nil
	}
	err := s.session.CanBoot(ctx, provision.RootVolume(n.RootVolume))
	if err != nil {
		return fmt.Errorf("root_volume: %w", err)
	}
	return nil
}

// misfit says why Nova would not boot the image on such a server, and what to do about it; "" when it would. Of image nothing may be known.
func (n Nodes) misfit(f flavors.Flavor, image images.Image) (what, do string) {
	const another = "choose another flavor or image"
	volume := n.RootVolume.Size
	switch {
	case f.RAM < image.MinRAMMegabytes:
		return fmt.Sprintf("it has %d MiB of memory, and image %s asks for %d", f.RAM, image.Name, image.MinRAMMegabytes), another
	case volume > 0 && volume < image.MinDiskGigabytes:
		return fmt.Sprintf("the root volume has %d GB, and image %s asks for %d", volume, image.Name, image.MinDiskGigabytes), "raise root_volume.size"
	case volume > 0:
	case f.Disk == 0: // Nova leaves such a flavor to administrators
		return "it has no disk", "declare a root_volume, or choose another flavor"
	case f.Disk < image.MinDiskGigabytes:
		return fmt.Sprintf("its disk has %d GB, and image %s asks for %d", f.Disk, image.Name, image.MinDiskGigabytes), another
	}
	return "", ""
}

// kinds are the kinds of servers that c declares: of two that are made of the same, one.
func (c Config) kinds() []Nodes {
	if c.Masters.Flavor == c.Workers.Flavor && c.Masters.RootVolume == c.Workers.RootVolume {
		return []Nodes{c.Masters}
	}
	return []Nodes{c.Masters, c.Workers}
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
	demand, members := map[string]int{}, map[*provision.ServerGroup]int{}
	for i, r := range cloud.Resources() {
		if server, ok := r.(*provision.Server); ok && server.Group != nil {
			members[server.Group]++
		}
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
	if len(demand) > 0 { // the lock that is taken before the first of them
		demand["security_group"]++
		demand["security_group_rule"] += 2
	}
	for _, n := range members {
		demand["server_group_members"] = max(demand["server_group_members"], n)
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

package provision

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/groups"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/rules"

	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/internal/openstack"
)

// Rule lets traffic in. The zero Protocol is any, the zero Port is all, the zero From is anywhere (IPv4).
type Rule struct {
	Protocol string
	Port     int
	From     netip.Prefix
}

func (r Rule) String() string {
	from, what := "anywhere", "anything"
	if r.From.IsValid() {
		from = r.From.String()
	}
	if r.Protocol != "" {
		what = r.Protocol
	}
	if r.Port != 0 {
		what += fmt.Sprintf(" %d", r.Port)
	}
	return what + " from " + from
}

func (r Rule) matches(x rules.SecGroupRule) bool {
	prefix := x.RemoteIPPrefix
	if prefix == "0.0.0.0/0" {
		prefix = ""
	}
	want := ""
	if r.From.IsValid() {
		want = r.From.String()
	}
	return x.Direction == "ingress" && x.EtherType == "IPv4" && x.Protocol == r.Protocol && x.RemoteGroupID == "" &&
		x.PortRangeMin == r.Port && x.PortRangeMax == r.Port && prefix == want
}

// SecurityGroup is a group as Neutron makes it: nothing in, everything out. What may come in says its [SecurityRules]; apart from them,
// ports do not have to wait for the rules of their groups.
type SecurityGroup struct {
	Base
	theirs string               // name or id of somebody else's; "" is one of the stack's own
	rules  []rules.SecGroupRule // as found
}

// SecurityGroup declares a group, "STACK/ROLE".
func (s *Session) SecurityGroup(role string) *SecurityGroup {
	return &SecurityGroup{Base: s.base("secgroup", role, s.Name(role))}
}

// ExistingGroup declares a group, by name or id, that is there already and somebody else's: it is used, and neither changed nor removed.
func (s *Session) ExistingGroup(name string) *SecurityGroup {
	return &SecurityGroup{Base: s.base("secgroup", "existing "+name, name), theirs: name}
}

// Observe implements [graph.Resource].
func (g *SecurityGroup) Observe(ctx context.Context) (graph.State, error) {
	if g.theirs != "" {
		return g.find(ctx)
	}
	found, err := sole("security group", g.name, g.s.found.Groups,
		func(x groups.SecGroup) bool { return x.Name == g.name }, func(x groups.SecGroup) string { return x.ID })
	if found == nil || err != nil {
		return graph.State{}, err
	}
	g.id, g.rules = found.ID, found.Rules
	return graph.State{Phase: graph.Ready, ID: g.id}, nil
}

// find looks for a group that has to be there.
func (g *SecurityGroup) find(ctx context.Context) (graph.State, error) {
	_, err := g.s.lookups.once(ctx, "security groups", func(ctx context.Context) (string, error) {
		all, err := list[groups.SecGroup](ctx, g.s.Cloud, groupCollection, url.Values{"fields": {"id", "name"}})
		g.s.lookups.groups = all
		return "", err
	})
	if err != nil {
		return graph.State{}, err
	}
	found, err := choose("security group", g.theirs, g.s.lookups.groups, func(x groups.SecGroup) (string, string) { return x.Name, x.ID })
	if err != nil {
		return graph.State{}, err
	}
	g.id = found.ID
	return graph.State{Phase: graph.Ready, ID: g.id, Detail: "not the stack's own"}, nil
}

// Apply implements [graph.Resource].
func (g *SecurityGroup) Apply(ctx context.Context) error {
	made, err := create[groups.SecGroup](ctx, g.s, groupCollection, g.born(map[string]any{}))
	if err != nil {
		return openstack.Wrap(err, "creating security group %s", g.name)
	}
	g.id, g.rules = made.ID, made.Rules
	g.s.note(func(v *Inventory) { v.Groups = append(slices.Clip(v.Groups), *made) })
	return nil
}

// SecurityRules are what a group lets in. Rules that somebody added are left alone.
type SecurityRules struct {
	Base
	Group *SecurityGroup
	Rules []Rule

	missing []Rule
}

// SecurityRules declares the rules of g.
func (s *Session) SecurityRules(role string, g *SecurityGroup, rules ...Rule) *SecurityRules {
	return &SecurityRules{Base: s.base("rules", role, g.name, g), Group: g, Rules: rules}
}

// Observe implements [graph.Resource]. Rules have no life of their own: they are there or lacking.
func (r *SecurityRules) Observe(context.Context) (graph.State, error) {
	r.missing = nil
	var lacks []string
	for _, rule := range r.Rules {
		if !hasRule(r.Group.rules, rule) {
			r.missing = append(r.missing, rule)
			lacks = append(lacks, rule.String())
		}
	}
	switch len(lacks) {
	case 0:
		return graph.State{Phase: graph.Ready, Detail: fmt.Sprintf("%d rules", len(r.Rules))}, nil
	case len(r.Rules):
		return graph.State{}, nil
	}
	return graph.State{Phase: graph.Drifted, Detail: "lacks " + strings.Join(lacks, ", ")}, nil
}

func hasRule(all []rules.SecGroupRule, r Rule) bool {
	for _, x := range all {
		if r.matches(x) {
			return true
		}
	}
	return false
}

// Apply implements [graph.Resource]. The rules go in one call; Neutron takes many rules of one group at once, never of two. A rule that
// exists already (409) means that an earlier call was applied and its reply lost, or that somebody else was faster: each is then tried
// alone.
func (r *SecurityRules) Apply(ctx context.Context) error {
	err := r.post(ctx, r.missing)
	if !openstack.IsConflict(err) {
		return openstack.Wrap(err, "adding rules to security group %s", r.name)
	}
	for _, rule := range r.missing {
		if err := r.post(ctx, []Rule{rule}); err != nil && !openstack.IsConflict(err) {
			return openstack.Wrap(err, "adding the rule %q to security group %s", rule, r.name)
		}
	}
	return nil
}

func (r *SecurityRules) post(ctx context.Context, rs []Rule) error {
	if len(rs) == 0 {
		return nil
	}
	bodies := make([]map[string]any, len(rs))
	for i, rule := range rs {
		bodies[i] = map[string]any{"security_group_id": r.Group.id, "direction": "ingress", "ethertype": "IPv4", "description": r.s.mark()}
		if rule.Protocol != "" {
			bodies[i]["protocol"] = rule.Protocol
		}
		if rule.Port != 0 {
			bodies[i]["port_range_min"], bodies[i]["port_range_max"] = rule.Port, rule.Port
		}
		if rule.From.IsValid() {
			bodies[i]["remote_ip_prefix"] = rule.From.String()
		}
	}
	c := neutron("security-group-rules", "security_group_rule", "security_group_rules")
	for try := 1; ; try++ {
		err := call(ctx, r.s.Cloud, c, http.MethodPost, "", map[string]any{c.many: bodies})
		// Sending it again is safe: Neutron refuses the rules that are there with 409, which addMissing understands.
		if !openstack.IsAmbiguous(err) || try == tries {
			return err
		}
	}
}

package provision

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
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

// SecurityGroup is a set of ingress rules; egress stays as Neutron makes it, open. Rules that somebody added are left alone.
type SecurityGroup struct {
	Base
	Rules []Rule

	missing []Rule
}

// SecurityGroup declares a group, "STACK/ROLE".
func (s *Session) SecurityGroup(role string, rules ...Rule) *SecurityGroup {
	return &SecurityGroup{Base: s.base("secgroup", role, s.Name(role)), Rules: rules, missing: rules}
}

// Observe implements [graph.Resource].
func (g *SecurityGroup) Observe(context.Context) (graph.State, error) {
	found, err := sole("security group", g.name, g.s.found.Groups,
		func(x groups.SecGroup) bool { return x.Name == g.name }, func(x groups.SecGroup) string { return x.ID })
	if found == nil || err != nil {
		return graph.State{}, err
	}
	g.id, g.missing = found.ID, nil
	var lacks []string
	for _, r := range g.Rules {
		if !hasRule(found.Rules, r) {
			g.missing = append(g.missing, r)
			lacks = append(lacks, r.String())
		}
	}
	if len(lacks) > 0 {
		return graph.State{Phase: graph.Drifted, ID: g.id, Detail: "lacks " + strings.Join(lacks, ", ")}, nil
	}
	return graph.State{Phase: graph.Ready, ID: g.id, Detail: fmt.Sprintf("%d rules", len(found.Rules))}, nil
}

func hasRule(all []rules.SecGroupRule, r Rule) bool {
	for _, x := range all {
		if r.matches(x) {
			return true
		}
	}
	return false
}

// Apply implements [graph.Resource].
func (g *SecurityGroup) Apply(ctx context.Context) error {
	if g.id == "" {
		made, err := create[groups.SecGroup](ctx, g.s, groupCollection, g.born(map[string]any{}))
		if err != nil {
			return openstack.Wrap(err, "creating security group %s", g.name)
		}
		g.id = made.ID
		g.s.note(func(v *Inventory) { v.Groups = append(v.Groups, *made) })
	}
	return g.addMissing(ctx)
}

// addMissing adds the rules in one call; Neutron takes many rules of one group at once, never of two. A rule that exists
// already (409) means that an earlier call was applied and its reply lost, or that somebody else was faster: each is then tried alone.
func (g *SecurityGroup) addMissing(ctx context.Context) error {
	err := g.post(ctx, g.missing)
	if !openstack.IsConflict(err) || openstack.IsQuota(err) {
		return openstack.Wrap(err, "adding rules to security group %s", g.name)
	}
	for _, r := range g.missing {
		err := g.post(ctx, []Rule{r})
		if err != nil && (!openstack.IsConflict(err) || openstack.IsQuota(err)) {
			return openstack.Wrap(err, "adding the rule %q to security group %s", r, g.name)
		}
	}
	return nil
}

func (g *SecurityGroup) post(ctx context.Context, rs []Rule) error {
	if len(rs) == 0 {
		return nil
	}
	bodies := make([]map[string]any, len(rs))
	for i, r := range rs {
		bodies[i] = map[string]any{"security_group_id": g.id, "direction": "ingress", "ethertype": "IPv4", "description": g.s.mark()}
		if r.Protocol != "" {
			bodies[i]["protocol"] = r.Protocol
		}
		if r.Port != 0 {
			bodies[i]["port_range_min"], bodies[i]["port_range_max"] = r.Port, r.Port
		}
		if r.From.IsValid() {
			bodies[i]["remote_ip_prefix"] = r.From.String()
		}
	}
	c := collection{(*openstack.Cloud).Network, "security-group-rules", "security_group_rule", "security_group_rules"}
	for try := 1; ; try++ {
		err := call(ctx, g.s.Cloud, c, http.MethodPost, "", map[string]any{c.many: bodies})
		// Sending it again is safe: Neutron refuses the rules that are there with 409, which addMissing understands.
		if !openstack.IsAmbiguous(err) || try == tries {
			return err
		}
	}
}

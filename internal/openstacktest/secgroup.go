package openstacktest

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

type group struct {
	standard
	Name     string  `json:"name" api:"cu"`
	Stateful bool    `json:"stateful" api:"cu"`
	Shared   bool    `json:"shared"`
	Rules    []*rule `json:"security_group_rules"`
}

type rule struct {
	standard
	GroupID        string  `json:"security_group_id" api:"c"`
	Direction      string  `json:"direction" api:"c"`
	EtherType      string  `json:"ethertype" api:"c"`
	Protocol       *string `json:"protocol" api:"c"`
	PortMin        *int    `json:"port_range_min" api:"c"`
	PortMax        *int    `json:"port_range_max" api:"c"`
	RemoteGroup    *string `json:"remote_group_id" api:"c"`
	RemotePrefix   *string `json:"remote_ip_prefix" api:"c"`
	RemoteAddress  *string `json:"remote_address_group_id" api:"c"`
	Normalized     *string `json:"normalized_cidr"`
	BelongsDefault bool    `json:"belongs_to_default_sg"`
}

func (c *Cloud) groupCollection() collection[*group] {
	return collection[*group]{
		table: c.network.groups, plural: "security-groups", singular: "security_group", title: "SecurityGroup",
		fresh: func(*call) *group { return &group{Stateful: true} },
		create: func(q *call, g *group, _ fields) error {
			q.defaultGroup(g.ProjectID)
			if g.Name == "default" {
				return neutron(http.StatusConflict, "SecurityGroupDefaultAlreadyExists", "Default security group already exists.")
			}
			q.defaultRules(g)
			return nil
		},
		update: func(_ *call, was, g *group, f fields) error {
			if was.Name == "default" && g.Name != "default" {
				return neutron(http.StatusConflict, "SecurityGroupCannotUpdateDefault", "Updating default security group not allowed.")
			}
			return nil
		},
		remove: removeGroup,
	}
}

// defaultGroup is the project's group default, made when first needed.
func (c *Cloud) defaultGroup(project string) *group {
	if g, ok := c.network.groups.first(func(g *group) bool { return g.ProjectID == project && g.Name == "default" }); ok {
		return g
	}
	g := &group{standard: c.newStandard(project), Name: "default", Stateful: true}
	g.Description, g.seed = "Default security group", true
	c.network.groups.add(g)
	c.defaultRules(g)
	for _, ethertype := range []string{"IPv4", "IPv6"} {
		id := g.ID
		r := &rule{standard: c.newStandard(project), GroupID: g.ID, Direction: "ingress", EtherType: ethertype, RemoteGroup: &id}
		c.network.rules.add(r)
	}
	return g
}

// defaultRules lets everything out, as each new group does.
func (c *Cloud) defaultRules(g *group) {
	for _, ethertype := range []string{"IPv4", "IPv6"} {
		c.network.rules.add(&rule{standard: c.newStandard(g.ProjectID), GroupID: g.ID, Direction: "egress", EtherType: ethertype})
	}
}

func removeGroup(q *call, g *group) error {
	if q.network.ports.any(func(p *port) bool { return slices.Contains(p.Groups, g.ID) }) {
		return neutron(http.StatusConflict, "SecurityGroupInUse", "Security Group %s in use.", g.ID)
	}
	if g.Name == "default" && !q.admin() {
		return neutron(http.StatusConflict, "SecurityGroupCannotRemoveDefault", "Insufficient rights for removing default security group.")
	}
	for _, r := range q.network.rules.where(func(r *rule) bool { return r.GroupID == g.ID || r.RemoteGroup != nil && *r.RemoteGroup == g.ID }) {
		q.network.rules.drop(r.ID)
	}
	return nil
}

func (c *Cloud) showGroup(g *group) *group {
	v := clone(g)
	v.Rules = c.network.rules.where(func(r *rule) bool { return r.GroupID == g.ID })
	return v
}

func (c *Cloud) ruleCollection() collection[*rule] {
	return collection[*rule]{
		table: c.network.rules, plural: "security-group-rules", singular: "security_group_rule", title: "SecurityGroupRule",
		fresh:  func(*call) *rule { return &rule{EtherType: "IPv4"} },
		create: createRule,
		update: func(*call, *rule, *rule, fields) error {
			return neutron(http.StatusBadRequest, "HTTPBadRequest", "Security group rules cannot be updated")
		},
		remove: allow[*rule],
	}
}

func createRule(q *call, r *rule, _ fields) error {
	g, err := q.groupCollection().lookup(q, r.GroupID)
	if err != nil {
		return err
	}
	if r.Direction != "ingress" && r.Direction != "egress" {
		return neutron(http.StatusBadRequest, "HTTPBadRequest", "Invalid input for direction. Reason: %s is not in valid_values.", r.Direction)
	}
	ethertype, ok := map[string]string{"ipv4": "IPv4", "ipv6": "IPv6"}[strings.ToLower(r.EtherType)]
	if !ok {
		return neutron(http.StatusBadRequest, "SecurityGroupRuleInvalidEtherType", "Security group rule for ethertype '%s' not supported. Allowed values are ['IPv4', 'IPv6'].", r.EtherType)
	}
	r.EtherType = ethertype
	if r.RemotePrefix != nil && r.RemoteGroup != nil {
		return neutron(http.StatusBadRequest, "SecurityGroupMultipleRemoteEntites", "Only one of remote_ip_prefix or remote_group_id or remote_address_group_id may be provided.")
	}
	if (r.PortMin != nil || r.PortMax != nil) && r.Protocol == nil {
		return neutron(http.StatusBadRequest, "SecurityGroupProtocolRequiredWithPorts", "Must also specify protocol if port range is given.")
	}
	if r.PortMin != nil && r.PortMax != nil && *r.PortMin > *r.PortMax {
		return neutron(http.StatusBadRequest, "SecurityGroupInvalidPortRange", "For TCP/UDP protocols, port_range_min must be <= port_range_max")
	}
	if r.RemotePrefix != nil {
		p, err := netip.ParsePrefix(*r.RemotePrefix)
		if err != nil {
			return neutron(http.StatusBadRequest, "HTTPBadRequest", "Invalid input for remote_ip_prefix. Reason: '%s' is not a valid IP subnet.", *r.RemotePrefix)
		}
		if p.Addr().Is4() != (r.EtherType == "IPv4") {
			return neutron(http.StatusBadRequest, "SecurityGroupRuleParameterConflict", "Conflicting value ethertype %s for CIDR %s", r.EtherType, p)
		}
		cidr := p.Masked().String()
		r.Normalized = &cidr
	}
	if r.RemoteGroup != nil {
		if _, err := q.groupCollection().lookup(q, *r.RemoteGroup); err != nil {
			return err
		}
	}
	if same, ok := q.network.rules.first(r.equal); ok {
		return neutron(http.StatusConflict, "SecurityGroupRuleExists", "Security group rule already exists. Rule id is %s.", same.ID)
	}
	r.BelongsDefault = g.Name == "default"
	return nil
}

// equal tells whether o allows the same traffic.
func (r *rule) equal(o *rule) bool {
	number := func(a, b *int) bool { return a == b || a != nil && b != nil && *a == *b }
	word := func(a, b *string) bool { return a == b || a != nil && b != nil && *a == *b }
	return r.GroupID == o.GroupID && r.Direction == o.Direction && r.EtherType == o.EtherType && word(r.Protocol, o.Protocol) &&
		number(r.PortMin, o.PortMin) && number(r.PortMax, o.PortMax) && word(r.RemoteGroup, o.RemoteGroup) && word(r.source(), o.source())
}

// source is the prefix the rule is limited to; everything is no limit.
func (r *rule) source() *string {
	if r.Normalized != nil && strings.HasSuffix(*r.Normalized, "/0") {
		return nil
	}
	return r.Normalized
}

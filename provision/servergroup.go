package provision

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servergroups"

	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/internal/openstack"
)

// The policies of a server group that keep servers apart, in Nova's words.
const (
	Apart     = "anti-affinity"      // on hypervisors of their own; what finds none ends in ERROR
	ApartSoft = "soft-anti-affinity" // where there are enough of them
)

// ServerGroup makes Nova keep servers on hypervisors of their own. It has no description to carry the mark; its name is the stack's alone.
type ServerGroup struct {
	Base
	Policy string // Apart or ApartSoft
}

// serverGroupCollection is spoken to in the microversion that brought soft policies. Its lists are neither filtered nor in pages.
var serverGroupCollection = collection{service: (*openstack.Cloud).Compute, path: "os-server-groups", one: "server_group", many: "server_groups"}.at("2.15")

// serverGroupRoles are the roles whose servers may have a group.
var serverGroupRoles = []string{"master", "worker"}

// ServerGroup declares the group of servers of a role.
func (s *Session) ServerGroup(role string) *ServerGroup {
	return &ServerGroup{Base: s.base("servergroup", role, s.serverGroupName(role))}
}

func (s *Session) serverGroupName(role string) string { return "kuryrctl-" + s.Stack + "-" + role }

// Observe implements [graph.Resource].
func (g *ServerGroup) Observe(context.Context) (graph.State, error) {
	found, err := sole("server group", g.name, g.s.found.ServerGroups,
		func(x servergroups.ServerGroup) bool { return x.Name == g.name }, func(x servergroups.ServerGroup) string { return x.ID })
	if found == nil || err != nil {
		return graph.State{}, err
	}
	g.id = found.ID
	if !slices.Equal(found.Policies, []string{g.Policy}) {
		return graph.State{Phase: graph.Drifted, ID: g.id, Detail: "policy is " + strings.Join(found.Policies, ", ") + ", declared " + g.Policy}, nil
	}
	return graph.State{Phase: graph.Ready, ID: g.id, Detail: g.Policy}, nil
}

// Apply implements [graph.Resource].
func (g *ServerGroup) Apply(ctx context.Context) error {
	if g.id != "" {
		return fixed(&g.Base, "the policy of a server group")
	}
	made, err := create[servergroups.ServerGroup](ctx, g.s, serverGroupCollection, birth{
		body: map[string]any{"name": g.name, "policies": []string{g.Policy}},
		ours: func(raw json.RawMessage) bool {
			var x servergroups.ServerGroup
			return json.Unmarshal(raw, &x) == nil && x.Name == g.name
		},
	})
	if err != nil {
		return openstack.Wrap(err, "creating server group %s", g.name)
	}
	g.id = made.ID
	g.s.note(func(v *Inventory) { v.ServerGroups = append(slices.Clip(v.ServerGroups), *made) })
	return nil
}

// InServerGroup reports whether the server is in one of the stack's groups.
func (v *Inventory) InServerGroup(id string) bool {
	return slices.ContainsFunc(v.ServerGroups, func(g servergroups.ServerGroup) bool { return slices.Contains(g.Members, id) })
}

func (s *Session) ownsServerGroup(x servergroups.ServerGroup) bool {
	return slices.ContainsFunc(serverGroupRoles, func(role string) bool { return x.Name == s.serverGroupName(role) })
}

// ComputeZones are Nova's availability zones that take servers.
func (s *Session) ComputeZones(ctx context.Context) ([]string, error) {
	client, err := s.Cloud.Compute()
	if err != nil {
		return nil, err
	}
	var body struct {
		Zones []struct {
			Name  string                   `json:"zoneName"`
			State struct{ Available bool } `json:"zoneState"`
		} `json:"availabilityZoneInfo"`
	}
	if _, err := client.Get(ctx, client.ServiceURL("os-availability-zone"), &body, nil); err != nil {
		return nil, openstack.Wrap(err, "listing availability zones")
	}
	var names []string
	for _, z := range body.Zones {
		if z.State.Available {
			names = append(names, z.Name)
		}
	}
	return names, nil
}

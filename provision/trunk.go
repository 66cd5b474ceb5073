package provision

import (
	"context"
	"fmt"
	"slices"

	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/trunks"

	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/internal/openstack"
)

// Trunk makes its parent port carry the VLAN-tagged subports of the pods on one node. It must exist before the server: ML2/OVS
// refuses a trunk on a bound port (neutron/services/trunk/rules.py, can_trunk_bound_port).
type Trunk struct {
	Base
	Parent *Port
}

// Trunk declares the trunk of parent, under the parent's name.
func (s *Session) Trunk(role string, parent *Port) *Trunk {
	return &Trunk{s.base("trunk", role, s.Name(role), parent), parent}
}

// Observe implements [graph.Resource].
func (t *Trunk) Observe(context.Context) (graph.State, error) {
	found, err := sole("trunk", t.name, t.s.found.Trunks,
		func(x trunks.Trunk) bool { return x.Name == t.name }, func(x trunks.Trunk) string { return x.ID })
	if found == nil || err != nil {
		return graph.State{}, err
	}
	t.id = found.ID
	state := graph.State{Phase: graph.Ready, ID: t.id, Detail: fmt.Sprintf("%d subports", len(found.Subports))}
	switch {
	case found.PortID != t.Parent.id:
		state.Phase, state.Detail = graph.Failed, "its parent is another port, "+found.PortID
	case found.Status == "ERROR":
		state.Phase, state.Detail = graph.Failed, "status ERROR"
	}
	return state, nil
}

// Apply implements [graph.Resource].
func (t *Trunk) Apply(ctx context.Context) error {
	if t.id != "" {
		return fixed(&t.Base, "a trunk in ERROR or on another parent")
	}
	made, err := create[trunks.Trunk](ctx, t.s, trunkCollection, t.born(map[string]any{"port_id": t.Parent.id, "admin_state_up": true}))
	if err != nil {
		return openstack.Wrap(err, "creating trunk %s", t.name)
	}
	t.id = made.ID
	t.s.note(func(v *Inventory) { v.Trunks = append(slices.Clip(v.Trunks), *made) })
	return nil
}

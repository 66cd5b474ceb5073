package provision

import (
	"context"
	"net/url"
)

// Wiring is how a port hangs in Neutron.
type Wiring struct {
	Device   string // what it is on: a server's id, or ""
	Status   string
	Up       bool // administratively
	Filtered bool // by its security groups; false where port security is off
	Trunk    *TrunkWiring
}

// TrunkWiring is the trunk that a port is the parent of.
type TrunkWiring struct {
	ID, Status string
	Up         bool
}

// Wirings are those of all ports of the anchor network, by id: as the inventory has them, and one list more.
func (s *Session) Wirings(ctx context.Context) (map[string]Wiring, error) {
	v := s.Inventory()
	all, err := list[struct {
		ID       string
		Filtered *bool `json:"port_security_enabled"` // nil where Neutron filters always
	}](ctx, s.Cloud, portCollection, url.Values{"network_id": {v.UUID()}, "fields": {"id", "port_security_enabled"}})
	if err != nil {
		return nil, err
	}
	off := map[string]bool{}
	for _, p := range all {
		off[p.ID] = p.Filtered != nil && !*p.Filtered
	}
	found := map[string]Wiring{}
	for _, p := range v.Ports {
		w := Wiring{Device: p.DeviceID, Status: p.Status, Up: p.AdminStateUp, Filtered: !off[p.ID]}
		for _, t := range v.Trunks {
			if t.PortID == p.ID {
				w.Trunk = &TrunkWiring{t.ID, t.Status, t.AdminStateUp}
			}
		}
		found[p.ID] = w
	}
	return found, nil
}

package openstacktest

import (
	"encoding/json"
	"net/http"
	"slices"
)

type trunk struct {
	standard
	Name         string    `json:"name" api:"cu"`
	AdminStateUp bool      `json:"admin_state_up" api:"cu"`
	Status       string    `json:"status"`
	PortID       string    `json:"port_id" api:"c"`
	Subports     []subport `json:"sub_ports" api:"c"`
}

type subport struct {
	PortID string `json:"port_id"`
	Type   string `json:"segmentation_type"`
	VLAN   int    `json:"segmentation_id"`
}

func (c *Cloud) trunkOf(portID string) (*trunk, bool) {
	return c.network.trunks.first(func(t *trunk) bool { return t.PortID == portID })
}

func (c *Cloud) trunkWith(subportID string) (*trunk, bool) {
	return c.network.trunks.first(func(t *trunk) bool {
		return slices.ContainsFunc(t.Subports, func(s subport) bool { return s.PortID == subportID })
	})
}

func (p *port) bound() bool { return p.DeviceOwner == ownerCompute && p.DeviceID != "" }

func (c *Cloud) trunkCollection() collection[*trunk] {
	return collection[*trunk]{
		table: c.network.trunks, plural: "trunks", noBulk: true, singular: "trunk", title: "Trunk",
		fresh:  func(*call) *trunk { return &trunk{AdminStateUp: true, Status: "DOWN", Subports: []subport{}} },
		create: createTrunk,
		update: accept[*trunk],
		remove: removeTrunk,
	}
}

func createTrunk(q *call, t *trunk, f fields) error {
	p, err := q.portCollection().lookup(q, t.PortID)
	if err != nil {
		return err
	}
	if _, ok := q.trunkWith(p.ID); ok {
		return usedByTrunk(p)
	}
	if _, ok := q.trunkOf(p.ID); ok || q.knobs.ovs && p.bound() {
		return notEligible(p)
	}
	wanted := t.Subports
	t.Subports = []subport{}
	if err := q.checkSubports(t, wanted); err != nil {
		return err
	}
	q.take(t, p, wanted)
	if !q.knobs.ovs {
		t.Status = "ACTIVE"
	}
	return nil
}

func usedByTrunk(p *port) error {
	return neutron(http.StatusConflict, "TrunkPortInUse", "Port %s is in use by another trunk.", p.ID)
}

func notEligible(p *port) error {
	return neutron(http.StatusConflict, "ParentPortInUse", "Port %s is currently in use and is not eligible for use as a parent port.", p.ID)
}

func trunkDisabled(t *trunk) error {
	return neutron(http.StatusConflict, "TrunkDisabled", "Trunk %s is currently disabled.", t.ID)
}

func removeTrunk(q *call, t *trunk) error {
	if !t.AdminStateUp {
		return trunkDisabled(t)
	}
	if p, ok := q.network.ports.get(t.PortID); ok && q.knobs.ovs && p.bound() {
		return neutron(http.StatusConflict, "TrunkInUse", "Trunk %s is currently in use.", t.ID)
	}
	for _, s := range t.Subports {
		q.release(s)
	}
	return nil
}

// checkSubports refuses the whole request for one bad element. As in Neutron, what a request says twice is found before any
// of its ports is looked at.
func (q *call) checkSubports(t *trunk, wanted []subport) error {
	vlans, asked, ids := map[int]bool{}, map[int]bool{}, map[string]bool{}
	for _, s := range wanted {
		if ids[s.PortID] {
			return invalid("Non unique UUID for subport: '%s'.", s.PortID)
		}
		if asked[s.VLAN] {
			return invalid("Segmentation ID '%d' for '%s' is not unique.", s.VLAN, s.PortID)
		}
		asked[s.VLAN], ids[s.PortID] = true, true
	}
	for _, s := range t.Subports {
		vlans[s.VLAN] = true
	}
	parent, _ := q.network.ports.get(t.PortID)
	for _, s := range wanted {
		p, err := q.portCollection().lookup(q, s.PortID)
		if err != nil {
			return err
		}
		if p.ID == t.PortID {
			return notEligible(p)
		}
		if mtu := q.mtu(p); mtu > q.mtu(parent) {
			return neutron(http.StatusConflict, "SubPortMtuGreaterThanTrunkPortMtu", "MTU %d of subport %s cannot be greater than MTU %d of trunk %s.", mtu, p.ID, q.mtu(parent), parent.ID)
		}
		switch {
		case s.Type == "":
			return invalid("Invalid subport details '{'port_id': '%s'}': missing segmentation information. Must specify both segmentation_id and segmentation_type.", s.PortID)
		case s.Type != "vlan":
			return invalid("Unknown segmentation_type '%s'.", s.Type)
		case s.VLAN < 1 || s.VLAN > 4094:
			return invalid("Segmentation ID '%d' is not in range.", s.VLAN)
		}
		if _, ok := q.trunkWith(p.ID); ok {
			return usedByTrunk(p)
		}
		if _, ok := q.trunkOf(p.ID); ok {
			return notEligible(p)
		}
		if p.DeviceID != "" {
			return neutron(http.StatusConflict, "PortInUse", "Unable to complete operation on port %s for network %s. Port already has an attached device %s.", p.ID, p.NetworkID, p.DeviceID)
		}
		if vlans[s.VLAN] {
			return neutron(http.StatusConflict, "DuplicateSubPort", "segmentation_type %s and segmentation_id %d already in use on trunk %s.", s.Type, s.VLAN, t.ID)
		}
	}
	return nil
}

func (c *Cloud) mtu(p *port) int {
	n, _ := c.network.networks.get(p.NetworkID)
	return n.MTU
}

// take adds checked subports; they come up after a while if the parent is up.
func (c *Cloud) take(t *trunk, parent *port, wanted []subport) {
	for _, s := range wanted {
		t.Subports = append(slices.Clone(t.Subports), s)
		p, _ := c.network.ports.get(s.PortID)
		p.DeviceOwner = ownerSubport
		touch(p)
	}
	c.wire(t, parent)
}

// wire lets the subports follow the parent's state, and the trunk under ML2/OVS.
// Under ML2/OVN (2025.1) a trunk is ACTIVE after its creation, after each change of
// its subports and when its server has booted; only the end of the server brings it DOWN.
func (c *Cloud) wire(t *trunk, parent *port) {
	if c.knobs.ovs || parent.Status == "ACTIVE" {
		t.Status = parent.Status
	}
	if parent.Status != "ACTIVE" {
		for _, s := range t.Subports {
			if p, ok := c.network.ports.get(s.PortID); ok {
				p.Status, p.change = "DOWN", nil
			}
		}
		return
	}
	for _, s := range t.Subports {
		if p, ok := c.network.ports.get(s.PortID); ok && p.Status != "ACTIVE" && p.change == nil {
			c.later(p, func() { p.Status = "ACTIVE" })
		}
	}
}

// release makes a former subport an ordinary port again.
func (c *Cloud) release(s subport) {
	if p, ok := c.network.ports.get(s.PortID); ok {
		p.DeviceOwner, p.DeviceID, p.Status, p.change = "", "", "DOWN", nil
		touch(p)
	}
}

// subportRequest reads the body of the three calls, which has no envelope.
func subportRequest(q *call) (*trunk, []subport, error) {
	t, err := q.trunkCollection().owned(q, q.PathValue("id"))
	if err != nil {
		return nil, nil, err
	}
	if !t.AdminStateUp {
		return nil, nil, trunkDisabled(t)
	}
	var body struct {
		Subports []subport `json:"sub_ports"`
	}
	if err := json.Unmarshal(q.body, &body); err != nil || body.Subports == nil {
		q.misuse("bad body %q", q.body)
		return nil, nil, neutron(http.StatusBadRequest, "HTTPBadRequest", "Bad sub_ports")
	}
	return t, body.Subports, nil
}

func addSubports(q *call) (any, error) {
	t, wanted, err := subportRequest(q)
	if err != nil {
		return nil, err
	}
	if t.Status == "ERROR" {
		return nil, neutron(http.StatusConflict, "TrunkInErrorState", "Trunk %s is in error state. Attempt to resolve the error condition before proceeding.", t.ID)
	}
	if err := q.checkSubports(t, wanted); err != nil {
		return nil, err
	}
	parent, _ := q.network.ports.get(t.PortID)
	q.take(t, parent, wanted)
	if !q.knobs.ovs {
		t.Status = "ACTIVE"
	}
	touch(t)
	return t, nil
}

func removeSubports(q *call) (any, error) {
	t, wanted, err := subportRequest(q)
	if err != nil {
		return nil, err
	}
	for _, s := range wanted {
		if !slices.ContainsFunc(t.Subports, func(x subport) bool { return x.PortID == s.PortID }) {
			return nil, neutron(http.StatusNotFound, "SubPortNotFound", "SubPort %s on trunk %s could not be found.", s.PortID, t.ID)
		}
	}
	if !q.knobs.ovs {
		t.Status = "ACTIVE"
	}
	for _, s := range wanted {
		q.release(s)
		t.Subports = slices.DeleteFunc(slices.Clone(t.Subports), func(x subport) bool { return x.PortID == s.PortID })
	}
	touch(t)
	return t, nil
}

func getSubports(q *call) (any, error) {
	t, err := q.trunkCollection().lookup(q, q.PathValue("id"))
	if err != nil {
		return nil, err
	}
	q.look(t)
	return map[string]any{"sub_ports": t.Subports}, nil
}

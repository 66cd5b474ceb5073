package subport

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/nodeagent/vif"
)

// Trunk is one node's trunk and the ports for its pods, as this process knows them: read once, then kept up to date by the answers to
// its own calls, and read anew after any error that leaves a doubt.
type Trunk struct {
	Node string

	n         *Network
	id        string
	parentMAC string
	up        bool             // the parent port is
	vlans     map[string]int   // port to VLAN id, of everything that is on the trunk, ours or not
	ports     map[string]*held // ours: on this trunk, or loose and meant for this node
	fresh     time.Time        // when it was read; zero means that it must be
	changed   time.Time        // end of the last call that changed it
	window    int              // ports made in one call, at most; see Reconcile
}

// held is a port with what became of it.
type held struct {
	port
	since time.Time // of the last attempt to bring it up, while it is down
	tries int
}

// Trunk is the trunk of a node. Nothing is read yet.
func (n *Network) Trunk(node string) *Trunk {
	return &Trunk{Node: node, n: n, ports: map[string]*held{}, vlans: map[string]int{}}
}

// ID is the trunk's in Neutron, ParentMAC that of its parent port; both "" before [Trunk.Refresh].
func (t *Trunk) ID() string        { return t.id }
func (t *Trunk) ParentMAC() string { return t.parentMAC }

// Refresh reads the trunk if there is a doubt about it or what is known is older than maxAge. published are the ports that were
// published for this node. It reports whether the node has a trunk.
func (t *Trunk) Refresh(ctx context.Context, maxAge time.Duration, published []vif.Subport) (bool, error) {
	now := t.n.o.Now()
	since := t.changed
	switch {
	case t.fresh.IsZero() && t.changed.IsZero(), t.due(now):
		since = now
	case t.fresh.IsZero():
	case now.Sub(t.fresh) < maxAge:
		return t.id != "", nil
	default:
		if oldest := now.Add(-maxAge); since.Before(oldest) {
			since = oldest
		}
	}
	v, err := t.n.Look(ctx, since)
	if err != nil {
		return false, err
	}
	t.take(v, published)
	return t.id != "", nil
}

// take makes v what is known.
func (t *Trunk) take(v *View, published []vif.Subport) {
	found, ok := v.trunks[t.Node]
	t.fresh = v.begun
	if !ok {
		t.id, t.vlans, t.ports = "", map[string]int{}, map[string]*held{}
		return
	}
	parent := v.parents[found.Port]
	t.id, t.parentMAC, t.up = found.ID, parent.MAC, parent.Status == "ACTIVE"
	t.segments(found)
	claimed := map[string]bool{}
	for _, s := range published {
		claimed[s.Port] = true
	}
	before := t.ports
	t.ports = map[string]*held{}
	for id, p := range v.ports {
		born, _ := t.n.bornFor(p)
		if on := v.on[id]; on != t.Node && (on != "" || p.DeviceOwner != "" || !claimed[id] && born != t.Node) {
			continue
		}
		h := &held{port: p, since: v.begun}
		if old, ok := before[id]; ok {
			h.since, h.tries = old.since, old.tries
		}
		t.ports[id] = h
	}
}

func (t *Trunk) segments(found trunk) {
	t.vlans = map[string]int{}
	for _, s := range found.Subports {
		t.vlans[s.Port] = s.VLAN
	}
}

// done ends a call that changes something: err, said in words, and the knowledge that is in doubt after it. A refusal for want of quota or
// addresses leaves none, and it is the one that comes again and again.
func (t *Trunk) done(err error, format string, args ...any) error {
	t.changed = t.n.o.Now()
	if err != nil && (openstack.IsAmbiguous(err) || !openstack.IsQuota(err) && !IsNoAddresses(err)) {
		t.fresh = time.Time{}
	}
	return openstack.Wrap(err, format, args...)
}

// IsNoAddresses tells that the pod network has no address left.
func IsNoAddresses(err error) bool { return openstack.NeutronType(err) == "IpAddressGenerationFailure" }

// create makes k ports in one call.
func (t *Trunk) create(ctx context.Context, k int) error {
	bodies := make([]map[string]any, k)
	for i := range bodies {
		bodies[i] = map[string]any{"name": t.n.birthName(t.Node), "description": openstack.Mark(t.n.o.Stack), "network_id": t.n.id, "security_groups": []string{t.n.group}}
	}
	var made struct{ Ports []port }
	err := t.n.write(ctx, http.MethodPost, "ports", map[string]any{"ports": bodies}, &made)
	if err == nil && len(made.Ports) != k {
		t.fresh = time.Time{}
	}
	for _, p := range made.Ports {
		t.ports[p.ID] = &held{port: p}
	}
	return t.done(err, "creating %d ports for %s", k, t.Node)
}

// attach puts ports on the trunk, in one call. What goes wrong with it (a VLAN id or a port is taken, the reply is lost) is sorted out by
// the next look: what is on the trunk then was attached.
func (t *Trunk) attach(ctx context.Context, vlans map[string]int) error {
	if len(vlans) == 0 {
		return nil
	}
	body := make([]segment, 0, len(vlans))
	for id, vlan := range vlans {
		body = append(body, segment{id, "vlan", vlan})
	}
	slices.SortFunc(body, func(a, b segment) int { return a.VLAN - b.VLAN })
	var after trunk
	err := t.n.write(ctx, http.MethodPut, "trunks/"+t.id+"/add_subports", map[string]any{"sub_ports": body}, &after)
	if err == nil {
		t.segments(after)
		for id := range vlans {
			t.ports[id].since, t.ports[id].Status = t.n.o.Now(), "DOWN"
		}
	}
	return t.done(err, "attaching %d subports to the trunk of %s", len(vlans), t.Node)
}

// detach takes ports off the trunk, in one call.
func (t *Trunk) detach(ctx context.Context, ids []string) error {
	var body []map[string]string
	for _, id := range ids {
		if _, on := t.vlans[id]; on {
			body = append(body, map[string]string{"port_id": id})
		}
	}
	if len(body) == 0 {
		return nil
	}
	var after trunk
	err := t.n.write(ctx, http.MethodPut, "trunks/"+t.id+"/remove_subports", map[string]any{"sub_ports": body}, &after)
	if err == nil {
		t.segments(after)
	}
	return t.done(err, "taking %d subports off the trunk of %s", len(body), t.Node)
}

// remove takes ports off the trunk and deletes them.
func (t *Trunk) remove(ctx context.Context, ids []string) error {
	if err := t.detach(ctx, ids); err != nil {
		return err
	}
	for _, id := range ids {
		if err := t.n.Delete(ctx, []string{id}); err != nil {
			return t.done(err, "removing the port of a pod of %s", t.Node)
		}
		delete(t.ports, id)
	}
	t.changed = t.n.o.Now()
	return nil
}

// Name names ports in Neutron: names is port id to NAMESPACE/POD, or "" for a port that no pod has. What has its name already costs
// nothing; at most k calls are made. It reports whether all have their names.
func (t *Trunk) Name(ctx context.Context, names map[string]string, k int) (bool, error) {
	for _, id := range sorted(names) {
		h, want := t.ports[id], names[id]
		if h == nil || want == h.Name {
			continue
		}
		if _, born := t.n.bornFor(h.port); want == "" && born {
			continue
		}
		if k--; k < 0 {
			return false, nil
		}
		if want == "" {
			want = t.n.birthName(t.Node)
		}
		err := t.n.write(ctx, http.MethodPut, "ports/"+id, map[string]any{"port": map[string]any{"name": want}}, nil)
		if err != nil {
			return false, t.done(err, "naming port %s", id)
		}
		h.Name = want
		t.changed = t.n.o.Now()
	}
	return true, nil
}

// publishable is the port with this VLAN id as the node needs it.
func (t *Trunk) publishable(h *held, vlan int) (vif.Subport, error) {
	s := vif.Subport{Port: h.ID, MAC: h.MAC, VLAN: vlan, MTU: t.n.mtu}
	for _, ip := range h.FixedIPs {
		on, ok := t.n.subnets[ip.Subnet]
		if !ok {
			return s, fmt.Errorf("port %s is on subnet %s, which came after this process: restart it", h.ID, ip.Subnet)
		}
		s.IPs = append(s.IPs, vif.IP{Address: fmt.Sprintf("%s/%d", ip.Address, on.bits), Gateway: on.gateway})
	}
	return s, s.Problem()
}

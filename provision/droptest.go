package provision

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/groups"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/internal/wait"
)

// DropTest is two ports on the pod network that are subports of one node's trunk and no pod's, in a security group that lets nothing in. Their
// description says more than the stack's mark, by which the controller in the cluster would take them for ports of pods; for a VLAN id it
// takes the lowest that the trunk does not have, and these have the highest. The group bears the mark.
type DropTest struct {
	ParentMAC string
	MTU       int
	Ends      [2]DropTestEnd

	s     *Session
	group string
}

// DropTestEnd is one of the ports.
type DropTestEnd struct {
	Port, MAC string
	VLAN      int
	Address   netip.Prefix
}

const (
	dropTestRole = "droptest"
	highestVLAN  = 4094
	upLimit      = 90 * time.Second // for a subport to be brought up
)

func (s *Session) dropTestPorts() url.Values {
	return url.Values{"description": {openstack.DropTestMark(s.Stack)}, "project_id": {s.Cloud.ProjectID()}}
}

// segment is a subport as Neutron writes it.
type segment struct {
	Port string `json:"port_id"`
	Type string `json:"segmentation_type,omitempty"`
	VLAN int    `json:"segmentation_id,omitempty"`
}

type segments struct {
	ID, Name, Description string
	Parent                string    `json:"port_id"`
	All                   []segment `json:"sub_ports"`
}

// BeginDropTest makes the ports on the trunk of a node and waits until they are ACTIVE. Whatever comes of it, [Session.EndDropTest] must follow.
func (s *Session) BeginDropTest(ctx context.Context, node string) (*DropTest, error) {
	t := &DropTest{s: s}
	found := s.Inventory()
	network, subnet, bits := "", "", 0
	for _, n := range found.Subnets {
		if n.Name == s.Name("pod_subnet") {
			cidr, err := netip.ParsePrefix(n.CIDR)
			if err != nil {
				return nil, fmt.Errorf("reading subnet %s: %w", n.Name, err)
			}
			network, subnet, bits = n.NetworkID, n.ID, cidr.Bits()
		}
	}
	trunk, err := s.trunkOf(ctx, node)
	if err != nil {
		return nil, err
	}
	for _, p := range found.Ports {
		if p.ID == trunk.Parent {
			t.ParentMAC = p.MACAddress
		}
	}
	if t.MTU, err = s.MTU(ctx, network); err != nil {
		return nil, err
	}
	b := s.base("secgroup", dropTestRole, s.Name(dropTestRole))
	group, err := create[groups.SecGroup](ctx, s, groupCollection, b.born(map[string]any{}))
	if err != nil {
		return nil, openstack.Wrap(err, "creating security group %s", b.name)
	}
	t.group = group.ID
	taken := map[int]bool{}
	for _, x := range trunk.All {
		taken[x.VLAN] = true
	}
	var put []segment
	for i, vlan := 0, highestVLAN; i < len(t.Ends); i++ {
		for taken[vlan] {
			vlan--
		}
		taken[vlan] = true
		name := fmt.Sprintf("%s-%d", s.Name(dropTestRole), i+1)
		find := s.dropTestPorts()
		find.Set("name", name)
		made, err := create[ports.Port](ctx, s, portCollection, birth{find: find, body: map[string]any{"name": name, "description": openstack.DropTestMark(s.Stack),
			"network_id": network, "security_groups": []string{t.group}, "fixed_ips": []map[string]string{{"subnet_id": subnet}}}})
		if err != nil {
			return nil, openstack.Wrap(err, "creating port %s", name)
		}
		address, err := netip.ParseAddr(made.FixedIPs[0].IPAddress)
		if err != nil {
			return nil, fmt.Errorf("reading the address of port %s: %w", made.ID, err)
		}
		t.Ends[i] = DropTestEnd{made.ID, made.MACAddress, vlan, netip.PrefixFrom(address, bits)}
		put = append(put, segment{made.ID, "vlan", vlan})
	}
	err = call(ctx, s.Cloud, trunkCollection, http.MethodPut, "/"+trunk.ID+"/add_subports", map[string]any{"sub_ports": put})
	if err != nil {
		return nil, openstack.Wrap(err, "attaching two subports to the trunk of %s", node)
	}
	return t, t.up(ctx)
}

func (s *Session) trunkOf(ctx context.Context, node string) (*segments, error) {
	all, err := list[segments](ctx, s.Cloud, trunkCollection, url.Values{"name": {s.Name(node)}, "description": {s.mark()}, "project_id": {s.Cloud.ProjectID()}})
	if err != nil {
		return nil, err
	}
	return sole("trunk", s.Name(node), all, func(x segments) bool { return x.Name == s.Name(node) && x.Description == s.mark() }, func(x segments) string { return x.ID })
}

// up waits until both are.
func (t *DropTest) up(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, upLimit, errors.New("it is not brought up by Neutron"))
	defer cancel()
	for _, end := range t.Ends {
		err := wait.For(ctx, "subport "+end.Port+" to become ACTIVE", t.s.every(), func(ctx context.Context) (string, bool, error) {
			p, err := get[ports.Port](ctx, t.s.Cloud, portCollection, end.Port)
			if err != nil {
				return "", false, openstack.Wrap(err, "looking at it")
			}
			return p.Status, p.Status == "ACTIVE", nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Allow lets the first port connect to a TCP port of the second.
func (t *DropTest) Allow(ctx context.Context, port int) error {
	b := t.s.base("rules", dropTestRole, t.s.Name(dropTestRole))
	r := &SecurityRules{Base: b, Group: &SecurityGroup{Base: b}}
	r.Group.id = t.group
	from := t.Ends[0].Address.Addr()
	err := r.post(ctx, []Rule{{Protocol: "tcp", Port: port, From: netip.PrefixFrom(from, from.BitLen())}})
	return openstack.Wrap(err, "adding a rule to security group %s", b.name)
}

// EndDropTest removes what any drop test of the stack has made, also one that was cut off: three reads where there is nothing.
func (s *Session) EndDropTest(ctx context.Context) error {
	theirs, err := list[ports.Port](ctx, s.Cloud, portCollection, s.dropTestPorts())
	if err != nil {
		return err
	}
	theirs = slices.DeleteFunc(theirs, func(p ports.Port) bool { return p.Description != openstack.DropTestMark(s.Stack) })
	marked := url.Values{"description": {s.mark()}, "project_id": {s.Cloud.ProjectID()}}
	trunks, err := list[segments](ctx, s.Cloud, trunkCollection, maps.Clone(marked))
	if err != nil {
		return err
	}
	for _, t := range trunks {
		var off []segment
		for _, x := range t.All {
			if slices.ContainsFunc(theirs, func(p ports.Port) bool { return p.ID == x.Port }) {
				off = append(off, segment{Port: x.Port})
			}
		}
		if len(off) == 0 {
			continue
		}
		if err := call(ctx, s.Cloud, trunkCollection, http.MethodPut, "/"+t.ID+"/remove_subports", map[string]any{"sub_ports": off}); err != nil {
			return openstack.Wrap(err, "taking %d subports off trunk %s", len(off), t.Name)
		}
	}
	for _, p := range theirs {
		if err := deleter(portCollection)(ctx, s, Object{Kind: "port", Name: p.Name, ID: p.ID}); err != nil {
			return err
		}
	}
	marked.Set("name", s.Name(dropTestRole))
	left, err := list[groups.SecGroup](ctx, s.Cloud, groupCollection, marked)
	if err != nil {
		return err
	}
	for _, g := range left {
		if g.Name != s.Name(dropTestRole) || g.Description != s.mark() {
			continue
		}
		if err := deleter(groupCollection)(ctx, s, Object{Kind: "secgroup", Name: g.Name, ID: g.ID}); err != nil {
			return err
		}
	}
	return nil
}

package openstacktest_test

import (
	"testing"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/trunks"

	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
)

func vlans(ids map[string]int) object {
	list := []object{}
	for port, vlan := range ids {
		list = append(list, object{"port_id": port, "segmentation_type": "vlan", "segmentation_id": vlan})
	}
	return object{"sub_ports": list}
}

func TestTrunkRefusals(t *testing.T) {
	k := connect(t, openstacktest.New(t), "fake")
	n, small := k.net("n"), k.make("networks", "network", object{"mtu": 1300})
	parent, sub, free, thin := k.port(n.ID, "parent").ID, k.port(n.ID, "sub").ID, k.port(n.ID, "free").ID, k.port(small, "thin").ID
	trunk := k.make("trunks", "trunk", object{"port_id": parent, "sub_ports": []object{{"port_id": sub, "segmentation_type": "vlan", "segmentation_id": 5}}})
	thinTrunk := k.make("trunks", "trunk", object{"port_id": thin, "sub_ports": []object{}})
	disabled := k.make("trunks", "trunk", object{"port_id": k.port(n.ID, "off").ID, "admin_state_up": false})
	add, remove := "trunks/"+trunk+"/add_subports", "trunks/"+trunk+"/remove_subports"
	for _, tt := range []struct {
		name, method, path string
		body               any
		status             int
		kind               string
	}{
		{"a VLAN id is used once on a trunk", "PUT", add, vlans(map[string]int{free: 5}), 409, "DuplicateSubPort"},
		{"a VLAN id is used once in a request", "PUT", add, vlans(map[string]int{free: 7, thin: 7}), 400, "InvalidInput"},
		{"a VLAN id is in range", "PUT", add, vlans(map[string]int{free: 4095}), 400, "InvalidInput"},
		{"a subport is on one trunk", "PUT", add, vlans(map[string]int{sub: 6}), 409, "TrunkPortInUse"},
		{"a trunk's port is not its own subport", "PUT", add, vlans(map[string]int{parent: 6}), 409, "ParentPortInUse"},
		{"a trunk's port is no subport", "PUT", add, vlans(map[string]int{thin: 6}), 409, "ParentPortInUse"},
		{"a subport's MTU fits its trunk", "PUT", "trunks/" + thinTrunk + "/add_subports", vlans(map[string]int{free: 6}), 409, "SubPortMtuGreaterThanTrunkPortMtu"},
		{"a subport exists", "PUT", add, vlans(map[string]int{nobody: 6}), 404, "PortNotFound"},
		{"an absent subport is not removed", "PUT", remove, object{"sub_ports": []object{{"port_id": sub}, {"port_id": free}}}, 404, "SubPortNotFound"},
		{"a port has one trunk", "POST", "trunks", object{"trunk": object{"port_id": parent}}, 409, "ParentPortInUse"},
		{"a subport has no trunk of its own", "POST", "trunks", object{"trunk": object{"port_id": sub}}, 409, "TrunkPortInUse"},
		{"a subport is not deleted", "DELETE", "ports/" + sub, nil, 409, "PortInUseAsSubPort"},
		{"a trunk's port is not deleted", "DELETE", "ports/" + parent, nil, 409, "PortInUseAsTrunkParent"},
		{"a disabled trunk takes nothing", "PUT", "trunks/" + disabled + "/add_subports", vlans(map[string]int{free: 6}), 409, "TrunkDisabled"},
		{"a disabled trunk stays", "DELETE", "trunks/" + disabled, nil, 409, "TrunkDisabled"},
	} {
		t.Run(tt.name, func(t *testing.T) { refused(t, k.do(k.network, tt.method, tt.path, tt.body, nil), tt.status, tt.kind) })
	}
	got, err := trunks.GetSubports(t.Context(), k.network, trunk).Extract()
	must(t, err)
	if len(got) != 1 || got[0].PortID != sub {
		t.Errorf("refused requests changed the subports to %+v", got)
	}
	must(t, trunks.Delete(t.Context(), k.network, trunk).ExtractErr())
	if p := k.getPort(sub); p.DeviceOwner != "" || p.Status != "DOWN" {
		t.Errorf("the subport of a deleted trunk is %s with owner %q", p.Status, p.DeviceOwner)
	}
}

func TestTrunksOfBoundPorts(t *testing.T) {
	for _, tt := range []struct {
		name    string
		options []openstacktest.Option
		create  string // exception, or none
		remove  string
	}{
		{"come and go under ML2/OVN", nil, "", ""},
		{"do not come or go under ML2/OVS", []openstacktest.Option{openstacktest.MechanismOVS()}, "ParentPortInUse", "TrunkInUse"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := connect(t, openstacktest.New(t, tt.options...), "fake")
			n := k.net("n")
			k.subnet(n.ID, "10.0.0.0/24")
			with, without := k.port(n.ID, "with").ID, k.port(n.ID, "without").ID
			trunk := k.make("trunks", "trunk", object{"port_id": with})
			server := k.boot("a", with)
			k.becomes(server, "ACTIVE")
			k.becomes(k.boot("b", without), "ACTIVE")
			check := func(err error, kind string) {
				t.Helper()
				if kind == "" {
					must(t, err)
				} else {
					refused(t, err, 409, kind)
				}
			}
			check(k.do(k.network, "POST", "trunks", object{"trunk": object{"port_id": without}}, nil), tt.create)
			must(t, servers.Delete(t.Context(), k.compute, server).ExtractErr())
			if tt.remove != "" {
				// A client that only tries again gets there: each refusal is a poll.
				refused(t, k.do(k.network, "DELETE", "trunks/"+trunk, nil, nil), 409, tt.remove)
				refused(t, k.do(k.network, "DELETE", "trunks/"+trunk, nil, nil), 409, tt.remove)
			}
			must(t, k.do(k.network, "DELETE", "trunks/"+trunk, nil, nil))
		})
	}
}

func TestSubportsFollowTheServer(t *testing.T) {
	c := openstacktest.New(t)
	k := connect(t, c, "fake")
	n := k.net("n")
	k.subnet(n.ID, "10.0.0.0/24")
	parent, early, late := k.port(n.ID, "parent").ID, k.port(n.ID, "early").ID, k.port(n.ID, "late").ID
	trunk := k.make("trunks", "trunk", object{"port_id": parent, "sub_ports": []object{{"port_id": early, "segmentation_type": "vlan", "segmentation_id": 5}}})
	if p := k.getPort(early); p.Status != "DOWN" || p.DeviceOwner != "trunk:subport" {
		t.Errorf("a subport without a server is %s with owner %q", p.Status, p.DeviceOwner)
	}
	server := k.boot("a", parent)
	k.becomes(server, "ACTIVE")
	must(t, k.do(k.network, "PUT", "trunks/"+trunk+"/add_subports", vlans(map[string]int{late: 6}), nil))
	for _, id := range []string{early, late} {
		if first, second := k.getPort(id).Status, k.getPort(id).Status; first != "DOWN" || second != "ACTIVE" {
			t.Errorf("a subport was %s and then %s, want DOWN and then ACTIVE", first, second)
		}
	}
	must(t, servers.Delete(t.Context(), k.compute, server).ExtractErr())
	k.getPort(parent)
	k.getPort(parent)
	if p := k.getPort(parent); p.DeviceID != "" || p.Status != "DOWN" {
		t.Errorf("the port of a deleted server is %s on device %q", p.Status, p.DeviceID)
	}
	if p := k.getPort(late); p.Status != "DOWN" {
		t.Errorf("a subport of a deleted server is %s", p.Status)
	}
}

func TestCloudWithoutTrunks(t *testing.T) {
	k := connect(t, openstacktest.New(t, openstacktest.WithoutExtension("trunk")), "fake")
	refused(t, k.do(k.network, "GET", "trunks", nil, nil), 404, "")
	refused(t, k.do(k.network, "GET", "extensions/trunk", nil, nil), 404, "ExtensionNotFound")
}

package openstacktest_test

import (
	"context"
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

// enable makes it possible to remove a trunk.
func (k *clients) enable(trunk string) {
	must(k.t, send(context.WithoutCancel(k.t.Context()), k.network, "PUT", "trunks/"+trunk, object{"trunk": object{"admin_state_up": true}}, nil))
}

func TestTrunkRefusals(t *testing.T) {
	onEachCloud(t, func(t *testing.T, k *clients) {
		n, small := k.net("n"), k.make("networks", "network", object{"mtu": 1300})
		parent, sub, free, thin := k.port(n.ID, "parent").ID, k.port(n.ID, "sub").ID, k.port(n.ID, "free").ID, k.port(small, "thin").ID
		trunk := k.make("trunks", "trunk", object{"port_id": parent, "sub_ports": []object{{"port_id": sub, "segmentation_type": "vlan", "segmentation_id": 5}}})
		thinTrunk := k.make("trunks", "trunk", object{"port_id": thin, "sub_ports": []object{}})
		disabled := k.make("trunks", "trunk", object{"port_id": k.port(n.ID, "off").ID, "admin_state_up": false})
		t.Cleanup(func() { k.enable(disabled) })
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
	})
}

func TestATrunkIsActiveWhateverItsSubports(t *testing.T) {
	onEachCloud(t, func(t *testing.T, k *clients) {
		n := k.net("n")
		parent, sub := k.port(n.ID, "parent").ID, k.port(n.ID, "sub").ID
		trunk := k.make("trunks", "trunk", object{"port_id": parent})
		k.trunkBecomes(trunk, "ACTIVE")
		must(t, k.do(k.network, "PUT", "trunks/"+trunk+"/add_subports", vlans(map[string]int{sub: 6}), nil))
		k.trunkBecomes(trunk, "ACTIVE")
		var p struct {
			Port struct {
				Trunk_Details struct {
					Trunk_ID  string
					Sub_Ports []struct {
						Port_ID         string
						Segmentation_ID int
					}
				}
			}
		}
		must(t, k.do(k.network, "GET", "ports/"+parent, nil, &p))
		if d := p.Port.Trunk_Details; d.Trunk_ID != trunk || len(d.Sub_Ports) != 1 || d.Sub_Ports[0].Port_ID != sub || d.Sub_Ports[0].Segmentation_ID != 6 {
			t.Errorf("the details are %+v", d)
		}
		must(t, k.do(k.network, "PUT", "trunks/"+trunk+"/remove_subports", object{"sub_ports": []object{{"port_id": sub}}}, nil))
		k.trunkBecomes(trunk, "ACTIVE")
		if p := k.getPort(sub); p.DeviceOwner != "" || p.Status != "DOWN" {
			t.Errorf("a port that was a subport is %s with owner %q", p.Status, p.DeviceOwner)
		}
	})
}

func TestTrunksOfBoundPortsDoNotComeOrGoUnderOVS(t *testing.T) {
	k := connect(t, openstacktest.New(t, openstacktest.MechanismOVS()), "fake")
	n := k.net("n")
	k.subnet(n.ID, "10.0.0.0/24")
	with, without := k.port(n.ID, "with").ID, k.port(n.ID, "without").ID
	trunk := k.make("trunks", "trunk", object{"port_id": with})
	server := k.boot("a", with, without)
	k.becomes(server, "ACTIVE")
	refused(t, k.do(k.network, "POST", "trunks", object{"trunk": object{"port_id": without}}, nil), 409, "ParentPortInUse")
	must(t, servers.Delete(t.Context(), k.compute, server).ExtractErr())
	// A client that only tries again gets there: each refusal is a poll.
	refused(t, k.do(k.network, "DELETE", "trunks/"+trunk, nil, nil), 409, "TrunkInUse")
	refused(t, k.do(k.network, "DELETE", "trunks/"+trunk, nil, nil), 409, "TrunkInUse")
	must(t, k.do(k.network, "DELETE", "trunks/"+trunk, nil, nil))
}

func TestSubportsFollowTheServerAndTrunksComeAndGoUnderOVN(t *testing.T) {
	onEachCloud(t, func(t *testing.T, k *clients) {
		n := k.net("n")
		k.subnet(n.ID, "10.0.0.0/24")
		parent, early, late, other := k.port(n.ID, "parent").ID, k.port(n.ID, "early").ID, k.port(n.ID, "late").ID, k.port(n.ID, "other").ID
		trunk := k.make("trunks", "trunk", object{"port_id": parent, "sub_ports": []object{{"port_id": early, "segmentation_type": "vlan", "segmentation_id": 5}}})
		if p := k.getPort(early); p.Status != "DOWN" || p.DeviceOwner != "trunk:subport" {
			t.Errorf("a subport without a server is %s with owner %q", p.Status, p.DeviceOwner)
		}
		server := k.boot("a", parent, other)
		k.becomes(server, "ACTIVE")
		must(t, k.do(k.network, "DELETE", "trunks/"+k.make("trunks", "trunk", object{"port_id": other}), nil, nil))
		if p := k.getPort(parent); p.DeviceID != server || p.DeviceOwner != "compute:nova" || p.Status != "ACTIVE" {
			t.Errorf("the port of an ACTIVE server is %s on device %q with owner %q", p.Status, p.DeviceID, p.DeviceOwner)
		}
		must(t, k.do(k.network, "PUT", "trunks/"+trunk+"/add_subports", vlans(map[string]int{late: 6}), nil))
		k.portBecomes(early, "ACTIVE")
		k.portBecomes(late, "ACTIVE")
		k.trunkBecomes(trunk, "ACTIVE")
		must(t, servers.Delete(t.Context(), k.compute, server).ExtractErr())
		k.until("the port of a deleted server to be free", func() (string, bool) {
			p := k.getPort(parent)
			return p.Status + " on " + p.DeviceID, p.DeviceID == "" && p.Status == "DOWN"
		})
		k.portBecomes(early, "DOWN")
		k.portBecomes(late, "DOWN")
		k.trunkBecomes(trunk, "DOWN")
	})
}

func TestSubportsComeUpAfterAWhile(t *testing.T) {
	k := connect(t, openstacktest.New(t), "fake")
	n := k.net("n")
	k.subnet(n.ID, "10.0.0.0/24")
	parent, sub := k.port(n.ID, "parent").ID, k.port(n.ID, "sub").ID
	trunk := k.make("trunks", "trunk", object{"port_id": parent})
	k.becomes(k.boot("a", parent), "ACTIVE")
	must(t, k.do(k.network, "PUT", "trunks/"+trunk+"/add_subports", vlans(map[string]int{sub: 6}), nil))
	if first, second := k.getPort(sub).Status, k.getPort(sub).Status; first != "DOWN" || second != "ACTIVE" {
		t.Errorf("a subport was %s and then %s, want DOWN and then ACTIVE", first, second)
	}
}

func TestCloudWithoutTrunks(t *testing.T) {
	k := connect(t, openstacktest.New(t, openstacktest.WithoutExtension("trunk")), "fake")
	refused(t, k.do(k.network, "GET", "trunks", nil, nil), 404, "")
	refused(t, k.do(k.network, "GET", "extensions/trunk", nil, nil), 404, "ExtensionNotFound")
}

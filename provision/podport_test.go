package provision

import (
	"testing"

	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
)

// twoPorts makes a pod network with room for four addresses and two ports on it, one of which is marked and on the trunk of the other.
func twoPorts(t *testing.T, s *Session) (network, parent, subport string) {
	t.Helper()
	make := func(c collection, name string, body map[string]any) string {
		t.Helper()
		b := Base{s: s, name: name}
		made, err := create[struct{ ID string }](t.Context(), s, c, b.born(body))
		if err != nil {
			t.Fatal(err)
		}
		return made.ID
	}
	network = make(networkCollection, "demo/pod_net", map[string]any{})
	make(subnetCollection, "demo/pod_subnet", map[string]any{"network_id": network, "ip_version": 4, "cidr": "10.10.0.0/24", "enable_dhcp": false,
		"allocation_pools": []map[string]string{{"start": "10.10.0.10", "end": "10.10.0.12"}, {"start": "10.10.0.20", "end": "10.10.0.20"}}})
	other := make(networkCollection, "demo/vm_net", map[string]any{})
	parent = make(portCollection, "demo/worker-0", map[string]any{"network_id": other})
	subport = make(portCollection, "default/web", map[string]any{"network_id": network})
	make(portCollection, "demo/router-port", map[string]any{"network_id": network, "fixed_ips": []map[string]string{{"ip_address": "10.10.0.1"}}})
	make(trunkCollection, "demo/worker-0", map[string]any{"port_id": parent, "sub_ports": []map[string]any{{"port_id": subport, "segmentation_type": "vlan", "segmentation_id": 7}}})
	if _, err := s.Discover(t.Context()); err != nil {
		t.Fatal(err)
	}
	return network, parent, subport
}

func TestPodPortsAreThoseOfThePodNetworkWithTheirTrunks(t *testing.T) {
	fake := openstacktest.New(t)
	s := session(t, fake)
	_, _, subport := twoPorts(t, s)
	all, err := s.PodPorts(t.Context())
	if err != nil || len(all) != 2 {
		t.Fatalf("%+v, %v", all, err)
	}
	for _, p := range all {
		if on := p.ID == subport; !p.Marked || p.Created.IsZero() || len(p.Addresses) != 1 || on != (p.Node == "worker-0" && p.VLAN == 7 && p.Name == "default/web") {
			t.Errorf("%+v", p)
		}
	}
}

func TestRoomIsCountedByNeutronOrElseByPorts(t *testing.T) {
	fake := openstacktest.New(t)
	s := session(t, fake)
	network, _, _ := twoPorts(t, s)
	all, err := s.Rooms(t.Context()) // who is no administrator is told of no network
	if err != nil || len(all) != 1 || all[0] != (Room{"demo/pod_net", 1, 4}) {
		t.Errorf("%+v, %v: the router's address is in no pool", all, err)
	}
	for _, status := range []int{403, 404} {
		fake.Fail("GET /v2.0/network-ip-availabilities", 1, status, "{}", nil)
		if again, err := s.Rooms(t.Context()); err != nil || len(again) != 1 || again[0] != all[0] {
			t.Errorf("after %d: %+v, %v", status, again, err)
		}
	}
	fake.Fail("GET /v2.0/network-ip-availabilities", 1, 200, `{"network_ip_availabilities": [{"network_id": "`+network+`", "subnet_ip_availability": [
		{"ip_version": 4, "used_ips": 3, "total_ips": 4}, {"ip_version": 4, "used_ips": 1, "total_ips": 6}, {"ip_version": 6, "used_ips": 1, "total_ips": 18446744073709551614}]}]}`, nil)
	if all, err = s.Rooms(t.Context()); err != nil || len(all) != 1 || all[0] != (Room{"demo/pod_net", 4, 10}) {
		t.Errorf("%+v, %v", all, err)
	}
}

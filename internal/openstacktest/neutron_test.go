package openstacktest_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/attributestags"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/quotas"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/subnets"
	"github.com/gophercloud/gophercloud/v2/pagination"

	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
)

const nobody = "11111111-1111-4111-8111-111111111111"

// topology is two networks on a router to the outside, for tests of refusals.
type topology struct {
	public, net, subnet, other, otherSubnet, router, port, group string
}

func (k *clients) topology() topology {
	k.t.Helper()
	t := topology{public: k.ids("networks", "name=public")[0], net: k.net("n").ID, other: k.net("o").ID}
	t.subnet, t.otherSubnet = k.subnet(t.net, "10.0.0.0/24").ID, k.subnet(t.other, "10.0.0.0/16").ID
	t.router = k.make("routers", "router", object{"name": "r", "external_gateway_info": object{"network_id": t.public}})
	must(k.t, k.do(k.network, "PUT", "routers/"+t.router+"/add_router_interface", object{"subnet_id": t.subnet}, nil))
	t.group = k.make("security-groups", "security_group", object{"name": "g"})
	t.port = k.make("ports", "port", object{"network_id": t.net, "name": "p", "security_groups": []string{t.group}})
	return t
}

// make creates one thing in Neutron and returns its id.
func (k *clients) make(collection, singular string, body object) string {
	k.t.Helper()
	var out map[string]struct{ ID string }
	must(k.t, k.do(k.network, "POST", collection, object{singular: body}, &out))
	return out[singular].ID
}

func TestNeutronRefusals(t *testing.T) {
	onEachCloud(t, func(t *testing.T, k *clients) {
		x := k.topology()
		fip := k.make("floatingips", "floatingip", object{"floating_network_id": x.public, "port_id": x.port})
		routerPort := k.ids("ports", "device_owner=network:router_interface&network_id="+x.net)[0]
		rule := object{"security_group_id": x.group, "direction": "ingress", "protocol": "tcp", "port_range_min": 22, "port_range_max": 22}
		k.make("security-group-rules", "security_group_rule", rule)
		taken := k.getPort(x.port).FixedIPs[0].IPAddress
		tests := []struct {
			name, method, path string
			body               any
			status             int
			kind               string
		}{
			{"a network with ports stays", "DELETE", "networks/" + x.net, nil, 409, "NetworkInUse"},
			{"a subnet with addresses in use stays", "DELETE", "subnets/" + x.subnet, nil, 409, "SubnetInUse"},
			{"a router with interfaces and floating IPs stays", "DELETE", "routers/" + x.router, nil, 409, "RouterExternalGatewayInUseByFloatingIp"},
			{"an interface that a floating IP needs stays", "PUT", "routers/" + x.router + "/remove_router_interface", object{"subnet_id": x.subnet}, 409, "RouterInterfaceInUseByFloatingIP"},
			{"a gateway that a floating IP needs stays", "PUT", "routers/" + x.router, object{"router": object{"external_gateway_info": nil}}, 409, "RouterExternalGatewayInUseByFloatingIp"},
			{"a router's port is not deleted as a port", "DELETE", "ports/" + routerPort, nil, 409, "ServicePortInUse"},
			{"a router's port is no second interface", "PUT", "routers/" + x.router + "/add_router_interface", object{"port_id": routerPort}, 409, "PortInUse"},
			{"overlapping subnets do not share a router", "PUT", "routers/" + x.router + "/add_router_interface", object{"subnet_id": x.otherSubnet}, 400, "BadRequest"},
			{"an interface needs a subnet or a port", "PUT", "routers/" + x.router + "/add_router_interface", object{}, 400, "BadRequest"},
			{"an interface that is not there is not removed", "PUT", "routers/" + x.router + "/remove_router_interface", object{"subnet_id": x.otherSubnet}, 404, "RouterInterfaceNotFoundForSubnet"},
			{"a port in no interface is not removed from a router", "PUT", "routers/" + x.router + "/remove_router_interface", object{"port_id": x.port}, 404, "RouterInterfaceNotFound"},
			{"a security group in use stays", "DELETE", "security-groups/" + x.group, nil, 409, "SecurityGroupInUse"},
			{"the name default is taken", "POST", "security-groups", object{"security_group": object{"name": "default"}}, 409, "SecurityGroupDefaultAlreadyExists"},
			{"a rule exists once", "POST", "security-group-rules", object{"security_group_rule": rule}, 409, "SecurityGroupRuleExists"},
			{"a rule from everywhere is the rule without a prefix", "POST", "security-group-rules", object{"security_group_rule": object{"security_group_id": x.group, "direction": "ingress",
				"protocol": "tcp", "port_range_min": 22, "port_range_max": 22, "remote_ip_prefix": "0.0.0.0/0"}}, 409, "SecurityGroupRuleExists"},
			{"ports need a protocol", "POST", "security-group-rules", object{"security_group_rule": object{"security_group_id": x.group, "direction": "ingress", "port_range_min": 1, "port_range_max": 2}}, 400, "SecurityGroupProtocolRequiredWithPorts"},
			{"a prefix is of the rule's family", "POST", "security-group-rules", object{"security_group_rule": object{"security_group_id": x.group, "direction": "ingress", "remote_ip_prefix": "::/0"}}, 400, "SecurityGroupRuleParameterConflict"},
			{"a port has one floating IP for an address", "POST", "floatingips", object{"floatingip": object{"floating_network_id": x.public, "port_id": x.port}}, 409, "FloatingIPPortAlreadyAssociated"},
			{"a floating IP is of an external network", "POST", "floatingips", object{"floatingip": object{"floating_network_id": x.net}}, 400, "BadRequest"},
			{"only an admin chooses a floating IP", "POST", "floatingips", object{"floatingip": object{"floating_network_id": x.public, "floating_ip_address": "172.24.4.9"}}, 403, "PolicyNotAuthorized"},
			{"an address is used once", "POST", "ports", object{"port": object{"network_id": x.net, "fixed_ips": []object{{"ip_address": taken}}}}, 409, "IpAddressAlreadyAllocated"},
			{"an address is of the network", "POST", "ports", object{"port": object{"network_id": x.net, "fixed_ips": []object{{"ip_address": "1.2.3.4"}}}}, 400, "InvalidIpForNetwork"},
			{"an address is of its subnet", "POST", "ports", object{"port": object{"network_id": x.net, "fixed_ips": []object{{"subnet_id": x.subnet, "ip_address": "1.2.3.4"}}}}, 400, "InvalidIpForSubnet"},
			{"a port's group exists", "POST", "ports", object{"port": object{"network_id": x.net, "security_groups": []string{nobody}}}, 404, "SecurityGroupNotFound"},
			{"the external network takes no ports of ours", "POST", "ports", object{"port": object{"network_id": x.public}}, 403, "HTTPForbidden"},
			{"groups need port security", "POST", "ports", object{"port": object{"network_id": x.net, "port_security_enabled": false, "security_groups": []string{x.group}}}, 400, "PortSecurityAndIPRequiredForSecurityGroups"},
			{"subnets of a network do not overlap", "POST", "subnets", object{"subnet": object{"network_id": x.net, "cidr": "10.0.0.128/25", "ip_version": 4}}, 400, "InvalidInput"},
			{"a pool stays within its subnet", "POST", "subnets", object{"subnet": object{"network_id": x.net, "cidr": "10.9.0.0/24", "ip_version": 4, "allocation_pools": []object{{"start": "10.8.0.2", "end": "10.8.0.3"}}}}, 400, "OutOfBoundsAllocationPool"},
			{"a pool leaves the gateway out", "POST", "subnets", object{"subnet": object{"network_id": x.net, "cidr": "10.9.0.0/24", "ip_version": 4, "allocation_pools": []object{{"start": "10.9.0.1", "end": "10.9.0.3"}}}}, 409, "GatewayConflictWithAllocationPools"},
			{"an external network is an admin's", "POST", "networks", object{"network": object{"router:external": true}}, 403, "PolicyNotAuthorized"},
			{"an MTU fits the overlay", "POST", "networks", object{"network": object{"mtu": 9000}}, 400, "InvalidInput"},
			{"tags are not for creation", "POST", "networks", object{"network": object{"tags": []string{"a"}}}, 400, "HTTPBadRequest"},
			{"quotas are an admin's", "PUT", "quotas/" + k.project(), object{"quota": object{"port": 1}}, 403, "PolicyNotAuthorized"},
			{"a tag is no longer than 255", "PUT", "ports/" + x.port + "/tags", object{"tags": []string{strings.Repeat("x", 256)}}, 400, "InvalidInput"},
			{"a tag that is not there is not removed", "DELETE", "ports/" + x.port + "/tags/zz", nil, 404, "TagNotFound"},
			{"what is not there is not found", "GET", "trunks/" + nobody, nil, 404, "TrunkNotFound"},
		}
		before := len(k.made())
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) { refused(t, k.do(k.network, tt.method, tt.path, tt.body, nil), tt.status, tt.kind) })
		}
		if made := k.made()[before:]; len(made) > 0 {
			t.Errorf("refused requests made %v", made)
		}
		must(t, k.do(k.network, "PUT", "floatingips/"+fip, object{"floatingip": object{"port_id": nil}}, nil))
		refused(t, k.do(k.network, "DELETE", "routers/"+x.router, nil, nil), 409, "RouterInUse")
		must(t, k.do(k.network, "PUT", "routers/"+x.router+"/remove_router_interface", object{"subnet_id": x.subnet}, nil))
		refused(t, k.do(k.network, "PUT", "floatingips/"+fip, object{"floatingip": object{"port_id": x.port}}, nil), 404, "ExternalGatewayForFloatingIPNotFound")
	})
}

func TestBulkIsAllOrNothing(t *testing.T) {
	onEachCloud(t, func(t *testing.T, k *clients) {
		n := k.net("n")
		k.subnet(n.ID, "10.0.0.0/24")
		good := object{"network_id": n.ID, "name": k.name("b")}
		refused(t, k.do(k.network, "POST", "ports", object{"ports": []object{good, {"network_id": n.ID, "fixed_ips": []object{{"ip_address": "1.2.3.4"}}}}}, nil), 400, "InvalidIpForNetwork")
		d, err := quotas.GetDetail(t.Context(), k.network, k.project()).Extract()
		must(t, err)
		groups := slices.Repeat([]object{{"name": k.name("b")}}, d.SecurityGroup.Limit+1)
		refused(t, k.do(k.network, "POST", "security-groups", object{"security_groups": groups}, nil), 409, "OverQuota")
		group := k.make("security-groups", "security_group", object{"name": k.name("g")})
		rule := func(port int) object {
			return object{"security_group_id": group, "direction": "ingress", "protocol": "tcp", "port_range_min": port, "port_range_max": port}
		}
		must(t, k.do(k.network, "POST", "security-group-rules", object{"security_group_rules": []object{rule(1), rule(2)}}, nil))
		refused(t, k.do(k.network, "POST", "security-group-rules", object{"security_group_rules": []object{rule(3), rule(2)}}, nil), 409, "SecurityGroupRuleExists")
		if got := k.ids("security-group-rules", "direction=ingress&security_group_id="+group); len(got) != 2 {
			t.Errorf("the group has %d rules, want 2", len(got))
		}
		if got := append(k.ids("ports", "name="+k.name("b")), k.ids("security-groups", "name="+k.name("b"))...); len(got) != 0 {
			t.Errorf("refused bulk requests left %q", got)
		}
		must(t, k.do(k.network, "POST", "ports", object{"ports": []object{good, good, good}}, nil))
		if got := k.ids("ports", "name="+k.name("b")); len(got) != 3 {
			t.Errorf("three ports in one request made %d of the same name", len(got))
		}
	})
}

func TestServicePortsCountAgainstTheQuota(t *testing.T) {
	c := openstacktest.New(t, openstacktest.Quota("network", "port", 4))
	k := connect(t, c, "fake")
	n := k.net("n")
	k.subnet(n.ID, "10.0.0.0/24") // the metadata port of the network is the fourth
	good := object{"network_id": n.ID}
	refused(t, k.do(k.network, "POST", "ports", object{"ports": []object{good, good, good, good}}, nil), 409, "OverQuota")
	must(t, k.do(k.network, "POST", "ports", object{"ports": []object{good, good, good}}, nil))
	d, err := quotas.GetDetail(t.Context(), k.network, c.ProjectID()).Extract()
	must(t, err)
	if d.Port.Limit != 4 || d.Port.Used != 4 {
		t.Errorf("the port quota is %+v, want 4 of 4 used", d.Port)
	}
}

func TestAddressesRunOut(t *testing.T) {
	onEachCloud(t, func(t *testing.T, k *clients) {
		n := k.net("n")
		k.subnet(n.ID, "10.0.0.0/29") // .1 is the gateway, one of .2 to .6 is the metadata port's
		for range 4 {
			k.port(n.ID, "p")
		}
		refused(t, k.do(k.network, "POST", "ports", object{"port": object{"network_id": n.ID}}, nil), 409, "IpAddressGenerationFailure")
	})
}

func TestAddressesOutsideThePoolCanBeAskedFor(t *testing.T) {
	onEachCloud(t, func(t *testing.T, k *clients) {
		n := k.net("n")
		_, err := subnets.Create(t.Context(), k.network, subnets.CreateOpts{NetworkID: n.ID, CIDR: "10.0.0.0/24", IPVersion: 4,
			AllocationPools: []subnets.AllocationPool{{Start: "10.0.0.128", End: "10.0.0.200"}}}).Extract()
		must(t, err)
		p, err := ports.Create(t.Context(), k.network, ports.CreateOpts{NetworkID: n.ID, FixedIPs: []ports.IP{{IPAddress: "10.0.0.5"}}}).Extract()
		must(t, err)
		if p.FixedIPs[0].IPAddress != "10.0.0.5" {
			t.Errorf("got %s", p.FixedIPs[0].IPAddress)
		}
	})
}

func TestAnInterfacesPortGoesWithIt(t *testing.T) {
	onEachCloud(t, func(t *testing.T, k *clients) {
		n := k.net("n").ID
		s := k.subnet(n, "10.0.0.0/24").ID
		router := k.make("routers", "router", object{"name": k.name("r")})
		p := k.make("ports", "port", object{"network_id": n, "fixed_ips": []object{{"ip_address": "10.0.0.254"}}})
		must(t, k.do(k.network, "PUT", "routers/"+router+"/add_router_interface", object{"port_id": p}, nil))
		if p := k.getPort(p); p.DeviceID != router || p.DeviceOwner != "network:router_interface" {
			t.Errorf("the interface's port is of %q on device %q", p.DeviceOwner, p.DeviceID)
		}
		must(t, k.do(k.network, "PUT", "routers/"+router+"/remove_router_interface", object{"subnet_id": s}, nil))
		refused(t, k.do(k.network, "GET", "ports/"+p, nil, nil), 404, "PortNotFound")
	})
}

func TestAFloatingIPOutlivesItsPort(t *testing.T) {
	onEachCloud(t, func(t *testing.T, k *clients) {
		x := k.topology()
		fip := k.make("floatingips", "floatingip", object{"floating_network_id": x.public, "port_id": x.port})
		has := func(port string) {
			t.Helper()
			var got struct {
				FloatingIP struct{ Port_ID, Status string }
			}
			must(t, k.do(k.network, "GET", "floatingips/"+fip, nil, &got))
			if got.FloatingIP.Port_ID != port || (got.FloatingIP.Status == "DOWN") != (port == "") {
				t.Errorf("the floating IP is %s on port %q, want %q", got.FloatingIP.Status, got.FloatingIP.Port_ID, port)
			}
		}
		has(x.port)
		must(t, k.do(k.network, "DELETE", "ports/"+x.port, nil, nil))
		has("")
		other := k.port(x.net, "other").ID
		must(t, k.do(k.network, "PUT", "floatingips/"+fip, object{"floatingip": object{"port_id": other}}, nil))
		has(other)
	})
}

func TestPortsAreChanged(t *testing.T) {
	onEachCloud(t, func(t *testing.T, k *clients) {
		n := k.net("n").ID
		k.subnet(n, "10.0.0.0/24")
		p := k.port(n, "p")
		if len(p.SecurityGroups) != 1 || p.Status != "DOWN" {
			t.Errorf("a new port is %s with the groups %q, want the default group", p.Status, p.SecurityGroups)
		}
		must(t, k.do(k.network, "PUT", "ports/"+p.ID, object{"port": object{"name": k.name("q"), "description": "d", "security_groups": []string{},
			"allowed_address_pairs": []object{{"ip_address": "10.9.0.0/16"}}, "fixed_ips": []object{{"ip_address": "10.0.0.77"}}}}, nil))
		got := k.getPort(p.ID)
		if got.Name != k.name("q") || got.Description != "d" || len(got.SecurityGroups) != 0 || len(got.FixedIPs) != 1 || got.FixedIPs[0].IPAddress != "10.0.0.77" || got.RevisionNumber <= p.RevisionNumber {
			t.Errorf("the port is %+v", got)
		}
		if a := got.AllowedAddressPairs; len(a) != 1 || a[0].MACAddress != p.MACAddress {
			t.Errorf("the pairs are %+v, want the port's own MAC address", a)
		}
	})
}

func TestDeletingANetworkTakesItsSubnetsAndMetadataPort(t *testing.T) {
	onEachCloud(t, func(t *testing.T, k *clients) {
		n := k.net("n")
		k.subnet(n.ID, "10.0.0.0/24")
		if got := k.ids("ports", "network_id="+n.ID+"&device_owner=network:distributed"); len(got) != 1 {
			t.Fatalf("the network has %d metadata ports", len(got))
		}
		must(t, networks.Delete(t.Context(), k.network, n.ID).ExtractErr())
		if left := append(k.ids("ports", "network_id="+n.ID), k.ids("subnets", "network_id="+n.ID)...); len(left) > 0 {
			t.Errorf("left over: %q", left)
		}
	})
}

func TestListsFilterExactly(t *testing.T) {
	onEachCloud(t, func(t *testing.T, k *clients) {
		n := k.net("n")
		s := k.subnet(n.ID, "10.0.0.0/24")
		mine, demo, demo2 := "&network_id="+n.ID+"&device_owner=", k.name("demo"), k.name("demo-2")
		a := k.make("ports", "port", object{"network_id": n.ID, "name": demo, "description": "kuryrctl stack=" + demo, "fixed_ips": []object{{"ip_address": "10.0.0.9"}}})
		b := k.make("ports", "port", object{"network_id": n.ID, "name": demo2, "description": "kuryrctl stack=" + demo2})
		for id, tags := range map[string][]string{a: {"x", "y"}, b: {"y"}} {
			_, err := attributestags.ReplaceAll(t.Context(), k.network, "ports", id, attributestags.ReplaceAllOpts{Tags: tags}).Extract()
			must(t, err)
		}
		for query, want := range map[string][]string{
			"name=" + demo: {a}, "description=kuryrctl%20stack%3D" + demo: {a}, "id=" + b: {b}, "id=" + a + "&id=" + b: {a, b},
			"tags=y" + mine: {a, b}, "tags=x,y" + mine: {a}, "tags-any=x,y" + mine: {a, b}, "tags=x&name=" + demo2: {}, "not-tags=x&name=" + demo2: {b}, "not-tags-any=y" + mine: {},
			"fixed_ips=ip_address%3D10.0.0.9" + mine: {a}, "fixed_ips=ip_address%3D10.0.0.9&fixed_ips=subnet_id%3D" + s.ID: {a}, "fixed_ips=subnet_id%3D" + s.ID + "&device_id=" + mine: {a, b},
			"network_id=" + nobody: {}, "status=DOWN" + mine: {a, b},
		} {
			t.Run(query, func(t *testing.T) {
				got := k.ids("ports", query)
				slices.Sort(got)
				slices.Sort(want)
				if !slices.Equal(got, want) {
					t.Errorf("got %q, want %q", got, want)
				}
			})
		}
	})
}

func TestListsComeInPages(t *testing.T) {
	onEachCloud(t, func(t *testing.T, k *clients) {
		n, want := k.net("n"), map[string]bool{}
		for range 5 {
			want[k.port(n.ID, "p").ID] = true
		}
		var sizes []int
		err := ports.List(k.network, ports.ListOpts{Name: k.name("p"), Limit: 2}).EachPage(t.Context(), func(_ context.Context, p pagination.Page) (bool, error) {
			page, err := ports.ExtractPorts(p)
			for _, p := range page {
				delete(want, p.ID)
			}
			sizes = append(sizes, len(page))
			return true, err
		})
		must(t, err)
		if len(want) > 0 || !slices.Equal(sizes, []int{2, 2, 1}) {
			t.Errorf("pages of %v, missing %v", sizes, want)
		}
		refused(t, k.do(k.network, "GET", "networks?limit=1&marker="+nobody, nil, nil), 404, "NetworkNotFound")
	})
}

func TestRevisionNumberGuardsAnUpdate(t *testing.T) {
	onEachCloud(t, func(t *testing.T, k *clients) {
		n := k.net("n")
		name, stale := "m", n.RevisionNumber
		_, err := networks.Update(t.Context(), k.network, n.ID, networks.UpdateOpts{Name: &name, RevisionNumber: &stale}).Extract()
		must(t, err)
		_, err = networks.Update(t.Context(), k.network, n.ID, networks.UpdateOpts{Name: &name, RevisionNumber: &stale}).Extract()
		refused(t, err, 412, "RevisionNumberConstraintFailed")
	})
}

// tagged makes a port with a tag, and has its tags.
func (k *clients) tagged() []string {
	k.t.Helper()
	return k.getPort(k.make("ports", "port", object{"network_id": k.net("n").ID, "tags": []string{"a"}})).Tags
}

func TestTagsAtCreationAreDroppedWithoutAWordForPorts(t *testing.T) {
	onEachCloud(t, func(t *testing.T, k *clients) {
		if got := k.tagged(); len(got) != 0 {
			t.Errorf("the port has the tags %q", got)
		}
	})
}

func TestTagsAtCreationAreKeptWhereNeutronTakesThem(t *testing.T) {
	if got := connect(t, openstacktest.New(t, openstacktest.TagsAtCreation()), "fake").tagged(); len(got) != 1 {
		t.Errorf("the port has the tags %q", got)
	}
}

func TestUnknownThingsFailTheTest(t *testing.T) {
	for name, do := range map[string]func(k *clients) error{
		"an unknown route":  func(k *clients) error { return k.do(k.network, "GET", "elephants", nil, nil) },
		"an unknown filter": func(k *clients) error { return k.do(k.network, "GET", "ports?colour=red", nil, nil) },
		"an unknown field": func(k *clients) error {
			return k.do(k.network, "POST", "networks", object{"network": object{"colour": "red"}}, nil)
		},
		"a fixed field": func(k *clients) error {
			return k.do(k.network, "PUT", "networks/"+k.net("n").ID, object{"network": object{"status": "DOWN"}}, nil)
		},
		"bulk for routers": func(k *clients) error {
			return k.do(k.network, "POST", "routers", object{"routers": []object{{}}}, nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := &loose{TB: t}
			k := connect(t, openstacktest.New(l), "fake")
			if err := do(k); err == nil || len(l.failures) != 1 {
				t.Errorf("err %v, failures %q", err, l.failures)
			}
		})
	}
}

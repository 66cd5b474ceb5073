package openstacktest_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/loadbalancer/v2/listeners"
	"github.com/gophercloud/gophercloud/v2/openstack/loadbalancer/v2/loadbalancers"
	"github.com/gophercloud/gophercloud/v2/openstack/loadbalancer/v2/pools"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/layer3/floatingips"

	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
)

// octaviaRefused demands a status and a word of Octavia's sentence.
func octaviaRefused(t testing.TB, err error, status int, word string) {
	t.Helper()
	if !gophercloud.ResponseCodeIs(err, status) || !strings.Contains(err.Error(), word) {
		t.Fatalf("got %v, want %d with %q", err, status, word)
	}
}

// tree is a load balancer with a listener, a pool and one member, ACTIVE.
type tree struct{ lb, listener, pool, vipPort, subnet string }

func (k *clients) tree(algorithm string) tree {
	k.t.Helper()
	n := k.net("n")
	s := k.subnet(n.ID, "10.0.0.0/24").ID
	lb, err := loadbalancers.Create(k.t.Context(), k.balancer, loadbalancers.CreateOpts{Name: k.name("lb"), VipSubnetID: s, Description: k.name("d"), Tags: []string{"a"},
		Listeners: []listeners.CreateOpts{{Name: "l", Protocol: "TCP", ProtocolPort: 80, DefaultPool: &pools.CreateOpts{Name: "p", Protocol: "TCP", LBMethod: pools.LBMethod(algorithm),
			Members: []pools.CreateMemberOpts{{Address: "10.0.0.50", ProtocolPort: 80}}}}}}).Extract()
	must(k.t, err)
	if lb.ProvisioningStatus != "PENDING_CREATE" || len(lb.Pools) != 1 || len(lb.Pools[0].Members) != 1 || len(lb.Listeners) != 1 {
		k.t.Fatalf("the new tree is %+v", lb)
	}
	x := tree{lb.ID, lb.Listeners[0].ID, lb.Pools[0].ID, lb.VipPortID, s}
	k.balancerBecomes(lb.ID, "ACTIVE")
	return x
}

// settle waits until nothing of a load balancer's tree is in transition.
func (k *clients) settle(lb string) {
	k.t.Helper()
	k.until("load balancer "+lb+" to settle", func() (string, bool) {
		var tree json.RawMessage
		must(k.t, k.do(k.balancer, "GET", "lbaas/loadbalancers/"+lb+"/status", nil, &tree))
		return string(tree), !bytes.Contains(tree, []byte("PENDING"))
	})
}

// settledTree is a tree that can be changed and removed.
func (k *clients) settledTree() tree {
	k.t.Helper()
	x := k.tree("SOURCE_IP_PORT")
	k.settle(x.lb)
	return x
}

// members are the members of a pool as address to provisioning status.
func (k *clients) members(pool string) map[string]string {
	k.t.Helper()
	pages, err := pools.ListMembers(k.balancer, pool, nil).AllPages(k.t.Context())
	must(k.t, err)
	all, err := pools.ExtractMembers(pages)
	must(k.t, err)
	out := map[string]string{}
	for _, m := range all {
		out[m.Address] = m.ProvisioningStatus
	}
	return out
}

func TestBalancerRefusals(t *testing.T) {
	onEachCloud(t, func(t *testing.T, k *clients) {
		x := k.settledTree()
		lb := func(more object) object {
			body := object{"vip_subnet_id": x.subnet}
			for key, v := range more {
				body[key] = v
			}
			return object{"loadbalancer": body}
		}
		listener := func(protocol string, port int) object {
			return object{"listener": object{"loadbalancer_id": x.lb, "protocol": protocol, "protocol_port": port}}
		}
		for _, tt := range []struct {
			name, method, path string
			body               any
			status             int
			word               string
		}{
			{"a VIP is somewhere", "POST", "lbaas/loadbalancers", object{"loadbalancer": object{"name": "x"}}, 400, "VIP must contain one of"},
			{"a VIP's address is of its subnet", "POST", "lbaas/loadbalancers", lb(object{"vip_address": "1.2.3.4"}), 500, "Provider 'ovn' reports error: IP address 1.2.3.4 is not a valid IP"},
			{"a provider is enabled", "POST", "lbaas/loadbalancers", lb(object{"provider": "amphora"}), 400, "Provider 'amphora' is not enabled."},
			{"children need cascade", "DELETE", "lbaas/loadbalancers/" + x.lb, nil, 400, "it has children"},
			{"a port has one listener", "POST", "lbaas/listeners", listener("TCP", 80), 409, "already using protocol TCP and protocol_port 80"},
			{"OVN has no HTTP", "POST", "lbaas/listeners", listener("HTTP", 81), 501, "OVN provider does not support HTTP protocol"},
			{"OVN has one algorithm", "POST", "lbaas/pools", object{"pool": object{"loadbalancer_id": x.lb, "protocol": "TCP", "lb_algorithm": "ROUND_ROBIN"}}, 501, "OVN provider does not support ROUND_ROBIN algorithm"},
			{"OVN checks health by TCP", "POST", "lbaas/healthmonitors", object{"healthmonitor": object{"pool_id": x.pool, "type": "HTTP", "delay": 5, "timeout": 5, "max_retries": 3}}, 501, "health monitor type"},
			{"a listener has one default pool", "POST", "lbaas/pools", object{"pool": object{"listener_id": x.listener, "protocol": "TCP", "lb_algorithm": "SOURCE_IP_PORT"}}, 409, "already has a default pool"},
			{"a member is in a pool once", "POST", "lbaas/pools/" + x.pool + "/members", object{"member": object{"address": "10.0.0.50", "protocol_port": 80}}, 409, "already using ip 10.0.0.50"},
			{"a new member is in a request once", "PUT", "lbaas/pools/" + x.pool + "/members", object{"members": []object{{"address": "10.0.0.51", "protocol_port": 80}, {"address": "10.0.0.51", "protocol_port": 80}}}, 409, "already using ip 10.0.0.51"},
			{"so is one that is there", "PUT", "lbaas/pools/" + x.pool + "/members", object{"members": []object{{"address": "10.0.0.50", "protocol_port": 80}, {"address": "10.0.0.50", "protocol_port": 80}}}, 400, "updated only once"},
			{"OVN asks for a member's subnet", "POST", "lbaas/pools/" + x.pool + "/members", object{"member": object{"address": "10.9.0.1", "protocol_port": 80}}, 501, "Subnet is required"},
			{"and for those of all members", "PUT", "lbaas/pools/" + x.pool + "/members", object{"members": []object{{"address": "10.0.0.51", "protocol_port": 80}, {"address": "10.9.0.1", "protocol_port": 80}}}, 501, "Subnet is required"},
			{"TCP's persistence has no timeout", "PUT", "lbaas/pools/" + x.pool, object{"pool": object{"session_persistence": object{"type": "SOURCE_IP", "persistence_timeout": 60}}}, 400, "persistence_timeout"},
			{"nor has it in a new pool", "POST", "lbaas/pools", object{"pool": object{"loadbalancer_id": x.lb, "protocol": "TCP", "lb_algorithm": "SOURCE_IP_PORT", "session_persistence": object{"type": "SOURCE_IP", "persistence_timeout": 60}}}, 400, "persistence_timeout"},
			{"OVN has no lists of clients", "POST", "lbaas/listeners", object{"listener": object{"loadbalancer_id": x.lb, "protocol": "TCP", "protocol_port": 82, "allowed_cidrs": []string{"10.0.0.0/8"}}}, 501, "allowed_cidrs"},
			{"a protocol exists", "POST", "lbaas/listeners", listener("XYZ", 83), 400, "protocol"},
			{"a port is one", "POST", "lbaas/listeners", listener("TCP", 65536), 400, "protocol_port"},
			{"a pool speaks its listener's protocol", "POST", "lbaas/listeners", object{"listener": object{"loadbalancer_id": x.lb, "protocol": "UDP", "protocol_port": 84, "default_pool_id": x.pool}}, 400, "protocol"},
			{"a member's weight has a limit", "POST", "lbaas/pools/" + x.pool + "/members", object{"member": object{"address": "10.0.0.51", "protocol_port": 80, "weight": 257}}, 400, "weight"},
			{"a pool that is not there has no members", "GET", "lbaas/pools/" + nobody + "/members", nil, 404, "not found"},
			{"a member that is not there is not removed", "DELETE", "lbaas/pools/" + x.pool + "/members/" + nobody, nil, 404, "not found"},
			{"quotas are an admin's", "PUT", "quotas/" + nobody, object{"quota": object{"pool": 1}}, 403, "Policy does not allow"},
			{"what is not there is not found", "GET", "lbaas/loadbalancers/" + nobody, nil, 404, "Load Balancer " + nobody + " not found."},
		} {
			t.Run(tt.name, func(t *testing.T) {
				octaviaRefused(t, k.do(k.balancer, tt.method, tt.path, tt.body, nil), tt.status, tt.word)
			})
		}
	})
}

// TestOVNKeepsClientsAsLongAsItWasToldWhenThePoolWasMade: as with ovn-octavia-provider 8.0.0 behind Octavia 16.0.0.
func TestOVNKeepsClientsAsLongAsItWasToldWhenThePoolWasMade(t *testing.T) {
	c := openstacktest.New(t, openstacktest.Polls(0))
	k := connect(t, c, "fake")
	s := k.subnet(k.net("n").ID, "10.0.0.0/24").ID
	pool := func(name, protocol string, persistence any) object {
		return object{"name": name, "protocol": protocol, "lb_algorithm": "SOURCE_IP_PORT", "session_persistence": persistence}
	}
	sixty, ever := object{"type": "SOURCE_IP", "persistence_timeout": 60}, object{"type": "SOURCE_IP"}
	var made struct {
		LoadBalancer struct {
			ID    string
			Pools []struct{ ID, Name string }
		}
	}
	must(t, k.do(k.balancer, "POST", "lbaas/loadbalancers", object{"loadbalancer": object{"name": "lb", "vip_subnet_id": s, "pools": []object{pool("tcp", "TCP", sixty), pool("udp", "UDP", sixty)}}}, &made))
	id := map[string]string{}
	for _, p := range made.LoadBalancer.Pools {
		id[p.Name] = p.ID
	}
	want := func(tcp, udp int) {
		t.Helper()
		if gotTCP, gotUDP := c.Affinity("lb", "TCP"), c.Affinity("lb", "UDP"); gotTCP != tcp || gotUDP != udp {
			t.Errorf("clients are kept for %d s with TCP and %d s with UDP, want %d and %d", gotTCP, gotUDP, tcp, udp)
		}
	}
	put := func(name string, persistence any) {
		t.Helper()
		must(t, k.do(k.balancer, "PUT", "lbaas/pools/"+id[name], object{"pool": object{"session_persistence": persistence}}, nil))
	}
	want(60, 60)
	put("udp", object{"type": "SOURCE_IP", "persistence_timeout": 90})
	want(60, 90)
	put("udp", nil)
	want(60, 90)
	put("udp", ever)
	want(60, 0)
	more := pool("more", "TCP", ever)
	more["loadbalancer_id"] = made.LoadBalancer.ID
	var second struct{ Pool struct{ ID string } }
	must(t, k.do(k.balancer, "POST", "lbaas/pools", object{"pool": more}, &second))
	want(60, 0)
	must(t, k.do(k.balancer, "DELETE", "lbaas/pools/"+second.Pool.ID, nil, nil))
	want(0, 0)
}

func TestATreeRefusedByOVNLeavesItsVIPPort(t *testing.T) {
	onEachCloud(t, func(t *testing.T, k *clients) {
		s := k.subnet(k.net("n").ID, "10.0.0.0/24").ID
		err := k.do(k.balancer, "POST", "lbaas/loadbalancers", object{"loadbalancer": object{"vip_subnet_id": s,
			"listeners": []object{{"protocol": "TCP", "protocol_port": 80, "default_pool": object{"protocol": "TCP", "lb_algorithm": "SOURCE_IP_PORT"}}}}}, nil)
		octaviaRefused(t, err, 400, "Pools must be named")
		var page struct{ Ports []struct{ ID, Name string } }
		must(t, k.do(k.network, "GET", "ports?fixed_ips=subnet_id%3D"+s+"&device_owner=", nil, &page))
		if len(page.Ports) != 1 || !strings.HasPrefix(page.Ports[0].Name, "ovn-lb-vip-") {
			t.Errorf("left over: %+v", page.Ports)
		}
		for _, p := range page.Ports {
			must(t, k.do(k.network, "DELETE", "ports/"+p.ID, nil, nil))
		}
	})
}

func TestProvidersWithoutTrees(t *testing.T) {
	k := connect(t, openstacktest.New(t, openstacktest.RefuseTrees(), openstacktest.Provider("amphora")), "fake")
	s := k.subnet(k.net("n").ID, "10.0.0.0/24").ID
	err := k.do(k.balancer, "POST", "lbaas/loadbalancers", object{"loadbalancer": object{"vip_subnet_id": s, "listeners": []object{{"protocol": "TCP", "protocol_port": 80}}}}, nil)
	octaviaRefused(t, err, 501, "fully populated")
	lb, err := loadbalancers.Create(t.Context(), k.balancer, loadbalancers.CreateOpts{VipSubnetID: s}).Extract()
	must(t, err)
	if p := k.getPort(lb.VipPortID); p.DeviceOwner != "Octavia" || p.Name != "octavia-lb-"+lb.ID {
		t.Errorf("the VIP port is %s of %q", p.Name, p.DeviceOwner)
	}
}

func TestPendingBalancersAreImmutable(t *testing.T) {
	onEachCloud(t, func(t *testing.T, k *clients) {
		x := k.settledTree()
		var err error
		for n := 51; err == nil && n < 100; n++ { // until one is not done with a change before the next comes
			err = k.addMember(x.pool, fmt.Sprint("10.0.0.", n))
		}
		octaviaRefused(t, err, 409, "is immutable and cannot be updated")
		k.settle(x.lb)
		must(t, k.addMember(x.pool, "10.0.0.101"))
	})
}

func TestARefusalForAPendingBalancerIsALook(t *testing.T) {
	k := connect(t, openstacktest.New(t, openstacktest.Polls(3)), "fake")
	x := k.settledTree()
	must(t, k.addMember(x.pool, "10.0.0.51"))
	octaviaRefused(t, k.addMember(x.pool, "10.0.0.52"), 409, "is immutable and cannot be updated")
	octaviaRefused(t, k.do(k.balancer, "DELETE", "lbaas/loadbalancers/"+x.lb+"?cascade=true", nil, nil), 409, "Invalid state PENDING_UPDATE")
	octaviaRefused(t, k.addMember(x.pool, "10.0.0.52"), 409, "is immutable") // the third refusal was the third look
	k.settle(x.lb)
	must(t, k.addMember(x.pool, "10.0.0.52"))
}

// As it was left by an octavia-api that was killed; with Octavia 16.0.0.
func TestAPoolThatIsPendingTakesNoMembers(t *testing.T) {
	c := openstacktest.New(t)
	k := connect(t, c, "fake")
	x := k.settledTree()
	c.Set("pool", x.pool, "provisioning_status", "PENDING_CREATE")
	octaviaRefused(t, k.addMember(x.pool, "10.0.0.51"), 409, "Pool "+x.pool+" is immutable")
}

func (k *clients) addMember(pool, address string) error {
	return k.do(k.balancer, "POST", "lbaas/pools/"+pool+"/members", object{"member": object{"address": address, "protocol_port": 80}}, nil)
}

func TestBalancerIsActiveBeforeItsMembersWithOVN(t *testing.T) {
	for provider, want := range map[string]string{"ovn": "PENDING_CREATE", "amphora": "ACTIVE"} {
		t.Run(provider, func(t *testing.T) {
			k := connect(t, openstacktest.New(t, openstacktest.Provider(provider)), "fake")
			algorithm := map[string]string{"ovn": "SOURCE_IP_PORT", "amphora": "ROUND_ROBIN"}[provider]
			x := k.tree(algorithm)
			// k.tree looked until the load balancer was ACTIVE, and no further.
			var page struct {
				Pool struct{ Provisioning_status string }
			}
			must(t, k.do(k.balancer, "PUT", "lbaas/pools/"+x.pool, object{"pool": object{"description": "x"}}, &page))
			if got := page.Pool.Provisioning_status; (got == "PENDING_CREATE") != (want == "PENDING_CREATE") {
				t.Errorf("the pool of an ACTIVE load balancer is %s", got)
			}
		})
	}
}

func TestMembersAreReplacedInOneRequest(t *testing.T) {
	onEachCloud(t, func(t *testing.T, k *clients) {
		x := k.settledTree()
		put := func(query string, addresses ...string) {
			t.Helper()
			body := []object{}
			for _, a := range addresses {
				body = append(body, object{"address": a, "protocol_port": 80, "weight": 5})
			}
			must(t, k.do(k.balancer, "PUT", "lbaas/pools/"+x.pool+"/members"+query, object{"members": body}, nil))
			k.settle(x.lb)
		}
		has := func(addresses ...string) {
			t.Helper()
			k.until("the members", func() (string, bool) {
				got := k.members(x.pool)
				same := len(got) == len(addresses)
				for _, a := range addresses {
					same = same && got[a] == "ACTIVE"
				}
				return fmt.Sprint(got), same
			})
		}
		put("?additive_only=true", "10.0.0.51")
		has("10.0.0.50", "10.0.0.51")
		put("", "10.0.0.51", "10.0.0.52")
		has("10.0.0.51", "10.0.0.52")
		put("")
		has()
	})
}

func TestReplacedMembersAreActiveOnceMoreWithOVN(t *testing.T) {
	k := connect(t, openstacktest.New(t), "fake")
	x := k.settledTree()
	must(t, k.do(k.balancer, "PUT", "lbaas/pools/"+x.pool+"/members", object{"members": []object{{"address": "10.0.0.51", "protocol_port": 80}}}, nil))
	var seen []string
	for range 6 {
		seen = append(seen, k.members(x.pool)["10.0.0.50"])
	}
	if seen = slices.Compact(seen); !slices.Equal(seen, []string{"PENDING_DELETE", "ACTIVE", ""}) {
		t.Errorf("a replaced member was %q", seen)
	}
}

func TestDeletedTreeKeepsTheFloatingIP(t *testing.T) {
	onEachCloud(t, func(t *testing.T, k *clients) {
		x := k.settledTree()
		public := k.ids("networks", "name=public")[0]
		router := k.make("routers", "router", object{"external_gateway_info": object{"network_id": public}})
		must(t, k.do(k.network, "PUT", "routers/"+router+"/add_router_interface", object{"subnet_id": x.subnet}, nil))
		fip := k.make("floatingips", "floatingip", object{"floating_network_id": public, "port_id": x.vipPort})
		must(t, loadbalancers.Delete(t.Context(), k.balancer, x.lb, loadbalancers.DeleteOpts{Cascade: true}).ExtractErr())
		k.until("the deletion of the load balancer", func() (string, bool) {
			lb, err := loadbalancers.Get(t.Context(), k.balancer, x.lb).Extract()
			if err != nil {
				octaviaRefused(t, err, 404, "not found")
				return "", true
			}
			if lb.ProvisioningStatus != "PENDING_DELETE" {
				t.Fatalf("a deleted load balancer is %s", lb.ProvisioningStatus)
			}
			return lb.ProvisioningStatus, false
		})
		refused(t, k.do(k.network, "GET", "ports/"+x.vipPort, nil, nil), 404, "PortNotFound")
		for _, path := range []string{"listeners/" + x.listener, "pools/" + x.pool} {
			octaviaRefused(t, k.do(k.balancer, "GET", "lbaas/"+path, nil, nil), 404, "not found")
		}
		f, err := floatingips.Get(t.Context(), k.network, fip).Extract()
		must(t, err)
		if f.PortID != "" || f.Status != "DOWN" {
			t.Errorf("the floating IP is %s on port %q", f.Status, f.PortID)
		}
	})
}

func TestTreeDeletedWhileItSettlesIsShownActiveOnceMore(t *testing.T) {
	k := connect(t, openstacktest.New(t), "fake")
	x := k.tree("SOURCE_IP_PORT") // the load balancer is ACTIVE, what is below is not
	must(t, loadbalancers.Delete(t.Context(), k.balancer, x.lb, loadbalancers.DeleteOpts{Cascade: true}).ExtractErr())
	for _, want := range []string{"PENDING_DELETE", "ACTIVE"} {
		lb, err := loadbalancers.Get(t.Context(), k.balancer, x.lb).Extract()
		must(t, err)
		if lb.ProvisioningStatus != want {
			t.Errorf("the load balancer is %s, want %s", lb.ProvisioningStatus, want)
		}
	}
	for range 2 {
		_ = k.do(k.balancer, "GET", "lbaas/loadbalancers/"+x.lb, nil, nil)
	}
	octaviaRefused(t, k.do(k.balancer, "GET", "lbaas/loadbalancers/"+x.lb, nil, nil), 404, "not found")
}

func TestASecondDeletionBesideTheFirstEndsInError(t *testing.T) {
	k := connect(t, openstacktest.New(t), "fake")
	x := k.tree("SOURCE_IP_PORT")
	remove := func() error {
		return loadbalancers.Delete(t.Context(), k.balancer, x.lb, loadbalancers.DeleteOpts{Cascade: true}).ExtractErr()
	}
	until := func(want string) {
		t.Helper()
		for range 10 {
			if lb, err := loadbalancers.Get(t.Context(), k.balancer, x.lb).Extract(); err == nil && lb.ProvisioningStatus == want {
				return
			}
		}
		t.Fatalf("the load balancer is not %s", want)
	}
	must(t, remove())
	until("ACTIVE")
	must(t, remove())
	until("ERROR")
	must(t, remove())
	for range 3 {
		_ = k.do(k.balancer, "GET", "lbaas/loadbalancers/"+x.lb, nil, nil)
	}
	octaviaRefused(t, k.do(k.balancer, "GET", "lbaas/loadbalancers/"+x.lb, nil, nil), 404, "not found")
}

func TestBalancersAreFoundByTagNameAndDescription(t *testing.T) {
	onEachCloud(t, func(t *testing.T, k *clients) {
		x := k.settledTree()
		for query, want := range map[string]int{"tags=a&name=" + k.name("lb"): 1, "tags=b&name=" + k.name("lb"): 0, "name=" + k.name("lb"): 1, "description=" + k.name("d"): 1,
			"vip_port_id=" + x.vipPort: 1, "vip_subnet_id=" + x.subnet: 1, "name=" + k.name("l"): 0} {
			var page struct{ LoadBalancers []struct{ ID string } }
			must(t, k.do(k.balancer, "GET", "lbaas/loadbalancers?"+query, nil, &page))
			if len(page.LoadBalancers) != want {
				t.Errorf("%s finds %d, want %d", query, len(page.LoadBalancers), want)
			}
		}
	})
}

func TestBalancerQuota(t *testing.T) {
	k := connect(t, openstacktest.New(t, openstacktest.Quota("load-balancer", "load_balancer", 1)), "fake")
	x := k.tree("SOURCE_IP_PORT")
	_, err := loadbalancers.Create(t.Context(), k.balancer, loadbalancers.CreateOpts{VipSubnetID: x.subnet}).Extract()
	octaviaRefused(t, err, 403, "Quota has been met for resources: Load Balancer")
}

package openstacktest_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/flavors"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/keypairs"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"
	"github.com/gophercloud/gophercloud/v2/openstack/loadbalancer/v2/listeners"
	"github.com/gophercloud/gophercloud/v2/openstack/loadbalancer/v2/loadbalancers"
	"github.com/gophercloud/gophercloud/v2/openstack/loadbalancer/v2/monitors"
	"github.com/gophercloud/gophercloud/v2/openstack/loadbalancer/v2/pools"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/layer3/floatingips"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/layer3/routers"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/groups"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/trunks"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/subnets"
)

const publicKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1XhfMkXhYpK0eUoNQ6JmQrJc8Hyt6k3hvbcKY1FhYD demo"

// A lab of one VM, its trunk with a subport, a floating IP and a load balancer is
// built and torn down in the order a cloud demands, and nothing is left.
func TestLabIsBuiltAndLeavesNothing(t *testing.T) {
	onEachCloud(t, func(t *testing.T, k *clients) {
		ctx := t.Context()
		external, err := networks.List(k.network, networks.ListOpts{Name: "public"}).AllPages(ctx)
		must(t, err)
		public, err := networks.ExtractNetworks(external)
		must(t, err)
		if len(public) != 1 {
			t.Fatalf("the cloud has %d networks public, want 1", len(public))
		}
		vmNet, podNet := k.net("vm_net"), k.net("pod_net")
		vmSubnet, podSubnet := k.subnet(vmNet.ID, "10.11.0.0/24"), k.subnet(podNet.ID, "10.12.0.0/16")
		router, err := routers.Create(ctx, k.network, routers.CreateOpts{Name: k.name("router"), GatewayInfo: &routers.GatewayInfo{NetworkID: public[0].ID}}).Extract()
		must(t, err)
		for _, s := range []string{vmSubnet.ID, podSubnet.ID} {
			_, err = routers.AddInterface(ctx, k.network, router.ID, routers.AddInterfaceOpts{SubnetID: s}).Extract()
			must(t, err)
		}
		group, err := groups.Create(ctx, k.network, groups.CreateOpts{Name: k.name("master")}).Extract()
		must(t, err)
		if len(group.Rules) != 2 {
			t.Errorf("a new group has %d rules, want the 2 egress rules", len(group.Rules))
		}
		port, err := ports.Create(ctx, k.network, ports.CreateOpts{NetworkID: vmNet.ID, Name: k.name("worker-0"), SecurityGroups: &[]string{group.ID}}).Extract()
		must(t, err)
		trunk, err := trunks.Create(ctx, k.network, trunks.CreateOpts{Name: k.name("worker-0"), PortID: port.ID, Subports: []trunks.Subport{}}).Extract()
		must(t, err)
		pod := k.port(podNet.ID, "pod")
		_, err = trunks.AddSubports(ctx, k.network, trunk.ID, trunks.AddSubportsOpts{Subports: []trunks.Subport{{PortID: pod.ID, SegmentationType: "vlan", SegmentationID: 101}}}).Extract()
		must(t, err)

		key, err := keypairs.Create(ctx, k.compute, keypairs.CreateOpts{Name: strings.TrimSuffix(k.run, "/"), PublicKey: publicKey}).Extract()
		must(t, err)
		server := k.boot("worker-0", port.ID)
		k.becomes(server, "ACTIVE")
		if p := k.getPort(port.ID); p.DeviceID != server || p.Status != "ACTIVE" {
			t.Errorf("the port of an ACTIVE server is %s on device %q", p.Status, p.DeviceID)
		}
		k.portBecomes(pod.ID, "ACTIVE")
		fip, err := floatingips.Create(ctx, k.network, floatingips.CreateOpts{FloatingNetworkID: public[0].ID, PortID: port.ID}).Extract()
		must(t, err)

		api := loadbalancers.CreateOpts{Name: k.name("api"), VipSubnetID: podSubnet.ID, VipAddress: "10.12.0.1",
			Tags: []string{"a"}, Listeners: []listeners.CreateOpts{{Protocol: "TCP", ProtocolPort: 443, DefaultPool: &pools.CreateOpts{Name: "api",
				LBMethod: "SOURCE_IP_PORT", Protocol: "TCP", Members: []pools.CreateMemberOpts{{Address: "10.11.0.10", ProtocolPort: 6443, SubnetID: vmSubnet.ID}},
				Monitor: monitors.CreateOpts{Type: "TCP", Delay: 5, Timeout: 5, MaxRetries: 3}}}}}
		if _, err := loadbalancers.Create(ctx, k.balancer, api).Extract(); err == nil {
			t.Error("the VIP took the address of the gateway")
		}
		api.VipAddress = "10.12.200.1"
		lb, err := loadbalancers.Create(ctx, k.balancer, api).Extract()
		must(t, err)
		k.settle(lb.ID)
		tree, err := loadbalancers.GetStatuses(ctx, k.balancer, lb.ID).Extract()
		must(t, err)
		if l := tree.Loadbalancer.Listeners; len(l) != 1 || len(l[0].Pools) != 1 || len(l[0].Pools[0].Members) != 1 || l[0].Pools[0].Members[0].ProvisioningStatus != "ACTIVE" {
			t.Errorf("the status tree is %+v", tree.Loadbalancer)
		}
		pool := lb.Pools[0].ID
		k.checkShapes(k.image.ServiceURL("images", k.imageID()), k.compute.ServiceURL("flavors", k.flavorID("m1.small")),
			k.balancer.ServiceURL("lbaas", "listeners", lb.Listeners[0].ID), k.balancer.ServiceURL("lbaas", "pools", pool),
			k.balancer.ServiceURL("lbaas", "pools", pool, "members", lb.Pools[0].Members[0].ID), k.balancer.ServiceURL("lbaas", "healthmonitors", lb.Pools[0].Monitor.ID))

		must(t, floatingips.Delete(ctx, k.network, fip.ID).ExtractErr())
		must(t, loadbalancers.Delete(ctx, k.balancer, lb.ID, loadbalancers.DeleteOpts{Cascade: true}).ExtractErr())
		must(t, servers.Delete(ctx, k.compute, server).ExtractErr())
		k.until("server and load balancer to be gone", func() (string, bool) {
			_, gone := servers.Get(ctx, k.compute, server).Extract()
			_, lbGone := loadbalancers.Get(ctx, k.balancer, lb.ID).Extract()
			return fmt.Sprint(gone, lbGone), gophercloud.ResponseCodeIs(gone, 404) && gophercloud.ResponseCodeIs(lbGone, 404)
		})
		must(t, trunks.Delete(ctx, k.network, trunk.ID).ExtractErr())
		must(t, ports.Delete(ctx, k.network, pod.ID).ExtractErr())
		must(t, ports.Delete(ctx, k.network, port.ID).ExtractErr())
		for _, s := range []string{vmSubnet.ID, podSubnet.ID} {
			_, err = routers.RemoveInterface(ctx, k.network, router.ID, routers.RemoveInterfaceOpts{SubnetID: s}).Extract()
			must(t, err)
		}
		must(t, subnets.Delete(ctx, k.network, podSubnet.ID).ExtractErr())
		must(t, networks.Delete(ctx, k.network, podNet.ID).ExtractErr())
		must(t, networks.Delete(ctx, k.network, vmNet.ID).ExtractErr())
		must(t, routers.Delete(ctx, k.network, router.ID).ExtractErr())
		must(t, groups.Delete(ctx, k.network, group.ID).ExtractErr())
		must(t, keypairs.Delete(ctx, k.compute, key.Name, nil).ExtractErr())
		for _, x := range k.made() {
			if x.method != "DELETE" {
				continue
			}
			resp, err := k.provider.Request(ctx, "GET", x.url, &gophercloud.RequestOpts{})
			if err == nil {
				_ = resp.Body.Close()
			}
			if !gophercloud.ResponseCodeIs(err, 404) {
				t.Errorf("left over: %s: %v", x.url, err)
			}
		}
	})
}

// boot asks for a server on existing ports.
func (k *clients) boot(name string, portIDs ...string) string {
	k.t.Helper()
	var nics []servers.Network
	for _, id := range portIDs {
		nics = append(nics, servers.Network{Port: id})
	}
	s, err := servers.Create(k.t.Context(), k.compute, servers.CreateOpts{Name: k.name(name), ImageRef: k.imageID(), FlavorRef: k.flavorID("m1.small"),
		Networks: nics, UserData: []byte("#cloud-config\n"), Metadata: map[string]string{"a": "b"}, Tags: []string{"x"}}, nil).Extract()
	must(k.t, err)
	return s.ID
}

func (k *clients) imageID() string {
	k.t.Helper()
	pages, err := images.List(k.image, images.ListOpts{Name: "debian-13"}).AllPages(k.t.Context())
	must(k.t, err)
	found, err := images.ExtractImages(pages)
	must(k.t, err)
	if len(found) != 1 || found[0].Properties["os_admin_user"] != "debian" {
		k.t.Fatalf("images: %+v", found)
	}
	return found[0].ID
}

func (k *clients) flavorID(name string) string {
	k.t.Helper()
	pages, err := flavors.ListDetail(k.compute, nil).AllPages(k.t.Context())
	must(k.t, err)
	found, err := flavors.ExtractFlavors(pages)
	must(k.t, err)
	for _, f := range found {
		if f.Name == name {
			return f.ID
		}
	}
	k.t.Fatalf("no flavor %s", name)
	return ""
}

// becomes waits until a server has this status.
func (k *clients) becomes(id, status string) {
	k.t.Helper()
	k.until("server "+id+" to become "+status, func() (string, bool) {
		s, err := servers.Get(k.t.Context(), k.compute, id).Extract()
		must(k.t, err)
		return s.Status, s.Status == status
	})
}

func (k *clients) balancerBecomes(id, status string) {
	k.t.Helper()
	k.until("load balancer "+id+" to become "+status, func() (string, bool) {
		lb, err := loadbalancers.Get(k.t.Context(), k.balancer, id).Extract()
		must(k.t, err)
		return lb.ProvisioningStatus, lb.ProvisioningStatus == status
	})
}

func (k *clients) portBecomes(id, status string) {
	k.t.Helper()
	k.until("port "+id+" to become "+status, func() (string, bool) {
		p := k.getPort(id)
		return p.Status, p.Status == status
	})
}

func (k *clients) trunkBecomes(id, status string) {
	k.t.Helper()
	k.until("trunk "+id+" to become "+status, func() (string, bool) {
		x, err := trunks.Get(k.t.Context(), k.network, id).Extract()
		must(k.t, err)
		return x.Status, x.Status == status
	})
}

package lbaas_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
	"github.com/kuryrctl/kuryrctl/nodeagent/lbaas"
)

func TestAClusterIPIsALoadBalancerOfOneCall(t *testing.T) {
	l := newLab(t, "ovn", openstacktest.Polls(0))
	s := service("web", "172.30.0.20", func(s *corev1.Service) {
		s.Spec.Ports = []corev1.ServicePort{port("http", "TCP", 80), port("dns", "UDP", 53), port("dns-tcp", "TCP", 53)}
	})
	l.back(s, pods(10)...)
	l.put(s)
	services, _ := l.start(nil)
	l.ready(1)
	const beginning = 5 + 2 + 1 // networks; load balancers and floating IPs; rules
	if calls := len(l.fake.Reads()) + len(l.fake.Writes()) - beginning; calls > 5 {
		t.Errorf("%d calls for 3 ports with 10 pods, want 5 at most", calls)
	}
	if got := l.writes(); !slices.Equal(got, []string{"POST loadbalancers"}) {
		t.Errorf("it took %v", got)
	}
	members := func(n, port int) (all string) {
		for i, a := range pods(n) {
			if i > 0 {
				all += " "
			}
			all += fmt.Sprint(a, ":", port)
		}
		return "[" + all + "]"
	}
	l.comes("demo/svc/default/web/web-0001 172.30.0.20 ACTIVE", "default/web:TCP:80 SOURCE_IP_PORT "+members(10, 8080),
		"default/web:UDP:53 SOURCE_IP_PORT "+members(10, 8053), "default/web:TCP:53 SOURCE_IP_PORT "+members(10, 8053))

	s.Spec.Ports = s.Spec.Ports[:1]
	l.put(s)
	l.back(s, pods(10)...)
	l.comes("demo/svc/default/web/web-0001 172.30.0.20 ACTIVE", "default/web:TCP:80 SOURCE_IP_PORT "+members(10, 8080))
	l.fake.ResetLog()
	l.back(s, pods(20)...)
	l.until("20 members", func() bool { return slices.Contains(l.tree(), "default/web:TCP:80 SOURCE_IP_PORT "+members(20, 8080)) })
	if got := l.writes(); !slices.Equal(got, []string{"PUT members"}) {
		t.Errorf("ten more pods took %v", got)
	}
	l.fake.ResetLog()
	l.kube.Remove("v1/namespaces/default/services/web")
	l.comes()
	var out strings.Builder
	services.Metrics(&out)
	if !strings.Contains(out.String(), "kuryr_controller_service_passes_total ") {
		t.Errorf("metrics are %s", &out)
	}
}

func TestALoadBalancerHasAFloatingIPAndLetsClientsIn(t *testing.T) {
	l := newLab(t, "ovn")
	l.start(nil)
	s := service("web", "172.30.0.20", balanced)
	l.back(s, "10.10.1.10", "10.10.1.11")
	l.put(s)
	l.until("it has an address", func() bool { return l.ingress("web") != "" })
	fip := l.ingress("web")
	base := []string{"demo/svc/default/web/web-0001 172.30.0.20 ACTIVE", "default/web:TCP:80 SOURCE_IP_PORT [10.10.1.10:8080 10.10.1.11:8080]"}
	floating := "floating " + fip + " demo/svc/default/web/web-0001 (kuryrctl stack=demo service=default/web/web-0001)"
	l.comes(append(base, floating, "open tcp 8080-8080 from <nil>")...)

	s.Spec.LoadBalancerSourceRanges = []string{"198.51.100.7/24", "203.0.113.0/24"}
	l.put(s)
	l.comes(append(base, floating, "open tcp 8080-8080 from 198.51.100.0/24", "open tcp 8080-8080 from 203.0.113.0/24")...)

	s.Annotations["service.beta.kubernetes.io/openstack-internal-load-balancer"] = "true"
	l.put(s)
	l.comes(base...)
	l.until("the VIP is told", func() bool { return l.ingress("web") == "172.30.0.20" })
	delete(s.Annotations, "service.beta.kubernetes.io/openstack-internal-load-balancer")
	s.Spec.LoadBalancerSourceRanges = nil
	l.put(s)
	l.until("it has an address", func() bool { return len(l.tree()) == 4 })
	l.kube.Remove("v1/namespaces/default/services/web")
	l.comes()
}

func TestAServiceThatWasMadeAnewWhileNobodyLookedIsAnother(t *testing.T) {
	l := newLab(t, "ovn")
	_, stop := l.start(nil)
	s, tree := l.web(balanced)
	l.until("it has an address", func() bool { return l.ingress("web") != "" })
	l.comes(append(tree, "floating "+l.ingress("web")+" demo/svc/default/web/web-0001 (kuryrctl stack=demo service=default/web/web-0001)", "open tcp 8080-8080 from <nil>")...)
	stop()
	l.kube.Remove("v1/namespaces/default/services/web")
	s.UID, s.Spec.Type = "web-0002", corev1.ServiceTypeClusterIP
	l.put(s)
	l.start(nil)
	l.comes("demo/svc/default/web/web-0002 172.30.0.20 ACTIVE", tree[1])
}

// The provider may report what it still had to do of a load balancer that it is deleting: that is no reason to delete it twice.
func TestALoadBalancerIsDeletedOnce(t *testing.T) {
	l := newLab(t, "ovn", openstacktest.Polls(4))
	l.start(func(o *lbaas.Options) { o.Poll = 10 * time.Millisecond })
	s, tree := l.web()
	l.comes(tree...)
	l.fake.ResetLog()
	written := func(method, path string) (n int) {
		for _, w := range l.fake.Writes() {
			if w.Method == method && strings.Contains(w.Path, path) && w.Status < 300 {
				n++
			}
		}
		return n
	}
	l.back(s, pods(3)...)
	l.until("members are being added", func() bool { return written("PUT", "/members") > 0 })
	l.kube.Remove("v1/namespaces/default/services/web")
	l.until("it is gone", func() bool { return !l.fake.Has("loadbalancer", "demo/svc/default/web/web-0001") })
	if n := written("DELETE", "/loadbalancers/"); n != 1 {
		t.Errorf("%d deletions", n)
	}
}

func TestAProviderThatRefusesTreesGetsThemPieceByPiece(t *testing.T) {
	l := newLab(t, "ovn", openstacktest.RefuseTrees())
	l.start(nil)
	_, tree := l.web()
	l.comes(tree...)
}

func TestAFloatingIPOfTheUserIsUsedAndLeft(t *testing.T) {
	l := newLab(t, "ovn")
	network, err := l.cloud.Network()
	if err != nil {
		t.Fatal(err)
	}
	var public struct{ Networks []struct{ ID string } }
	if _, err := network.Get(t.Context(), network.ServiceURL("networks")+"?name=public", &public, nil); err != nil {
		t.Fatal(err)
	}
	var made struct {
		FloatingIP struct {
			Address string `json:"floating_ip_address"`
		}
	}
	body := map[string]any{"floatingip": map[string]any{"floating_network_id": public.Networks[0].ID}}
	if _, err := network.Post(t.Context(), network.ServiceURL("floatingips"), body, &made, nil); err != nil {
		t.Fatal(err)
	}
	own := made.FloatingIP.Address
	l.start(nil)
	s, tree := l.web(balanced, func(s *corev1.Service) { s.Spec.LoadBalancerIP = "203.0.113.99" })
	l.until("told that there is none", func() bool { return len(l.events("FloatingIPUnavailable")) == 1 })
	s.Spec.LoadBalancerIP = own
	l.put(s)
	l.until("it has the address", func() bool { return l.ingress("web") == own })
	l.comes(append(tree, "floating "+own+" demo/svc/default/web/web-0001 ()", "open tcp 8080-8080 from <nil>")...)
	l.kube.Remove("v1/namespaces/default/services/web")
	l.comes("floating " + own + " <nil> ()")
}

func TestAFloatingIPThatIsKeptIsTheUsers(t *testing.T) {
	const name = "demo/svc/default/web/web-0001"
	l := newLab(t, "ovn")
	l.start(func(o *lbaas.Options) { o.Resync = 50 * time.Millisecond })
	_, tree := l.web(balanced, func(s *corev1.Service) { s.Annotations["loadbalancer.openstack.org/keep-floatingip"] = "true" })
	l.until("it has an address", func() bool { return l.ingress("web") != "" })
	address := l.ingress("web")
	all := append(tree, "floating "+address+" "+name+" (kept for service default/web)", "open tcp 8080-8080 from <nil>")
	l.comes(all...)
	l.fake.Delete("loadbalancer", name)
	l.until("told", func() bool { return len(l.events("LoadBalancerRepaired")) == 1 })
	l.comes(all...)
	l.kube.Remove("v1/namespaces/default/services/web")
	l.comes("floating " + address + " <nil> (kept for service default/web)")
}

func TestAddressesFollowWhatIsAsked(t *testing.T) {
	l := newLab(t, "ovn")
	l.start(nil)
	s, tree := l.web(balanced)
	l.until("it has an address", func() bool { return l.ingress("web") != "" })
	s.Spec.LoadBalancerIP = "203.0.113.99"
	l.put(l.now(s))
	l.until("told, and the old address is taken back", func() bool { return len(l.events("FloatingIPUnavailable")) == 1 && l.ingress("web") == "" })
	l.comes(append(tree, "open tcp 8080-8080 from <nil>")...)
	s.Spec.LoadBalancerIP = ""
	s.Annotations["loadbalancer.openstack.org/hostname"] = "web.example.org"
	l.put(l.now(s))
	l.until("it has a name", func() bool { return l.ingress("web") == "web.example.org" })
	s.Annotations["loadbalancer.openstack.org/floating-network-id"] = "0af0d0ba-0000-4000-8000-000000000000"
	l.put(l.now(s))
	l.until("there is no such network", func() bool { return len(l.events("FloatingIPUnavailable"))+len(l.events("CloudError")) == 2 })
	l.comes(append(tree, "open tcp 8080-8080 from <nil>")...)
}

func TestNothingToDoCostsOnlyLists(t *testing.T) {
	l := newLab(t, "ovn", openstacktest.Polls(0))
	l.start(func(o *lbaas.Options) { o.Resync = 50 * time.Millisecond })
	for i := range 3 {
		s := service(fmt.Sprint("web-", i), fmt.Sprint("172.30.0.", 20+i), balanced)
		l.back(s, pods(4)...)
		l.put(s)
		l.until("it has an address", func() bool { return l.ingress(s.Name) != "" })
	}
	for range 2 { // the first looks after the last change also read the members
		l.until("the rules are there", func() bool { return len(l.tree()) == 3*3+1 })
		l.fake.ResetLog()
		l.until("all is looked at a few times", func() bool { return len(l.fake.Reads()) > 60 })
	}
	lists := []string{"loadbalancers", "healthmonitors", "pools", "listeners", "floatingips", "security-group-rules"}
	for _, r := range l.fake.Reads() {
		if last := r.Path[strings.LastIndex(r.Path, "/")+1:]; !slices.Contains(lists, last) {
			t.Errorf("it asks for %s", r.Path)
		}
	}
	if got := l.writes(); len(got) != 0 {
		t.Errorf("it does %v", got)
	}
}

func TestEndpointsMayBeAnybodys(t *testing.T) {
	l := newLab(t, "ovn")
	l.start(nil)
	// Without a selector, the slices are the user's: two of them here, one with a node, one with what is not on the stack's networks.
	s := service("db", "172.30.0.20", balanced, func(s *corev1.Service) {
		s.Spec.Ports = []corev1.ServicePort{port("", "TCP", 5432), port("gossip", "SCTP", 7000)}
	})
	l.put(s)
	l.comes("demo/svc/default/db/db-0001- 172.30.0.20 ACTIVE", "default/db:TCP:5432 SOURCE_IP_PORT []", "default/db:SCTP:7000 SOURCE_IP_PORT []",
		"floating "+l.address("db")+" demo/svc/default/db/db-0001- (kuryrctl stack=demo service=default/db/db-0001-)")
	l.slice(s, "db-pods", "10.10.1.10")
	l.slice(s, "db-far", "192.0.2.7", "10.11.0.9")
	l.comes("demo/svc/default/db/db-0001- 172.30.0.20 ACTIVE", "default/db:TCP:5432 SOURCE_IP_PORT [10.10.1.10:13432 10.11.0.9:13432 192.0.2.7:13432]",
		"default/db:SCTP:7000 SOURCE_IP_PORT [10.10.1.10:15000 10.11.0.9:15000 192.0.2.7:15000]",
		"floating "+l.address("db")+" demo/svc/default/db/db-0001- (kuryrctl stack=demo service=default/db/db-0001-)",
		"open tcp 13432-13432 from <nil>", "open sctp 15000-15000 from <nil>")
	l.until("told", func() bool { return len(l.events("EndpointNotOpen")) == 1 })
	l.kube.Remove("discovery.k8s.io/v1/namespaces/default/endpointslices/db-pods")
	l.until("the pod is out", func() bool {
		return slices.Contains(l.tree(), "default/db:TCP:5432 SOURCE_IP_PORT [10.11.0.9:13432 192.0.2.7:13432]")
	})
	s.Spec.Type, s.Spec.ClusterIP = corev1.ServiceTypeExternalName, ""
	l.put(s)
	l.comes()
}

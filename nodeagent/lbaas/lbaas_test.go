package lbaas_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kuryrctl/kuryrctl/internal/clustertest"
	"github.com/kuryrctl/kuryrctl/internal/labtest"
	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
	"github.com/kuryrctl/kuryrctl/nodeagent/lbaas"
)

// lab is a cluster and a cloud, with what serves Services between them.
type lab struct {
	t     *testing.T
	kube  *clustertest.Server
	fake  *openstacktest.Cloud
	cloud *openstack.Cloud
	quiet atomic.Bool // mayWrite refuses
}

func newLab(t *testing.T, provider string, options ...openstacktest.Option) *lab {
	t.Helper()
	l := &lab{t: t, kube: clustertest.New(t), fake: openstacktest.New(t, append(options, openstacktest.Provider(provider))...)}
	l.cloud = labtest.Services(t, l.fake, "demo", provider)
	return l
}

// start serves until the returned function is called, or the test ends.
func (l *lab) start(change func(*lbaas.Options)) (*lbaas.Services, func()) {
	l.t.Helper()
	cfg, err := clientcmd.RESTConfigFromKubeConfig(l.kube.Kubeconfig())
	if err != nil {
		l.t.Fatal(err)
	}
	o := lbaas.Options{Kube: cfg, Cloud: l.cloud, Stack: "demo", Identity: "a", Linger: 20 * time.Millisecond, Poll: time.Millisecond, Backoff: time.Millisecond, LeakAge: time.Nanosecond}
	if change != nil {
		change(&o)
	}
	s, err := lbaas.New(o)
	if err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(l.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Lead(ctx, func() error {
			if l.quiet.Load() {
				return errors.New("another one leads")
			}
			return nil
		})
	}()
	stop := func() { cancel(); <-done }
	l.t.Cleanup(stop)
	return s, stop
}

// until waits until what is asked is true.
func (l *lab) until(what string, is func() bool) {
	l.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !is() {
		if time.Now().After(deadline) {
			l.t.Fatalf("still not: %s\n%s\n%v", what, strings.Join(l.fake.Left(), "\n"), l.events(""))
		}
		select {
		case <-l.kube.Changed():
		case <-time.After(2 * time.Millisecond): // the cloud tells nobody when it changes
		}
	}
}

// put makes a Service be there.
func (l *lab) put(s corev1.Service) {
	s.APIVersion, s.Kind = "v1", "Service"
	s.Namespace = cmp.Or(s.Namespace, "default")
	l.kube.Put("v1/namespaces/"+s.Namespace+"/services/"+s.Name, s)
}

func service(name, vip string, change ...func(*corev1.Service)) corev1.Service {
	s := corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name + "-0001-uid"), Annotations: map[string]string{}},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: vip, Ports: []corev1.ServicePort{port("http", "TCP", 80)}}}
	for _, c := range change {
		c(&s)
	}
	return s
}

func balanced(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeLoadBalancer }

func port(name string, protocol corev1.Protocol, number int32) corev1.ServicePort {
	return corev1.ServicePort{Name: name, Protocol: protocol, Port: number}
}

// back makes endpoints be behind a Service: target ports are those of the Service plus 8000.
func (l *lab) back(s corev1.Service, addresses ...string) {
	e := discoveryv1.EndpointSlice{TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"}, AddressType: discoveryv1.AddressTypeIPv4,
		ObjectMeta: metav1.ObjectMeta{Namespace: cmp.Or(s.Namespace, "default"), Name: s.Name + "-1", Labels: map[string]string{discoveryv1.LabelServiceName: s.Name}}}
	for _, p := range s.Spec.Ports {
		name, number, protocol := p.Name, p.Port+8000, p.Protocol
		e.Ports = append(e.Ports, discoveryv1.EndpointPort{Name: &name, Port: &number, Protocol: &protocol})
	}
	for _, a := range addresses {
		yes := true
		e.Endpoints = append(e.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}, Conditions: discoveryv1.EndpointConditions{Ready: &yes}})
	}
	l.kube.Put("discovery.k8s.io/v1/namespaces/"+e.Namespace+"/endpointslices/"+e.Name, e)
}

func pods(n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprintf("10.10.1.%d", i+10))
	}
	return all
}

// tree is what there is of load balancers for Services: a line for each thing in it, sorted.
func (l *lab) tree() (all []string) {
	l.t.Helper()
	get := func(path, key string) (found []map[string]any) {
		l.t.Helper()
		c, err := l.cloud.LoadBalancer()
		if strings.HasPrefix(path, "/") {
			c, err = l.cloud.Network()
		}
		if err != nil {
			l.t.Fatal(err)
		}
		var body map[string]json.RawMessage
		if _, err = c.Get(context.Background(), c.ServiceURL(strings.TrimPrefix(path, "/")), &body, nil); err == nil {
			err = json.Unmarshal(body[key], &found)
		}
		if openstack.IsNotFound(err) { // it went between two lists
			return nil
		}
		if err != nil {
			l.t.Fatal(err)
		}
		return found
	}
	names := map[any]any{}
	for _, lb := range get("lbaas/loadbalancers", "loadbalancers") {
		name := lb["name"].(string)
		if !strings.HasPrefix(name, "demo/svc/") {
			continue
		}
		names[lb["vip_port_id"]] = name
		all = append(all, fmt.Sprintf("%s %s %s", name, lb["vip_address"], lb["provisioning_status"]))
	}
	for _, x := range get("lbaas/listeners", "listeners") {
		pool := "no pool"
		for _, p := range get("lbaas/pools", "pools") {
			if p["id"] != x["default_pool_id"] {
				continue
			}
			pool = fmt.Sprint(p["lb_algorithm"])
			if a, ok := p["session_persistence"].(map[string]any); ok {
				pool += fmt.Sprint(" ", a["type"], " ", a["persistence_timeout"])
			}
			for _, m := range get("lbaas/healthmonitors", "healthmonitors") {
				if m["pools"].([]any)[0].(map[string]any)["id"] == p["id"] {
					pool += fmt.Sprint(" ", m["type"], " ", m["delay"])
				}
			}
			var members []string
			for _, m := range get("lbaas/pools/"+p["id"].(string)+"/members", "members") {
				members = append(members, fmt.Sprint(m["address"], ":", m["protocol_port"]))
			}
			slices.Sort(members)
			pool += fmt.Sprint(" ", members)
		}
		all = append(all, fmt.Sprintf("%s %s", x["name"], pool))
	}
	for _, p := range get("lbaas/pools", "pools") {
		if len(p["listeners"].([]any)) == 0 {
			all = append(all, fmt.Sprintf("loose pool %s", p["name"]))
		}
	}
	for _, f := range get("/floatingips", "floatingips") {
		all = append(all, fmt.Sprintf("floating %v %v (%v)", f["floating_ip_address"], names[f["port_id"]], f["description"]))
	}
	for _, r := range get("/security-group-rules", "security_group_rules") {
		if strings.Contains(r["description"].(string), "service=") {
			all = append(all, fmt.Sprintf("open %v %v-%v from %v", r["protocol"], r["port_range_min"], r["port_range_max"], r["remote_ip_prefix"]))
		}
	}
	slices.Sort(all)
	return all
}

// comes waits until there is exactly this of Services.
func (l *lab) comes(want ...string) {
	l.t.Helper()
	slices.Sort(want)
	deadline := time.Now().Add(20 * time.Second)
	var got []string
	for !slices.Equal(got, want) {
		if time.Now().After(deadline) {
			l.t.Fatalf("there is\n  %s\nwant\n  %s\nevents %v", strings.Join(got, "\n  "), strings.Join(want, "\n  "), l.events(""))
		}
		select {
		case <-l.kube.Changed():
		case <-time.After(2 * time.Millisecond): // the cloud tells nobody when it changes
		}
		got = l.tree()
	}
}

// events are those with a reason, or all, as "Reason name: note".
func (l *lab) events(reason string) (all []string) {
	for _, path := range l.kube.Paths() {
		var e eventsv1.Event
		if strings.HasPrefix(path, "events.k8s.io/") && l.kube.Object(path, &e) && (reason == "" || e.Reason == reason) {
			all = append(all, e.Reason+" "+e.Regarding.Name+": "+e.Note)
		}
	}
	return all
}

func (l *lab) ingress(name string) string {
	var s corev1.Service
	l.kube.Object("v1/namespaces/default/services/"+name, &s)
	if len(s.Status.LoadBalancer.Ingress) == 0 {
		return ""
	}
	i := s.Status.LoadBalancer.Ingress[0]
	return i.IP + i.Hostname
}

// writes are what changed something, as "POST listeners".
func (l *lab) writes() (all []string) {
	for _, r := range l.fake.Writes() {
		parts := strings.Split(r.Path, "/")
		last := parts[len(parts)-1]
		if len(last) > 30 {
			last = parts[len(parts)-2]
		}
		all = append(all, r.Method+" "+last)
	}
	return all
}

func TestAClusterIPIsALoadBalancerOfOneCall(t *testing.T) {
	l := newLab(t, "ovn", openstacktest.Polls(0))
	s := service("web", "172.30.0.20", func(s *corev1.Service) {
		s.Spec.Ports = []corev1.ServicePort{port("http", "TCP", 80), port("dns", "UDP", 53), port("dns-tcp", "TCP", 53)}
	})
	l.back(s, pods(10)...)
	l.put(s)
	services, _ := l.start(nil)
	l.until("ready", func() bool { return len(l.events("LoadBalancerReady")) == 1 })
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

// web is a Service with one pod, being served.
func (l *lab) web(change ...func(*corev1.Service)) (corev1.Service, []string) {
	l.t.Helper()
	s := service("web", "172.30.0.20", change...)
	l.back(s, "10.10.1.10")
	l.put(s)
	return s, []string{"demo/svc/default/web/web-0001 172.30.0.20 ACTIVE", "default/web:TCP:80 SOURCE_IP_PORT [10.10.1.10:8080]"}
}

func TestWhatIsChangedBehindOurBackIsRepaired(t *testing.T) {
	const name = "demo/svc/default/web/web-0001"
	for what, do := range map[string]func(*lab){
		"ERROR":              func(l *lab) { l.fake.Set("loadbalancer", name, "provisioning_status", "ERROR") },
		"it is deleted":      func(l *lab) { l.fake.Delete("loadbalancer", name) },
		"a listener is gone": func(l *lab) { l.fake.Delete("listener", "default/web:TCP:80") },
		"the pool is gone":   func(l *lab) { l.fake.Delete("pool", "default/web:TCP:80") },
		"a member is gone": func(l *lab) {
			for _, x := range l.fake.Left() {
				if id, ok := strings.CutPrefix(x, "member "); ok {
					l.fake.Delete("member", id)
				}
			}
		},
		"a pool is changed": func(l *lab) {
			l.fake.Set("pool", "default/web:TCP:80", "session_persistence", map[string]any{"type": "SOURCE_IP"})
		},
		"the floating IP is taken away": func(l *lab) { l.fake.Set("floatingip", l.ingress("web"), "port_id", nil) },
		"the floating IP is gone":       func(l *lab) { l.fake.Delete("floatingip", l.ingress("web")) },
	} {
		t.Run(what, func(t *testing.T) {
			l := newLab(t, "ovn")
			l.start(func(o *lbaas.Options) { o.Resync = 50 * time.Millisecond })
			_, tree := l.web(balanced)
			whole := func(address string) []string {
				return append(slices.Clone(tree), "floating "+address+" "+name+" (kuryrctl stack=demo service=default/web/web-0001)", "open tcp 8080-8080 from <nil>")
			}
			l.until("it has an address", func() bool { return l.ingress("web") != "" })
			was := l.ingress("web")
			l.comes(whole(was)...)
			do(l)
			l.until("all is well", func() bool {
				want := whole(l.ingress("web"))
				slices.Sort(want)
				return slices.Equal(l.tree(), want)
			})
			if what != "the floating IP is gone" && l.ingress("web") != was {
				t.Errorf("its address was %s and is %s", was, l.ingress("web"))
			}
		})
	}
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

func TestAFullQuotaIsToldAndHeals(t *testing.T) {
	l := newLab(t, "ovn")
	l.fake.Fail("POST /v2.0/lbaas/loadbalancers", -1, 403, `{"faultcode": "Client", "faultstring": "Quota has been met for resources: Load Balancer", "debuginfo": null}`, nil)
	l.start(nil)
	_, tree := l.web()
	l.until("told", func() bool { return len(l.events("QuotaExceeded")) == 1 })
	l.fake.Heal()
	l.comes(tree...)
	l.until("told", func() bool { return len(l.events("LoadBalancerReady")) == 1 })
	if n := len(l.events("QuotaExceeded")); n != 1 {
		t.Errorf("%d events about one state", n)
	}
}

func TestWhoDoesNotLeadWritesNothing(t *testing.T) {
	l := newLab(t, "ovn")
	l.quiet.Store(true)
	l.start(nil)
	_, tree := l.web(balanced)
	l.until("it was looked at", func() bool { return len(l.fake.Reads()) > 20 })
	if got := l.writes(); len(got) != 0 || l.ingress("web") != "" || len(l.events("")) != 0 {
		t.Errorf("it wrote %v, %v", got, l.events(""))
	}
	l.quiet.Store(false)
	l.until("it is served", func() bool { return len(l.tree()) == len(tree)+2 })
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

func TestACrashAtAnyWriteLeavesNothingBehind(t *testing.T) {
	for _, reply := range []bool{false, true} {
		for n := 1; n < 6; n++ {
			t.Run(fmt.Sprintf("after %d writes, reply lost %v", n, reply), func(t *testing.T) {
				l := newLab(t, "ovn")
				cut := func() {
					if reply {
						l.fake.CutReply(n + 1)
					} else {
						l.fake.CutAfter(n)
					}
				}
				cut()
				_, stop := l.start(nil)
				_, tree := l.web(balanced)
				l.until("it is cut, or through", func() bool { return len(l.fake.Writes()) > n || l.ingress("web") != "" })
				stop()
				l.fake.Heal()
				_, stop = l.start(nil)
				l.until("all is well", func() bool {
					want := append(slices.Clone(tree), "floating "+l.ingress("web")+" demo/svc/default/web/web-0001 (kuryrctl stack=demo service=default/web/web-0001)", "open tcp 8080-8080 from <nil>")
					slices.Sort(want)
					return slices.Equal(l.tree(), want)
				})
				l.fake.ResetLog()
				cut()
				l.kube.Remove("v1/namespaces/default/services/web")
				l.until("it is cut, or through", func() bool { return len(l.fake.Writes()) > n || len(l.fake.Writes()) >= 3 })
				stop()
				l.fake.Heal()
				l.start(nil)
				l.comes()
			})
		}
	}
}

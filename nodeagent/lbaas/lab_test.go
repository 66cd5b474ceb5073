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

// now is a Service with the status that it has.
func (l *lab) now(s corev1.Service) corev1.Service {
	var is corev1.Service
	l.kube.Object("v1/namespaces/default/services/"+s.Name, &is)
	s.Status = is.Status
	return s
}

// back makes endpoints be behind a Service: target ports are those of the Service plus 8000.
func (l *lab) back(s corev1.Service, addresses ...string) { l.slice(s, s.Name+"-1", addresses...) }

// slice is one of the slices that do so.
func (l *lab) slice(s corev1.Service, name string, addresses ...string) {
	e := discoveryv1.EndpointSlice{TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"}, AddressType: discoveryv1.AddressTypeIPv4,
		ObjectMeta: metav1.ObjectMeta{Namespace: cmp.Or(s.Namespace, "default"), Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: s.Name}}}
	for _, p := range s.Spec.Ports {
		number, protocol := p.Port+8000, p.Protocol
		e.Ports = append(e.Ports, discoveryv1.EndpointPort{Name: &p.Name, Port: &number, Protocol: &protocol})
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

// list is a collection of Octavia or, with a path that begins with a slash, of Neutron.
func (l *lab) list(path string) (found []map[string]any) {
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
		err = json.Unmarshal(body[strings.ReplaceAll(path[strings.LastIndex(path, "/")+1:], "-", "_")], &found)
	}
	if openstack.IsNotFound(err) { // it went between two lists
		return nil
	}
	if err != nil {
		l.t.Fatal(err)
	}
	return found
}

// balancer is the id of the load balancer with this name, or "".
func (l *lab) balancer(name string) string {
	for _, lb := range l.list("lbaas/loadbalancers") {
		if lb["name"] == name {
			return lb["id"].(string)
		}
	}
	return ""
}

// ill says what of a part of a load balancer is not as usual.
func ill(part map[string]any) (text string) {
	if part["provisioning_status"] == "ERROR" {
		text += " in ERROR"
	}
	if part["admin_state_up"] != true {
		text += " off"
	}
	return text
}

// tree is what there is of load balancers for Services: a line for each thing in it, sorted.
func (l *lab) tree() (all []string) {
	l.t.Helper()
	names := map[any]any{}
	for _, lb := range l.list("lbaas/loadbalancers") {
		name := lb["name"].(string)
		if !strings.HasPrefix(name, "demo/svc/") {
			continue
		}
		names[lb["vip_port_id"]] = name
		all = append(all, fmt.Sprintf("%s %s %s%s", name, lb["vip_address"], lb["provisioning_status"], ill(lb)))
	}
	for _, x := range l.list("lbaas/listeners") {
		pool := "no pool"
		for _, p := range l.list("lbaas/pools") {
			if p["id"] != x["default_pool_id"] {
				continue
			}
			pool = fmt.Sprint(p["lb_algorithm"], ill(p))
			if a, ok := p["session_persistence"].(map[string]any); ok {
				pool += fmt.Sprint(" ", a["type"], " ", a["persistence_timeout"])
			}
			for _, m := range l.list("lbaas/healthmonitors") {
				if m["pools"].([]any)[0].(map[string]any)["id"] == p["id"] {
					pool += fmt.Sprint(" ", m["type"], " ", m["delay"])
				}
			}
			var members []string
			for _, m := range l.list("lbaas/pools/" + p["id"].(string) + "/members") {
				members = append(members, fmt.Sprint(m["address"], ":", m["protocol_port"]))
			}
			slices.Sort(members)
			pool += fmt.Sprint(" ", members)
		}
		all = append(all, fmt.Sprintf("%s%s %s", x["name"], ill(x), pool))
	}
	for _, p := range l.list("lbaas/pools") {
		if len(p["listeners"].([]any)) == 0 {
			all = append(all, fmt.Sprintf("loose pool %s", p["name"]))
		}
	}
	for _, f := range l.list("/floatingips") {
		all = append(all, fmt.Sprintf("floating %v %v (%v)", f["floating_ip_address"], names[f["port_id"]], f["description"]))
	}
	for _, r := range l.list("/security-group-rules") {
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
	l.comesTo(func() []string { return want })
}

// comesTo is comes of what may change meanwhile.
func (l *lab) comesTo(what func() []string) {
	l.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		want, got := slices.Sorted(slices.Values(what())), l.tree()
		if slices.Equal(got, want) {
			return
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("there is\n  %s\nwant\n  %s\nevents %v", strings.Join(got, "\n  "), strings.Join(want, "\n  "), l.events(""))
		}
		select {
		case <-l.kube.Changed():
		case <-time.After(2 * time.Millisecond): // the cloud tells nobody when it changes
		}
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

// ready waits until it was told n times that a load balancer is.
func (l *lab) ready(n int) {
	l.t.Helper()
	l.until("ready", func() bool { return len(l.events("LoadBalancerReady")) == n })
}

// another waits until the load balancer of this name is another one than that with the id first.
func (l *lab) another(name, first string) {
	l.t.Helper()
	l.until("another one", func() bool { id := l.balancer(name); return id != "" && id != first })
}

// address is what a Service's status tells, once it does.
func (l *lab) address(name string) string {
	l.t.Helper()
	l.until("it has an address", func() bool { return l.ingress(name) != "" })
	return l.ingress(name)
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

// web is a Service with one pod, being served.
func (l *lab) web(change ...func(*corev1.Service)) (corev1.Service, []string) {
	l.t.Helper()
	s := service("web", "172.30.0.20", change...)
	l.back(s, "10.10.1.10")
	l.put(s)
	return s, []string{"demo/svc/default/web/web-0001 172.30.0.20 ACTIVE", "default/web:TCP:80 SOURCE_IP_PORT [10.10.1.10:8080]"}
}

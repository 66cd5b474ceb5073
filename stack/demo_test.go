package stack_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kuryrctl/kuryrctl/internal/clustertest"
	"github.com/kuryrctl/kuryrctl/internal/dnstest"
	"github.com/kuryrctl/kuryrctl/internal/labtest"
	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/stack"
)

// example plays what a cluster makes of the deployment example: pods that answer, their ports, the load balancers of two Services.
type example struct {
	t     *testing.T
	lab   *labtest.Lab
	api   *clustertest.Server
	cloud *openstack.Cloud

	unready    bool   // pods never are
	mute       bool   // pods do not answer
	portless   bool   // Neutron has nothing under the pods' names
	routerless bool   // there is no router
	unserved   bool   // the Service has no load balancer
	memberless bool   // it has one without members
	lasting    bool   // ports outlive their pods
	ungrouped  bool   // ports of pods are in no security group
	nameless   bool   // the name server has no name of the router
	ending     int    // how often the API server says that the namespace is being deleted
	speaks     string // what the pods say, in the place of their greeting

	mu     sync.Mutex
	pods   []string          // names
	ports  map[string]string // of Neutron, by pod
	lb     string            // of the Service
	router string            // floating IP
	exists bool
	asked  int
}

func newExample(t *testing.T) *example {
	lab := labtest.New(t, []string{"demo"})
	e := &example{t: t, lab: lab, api: kubernetes(t, lab), ports: map[string]string{}}
	var err error
	if e.cloud, err = openstack.Connect(t.Context(), openstack.Options{Cloud: "fake", File: lab.CloudsYAML(), Backoff: time.Microsecond}); err != nil {
		t.Fatal(err)
	}
	e.api.Intercept(e.serve)
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		e.mu.Lock()
		defer e.mu.Unlock()
		if len(e.pods) == 0 || e.unserved || e.memberless || e.mute {
			panic(http.ErrAbortHandler)
		}
		e.asked++
		fmt.Fprintln(w, e.pods[e.asked%len(e.pods)]+": HELLO, I AM ALIVE!!!")
	}))
	t.Cleanup(service.Close)
	lab.Lead("172.30.0.50:80", strings.TrimPrefix(service.URL, "http://"))
	return e
}

// post makes something in the cloud, with the stack's mark.
func (e *example) post(service, path, one string, body map[string]any) (id string, made map[string]any) {
	body["description"] = openstack.Mark("demo")
	network, err := e.cloud.Network()
	if err == nil && service == "lbaas" {
		network, err = e.cloud.LoadBalancer()
	}
	if err != nil {
		e.t.Fatal(err)
	}
	var answer map[string]map[string]any
	if _, err := network.Post(context.Background(), network.ServiceURL(path), map[string]any{one: body}, &answer, nil); err != nil {
		e.t.Errorf("making %v: %v", body, err)
		return "", nil
	}
	id, _ = answer[one]["id"].(string)
	return id, answer[one]
}

// id is that of one of the stack's objects, as Neutron lists it.
func (e *example) id(path, name string) string {
	client, err := e.cloud.Network()
	if err != nil {
		e.t.Fatal(err)
	}
	var list map[string][]struct{ ID, Name string }
	if _, err := client.Get(context.Background(), client.ServiceURL(path)+"?name="+name, &list, nil); err != nil {
		e.t.Fatal(err)
	}
	for _, all := range list {
		if len(all) == 1 {
			return all[0].ID
		}
	}
	e.t.Fatalf("no %s %s: %v", path, name, list)
	return ""
}

// balancer makes a Service's load balancer, and returns the id of its VIP's port.
func (e *example) balancer(name, vip string, members ...string) (id, port string) {
	pool := map[string]any{"name": "p", "protocol": "TCP", "lb_algorithm": "SOURCE_IP_PORT"}
	var all []map[string]any
	for _, m := range members {
		all = append(all, map[string]any{"address": m, "protocol_port": 8080})
	}
	if len(all) > 0 {
		pool["members"] = all
	}
	id, made := e.post("lbaas", "lbaas/loadbalancers", "loadbalancer", map[string]any{"name": "demo/svc/" + name, "vip_address": vip, "provider": "ovn",
		"vip_subnet_id": e.id("subnets", "demo/service_subnet"), "listeners": []map[string]any{{"protocol": "TCP", "protocol_port": 80, "default_pool": pool}}})
	port, _ = made["vip_port_id"].(string)
	return id, port
}

// serve answers for the objects of the example.
func (e *example) serve(w http.ResponseWriter, r *http.Request) bool {
	const namespace = "/api/v1/namespaces/kuryrctl-demo"
	e.mu.Lock()
	defer e.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(strings.NewReader(string(body)))
	reply := func(status int, v any) bool {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(v)
		return true
	}
	switch {
	case r.Method == http.MethodPatch && strings.Contains(r.URL.Path, "/kuryrctl-demo/") && e.ending > 0:
		e.ending--
		return reply(403, metav1.Status{Code: 403, Message: "namespace kuryrctl-demo is being terminated"})
	case r.Method == http.MethodPatch && strings.HasSuffix(r.URL.Path, "/deployments/demo"):
		var d struct{ Spec struct{ Replicas int } }
		json.Unmarshal(body, &d)
		for i := len(e.pods); i < d.Spec.Replicas; i++ {
			e.addPod(fmt.Sprintf("demo-%d", i))
		}
	case r.Method == http.MethodPatch && r.URL.Path == namespace:
		e.exists = true
	case r.Method == http.MethodPatch && r.URL.Path == namespace+"/services/demo" && e.lb == "" && !e.unserved:
		var members []string
		if !e.memberless {
			members = []string{"10.10.77.0", "10.10.77.1", "10.10.77.2"}
		}
		e.lb, _ = e.balancer("kuryrctl-demo/demo/1234abcd", "172.30.0.50", members...)
	case r.Method == http.MethodPatch && strings.Contains(r.URL.Path, "kuryrctl-demo"):
	case r.Method == http.MethodGet && r.URL.Path == namespace+"/services/demo":
		return reply(200, corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "demo"}, Spec: corev1.ServiceSpec{ClusterIP: "172.30.0.50"}})
	case r.Method == http.MethodGet && r.URL.Path == namespace && e.exists:
		return reply(200, corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kuryrctl-demo"}})
	case r.Method == http.MethodGet && r.URL.Path == namespace:
		return reply(404, metav1.Status{Reason: metav1.StatusReasonNotFound, Code: 404})
	case r.Method == http.MethodDelete && r.URL.Path == namespace:
		e.remove()
		return reply(200, metav1.Status{})
	default:
		return false
	}
	return reply(200, json.RawMessage(body))
}

// addPod is called with the lock held.
func (e *example) addPod(name string) {
	address := fmt.Sprintf("10.10.77.%d", len(e.pods))
	e.pods = append(e.pods, name)
	p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "kuryrctl-demo", Name: name}, Spec: corev1.PodSpec{NodeName: "worker-0"}}
	p.Status.Phase, p.Status.PodIP = corev1.PodRunning, address
	ready := corev1.ConditionTrue
	if e.unready {
		ready = corev1.ConditionFalse
	}
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}
	e.api.AddPod(p)
	groups := []string{}
	if !e.ungrouped {
		groups = []string{e.id("security-groups", "demo/pod_access")}
	}
	if !e.portless {
		e.ports[name], _ = e.post("network", "ports", "port", map[string]any{"name": "kuryrctl-demo/" + name, "network_id": e.id("networks", "demo/pod_net"),
			"security_groups": groups, "fixed_ips": []map[string]any{{"ip_address": address}}})
		e.lab.Set("port", e.ports[name], "status", "ACTIVE")
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if e.mute {
			panic(http.ErrAbortHandler)
		}
		if e.speaks != "" {
			name = e.speaks
		}
		fmt.Fprintln(w, name+": HELLO, I AM ALIVE!!!")
	}))
	e.t.Cleanup(server.Close)
	e.lab.Lead(address+":8080", strings.TrimPrefix(server.URL, "http://"))
}

// remove is called with the lock held.
func (e *example) remove() {
	for _, name := range e.pods {
		e.api.DeletePod("kuryrctl-demo", name)
		if id := e.ports[name]; id != "" && !e.lasting {
			e.lab.Delete("port", id)
		}
	}
	if e.lb != "" {
		client, err := e.cloud.LoadBalancer()
		if err == nil {
			_, err = client.Delete(context.Background(), client.ServiceURL("lbaas", "loadbalancers", e.lb)+"?cascade=true", nil)
		}
		if err != nil {
			e.t.Error(err)
		}
	}
	e.pods, e.exists = nil, false
}

// run runs the example, and returns its steps by name.
func (e *example) run(o stack.DemoOptions) (map[string]stack.DemoStep, error) {
	e.t.Helper()
	if !e.routerless {
		_, port := e.balancer("kuryr-router/router/5678abcd", "172.30.0.51", "10.10.77.100")
		_, made := e.post("network", "floatingips", "floatingip", map[string]any{"floating_network_id": e.id("networks", "public"), "port_id": port})
		e.router, _ = made["floating_ip_address"].(string)
	}
	route := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "demo.apps.kuryr.internal" || e.mute {
			http.NotFound(w, r)
			return
		}
		fmt.Fprintln(w, "demo-0: HELLO, I AM ALIVE!!!")
	}))
	e.t.Cleanup(route.Close)
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		if addr == e.router+":80" {
			addr = strings.TrimPrefix(route.URL, "http://")
		}
		return e.lab.Dial(ctx, network, addr)
	}
	s, err := stack.Open(e.cloud, "demo", stack.Options{Dial: dial, State: e.lab.State, Poll: time.Millisecond})
	if err != nil {
		e.t.Fatal(err)
	}
	defer s.Close()
	steps := map[string]stack.DemoStep{}
	config := stack.Defaults()
	names := dnstest.New(e.t, "kuryr.internal")
	config.DNS.Update.Server = names.Address
	if !e.nameless && !e.routerless {
		names.Add(e.t, "*.apps.kuryr.internal. 300 IN A "+e.router)
	}
	err = s.Demo(e.t.Context(), config, o, func(step stack.DemoStep) { steps[step.Step] = step })
	return steps, err
}

func TestTheExampleWorksAndLeavesNothing(t *testing.T) {
	t.Parallel()
	e := newExample(t)
	e.ending = 2 // after a run that was stopped while it deleted
	steps, err := e.run(stack.DemoOptions{Limit: 20 * time.Second})
	for _, s := range steps {
		if !s.OK || s.Hop != "" {
			t.Errorf("%+v", s)
		}
	}
	if err != nil || len(steps) != 10 || !strings.Contains(steps["three ports in Neutron"].Saw, "kuryrctl-demo/demo-2 10.10.77.2") {
		t.Errorf("%v, %+v", err, steps)
	}
	if e.exists || len(e.pods) > 0 {
		t.Error("the namespace was not deleted")
	}
}

func TestTheExampleIsKeptIfAskedTo(t *testing.T) {
	t.Parallel()
	e := newExample(t)
	steps, err := e.run(stack.DemoOptions{Limit: 20 * time.Second, Keep: true})
	if _, deleted := steps["delete"]; err != nil || deleted || !e.exists {
		t.Errorf("%v, %+v", err, steps)
	}
}

func TestAStepThatFailsNamesTheHop(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		step, hop, saw string
		plant          func(*example)
	}{
		"pods that are not ready":           {"deploy", "pod", "demo-0 on worker-0 is Running", func(e *example) { e.unready = true }},
		"pods of another":                   {"pod, from a VM", "", `it said "eve: HELLO`, func(e *example) { e.speaks = "eve" }},
		"no ports":                          {"port in Neutron", "port", "Neutron has none", func(e *example) { e.portless = true }},
		"no port behind a pod that is mute": {"pod, from a VM", "port", "Neutron has none with address 10.10.77.0", func(e *example) { e.portless, e.mute = true, true }},
		"a Service without load balancer":   {"service", "listener", "there is no load balancer demo/svc/kuryrctl-demo/demo", func(e *example) { e.unserved = true }},
		"a load balancer without members":   {"service", "member", "has no member 10.10.77.0", func(e *example) { e.memberless = true }},
		"a port outside of the groups":      {"pod, from a VM", "security group", "is not in demo/pod_access", func(e *example) { e.ungrouped, e.mute = true, true }},
		"no name":                           {"route by name", "DNS", "`kuryrctl dns sync demo` puts names there", func(e *example) { e.nameless = true }},
		"no router":                         {"route by name", "floating IP", "no floating IP leads", func(e *example) { e.routerless = true }},
		"ports that stay":                   {"delete", "", "ports: kuryrctl-demo/demo-0", func(e *example) { e.lasting = true }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newExample(t)
			x.plant(e)
			steps, err := e.run(stack.DemoOptions{Limit: time.Second})
			s := steps[x.step]
			if !errors.Is(err, stack.ErrDemo) || s.OK || s.Hop != x.hop || !strings.Contains(s.Saw, x.saw) {
				t.Errorf("%v, %+v", err, steps)
			}
		})
	}
}

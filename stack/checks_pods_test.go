package stack_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kuryrctl/kuryrctl/internal/clustertest"
	"github.com/kuryrctl/kuryrctl/internal/labtest"
	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/nodeagent/vif"
	"github.com/kuryrctl/kuryrctl/stack"
)

// ofPods are the checks of pods' ports.
var ofPods = []string{"pod-controller", "pod-cloud", "pod-pools", "pod-daemons", "pod-latency", "pod-ports", "pod-starts"}

// pods is the stack demo with pods on Neutron, all of them well.
type pods struct {
	*labtest.Lab
	t        *testing.T
	api      *clustertest.Server
	view     *stack.View
	subports map[string][]vif.Subport // by worker
}

const (
	lease       = "coordination.k8s.io/v1/namespaces/kube-system/leases/kuryr-controller"
	longAgo     = -time.Hour
	addsWell    = "# TYPE kuryr_add_milliseconds histogram\nkuryr_add_milliseconds_bucket{le=\"1\"} 0\nkuryr_add_milliseconds_bucket{le=\"5\"} 50\nkuryr_add_milliseconds_bucket{le=\"10\"} 99\nkuryr_add_milliseconds_bucket{le=\"2500\"} 100\nkuryr_add_milliseconds_bucket{le=\"+Inf\"} 100\nkuryr_add_milliseconds_sum 400\nkuryr_add_milliseconds_count 100\nkuryr_add_refused_total 0\n"
	refusesNone = `{"error":""}`
)

// onNeutron gives the workers of a healthy cluster four subports each, and a pod that has the first.
func onNeutron(t *testing.T) *pods {
	lab := labtest.New(t, []string{"demo"})
	p := &pods{Lab: lab, t: t, api: kubernetes(t, lab), subports: map[string][]vif.Subport{}}
	v, err := open(t, lab, "demo").Show(t.Context())
	must(t, err)
	p.view = v
	for _, worker := range []string{"worker-0", "worker-1"} {
		for vlan := 1; vlan <= 4; vlan++ {
			p.subport(worker, vlan, worker)
		}
		p.api.AddPod(pod("web-"+worker, worker, corev1.PodRunning))
	}
	p.well()
	return p
}

// well makes all that is published and shown be as it should.
func (p *pods) well() {
	for _, worker := range []string{"worker-0", "worker-1"} {
		p.publish(worker)
		p.serve(worker, 9655, map[string]string{"/metrics": addsWell})
	}
	p.api.DeletePool("worker-9")
	p.serve("master-0", 9656, map[string]string{"/debug/last-cloud-error": refusesNone})
	p.renew(0)
}

// pod is one that has been there for a while.
func pod(name, node string, phase corev1.PodPhase) corev1.Pod {
	x := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("uid-" + name)}, Spec: corev1.PodSpec{NodeName: node}}
	begin := metav1.NewTime(time.Now().Add(longAgo))
	x.Status.Phase, x.Status.StartTime = phase, &begin
	return x
}

// port makes a port in Neutron that has been there for a while.
func (p *pods) port(name, description string) (id, address string) {
	p.t.Helper()
	var made struct {
		Port struct {
			ID  string
			IPs []struct {
				Address string `json:"ip_address"`
			} `json:"fixed_ips"`
		}
	}
	body := map[string]any{"port": map[string]any{"network_id": p.view.Networks[0].ID, "name": name, "description": description}}
	neutron(p.t, p.Lab, "POST", "ports", body, &made)
	p.Set("port", made.Port.ID, "created_at", time.Now().Add(longAgo).UTC().Format("2006-01-02T15:04:05Z"))
	return made.Port.ID, made.Port.IPs[0].Address
}

// attach puts a port onto a worker's trunk.
func (p *pods) attach(worker, port string, vlan int) {
	p.t.Helper()
	p.trunk(worker, "add_subports", map[string]any{"port_id": port, "segmentation_type": "vlan", "segmentation_id": vlan})
	p.Settle()
	p.Lab.Set("port", port, "status", "ACTIVE")
}

func (p *pods) trunk(worker, verb string, subport map[string]any) {
	p.t.Helper()
	for _, n := range p.view.Nodes {
		if n.Name == worker {
			neutron(p.t, p.Lab, "PUT", "trunks/"+n.TrunkID+"/"+verb, map[string]any{"sub_ports": []map[string]any{subport}}, nil)
		}
	}
}

// subport makes one, and notes it for the pool of a worker.
func (p *pods) subport(pool string, vlan int, worker string) vif.Subport {
	p.t.Helper()
	id, address := p.port(fmt.Sprintf("demo/pod-%s-%d", worker, vlan), openstack.Mark("demo"))
	p.attach(worker, id, vlan)
	s := vif.Subport{Port: id, MAC: "fa:16:3e:00:00:01", VLAN: vlan, MTU: 1442, IPs: []vif.IP{{Address: address + "/16"}}}
	p.subports[pool] = append(p.subports[pool], s)
	return s
}

// publish makes the pool of a worker as controller and daemon keep it, changed by what a test wants.
func (p *pods) publish(worker string, change ...func(*vif.SubportPool)) {
	past := metav1.NewTime(time.Now().Add(longAgo))
	pool := vif.SubportPool{ObjectMeta: metav1.ObjectMeta{Name: worker}}
	pool.Spec = vif.SubportPoolSpec{Min: 3, Max: 50, Batch: 5, Subports: p.subports[worker]}
	pool.Status = vif.SubportPoolStatus{Subports: len(pool.Spec.Subports), Used: 1, Heartbeat: metav1.Now()}
	pool.Status.Allocations = []vif.Allocation{{Port: pool.Spec.Subports[0].Port, Namespace: "default", Pod: "web-" + worker, UID: "uid-web-" + worker, Since: past}}
	pool.Status.Conditions = []metav1.Condition{{Type: vif.Ready, Status: "True", Reason: "PoolFilled", LastTransitionTime: past},
		{Type: vif.QuotaExceeded, Status: "False"}, {Type: vif.NoAddresses, Status: "False"}}
	for _, f := range change {
		f(&pool)
	}
	p.api.SetPool(pool)
	p.api.Edit("kuryr.openstack.org/v1alpha1/subportpools/"+worker, func(o map[string]any) {
		o["metadata"].(map[string]any)["creationTimestamp"] = past
	})
}

// condition changes what the controller says of a pool.
func condition(kind, status, reason, message string) func(*vif.SubportPool) {
	return func(p *vif.SubportPool) {
		for i := range p.Status.Conditions {
			if c := &p.Status.Conditions[i]; c.Type == kind {
				c.Status, c.Reason, c.Message = metav1.ConditionStatus(status), reason, message
			}
		}
	}
}

// only leaves a pool so many subports, the first of which has a pod.
func only(n int) func(*vif.SubportPool) {
	return func(p *vif.SubportPool) { p.Spec.Subports, p.Status.Subports = p.Spec.Subports[:n], n }
}

// renew makes the Lease of the controllers be renewed a while ago.
func (p *pods) renew(ago time.Duration) {
	p.api.Put(lease, map[string]any{"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": map[string]any{"name": "kuryr-controller", "namespace": "kube-system"},
		"spec": map[string]any{"holderIdentity": "master-0_17_4711", "leaseDurationSeconds": 15, "renewTime": metav1.NewMicroTime(time.Now().Add(-ago))}})
}

// serve makes a node answer at a port of its loopback.
func (p *pods) serve(node string, port int, pages map[string]string) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, ok := pages[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		io.WriteString(w, text)
	}))
	p.t.Cleanup(s.Close)
	p.Host("demo/"+node).Forward(fmt.Sprintf("127.0.0.1:%d", port), strings.TrimPrefix(s.URL, "http://"))
}

// refuse makes a pod wait for its network, as its kubelet tells it.
func (p *pods) refuse(name, node, why string, ago time.Duration) {
	x := pod(name, node, corev1.PodPending)
	p.api.AddPod(x)
	p.api.AddEvent(corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name + ".1"}, Reason: "FailedCreatePodSandBox", Source: corev1.EventSource{Host: node},
		InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: name, UID: x.UID}, LastTimestamp: metav1.NewTime(time.Now().Add(-ago)),
		Message: `Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup network for sandbox "0f": ` + why})
}

const quoted = `plugin type="kuryr-cni" failed (add): `

func TestHealthyPodsYieldNoFinding(t *testing.T) {
	t.Parallel()
	p := onNeutron(t)
	// What is under way, and what is no business of ours, is no finding.
	p.refuse("long-ago", "worker-0", quoted+"no subport is free", 2*time.Hour)
	p.refuse("other", "worker-0", `plugin type="other" failed (add): no`, 0)
	p.api.AddPod(pod("ended", "worker-0", corev1.PodSucceeded))
	host := pod("host", "worker-0", corev1.PodRunning)
	host.Spec.HostNetwork = true
	p.api.AddPod(host)
	young := p.subport("worker-2", 9, "worker-1") // made a moment ago, and neither published nor known yet
	p.Set("port", young.Port, "created_at", time.Now().UTC().Format("2006-01-02T15:04:05Z"))
	for _, s := range p.subports["worker-0"][:2] { // one pod after another of a namespace that is called like the stack
		p.Set("port", s.Port, "name", "demo/web-0")
	}
	p.ResetLog()
	found := diagnose(t, p.Lab, "demo", stack.Defaults())
	for _, check := range append(ofPods, "subnets", "names") {
		if f := found[check]; f.Verdict != stack.Good || f.Do != "" {
			t.Errorf("%+v", f)
		}
	}
	for check, want := range map[string]string{"pod-controller": "master-0", "pod-pools": "worker-1 has 3 of 4 free", "pod-ports": "9 ports, 2 of them",
		"pod-latency": "worker-0: of 100 pods half had their port within 5ms, 99 of 100 within 10ms", "pod-cloud": "master-0: none since its controller was started", "subnets": "demo/pod_net: 9 of 65533"} {
		if got := found[check].Answer; !strings.Contains(got, want) {
			t.Errorf("%s says %q and not %q", check, got, want)
		}
	}
	p.serve("master-0", 9656, map[string]string{"/debug/last-cloud-error": `{"time":"2026-01-02T03:04:05Z","error":"long ago"}`})
	p.serve("worker-0", 9655, map[string]string{"/metrics": "kuryr_add_milliseconds_count 0\nkuryr_add_refused_total 2\n"})
	found = diagnose(t, p.Lab, "demo", stack.Defaults())
	if f := found["pod-cloud"]; f.Verdict != stack.Good || !strings.HasSuffix(f.Answer, "was told: long ago") {
		t.Errorf("%+v", f)
	}
	if f := found["pod-latency"]; f.Verdict != stack.Good || !strings.HasPrefix(f.Answer, "worker-0: no pod has got one yet; 2 were refused") {
		t.Errorf("%+v", f)
	}
	p.serve("master-0", 9656, nil)
	if f := diagnose(t, p.Lab, "demo", stack.Defaults())["pod-cloud"]; f.Verdict != stack.Good || !strings.Contains(f.Answer, "keeps no record") {
		t.Errorf("%+v", f)
	}
	if w := p.Writes(); len(w) != 0 {
		t.Errorf("it wrote %v", w)
	}
	count := map[string]int{}
	for _, r := range p.api.Requests() {
		count[r]++
	}
	for _, r := range []string{"GET /api/v1/pods", "GET " + clustertest.PoolsPath, "GET /api/v1/events"} {
		if count[r] != 3 { // once for each diagnosis
			t.Errorf("%s was asked %d times", r, count[r])
		}
	}
}

func TestFaultsOfPodsAreFoundAndNamed(t *testing.T) {
	t.Parallel()
	type fault struct {
		check, text string
		plant       func(*pods)
	}
	is := func(worker string, change ...func(*vif.SubportPool)) func(*pods) {
		return func(p *pods) { p.publish(worker, change...) }
	}
	refusal := func(page string) func(*pods) {
		return func(p *pods) { p.serve("master-0", 9656, map[string]string{"/debug/last-cloud-error": page}) }
	}
	of1 := func(p *pods, vlan int) string { return p.subports["worker-1"][vlan-1].Port }
	warnings := []fault{
		{"pod-cloud", "ago its controller was told: POST ports: 409 OverQuota (req-1)", refusal(fmt.Sprintf(`{"time":%q,"error":"POST ports:\n409 OverQuota (req-1)"}`,
			time.Now().Add(-time.Minute).Format(time.RFC3339Nano)))},
		{"pod-latency", "worker-1: of 100 pods half had their port within 5ms, 99 of 100 within 2.5s", func(p *pods) {
			p.serve("worker-1", 9655, map[string]string{"/metrics": strings.ReplaceAll(addsWell, `{le="10"} 99`, `{le="10"} 80`)})
		}},
		{"pod-pools", "worker-9: there is a SubportPool of this name", func(p *pods) {
			p.subports["worker-9"] = p.subports["worker-0"]
			p.publish("worker-9")
		}},
		{"pod-pools", "worker-0: 1 of its 2 subports are free, 3 should be", is("worker-0", only(2))},
		{"pod-pools", "worker-0: it has 2 subports, as many as it may, and 1 of them are free", is("worker-0", only(2), condition(vif.Ready, "False", "PoolAtMax", "max"))},
		{"pod-ports", "VLAN 3, is on no trunk any more", func(p *pods) { p.detach("worker-1", of1(p, 3)) }},
		{"pod-ports", "VLAN 4, is in Neutron on the trunk of worker-1 with VLAN 77", func(p *pods) {
			p.detach("worker-1", of1(p, 4))
			p.attach("worker-1", of1(p, 4), 77)
		}},
		{"pod-ports", "pod_net: 1 ports carry the stack's mark and are on no trunk and in no SubportPool: ", func(p *pods) { p.port("demo/pod-worker-0-x", openstack.Mark("demo")) }},
		{"pod-ports", "VLAN 44, is on its trunk and not in its SubportPool", func(p *pods) { p.subport("worker-2", 44, "worker-0") }},
		{"pod-ports", "VLAN 45, on its trunk is none of the stack's", func(p *pods) {
			id, _ := p.port("theirs", "")
			p.attach("worker-0", id, 45)
		}},
		{"pod-ports", "is still held for pod default/web-worker-0, which is no more", func(p *pods) { p.api.DeletePod("default", "web-worker-0") }},
		{"pod-ports", "is DOWN in Neutron, which has had 1h", func(p *pods) { p.Set("port", of1(p, 2), "status", "DOWN") }},
	}
	problems := []fault{
		{"pod-controller", "that on master-0 works no more: it holds the Lease and has not renewed it for 10m", func(p *pods) { p.renew(10 * time.Minute) }},
		{"pod-controller", "gave its Lease up", func(p *pods) {
			p.api.Edit(lease, func(o map[string]any) { o["spec"].(map[string]any)["holderIdentity"] = "" })
		}},
		{"pod-controller", "none has ever worked", func(p *pods) { p.api.Remove(lease) }},
		{"pod-cloud", "master-0: what its controller says cannot be read: ", refusal("a page")},
		{"pod-cloud", "master-0: its controller does not say: ", func(p *pods) { p.Host("demo/master-0").Forward("127.0.0.1:9656", "127.0.0.1:1") }},
		{"pod-latency", "worker-1: its daemon shows no metrics: ", func(p *pods) { p.Host("demo/worker-1").Forward("127.0.0.1:9655", "127.0.0.1:1") }},
		{"pod-pools", "worker-0: Neutron makes no more ports, by the project's quota: Quota exceeded (req-2)",
			is("worker-0", condition(vif.QuotaExceeded, "True", "QuotaExceeded", "Quota exceeded (req-2)"))},
		{"pod-pools", "worker-0: the pods' network has no address left: none", is("worker-0", condition(vif.NoAddresses, "True", "NoAddresses", "none"))},
		{"pod-pools", "worker-0: the controller cannot fill it, CloudError: 500 (req-3)", is("worker-0", condition(vif.Ready, "False", "CloudError", "500 (req-3)"))},
		{"pod-pools", "worker-0: its trunk is not in Neutron", is("worker-0", condition(vif.Ready, "False", "NoTrunk", ""))},
		{"pod-pools", "worker-0: 0 of its 1 subports are free, 3 should be", is("worker-0", only(1))},
		{"pod-pools", "worker-0: the controller has never said how it is", is("worker-0", func(x *vif.SubportPool) { x.Status.Conditions = nil })},
		{"pod-pools", "worker-0: it has no SubportPool", func(p *pods) { p.api.DeletePool("worker-0") }},
		{"pod-daemons", "", nil}, // worker-1's is needed below
		{"pod-daemons", "worker-1: its daemon has not reported for 1h", is("worker-1", func(x *vif.SubportPool) { x.Status.Heartbeat = metav1.NewTime(time.Now().Add(longAgo)) })},
		{"pod-daemons", "worker-1: its daemon has never reported", is("worker-1", func(x *vif.SubportPool) { x.Status.Heartbeat = metav1.Time{} })},
		{"pod-daemons", "worker-1: its daemon knows 2 of the 4 subports", is("worker-1", func(x *vif.SubportPool) { x.Status.Subports = 2 })},
		{"pod-ports", "worker-0: the subport of pod default/web-worker-0, port", func(p *pods) { p.Set("port", p.subports["worker-0"][0].Port, "status", "DOWN") }},
		{"pod-ports", "is DOWN in Neutron, which has had 1h", func(*pods) {}},
		{"pod-ports", "VLAN 1, is not in Neutron any more: somebody deleted it", func(p *pods) { p.Delete("port", of1(p, 1)) }},
		{"pod-ports", "worker-1: pod default/odd runs and has no port", func(p *pods) { p.api.AddPod(pod("odd", "worker-1", corev1.PodRunning)) }},
		{"pod-starts", "worker-0: pods wait for their network: default/a, default/b: no subport is free (waited 30s)", func(p *pods) {
			p.refuse("a", "worker-0", quoted+"no subport is free (waited 30s)", time.Minute)
			p.refuse("b", "worker-0", quoted+"no subport is free (waited 30s)", time.Minute)
		}},
		{"subnets", "demo/pod_net: 1 of 1 addresses are in use, 100 %", func(p *pods) {
			address, _, _ := strings.Cut(p.subports["worker-0"][0].IPs[0].Address, "/")
			p.Set("subnet", "demo/pod_subnet", "allocation_pools", []map[string]string{{"start": address, "end": address}})
		}},
	}
	// One fault of each check at once, until there are no more; those of ports, which are not undone, all in the first round.
	for verdict, faults := range map[stack.Verdict][]fault{stack.Warning: warnings, stack.Bad: problems} {
		t.Run(string(verdict), func(t *testing.T) {
			t.Parallel()
			p := onNeutron(t)
			for round := 0; len(faults) > 0; round++ {
				p.well()
				var now, later []fault
				taken := map[string]bool{}
				for _, x := range faults {
					if taken[x.check] && x.check != "pod-ports" {
						later = append(later, x)
						continue
					}
					if taken[x.check] = true; x.plant != nil {
						x.plant(p)
						now = append(now, x)
					}
				}
				found := diagnose(t, p.Lab, "demo", stack.Defaults())
				for _, x := range now {
					if f := found[x.check]; f.Verdict != verdict || !strings.Contains(f.Answer, x.text) || f.Do == "" {
						t.Errorf("round %d: got %+v, want %s with %q", round, f, verdict, x.text)
					}
				}
				faults = later
			}
		})
	}
}

func TestPodsThatCannotBeAskedForAreToldOnce(t *testing.T) {
	t.Parallel()
	p := onNeutron(t)
	p.api.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == clustertest.PoolsPath { // by now the cloud has answered everything else
			p.Fail("GET /v2.0/trunks", -1, 500, "{}", nil)
		}
		return false
	})
	found := diagnose(t, p.Lab, "demo", stack.Defaults())
	if f := found["pod-ports"]; f.Verdict != stack.Bad || !strings.Contains(f.Answer, "listing trunks") || f.Do == "" || found["pod-pools"].Verdict != stack.Good {
		t.Errorf("%+v", f)
	}
	p.Heal()
	p.api.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != clustertest.PoolsPath {
			return false
		}
		http.NotFound(w, r)
		return true
	})
	found = diagnose(t, p.Lab, "demo", stack.Defaults())
	if f := found["pod-pools"]; f.Verdict != stack.Bad || !strings.Contains(f.Answer, "listing SubportPools") || !strings.Contains(f.Do, "kuryrctl stack demo") {
		t.Errorf("%+v", f)
	}
	for _, check := range []string{"pod-daemons", "pod-ports", "pod-starts"} {
		if f := found[check]; f.Verdict != stack.Skipped {
			t.Errorf("%+v", f)
		}
	}
}

func (p *pods) detach(worker, port string) {
	p.t.Helper()
	p.trunk(worker, "remove_subports", map[string]any{"port_id": port})
}

package stack_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kuryrctl/kuryrctl/internal/clustertest"
	"github.com/kuryrctl/kuryrctl/internal/labtest"
	"github.com/kuryrctl/kuryrctl/internal/sshtest"
	"github.com/kuryrctl/kuryrctl/stack"
	"github.com/kuryrctl/kuryrctl/templates"
)

// put writes a file of a host.
func put(t *testing.T, h *sshtest.Host, name, text string) {
	t.Helper()
	path := filepath.Join(h.Dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// certificate is one that ends at a time, as PEM.
func certificate(t *testing.T, ends time.Time) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: ends.Add(-time.Hour), NotAfter: ends}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// healthyNode makes a host with a shell look like a node on which all is well.
func healthyNode(t *testing.T, h *sshtest.Host, name string, system sshtest.OS) {
	t.Helper()
	h.Shell(system)
	put(t, h, "etc/hostname", name+"\n")
	put(t, h, "run/cloud-init/result.json", "{\n \"v1\": {\n  \"datasource\": \"DataSourceOpenStackLocal [net,ver=2]\",\n  \"errors\": []\n }\n}\n")
	put(t, h, "etc/resolv.conf", "search kuryr.internal\n")
	for _, other := range []string{"10-kuryr.conflist", "20-other.conf", "00-notes.txt"} { // nobody minds the last two
		put(t, h, "etc/cni/net.d/"+other, "{}\n")
	}
	put(t, h, "proc/net/route", "Iface\tDestination\tGateway\nens3\t00000000\t01000B0A\nens3\t00000B0A\t00000000\n")
	put(t, h, "sys/class/net/ens3/mtu", "1500\n")
	put(t, h, "proc/modules", "overlay 1 0 - Live 0x0\nbr_netfilter 1 0 - Live 0x0\n")
	put(t, h, "sys/module/8021q/refcnt", "0\n")
	for line := range strings.Lines(string(templates.NodeFile("sysctl.conf"))) {
		if key, value, ok := strings.Cut(line, " = "); ok {
			put(t, h, "proc/sys/"+strings.ReplaceAll(key, ".", "/"), value)
		}
	}
	h.Stub("df", `printf 'Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/vda1 15395864 1124668 13468392 8%% /\n'`)
	for _, unit := range []string{"containerd", "kubelet"} {
		put(t, h, "etc/systemd/system/"+unit+".service", "[Service]\n")
		put(t, h, "var/lib/sshtest/active/"+unit+".service", "active\n")
	}
	h.Stub("ctr", "printf 'registry.k8s.io/pause:3.10.2\\nregistry.k8s.io/etcd:3.6.5-0\\n'")
	put(t, h, "etc/containerd/config.toml", "[plugins.x]\n  sandbox = 'registry.k8s.io/pause:3.10.2'\n")
	put(t, h, "etc/kubernetes/manifests/etcd.yaml", "spec:\n  containers:\n  - name: etcd\n    image: registry.k8s.io/etcd:3.6.5-0\n")
	put(t, h, "etc/kubernetes/pki/apiserver.crt", certificate(t, time.Now().Add(300*24*time.Hour)))
	put(t, h, "var/lib/kubelet/pki/kubelet-client-current.pem",
		certificate(t, time.Now().Add(300*24*time.Hour))+"-----BEGIN EC PRIVATE KEY-----\nnever to be seen\n-----END EC PRIVATE KEY-----\n")
}

// kubernetes makes the stack demo look like a healthy cluster: hosts with a shell, and an API behind the load balancer.
func kubernetes(t *testing.T, lab *labtest.Lab) *clustertest.Server {
	t.Helper()
	v := mustUp(t, lab, "demo", servers())
	systems := map[string]sshtest.OS{"master-0": sshtest.Debian13, "worker-0": sshtest.Rocky9, "worker-1": sshtest.Ubuntu2204}
	api := clustertest.New(t, "172.30.0.1")
	for name, system := range systems {
		h := lab.Host("demo/" + name)
		h.On("# look at the state*", (*sshtest.Exec).Run) // the lab's hosts answer anything else with nothing
		healthyNode(t, h, name, system)
		h.Forward("127.0.0.1:9655", "127.0.0.1:1") // nothing of this machine's own
		h.Forward("127.0.0.1:9656", "127.0.0.1:1")
		n := corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
		n.Status.NodeInfo.KubeletVersion = "v1.37.1"
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionFalse, Reason: "KubeletNotReady",
			Message: "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized"}}
		if name == "worker-1" { // it has just joined
			n.Status.Conditions[0].Message = "[" + n.Status.Conditions[0].Message + ", CSINode is not yet initialized]"
		}
		api.AddNode(n)
	}
	for _, part := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"} {
		api.AddPod(staticPod(part, "master-0"))
	}
	lab.Lead("172.30.0.1:443", strings.TrimPrefix(api.URL, "https://"))
	dir := filepath.Join(lab.State, "stacks", lab.ProjectID(), "demo")
	if err := os.WriteFile(filepath.Join(dir, "kubeconfig"), api.Kubeconfig(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "lab.yaml")); err != nil { // which says that it ends at servers
		t.Fatal(err)
	}
	if len(v.Nodes) != len(systems) {
		t.Fatalf("%d nodes", len(v.Nodes))
	}
	return api
}

// staticPod is a static pod of a master.
func staticPod(name, node string) corev1.Pod {
	p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: name + "-" + node}, Spec: corev1.PodSpec{NodeName: node}}
	p.Status.Phase = corev1.PodRunning
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{Ready: true}}
	return p
}

// ofNodes are the checks that look at nodes and at what runs on them.
var ofNodes = []string{"node-system", "node-runtime", "api", "nodes", "control-plane"}

func TestAHealthyClusterYieldsNoFinding(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	kubernetes(t, lab)
	lab.ResetLog()
	found := diagnose(t, lab, "demo", stack.Defaults())
	for _, check := range ofNodes {
		if f := found[check]; f.Verdict != stack.Good || f.Do != "" {
			t.Errorf("%+v", f)
		}
	}
	if got := found["nodes"].Answer; !strings.Contains(got, "3 have no network plugin yet") {
		t.Errorf("nodes: %s", got)
	}
	if w := lab.Writes(); len(w) != 0 {
		t.Errorf("it wrote %v", w)
	}
	for _, name := range []string{"master-0", "worker-0", "worker-1"} {
		looks := 0
		for _, line := range lab.Host("demo/" + name).Commands() {
			if strings.HasPrefix(line, "# look at the state") {
				looks++
			}
		}
		if looks != 1 {
			t.Errorf("%s was looked at %d times", name, looks)
		}
	}
}

func TestFaultsOfNodesAreFoundAndNamed(t *testing.T) {
	t.Parallel()
	const warning, bad = stack.Warning, stack.Bad
	type fault struct {
		name, check, node, text string
		verdict                 stack.Verdict
		plant                   func(*testing.T, *sshtest.Host)
	}
	all := map[stack.Verdict][]fault{}
	for _, x := range []fault{
		{"another hostname", "node-system", "worker-0", "its hostname is worker-0.novalocal", bad,
			func(t *testing.T, h *sshtest.Host) { put(t, h, "etc/hostname", "worker-0.novalocal\n") }},
		{"cloud-init failed", "node-system", "worker-1", "cloud-init: no disk", bad, func(t *testing.T, h *sshtest.Host) {
			put(t, h, "run/cloud-init/result.json", `{"v1": {"errors": ["no disk"]}}`)
		}},
		{"a clock that is off", "node-system", "worker-0", "its clock is -", bad,
			func(_ *testing.T, h *sshtest.Host) { h.Stub("date", "echo 1000000000.5") }},
		{"swap", "node-system", "worker-1", "swap is on (/dev/vdb)", bad, func(t *testing.T, h *sshtest.Host) {
			put(t, h, "proc/swaps", "Filename Type Size Used Priority\n/dev/vdb partition 1 0 -2\n")
		}},
		{"a disk that is nearly full", "node-system", "worker-0", "/ has 1562 MiB free, 10 %", warning, func(_ *testing.T, h *sshtest.Host) {
			h.Stub("df", `printf 'Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/vda1 16000000 14400000 1600000 90%% /\n'`)
		}},
		{"a disk that is full", "node-system", "worker-1", "/ has 390 MiB free, 2 %", bad, func(_ *testing.T, h *sshtest.Host) {
			h.Stub("df", `printf 'Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/vda1 16000000 15600000 400000 98%% /\n'`)
		}},
		{"no memory", "node-system", "worker-0", "63 MiB of 1953 MiB memory are left", bad,
			func(t *testing.T, h *sshtest.Host) {
				put(t, h, "proc/meminfo", "MemTotal: 2000000 kB\nMemAvailable: 65000 kB\n")
			}},
		{"a module that is not loaded", "node-system", "worker-1", "not loaded of the kernel's modules: 8021q", bad,
			func(t *testing.T, h *sshtest.Host) { must(t, os.RemoveAll(filepath.Join(h.Dir, "sys/module/8021q"))) }},
		{"control groups of version 1", "node-system", "worker-0", "its control groups", bad,
			func(t *testing.T, h *sshtest.Host) {
				must(t, os.Remove(filepath.Join(h.Dir, "sys/fs/cgroup/cgroup.controllers")))
			}},
		{"a sysctl", "node-system", "worker-0", "net.ipv4.ip_forward is 0, not 1", bad,
			func(t *testing.T, h *sshtest.Host) { put(t, h, "proc/sys/net/ipv4/ip_forward", "0\n") }},
		{"a nameserver that is silent", "node-system", "worker-0", "nameserver 192.0.2.53 does not answer", warning, func(t *testing.T, h *sshtest.Host) {
			put(t, h, "etc/resolv.conf", "nameserver 192.0.2.53\n")
			h.Stub("bash", "exit 1")
		}},
		{"a small MTU", "node-system", "worker-0", "the MTU of ens3 is 1400, less than the 14", bad,
			func(t *testing.T, h *sshtest.Host) { put(t, h, "sys/class/net/ens3/mtu", "1400\n") }},
		{"NetworkManager", "node-system", "worker-0", "NetworkManager runs", warning, func(t *testing.T, h *sshtest.Host) {
			put(t, h, "run/NetworkManager/x", "")
			put(t, h, "etc/NetworkManager/conf.d/a.conf", "[keyfile]\nunmanaged-devices=interface-name:docker0\n")
			put(t, h, "var/lib/sshtest/active/NetworkManager.service", "active\n")
		}},

		{"containerd down", "node-runtime", "master-0", "containerd is failed", bad,
			func(t *testing.T, h *sshtest.Host) {
				put(t, h, "var/lib/sshtest/active/containerd.service", "failed\n")
			}},
		{"containerd silent", "node-runtime", "worker-0", "containerd does not answer: connection refused", bad,
			func(_ *testing.T, h *sshtest.Host) { h.Stub("ctr", "echo connection refused; exit 1") }},
		{"no containerd", "node-runtime", "worker-1", "it has no containerd", bad,
			func(t *testing.T, h *sshtest.Host) { must(t, os.Remove(filepath.Join(h.Dir, "usr/bin/ctr"))) }},
		{"a kubelet that crashes", "node-runtime", "worker-1", "kubelet ends again and again, 7 times so far; it says: E1125 run.go: no such file", bad,
			func(t *testing.T, h *sshtest.Host) {
				put(t, h, "var/lib/sshtest/active/kubelet.service", "activating\n")
				put(t, h, "var/lib/sshtest/restarts/kubelet.service", "7\n")
				h.Stub("journalctl", "echo E1125 run.go: no such file; echo Scheduled restart job")
			}},
		{"a kubelet that crashed", "node-runtime", "worker-1", "kubelet ended by itself and runs since 1m30s", warning,
			func(t *testing.T, h *sshtest.Host) { put(t, h, "var/lib/sshtest/restarts/kubelet.service", "1\n") }},
		{"an image gone", "node-runtime", "master-0", "images that are not there: registry.k8s.io/etcd:3.6.5-0", bad,
			func(_ *testing.T, h *sshtest.Host) { h.Stub("ctr", "echo registry.k8s.io/pause:3.10.2") }},
		{"another network plugin", "node-runtime", "worker-1", "/etc/cni/net.d/05-flannel.conflist comes before 10-kuryr.conflist", bad,
			func(t *testing.T, h *sshtest.Host) { put(t, h, "etc/cni/net.d/05-flannel.conflist", "{}\n") }},
		{"a certificate that expired", "node-runtime", "master-0", "/etc/kubernetes/pki/apiserver.crt expired on", bad, func(t *testing.T, h *sshtest.Host) {
			put(t, h, "etc/kubernetes/pki/apiserver.crt", certificate(t, time.Now().Add(-time.Hour)))
		}},
		{"a certificate that ends", "node-runtime", "worker-0", "/var/lib/kubelet/pki/kubelet-client-current.pem ends on", warning, func(t *testing.T, h *sshtest.Host) {
			put(t, h, "var/lib/kubelet/pki/kubelet-client-current.pem", certificate(t, time.Now().Add(24*time.Hour)))
		}},
	} {
		all[x.verdict] = append(all[x.verdict], x)
	}
	// Those of one verdict at once: none hides another.
	for verdict, faults := range all {
		t.Run(string(verdict), func(t *testing.T) {
			t.Parallel()
			lab := labtest.New(t, []string{"demo"})
			kubernetes(t, lab)
			for _, x := range faults {
				x.plant(t, lab.Host("demo/"+x.node))
			}
			found := diagnose(t, lab, "demo", stack.Defaults())
			for _, x := range faults {
				f := found[x.check]
				if f.Verdict != verdict || !strings.Contains(f.Answer, x.node+": "+x.text) {
					t.Errorf("%s: got %+v, want %s with %q", x.name, f, verdict, x.text)
				}
				if !strings.Contains(f.Do, x.node) {
					t.Errorf("%s: what to do does not name the node: %q", x.name, f.Do)
				}
			}
			for _, check := range []string{"api", "nodes", "control-plane"} {
				if f := found[check]; f.Verdict != stack.Good {
					t.Errorf("and %+v", f)
				}
			}
		})
	}
}

func TestSudoWithAPasswordIsFound(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	kubernetes(t, lab)
	lab.Host("demo/worker-1").NoSudo()
	found := diagnose(t, lab, "demo", stack.Defaults())
	if f := found["node-system"]; f.Verdict != stack.Bad || f.Answer != "worker-1: sudo wants a password" || !strings.Contains(f.Do, "NOPASSWD") {
		t.Errorf("%+v", f)
	}
}

func TestFaultsOfTheClusterAreFoundAndNamed(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		check, text string
		verdict     stack.Verdict
		plant       func(*labtest.Lab, *clustertest.Server)
	}{
		"an API that is not ready": {"api", "etcd failed", stack.Bad, func(_ *labtest.Lab, s *clustertest.Server) { s.Unready("etcd") }},
		"no API":                   {"api", "checking whether the API server is ready", stack.Bad, func(_ *labtest.Lab, s *clustertest.Server) { s.Stop() }},
		"a certificate for others": {"api", "not for 172.30.0.9", stack.Bad,
			func(l *labtest.Lab, s *clustertest.Server) {
				l.Set("loadbalancer", "demo/api-lb", "vip_address", "172.30.0.9")
				l.Lead("172.30.0.9:443", strings.TrimPrefix(s.URL, "https://"))
			}},
		"a server that is no node": {"nodes", "worker-1: it is no node", stack.Bad, func(_ *labtest.Lab, s *clustertest.Server) { s.RemoveNode("worker-1") }},
		"a node without a server":  {"nodes", "worker-9: the cluster has a node", stack.Warning, func(_ *labtest.Lab, s *clustertest.Server) { s.AddNode(node("worker-9")) }},
		"a kubelet that is silent": {"nodes", "NotReady, NodeStatusUnknown: Kubelet stopped", stack.Bad, func(_ *labtest.Lab, s *clustertest.Server) {
			n := node("worker-1")
			n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionUnknown, Reason: "NodeStatusUnknown", Message: "Kubelet stopped posting node status."}}
			s.RemoveNode("worker-1")
			s.AddNode(n)
		}},
		"a kubelet without a runtime": {"nodes", "NotReady, KubeletNotReady: [", stack.Bad, func(_ *labtest.Lab, s *clustertest.Server) {
			n := node("worker-1")
			n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionFalse, Reason: "KubeletNotReady",
				Message: "[container runtime status check may not have completed yet, cni plugin not initialized]"}}
			s.RemoveNode("worker-1")
			s.AddNode(n)
		}},
		"a kubelet that is too old": {"nodes", "7 minor versions older", stack.Bad, func(_ *labtest.Lab, s *clustertest.Server) {
			n := node("worker-1")
			n.Status.NodeInfo.KubeletVersion = "v1.30.0"
			s.RemoveNode("worker-1")
			s.AddNode(n)
		}},
		"a part that is gone": {"control-plane", "master-0: kube-scheduler does not run", stack.Bad,
			func(_ *labtest.Lab, s *clustertest.Server) { s.DeletePod("kube-system", "kube-scheduler-master-0") }},
		"a part that crashes": {"control-plane", "etcd is Running and not ready, CrashLoopBackOff: back-off", stack.Bad,
			func(_ *labtest.Lab, s *clustertest.Server) {
				p := staticPod("etcd", "master-0")
				p.Status.Conditions[0].Status = corev1.ConditionFalse
				p.Status.ContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: "back-off"}}}}
				s.DeletePod("kube-system", "etcd-master-0")
				s.AddPod(p)
			}},
		"a part that crashed": {"control-plane", "kube-apiserver was started anew", stack.Warning, func(_ *labtest.Lab, s *clustertest.Server) {
			p := staticPod("kube-apiserver", "master-0")
			p.Status.ContainerStatuses[0].RestartCount = 3
			p.Status.ContainerStatuses[0].LastTerminationState.Terminated = &corev1.ContainerStateTerminated{FinishedAt: metav1.Now()}
			s.DeletePod("kube-system", "kube-apiserver-master-0")
			s.AddPod(p)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lab := labtest.New(t, []string{"demo"})
			x.plant(lab, kubernetes(t, lab))
			f := diagnose(t, lab, "demo", stack.Defaults())[x.check]
			if f.Verdict != x.verdict || !strings.Contains(f.Answer, x.text) || f.Do == "" {
				t.Errorf("got %+v, want %s with %q", f, x.verdict, x.text)
			}
		})
	}
}

func node(name string) corev1.Node {
	n := corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	n.Status.NodeInfo.KubeletVersion = "v1.37.1"
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	return n
}

func TestANodeThatDoesNotAnswerIsToldOnce(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	kubernetes(t, lab)
	lab.Host("demo/worker-1").Down()
	found := diagnose(t, lab, "demo", stack.Defaults())
	if f := found["ssh"]; f.Verdict != stack.Bad || !strings.HasPrefix(f.Answer, "worker-1: ") {
		t.Errorf("%+v", f)
	}
	for _, check := range []string{"node-system", "node-runtime"} {
		if f := found[check]; f.Verdict != stack.Good || f.Answer != "all 2; not asked, since SSH does not answer: worker-1" {
			t.Errorf("%+v", f)
		}
	}

	lab.Host("demo/master-0").Down()
	found = diagnose(t, lab, "demo", stack.Defaults())
	if f := found["node-system"]; f.Verdict != stack.Skipped || !strings.Contains(f.Answer, "master-0, worker-0, worker-1") {
		t.Errorf("%+v", f)
	}
	for _, check := range []string{"api", "nodes", "control-plane"} {
		if f := found[check]; f.Verdict != stack.Skipped || !strings.Contains(f.Answer, "first master") {
			t.Errorf("%+v", f)
		}
	}
}

func TestAStackWithoutKubernetesIsNotAskedForIt(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	mustUp(t, lab, "demo", servers())
	for _, c := range []stack.Config{servers(), stack.Defaults()} { // declared now, and remembered
		for _, check := range slices.Concat(ofNodes, ofPods) {
			if f := diagnose(t, lab, "demo", c)[check]; f.Verdict != stack.Skipped || !strings.Contains(f.Answer, "Kubernetes") {
				t.Errorf("%+v", f)
			}
		}
	}
	must(t, os.Remove(filepath.Join(lab.State, "stacks", lab.ProjectID(), "demo", "lab.yaml")))
	if f := diagnose(t, lab, "demo", stack.Defaults())["api"]; f.Verdict != stack.Skipped || !strings.Contains(f.Answer, "no kubeconfig") {
		t.Errorf("%+v", f)
	}
}

//go:build kernel

package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"k8s.io/client-go/rest"

	"github.com/kuryrctl/kuryrctl/internal/umltest"
	"github.com/kuryrctl/kuryrctl/nodeagent/daemon"
	"github.com/kuryrctl/kuryrctl/nodeagent/socket"
	"github.com/kuryrctl/kuryrctl/nodeagent/vif"
	"github.com/kuryrctl/kuryrctl/templates"
)

func TestMain(m *testing.M) {
	umltest.Main(m, umltest.Machine{
		Modules: []string{"8021q", "dummy", "sch_tbf", "sch_ingress", "cls_matchall", "act_police"},
		Programs: []umltest.Program{
			{Dir: "../..", Package: "github.com/kuryrctl/kuryrctl/cmd/kuryr-cni"},
			{Dir: "../../bootstrap/bundle/runtime", Package: "github.com/containernetworking/plugins/plugins/meta/portmap"},
		},
	})
}

// plugin is the program, as nodes have it.
const plugin = umltest.Bin + "/kuryr-cni"

// node is this kernel as a worker whose API server is away: it lives on the copy of its pool.
type node struct {
	testing.TB
	dir  string
	stop func()
}

func newNode(t testing.TB, subports int) *node {
	t.Helper()
	n := &node{TB: t, dir: t.TempDir()}
	p := vif.SubportPool{Spec: vif.SubportPoolSpec{Trunk: "trunk", ParentMAC: n.trunk()}}
	p.Name = "worker-0"
	for i := 1; i <= subports; i++ {
		p.Spec.Subports = append(p.Spec.Subports, vif.Subport{Port: fmt.Sprint("port-", i), MAC: fmt.Sprintf("fa:16:3e:00:01:%02x", i), VLAN: i, MTU: 1400,
			IPs: []vif.IP{{Address: fmt.Sprintf("10.10.0.%d/16", i), Gateway: "10.10.255.254"}}})
	}
	text, err := json.Marshal(p)
	n.must(err)
	n.must(os.WriteFile(filepath.Join(n.dir, "pool.json"), text, 0o600))
	n.start()
	return n
}

// trunk returns the MAC of this kernel's dummy interface, which the module brings along, and sees to it that it is up.
func (n *node) trunk() string {
	n.Helper()
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	n.must(err)
	defer unix.Close(s)
	r, err := unix.NewIfreq("dummy0")
	n.must(err)
	r.SetUint16(unix.IFF_UP)
	n.must(unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, r))
	mac, err := os.ReadFile("/sys/class/net/dummy0/address")
	n.must(err)
	return strings.TrimSpace(string(mac))
}

func (n *node) must(err error) {
	n.Helper()
	if err != nil {
		n.Fatal(err)
	}
}

func (n *node) start() {
	n.Helper()
	d, err := daemon.Open(daemon.Config{Node: "worker-0", State: n.dir, Socket: filepath.Join(n.dir, "run", "cni.sock"), Kube: &rest.Config{Host: "https://127.0.0.1:1"},
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Cooldown: time.Millisecond, Patience: 200 * time.Millisecond})
	n.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- errors.Join(d.Run(ctx), d.Close()) }()
	var once sync.Once
	n.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				n.Error(err)
			}
		})
	}
	n.Cleanup(n.stop)
	client := socket.NewClient(filepath.Join(n.dir, "run", "cni.sock"))
	for end := time.Now().Add(10 * time.Second); ; {
		if _, err := client.Status(context.Background()); err == nil {
			return
		} else if time.Now().After(end) {
			n.Fatal(err)
		}
	}
}

// sandbox is what a container runtime makes for a pod: a network namespace with a name.
type sandbox struct{ container, netns string }

func (n *node) sandbox(container string) sandbox {
	n.Helper()
	n.must(os.MkdirAll("/run/netns", 0o755))
	s := sandbox{container, fmt.Sprintf("/run/netns/%s-%d", container, time.Now().UnixNano())}
	n.must(os.WriteFile(s.netns, nil, 0o600))
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = unix.Mount("/proc/thread-self/ns/net", s.netns, "", unix.MS_BIND, "")
		}
		made <- err
	}()
	n.must(<-made)
	n.Cleanup(s.remove)
	return s
}

func (s sandbox) remove() {
	_ = unix.Unmount(s.netns, unix.MNT_DETACH)
	_ = os.Remove(s.netns)
}

// call runs the plugin as a runtime does. The error is what it printed.
func (n *node) call(command, version string, s sandbox, more ...string) (result map[string]any, err error) {
	n.Helper()
	conf := map[string]any{"cniVersion": version, "name": "kuryr", "type": "kuryr-cni", "socket": filepath.Join(n.dir, "run", "cni.sock"), "state": n.dir}
	if command == "GC" {
		valid := []map[string]string{}
		for _, container := range more {
			valid = append(valid, map[string]string{"containerID": container, "ifname": "eth0"})
		}
		conf["cni.dev/valid-attachments"] = valid
	}
	stdin, err := json.Marshal(conf)
	n.must(err)
	cmd := exec.Command(plugin)
	cmd.Env = []string{"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + s.container, "CNI_NETNS=" + s.netns, "CNI_IFNAME=eth0", "CNI_PATH=/",
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=" + s.container + ";K8S_POD_UID=uid"}
	cmd.Stdin = bytes.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	failed := cmd.Run()
	if stdout.Len() > 0 {
		if err := json.Unmarshal(stdout.Bytes(), &result); err != nil {
			return nil, fmt.Errorf("%s printed %q, %q", command, &stdout, &stderr)
		}
	}
	if failed == nil {
		return result, nil
	}
	var e types.Error
	if json.Unmarshal(stdout.Bytes(), &e) != nil {
		return nil, fmt.Errorf("%s: %w: %q, %q", command, failed, &stdout, &stderr)
	}
	return nil, &e
}

func (n *node) do(command, version string, s sandbox, more ...string) map[string]any {
	n.Helper()
	r, err := n.call(command, version, s, more...)
	if err != nil {
		n.Fatalf("%s: %v", command, err)
	}
	return r
}

func address(result map[string]any) string {
	return result["ips"].([]any)[0].(map[string]any)["address"].(string)
}

func TestALifeInEveryVersion(t *testing.T) {
	for _, version := range Versions().SupportedVersions() {
		n := newNode(t, 1)
		s := n.sandbox("a")
		r := n.do("ADD", version, s)
		if r["cniVersion"] != version || address(r) != "10.10.0.1/16" {
			t.Errorf("%s: got %v", version, r)
		}
		if version != "0.3.1" {
			n.do("CHECK", version, s)
		}
		if version == "1.1.0" {
			n.do("STATUS", version, sandbox{})
		}
		n.do("DEL", version, s)
		n.do("DEL", version, s)
		if _, err := n.call("CHECK", "1.1.0", s); code(t, err) != types.ErrUnknownContainer {
			t.Errorf("%s: CHECK after DEL: %v", version, err)
		}
		s.remove()
		n.do("DEL", version, s)
		n.do("DEL", version, sandbox{container: "a"})
		n.stop()
	}
}

func TestAPodThatGoesWhileNoDaemonIsThere(t *testing.T) {
	n := newNode(t, 1)
	a, b := n.sandbox("a"), n.sandbox("b")
	n.do("ADD", "1.1.0", a)
	n.stop()
	if _, err := n.call("STATUS", "1.1.0", sandbox{}); code(t, err) != types.ErrPluginNotAvailable {
		t.Errorf("STATUS: got %v", err)
	}
	n.do("DEL", "1.1.0", a)
	n.start()
	if r := n.do("ADD", "1.1.0", b); address(r) != "10.10.0.1/16" {
		t.Errorf("got %v", r)
	}
	n.do("CHECK", "1.1.0", b)
}

func TestAnEmptyPoolIsAReasonToTryAgain(t *testing.T) {
	n := newNode(t, 1)
	n.do("ADD", "1.1.0", n.sandbox("a"))
	b := n.sandbox("b")
	_, err := n.call("ADD", "1.1.0", b)
	if code(t, err) != types.ErrTryAgainLater || !strings.Contains(err.Error(), "of 1, 1 are in use") {
		t.Errorf("got %v", err)
	}
	n.do("STATUS", "1.1.0", sandbox{}) // the node stays ready
}

func TestAnInterfaceThatCannotBeMadeKeepsNoSubport(t *testing.T) {
	n := newNode(t, 1)
	gone := n.sandbox("a")
	gone.remove()
	if _, err := n.call("ADD", "1.1.0", gone); err == nil {
		t.Error("an interface was made in no namespace")
	}
	b := n.sandbox("b")
	n.do("ADD", "1.1.0", b)
	n.do("CHECK", "1.1.0", b)
}

// The old sandbox lives on, and so does its interface: nobody has sent DEL, but the daemon has learned that it is over.
func TestASubportIsTakenOverFromASandboxThatLivesOn(t *testing.T) {
	n := newNode(t, 1)
	a, b := n.sandbox("a"), n.sandbox("b")
	n.do("ADD", "1.1.0", a)
	n.must(socket.NewClient(filepath.Join(n.dir, "run", "cni.sock")).Del(t.Context(), socket.Attachment{Container: "a", IfName: "eth0"}))
	n.do("ADD", "1.1.0", b)
	n.do("CHECK", "1.1.0", b)
	n.do("DEL", "1.1.0", a) // late, and no harm to b
	n.do("CHECK", "1.1.0", b)
}

func TestGCRemovesWhatIsNotValid(t *testing.T) {
	n := newNode(t, 3)
	a, b, c := n.sandbox("a"), n.sandbox("b"), n.sandbox("c")
	for _, s := range []sandbox{a, b, c} {
		n.do("ADD", "1.1.0", s)
	}
	n.do("GC", "1.1.0", sandbox{}, "b")
	n.do("CHECK", "1.1.0", b)
	for _, s := range []sandbox{a, c} {
		if _, err := n.call("CHECK", "1.1.0", s); code(t, err) != types.ErrUnknownContainer {
			t.Errorf("CHECK %s: %v", s.container, err)
		}
		if links := n.links(s); !slices.Equal(links, []string{"lo"}) {
			t.Errorf("%s has %v", s.container, links)
		}
	}
	if links := n.links(b); !slices.Equal(links, []string{"eth0", "lo"}) {
		t.Errorf("b has %v", links)
	}
}

// links lists the interfaces of a sandbox.
func (n *node) links(s sandbox) (names []string) {
	n.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		f, err := os.Open(s.netns)
		if err == nil {
			defer f.Close()
			err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
		}
		var text []byte
		if err == nil {
			text, err = os.ReadFile("/proc/thread-self/net/dev")
		}
		for line := range strings.Lines(string(text)) {
			if name, _, ok := strings.Cut(line, ":"); ok {
				names = append(names, strings.TrimSpace(name))
			}
		}
		done <- err
	}()
	n.must(<-done)
	slices.Sort(names)
	return names
}

// burst adds as many pods as there are subports, ten at a time as a kubelet does, and returns how long each took.
func (n *node) burst(pods int) (all []sandbox, each []time.Duration) {
	n.Helper()
	for i := range pods {
		all = append(all, n.sandbox(fmt.Sprint("pod", i)))
	}
	each = make([]time.Duration, pods)
	addresses := make([]string, pods)
	var g errgroup.Group
	g.SetLimit(10)
	for i, s := range all {
		g.Go(func() error {
			begin := time.Now()
			r, err := n.call("ADD", "1.1.0", s)
			each[i] = time.Since(begin)
			if err == nil {
				addresses[i] = address(r)
			}
			return err
		})
	}
	n.must(g.Wait())
	slices.Sort(addresses)
	if len(slices.Compact(addresses)) != pods {
		n.Errorf("%d pods have the addresses %v", pods, addresses)
	}
	return all, each
}

func TestAFullNodeAtOnce(t *testing.T) {
	n := newNode(t, 110)
	all, _ := n.burst(110)
	for _, s := range all {
		n.do("CHECK", "1.1.0", s)
	}
	var g errgroup.Group
	g.SetLimit(10)
	for _, s := range all {
		g.Go(func() error {
			_, err := n.call("DEL", "1.1.0", s)
			return err
		})
	}
	n.must(g.Wait())
	for _, s := range all {
		if links := n.links(s); !slices.Equal(links, []string{"lo"}) {
			t.Errorf("%s has %v", s.container, links)
		}
	}
}

// A runtime's own library runs the list that nodes have, in the order and with the words it has for it.
func TestTheNodesListOfPlugins(t *testing.T) {
	n := newNode(t, 3)
	var list map[string]any
	n.must(json.Unmarshal(templates.KuryrFile("conflist.json"), &list))
	first := list["plugins"].([]any)[0].(map[string]any)
	first["socket"], first["state"] = filepath.Join(n.dir, "run", "cni.sock"), n.dir
	text, err := json.Marshal(list)
	n.must(err)
	conf, err := libcni.ConfListFromBytes(text)
	n.must(err)
	runtime := libcni.NewCNIConfigWithCacheDir([]string{umltest.Bin}, t.TempDir(), nil)
	pod := func(container string) *libcni.RuntimeConf {
		return &libcni.RuntimeConf{ContainerID: container, NetNS: n.sandbox(container).netns, IfName: "eth0",
			Args: [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "default"}, {"K8S_POD_NAME", container}}}
	}
	n.must(runtime.GetStatusNetworkList(t.Context(), conf))
	a, b, c := pod("a"), pod("b"), pod("c")
	b.CapabilityArgs = map[string]any{"bandwidth": map[string]any{"ingressRate": 16e6, "ingressBurst": uint32(math.MaxUint32), "egressRate": 8e6, "egressBurst": uint32(math.MaxUint32)}}
	for _, p := range []*libcni.RuntimeConf{a, b, c} {
		r, err := runtime.AddNetworkList(t.Context(), conf, p)
		n.must(err)
		if got, err := current.GetResult(r); err != nil || len(got.IPs) != 1 || got.Interfaces[0].Name != "eth0" {
			t.Errorf("got %v, %v", got, err)
		}
		n.must(runtime.CheckNetworkList(t.Context(), conf, p))
	}
	for p, want := range map[*libcni.RuntimeConf][]string{a: {}, b: {"tbf 1: root refcnt 2 rate 8Mbit", "police 0x1 rate 16Mbit"}} {
		out, err := exec.Command("nsenter", "--net="+p.NetNS, "sh", "-c", "tc qdisc show dev eth0; tc filter show dev eth0 ingress").CombinedOutput()
		n.must(err)
		for _, w := range want {
			if !strings.Contains(string(out), w) {
				t.Errorf("%s is not in\n%s", w, out)
			}
		}
		if len(want) == 0 && (bytes.Contains(out, []byte("tbf")) || bytes.Contains(out, []byte("police"))) {
			t.Errorf("there are limits:\n%s", out)
		}
	}
	n.must(runtime.DelNetworkList(t.Context(), conf, a))
	n.must(runtime.DelNetworkList(t.Context(), conf, a))
	n.must(runtime.GCNetworkList(t.Context(), conf, &libcni.GCArgs{ValidAttachments: []types.GCAttachment{{ContainerID: "c", IfName: "eth0"}}}))
	for _, p := range []*libcni.RuntimeConf{a, b} {
		if links := n.links(sandbox{p.ContainerID, p.NetNS}); !slices.Equal(links, []string{"lo"}) {
			t.Errorf("%s has %v", p.ContainerID, links)
		}
	}
	n.must(runtime.CheckNetworkList(t.Context(), conf, c))
}

// A runtime may kill the plugin at any moment and send DEL, or ADD for a sandbox that takes its place.
func TestAPluginThatIsKilledIsNoObstacle(t *testing.T) {
	n := newNode(t, 2)
	for i := range 12 {
		a, b := n.sandbox("a"), n.sandbox("b")
		stdin, err := json.Marshal(map[string]any{"cniVersion": "1.1.0", "name": "kuryr", "socket": filepath.Join(n.dir, "run", "cni.sock"), "state": n.dir})
		n.must(err)
		cmd := exec.Command(plugin)
		cmd.Env = []string{"CNI_COMMAND=ADD", "CNI_CONTAINERID=a", "CNI_NETNS=" + a.netns, "CNI_IFNAME=eth0", "CNI_PATH=/",
			"CNI_ARGS=K8S_POD_NAMESPACE=default;K8S_POD_NAME=a"}
		cmd.Stdin = bytes.NewReader(stdin)
		n.must(cmd.Start())
		kill := time.AfterFunc(time.Duration(i)*4*time.Millisecond, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		kill.Stop()
		n.do("ADD", "1.1.0", b)
		n.do("CHECK", "1.1.0", b)
		n.do("DEL", "1.1.0", b)
		n.do("DEL", "1.1.0", a)
		a.remove()
		b.remove()
	}
}

// Whole processes that make real VLAN links, in the guest's kernel, one after another.
func BenchmarkPlugin(b *testing.B) {
	n := newNode(b, 1)
	s := n.sandbox("a")
	var adds, dels []time.Duration
	for b.Loop() {
		begin := time.Now()
		n.do("ADD", "1.1.0", s)
		between := time.Now()
		n.do("DEL", "1.1.0", s)
		adds, dels = append(adds, between.Sub(begin)), append(dels, time.Since(between))
	}
	report(b, "add", adds)
	report(b, "del", dels)
}

func BenchmarkBurst(b *testing.B) {
	for _, pods := range []int{50, 110} {
		b.Run(fmt.Sprint(pods), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				n := newNode(b, pods)
				b.StartTimer()
				_, each := n.burst(pods) // the sandboxes are made in it too
				report(b, "add", each)
			}
		})
	}
}

func report(b *testing.B, what string, all []time.Duration) {
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, what+"-p50-ms")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, what+"-p99-ms")
}

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
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"
	"k8s.io/client-go/rest"

	"github.com/kuryrctl/kuryrctl/internal/umltest"
	"github.com/kuryrctl/kuryrctl/nodeagent/daemon"
	"github.com/kuryrctl/kuryrctl/nodeagent/socket"
	"github.com/kuryrctl/kuryrctl/nodeagent/vif"
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
	*testing.T
	dir  string
	stop func()
}

func newNode(t *testing.T, subports int) *node {
	t.Helper()
	n := &node{T: t, dir: t.TempDir()}
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

func TestThirtyPodsAtOnce(t *testing.T) {
	const pods = 30
	n := newNode(t, pods)
	var all []sandbox
	for i := range pods {
		all = append(all, n.sandbox(fmt.Sprint("pod", i)))
	}
	begin := time.Now()
	var mu sync.Mutex
	has := map[string]string{}
	var wg sync.WaitGroup
	for _, s := range all {
		wg.Go(func() {
			r, err := n.call("ADD", "1.1.0", s)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if other, ok := has[address(r)]; ok {
				t.Errorf("%s and %s have %s", s.container, other, address(r))
			}
			has[address(r)] = s.container
		})
	}
	wg.Wait()
	t.Logf("%d pods at once: %s", pods, time.Since(begin).Round(time.Millisecond))
	for _, s := range all {
		n.do("CHECK", "1.1.0", s)
	}
	one := all[0]
	n.do("DEL", "1.1.0", one)
	begin = time.Now()
	n.do("ADD", "1.1.0", one)
	t.Logf("one pod, the process included: %s", time.Since(begin).Round(100*time.Microsecond))
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

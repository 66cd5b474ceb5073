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
	"golang.org/x/sync/errgroup"
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

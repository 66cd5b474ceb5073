//go:build kernel

package cni

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sync/errgroup"

	"github.com/kuryrctl/kuryrctl/internal/umltest"
	"github.com/kuryrctl/kuryrctl/nodeagent/socket"
	"github.com/kuryrctl/kuryrctl/templates"
)

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

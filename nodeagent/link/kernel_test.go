//go:build kernel

package link

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/kuryrctl/kuryrctl/internal/umltest"
)

func TestMain(m *testing.M) {
	umltest.Main(m, umltest.Machine{Modules: []string{"8021q", "veth", "bridge", "sch_tbf", "sch_ingress", "cls_matchall", "act_police"}})
}

const parentMAC = "fa:16:3e:00:00:01"

// node is this kernel with a trunk interface, at whose other end another namespace plays the network: the gateway of every VLAN.
type node struct {
	t    *testing.T
	peer string
}

func newNode(t *testing.T) node {
	t.Helper()
	n := node{t: t, peer: namespace(t)}
	s := n.enter(n.peer)
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = "trunk0", 1442
	attrs.HardwareAddr, _ = net.ParseMAC(parentMAC)
	n.must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "wire0", PeerNamespace: netlink.NsFd(int(s.ns))}))
	t.Cleanup(func() { _ = netlink.LinkDel(&netlink.Dummy{LinkAttrs: attrs}) })
	n.must(netlink.LinkSetUp(link(t, "trunk0")))
	wire, err := s.LinkByName("wire0")
	n.must(err)
	n.must(s.LinkSetUp(wire))
	return n
}

func (n node) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n node) enter(path string) *space {
	n.t.Helper()
	s, err := enter(path)
	n.must(err)
	n.t.Cleanup(s.close)
	return s
}

// gateway is the network's end of a VLAN.
func (n node) gateway(vlan int, addresses ...string) {
	n.t.Helper()
	s := n.enter(n.peer)
	wire, err := s.LinkByName("wire0")
	n.must(err)
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex = fmt.Sprint("gw", vlan), wire.Attrs().Index
	n.must(s.LinkAdd(&netlink.Vlan{LinkAttrs: attrs, VlanId: vlan}))
	gw, err := s.LinkByName(attrs.Name)
	n.must(err)
	for _, a := range addresses {
		n.must(s.AddrAdd(gw, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix(a)), Flags: unix.IFA_F_NODAD}))
	}
	n.must(s.LinkSetUp(gw))
}

// namespace makes a network namespace with a name, as a container runtime does.
func namespace(t *testing.T) string {
	t.Helper()
	path := filepath.Join("/run/netns", fmt.Sprint(time.Now().UnixNano()))
	within(t, "", func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		if err := os.MkdirAll("/run/netns", 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			return err
		}
		return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
	})
	t.Cleanup(func() { unname(path) })
	return path
}

// unname takes a namespace its name; it ends when nobody is in it.
func unname(path string) {
	_ = unix.Unmount(path, unix.MNT_DETACH)
	_ = os.Remove(path)
}

// within calls f on a thread of its own, in a namespace if there is one given.
func within(t *testing.T, path string, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
		if path != "" {
			ns, err := netns.GetFromPath(path)
			if err == nil {
				err = netns.Set(ns)
			}
			if err != nil {
				done <- err
				return
			}
		}
		done <- f()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, name string) netlink.Link {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func iface(vlan int) Interface {
	return Interface{Port: fmt.Sprintf("port-%d", vlan), ParentMAC: parentMAC, VLAN: vlan, MAC: fmt.Sprintf("fa:16:3e:00:01:%02x", vlan), MTU: 1400,
		Addresses: []Address{
			{Prefix: netip.MustParsePrefix(fmt.Sprintf("10.10.0.%d/16", vlan)), Gateway: netip.MustParseAddr("10.10.255.254")},
			{Prefix: netip.MustParsePrefix(fmt.Sprintf("fd00::%d/64", vlan)), Gateway: netip.MustParseAddr("fd00::ffff")},
		}}
}

// talks connects from a namespace to an address of the network and compares what comes back.
func (n node) talks(from, to string) {
	n.t.Helper()
	var l net.Listener
	within(n.t, n.peer, func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort(to, "0"))
		return err
	})
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(c, c)
			c.Close()
		}
	}()
	within(n.t, from, func() error {
		c, err := net.DialTimeout("tcp", l.Addr().String(), 10*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		text := strings.Repeat("kuryr", 2000) // more than one frame
		if _, err := io.WriteString(c, text); err != nil {
			return err
		}
		back := make([]byte, len(text))
		if _, err := io.ReadFull(c, back); err != nil {
			return err
		}
		if string(back) != text {
			return errors.New("the echo is another")
		}
		return nil
	})
}

// transfer moves so many bytes between a namespace and an address of the network, and returns how long it took until all had come.
func (n node) transfer(from, to string, size int64, send bool) time.Duration {
	n.t.Helper()
	var l net.Listener
	within(n.t, n.peer, func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort(to, "0"))
		return err
	})
	defer l.Close()
	source := func(c net.Conn) error {
		_, err := io.Copy(c, bytes.NewReader(make([]byte, size)))
		return err
	}
	sink := func(c net.Conn) error {
		_, err := io.CopyN(io.Discard, c, size)
		return err
	}
	here, there := sink, source
	if send {
		here, there = source, sink
	}
	begin := time.Now()
	done := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			defer c.Close()
			err = there(c)
		}
		done <- err
	}()
	within(n.t, from, func() error {
		c, err := net.DialTimeout("tcp", l.Addr().String(), 10*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		return errors.Join(here(c), <-done)
	})
	return time.Since(begin)
}

func TestLimitsHoldInBothDirectionsAndAreNotThereWithoutBeingAskedFor(t *testing.T) {
	const size = 2 << 20
	n := newNode(t)
	n.gateway(5, "10.10.255.254/16")
	pod := Place{Netns: namespace(t), Name: "eth0"}
	for _, c := range []struct {
		limits        Limits
		sends, serves time.Duration // at least
	}{
		{Limits{}, 0, 0},
		{Limits{Egress: 16e6}, 800 * time.Millisecond, 0},
		{Limits{Ingress: 16e6}, 0, 800 * time.Millisecond},
		{Limits{Egress: 16e6, Ingress: 16e6}, 800 * time.Millisecond, 800 * time.Millisecond},
	} {
		n.must(Attach(iface(5), pod, nil))
		n.must(Limit(pod, c.limits))
		n.must(Check(iface(5), pod))
		sent, received := n.transfer(pod.Netns, "10.10.255.254", size, true), n.transfer(pod.Netns, "10.10.255.254", size, false)
		t.Logf("%+v: 2 MiB sent in %s, received in %s", c.limits, sent.Round(time.Millisecond), received.Round(time.Millisecond))
		if sent < c.sends || received < c.serves {
			t.Errorf("%+v: too fast: 2 MiB sent in %s, received in %s", c.limits, sent, received)
		}
		n.must(Detach(pod))
	}
	n.must(Attach(iface(5), pod, nil))
	n.must(Limit(pod, Limits{Egress: 40e9, Ingress: 100e9})) // more than some fields of the kernel's can say
}

func TestAPodTalksThroughItsVLAN(t *testing.T) {
	n := newNode(t)
	n.gateway(5, "10.10.255.254/16", "fd00::ffff/64", "192.0.2.1/32")
	pod := Place{Netns: namespace(t), Name: "eth0"}
	n.must(Attach(iface(5), pod, nil))
	n.must(Check(iface(5), pod))
	for _, to := range []string{"10.10.255.254", "fd00::ffff", "192.0.2.1"} {
		n.talks(pod.Netns, to)
	}
	lo, err := n.enter(pod.Netns).LinkByName("lo")
	n.must(err)
	if lo.Attrs().Flags&net.FlagUp == 0 {
		t.Error("lo is down")
	}
	if name, err := Parent(parentMAC); err != nil || name != "trunk0" {
		t.Errorf("the parent is %q, %v", name, err)
	}
	n.must(Detach(pod))
	if err := Check(iface(5), pod); err == nil {
		t.Error("an interface that was removed is said to be there")
	}
	n.must(Detach(pod))
	unname(pod.Netns)
	n.must(Detach(pod))
}

// A network may route a single address to a pod.
func TestAGatewayMayLieOutsideThePodsPrefix(t *testing.T) {
	n := newNode(t)
	n.gateway(5, "10.10.255.254/16")
	i := iface(5)
	i.Addresses = []Address{{Prefix: netip.MustParsePrefix("10.10.0.5/32"), Gateway: netip.MustParseAddr("10.10.255.254")}}
	pod := Place{Netns: namespace(t), Name: "eth0"}
	n.must(Attach(i, pod, nil))
	n.must(Check(i, pod))
	n.talks(pod.Netns, "10.10.255.254")
}

func TestAttachingAgainReplacesWhatIsThere(t *testing.T) {
	n := newNode(t)
	pod := Place{Netns: namespace(t), Name: "eth0"}
	n.must(Attach(iface(5), pod, nil))
	n.must(Attach(iface(5), pod, nil))
	n.must(Check(iface(5), pod))
	n.must(Attach(iface(6), pod, nil)) // another subport, after a DEL that never came
	n.must(Check(iface(6), pod))
	if links, err := n.enter(pod.Netns).LinkList(); err != nil || len(links) != 2 {
		t.Errorf("there are %d links, %v; want lo and eth0", len(links), err)
	}
}

// A plugin may be killed between any two calls: what it has left must be no obstacle, in the same sandbox or in another.
func TestWhatACutOffAttemptHasLeftIsRemoved(t *testing.T) {
	born := func(n node, netns string) (*space, netlink.Link) {
		s := n.enter(netns)
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.ParentIndex, attrs.Namespace = "kuryr-5", link(n.t, "trunk0").Attrs().Index, netlink.NsFd(int(s.ns))
		n.must(netlink.LinkAdd(&netlink.Vlan{LinkAttrs: attrs, VlanId: 5}))
		l, err := s.LinkByName("kuryr-5")
		n.must(err)
		return s, l
	}
	for name, leave := range map[string]func(n node, netns string){
		"born": func(n node, netns string) { born(n, netns) },
		"marked": func(n node, netns string) {
			s, l := born(n, netns)
			n.must(s.LinkSetAlias(l, "kuryr:port-5"))
		},
		"named": func(n node, netns string) {
			s, l := born(n, netns)
			n.must(s.LinkSetAlias(l, "kuryr:port-5"))
			n.must(s.LinkSetName(l, "eth0"))
		},
		"complete": func(n node, netns string) { n.must(Attach(iface(5), Place{Netns: netns, Name: "eth0"}, nil)) },
	} {
		t.Run(name+" here", func(t *testing.T) {
			n := newNode(t)
			at := Place{Netns: namespace(t), Name: "eth0"}
			leave(n, at.Netns)
			n.must(Attach(iface(5), at, nil))
			n.must(Check(iface(5), at))
		})
		t.Run(name+" here, then removed", func(t *testing.T) {
			n := newNode(t)
			at := Place{Netns: namespace(t), Name: "eth0"}
			leave(n, at.Netns)
			n.must(Detach(at))
			if links, err := n.enter(at.Netns).LinkList(); err != nil || len(links) != 1 {
				t.Errorf("there are %d links, %v; want lo", len(links), err)
			}
		})
		t.Run(name+" elsewhere, on record", func(t *testing.T) {
			n := newNode(t)
			old := Place{Netns: namespace(t), Name: "eth0"}
			leave(n, old.Netns)
			at := Place{Netns: namespace(t), Name: "eth0"}
			n.must(Attach(iface(5), at, []Place{{Netns: "/run/netns/gone"}, old}))
			n.must(Check(iface(5), at))
		})
		t.Run(name+" elsewhere, on no record", func(t *testing.T) {
			n := newNode(t)
			leave(n, namespace(t))
			at := Place{Netns: namespace(t), Name: "eth0"}
			n.must(Attach(iface(5), at, nil))
			n.must(Check(iface(5), at))
		})
	}
}

// The search would find it too; the record spares looking into every process of the node.
func TestTheRecordAloneIsEnough(t *testing.T) {
	n := newNode(t)
	old, other := Place{Netns: namespace(t), Name: "eth0"}, Place{Netns: namespace(t), Name: "eth0"}
	n.must(Attach(iface(5), old, nil))
	n.must(Attach(iface(6), other, nil))
	n.must(iface(5).removeStale(link(t, "trunk0"), []Place{{Netns: "/run/netns/gone"}, old, other}))
	if err := Check(iface(5), old); err == nil {
		t.Error("the stale link is there")
	}
	n.must(Check(iface(6), other))
}

// A process that nobody has ended keeps a namespace that has no name any more.
func TestALinkInANamespaceWithoutANameIsFound(t *testing.T) {
	n := newNode(t)
	old := Place{Netns: namespace(t), Name: "eth0"}
	n.must(Attach(iface(5), old, nil))
	leave, left := make(chan bool), make(chan bool)
	pid := make(chan int)
	go func() {
		defer close(left)
		runtime.LockOSThread()
		ns, err := netns.GetFromPath(old.Netns)
		if err == nil {
			err = netns.Set(ns)
			ns.Close()
		}
		if err != nil {
			t.Error(err)
		}
		// Threads are not listed in /proc; a process is, and it inherits the namespace of the thread that starts it.
		p, err := os.StartProcess("/proc/self/exe", []string{"sleeper"}, &os.ProcAttr{Env: []string{"umltest=mount"}, Files: nil,
			Sys: &unix.SysProcAttr{Ptrace: true}})
		if err != nil {
			t.Error(err)
			pid <- 0
			return
		}
		pid <- p.Pid
		<-leave
		_ = p.Kill()
		_, _ = p.Wait()
	}()
	if <-pid == 0 {
		t.FailNow()
	}
	unname(old.Netns)
	at := Place{Netns: namespace(t), Name: "eth0"}
	n.must(Attach(iface(5), at, []Place{old}))
	n.must(Check(iface(5), at))
	close(leave)
	<-left
}

func TestWhatIsNotOursIsLeftAlone(t *testing.T) {
	n := newNode(t)
	at := Place{Netns: namespace(t), Name: "eth0"}
	s := n.enter(at.Netns)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "eth0"
	n.must(s.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth1"}))
	foreign, err := s.LinkByName("eth0")
	n.must(err)
	n.must(s.LinkSetAlias(foreign, "kuryr:says-somebody")) // an alias is anybody's to set
	if err := Attach(iface(5), at, nil); err == nil || !strings.Contains(err.Error(), "not ours") {
		t.Errorf("got %v", err)
	}
	n.must(Detach(at))
	if _, err := s.LinkByName("eth0"); err != nil {
		t.Errorf("somebody's eth0 is gone: %v", err)
	}
	// A VLAN of an operator's own.
	attrs.Name, attrs.ParentIndex = "ops", link(t, "trunk0").Attrs().Index
	n.must(netlink.LinkAdd(&netlink.Vlan{LinkAttrs: attrs, VlanId: 7}))
	if err := Attach(iface(7), Place{Netns: namespace(t), Name: "eth0"}, nil); !errors.Is(err, unix.EEXIST) {
		t.Errorf("got %v", err)
	}
	link(t, "ops")
}

func TestWhatCannotBeIsSaid(t *testing.T) {
	n := newNode(t)
	at := Place{Netns: namespace(t), Name: "eth0"}
	for want, spoil := range map[string]func(*Interface, *Place){
		"MTU 1443 does not fit into trunk0": func(i *Interface, _ *Place) { i.MTU = 1443 },
		"no interface of this node has":     func(i *Interface, _ *Place) { i.ParentMAC = "fa:16:3e:99:99:99" },
		`"x" is no MAC`:                     func(i *Interface, _ *Place) { i.ParentMAC = "x" },
		`"y" of port port-5 is no MAC`:      func(i *Interface, _ *Place) { i.MAC = "y" },
		"entering the network namespace":    func(_ *Interface, at *Place) { at.Netns = "/run/netns/none" },
	} {
		i, at := iface(5), at
		spoil(&i, &at)
		if err := Attach(i, at, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", want, err)
		}
	}
	// Two links of one MAC.
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "twin0"
	attrs.HardwareAddr, _ = net.ParseMAC(parentMAC)
	n.must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "twin1"}))
	if err := Attach(iface(5), at, nil); err == nil || !strings.Contains(err.Error(), "both have the MAC") {
		t.Errorf("got %v", err)
	}
	n.must(netlink.LinkDel(link(t, "twin0")))
}

func TestTheParentIsTheUppermostThatIsNoChild(t *testing.T) {
	n := newNode(t)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "br0"
	attrs.HardwareAddr, _ = net.ParseMAC(parentMAC)
	n.must(netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
	n.must(netlink.LinkSetMaster(link(t, "trunk0"), link(t, "br0")))
	attrs.Name, attrs.ParentIndex = "child", link(t, "br0").Attrs().Index
	n.must(netlink.LinkAdd(&netlink.Vlan{LinkAttrs: attrs, VlanId: 9}))
	name, err := Parent(parentMAC)
	n.must(netlink.LinkDel(link(t, "br0")))
	if err != nil || name != "br0" {
		t.Errorf("the parent is %q, %v", name, err)
	}
}

func TestCheckSeesEveryDifference(t *testing.T) {
	n := newNode(t)
	at := Place{Netns: namespace(t), Name: "eth0"}
	s := n.enter(at.Netns)
	for want, change := range map[string]func(l netlink.Link, i *Interface) error{
		"VLAN": func(_ netlink.Link, i *Interface) error { i.VLAN = 9; return nil },
		"MAC": func(l netlink.Link, _ *Interface) error {
			return s.LinkSetHardwareAddr(l, net.HardwareAddr{2, 0, 0, 0, 0, 9})
		},
		"MTU":       func(l netlink.Link, _ *Interface) error { return s.LinkSetMTU(l, 1300) },
		"alias":     func(_ netlink.Link, i *Interface) error { i.Port = "another"; return nil },
		"the state": func(l netlink.Link, _ *Interface) error { return s.LinkSetDown(l) },
		"lacks the address 10.10.0.5": func(l netlink.Link, i *Interface) error {
			return s.AddrDel(l, &netlink.Addr{IPNet: ipNet(i.Addresses[0].Prefix)})
		},
		"lacks the default route by fd00::ffff": func(l netlink.Link, i *Interface) error {
			return s.RouteDel(defaultRoute(l, i.Addresses[1]))
		},
		"looking for eth0": func(l netlink.Link, _ *Interface) error { return s.LinkDel(l) },
	} {
		i := iface(5)
		n.must(Attach(i, at, nil))
		n.must(Check(i, at))
		l, err := s.LinkByName("eth0")
		n.must(err)
		n.must(change(l, &i))
		if err := Check(i, at); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", want, err)
		}
	}
}

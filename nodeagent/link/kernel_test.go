//go:build kernel

package link

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

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

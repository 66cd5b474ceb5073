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

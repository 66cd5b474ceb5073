//go:build kernel

package passage

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/kuryrctl/kuryrctl/internal/umltest"
	"github.com/kuryrctl/kuryrctl/nodeagent/vif"
)

func TestMain(m *testing.M) {
	umltest.Main(m, umltest.Machine{Modules: []string{"8021q", "veth", "bridge", "sch_ingress", "cls_matchall", "act_police"}})
}

const parentMAC = "fa:16:3e:00:00:01"

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newTrunk gives this kernel a trunk interface. At its other end two VLANs are one network, as two subports of a pod network are.
func newTrunk(t *testing.T) (network *netlink.Handle) {
	t.Helper()
	made := make(chan error)
	var far netns.NsHandle
	go func() { // and the namespace is there as long as its handle is
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			far, err = netns.Get()
		}
		made <- err
	}()
	must(t, <-made)
	t.Cleanup(func() { far.Close() })
	network, err := netlink.NewHandleAt(far, unix.NETLINK_ROUTE)
	must(t, err)
	t.Cleanup(network.Close)
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = "trunk0", 1500
	attrs.HardwareAddr, _ = net.ParseMAC(parentMAC)
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "wire0", PeerNamespace: netlink.NsFd(int(far))}))
	t.Cleanup(func() { _ = netlink.LinkDel(&netlink.Dummy{LinkAttrs: attrs}) })
	trunk, err := netlink.LinkByName("trunk0")
	must(t, err)
	must(t, netlink.LinkSetUp(trunk))
	up := func(l netlink.Link) netlink.Link {
		l, err := network.LinkByName(l.Attrs().Name)
		must(t, err)
		must(t, network.LinkSetUp(l))
		return l
	}
	wire := up(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "wire0"}})
	must(t, network.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}))
	bridge := up(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "br0"}})
	for _, vlan := range []int{4093, 4094} {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.ParentIndex, attrs.MasterIndex = fmt.Sprint("v", vlan), wire.Attrs().Index, bridge.Attrs().Index
		must(t, network.LinkAdd(&netlink.Vlan{LinkAttrs: attrs, VlanId: vlan}))
		up(&netlink.Dummy{LinkAttrs: attrs})
	}
	return network
}

func subport(vlan int) vif.Subport {
	return vif.Subport{Port: fmt.Sprint("port-", vlan), MAC: fmt.Sprintf("fa:16:3e:00:01:%02x", vlan-4000), VLAN: vlan, MTU: 1442, IPs: []vif.IP{{Address: fmt.Sprintf("10.10.0.%d/16", vlan-4000)}}}
}

func TestAConnectionPassesOrIsDroppedOrFindsNobody(t *testing.T) {
	network := newTrunk(t)
	try := func(what string, open bool, want vif.Passage) {
		t.Helper()
		ask := vif.DropTest{ParentMAC: parentMAC, From: subport(4094), To: subport(4093), Open: open, Seconds: 8}
		got, err := Run(t.Context(), ask)
		if err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", what, got, err, want)
		}
		for _, ns := range spaces(t) { // what it made has gone with it
			h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
			must(t, err)
			if l, err := h.LinkByName("eth0"); err == nil && l.Type() == "vlan" {
				t.Errorf("%s: %s is left", what, l.Attrs().Alias)
			}
			h.Close()
			ns.Close()
		}
	}
	try("nothing in between", false, vif.Passed)
	try("nothing in between", true, vif.Passed)

	// A firewall that lets ARP pass.
	far, err := network.LinkByName("v4093")
	must(t, err)
	qdisc := netlink.MakeHandle(0xffff, 0)
	must(t, network.QdiscAdd(&netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: far.Attrs().Index, Handle: qdisc, Parent: netlink.HANDLE_INGRESS}}))
	police := netlink.NewPoliceAction()
	police.Rate, police.Burst, police.Mtu, police.ExceedAction = 10, 1, 128<<10, netlink.TC_POLICE_SHOT // a packet has more than the one byte
	must(t, network.FilterAdd(&netlink.MatchAll{FilterAttrs: netlink.FilterAttrs{LinkIndex: far.Attrs().Index, Parent: qdisc, Priority: 1, Protocol: unix.ETH_P_IP},
		Actions: []netlink.Action{police}}))
	try("a firewall", false, vif.Dropped)
	try("a firewall", true, vif.Dropped)

	must(t, network.LinkSetDown(far))
	try("no wire", false, vif.Unreachable)
}

// spaces are the network namespaces of this process's threads.
func spaces(t *testing.T) (all []netns.NsHandle) {
	t.Helper()
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/ns/net", os.Getpid()))
	must(t, err)
	for _, p := range paths {
		if ns, err := netns.GetFromPath(p); err == nil { // threads come and go
			all = append(all, ns)
		}
	}
	return all
}

// Package link makes, checks and removes the interface of a pod: a VLAN link of the node's trunk interface, born in the pod's network
// namespace.
//
// It owns every netlink call of the project. It refuses to touch what it has not made: its links carry the alias "kuryr:PORT", or until
// they are complete a name of their own. It remembers nothing: who may have which VLAN is the daemon's business.
package link

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Interface is what a pod shall have: one subport of the node's trunk.
type Interface struct {
	Port      string    `json:"port"`      // id in Neutron; it becomes the link's alias
	ParentMAC string    `json:"parentMAC"` // of the node's interface that carries the trunk
	VLAN      int       `json:"vlan"`
	MAC       string    `json:"mac"`
	MTU       int       `json:"mtu"`
	Addresses []Address `json:"addresses"`
}

// Address is one address of a pod, with the router it leaves its network by, if there is one.
type Address struct {
	Prefix  netip.Prefix `json:"prefix"`
	Gateway netip.Addr   `json:"gateway,omitzero"`
}

// Place is where an interface is.
type Place struct {
	Netns string `json:"netns"` // path
	Name  string `json:"name"`
}

const (
	aliasPrefix = "kuryr:"
	birthPrefix = "kuryr-" // and the VLAN id: at most ten characters, and unique on one parent
)

// Parent returns the name of the node's own interface with this MAC. VLAN links and their like share the MAC of what is below them,
// so they do not count; where an interface and its bridge or bond are alike, the upper one does.
func Parent(mac string) (name string, err error) {
	host, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return "", fmt.Errorf("asking the kernel for interfaces: %w", err)
	}
	defer host.Close()
	parent, err := parentOf(host, mac)
	if err != nil {
		return "", err
	}
	return parent.Attrs().Name, nil
}

func parentOf(host *netlink.Handle, mac string) (netlink.Link, error) {
	want, err := net.ParseMAC(mac)
	if err != nil {
		return nil, fmt.Errorf("finding the trunk's interface: %q is no MAC", mac)
	}
	links, err := list(host.LinkList)
	if err != nil {
		return nil, fmt.Errorf("listing interfaces: %w", err)
	}
	links = slices.DeleteFunc(links, func(l netlink.Link) bool {
		child := slices.Contains([]string{"vlan", "macvlan", "macvtap", "ipvlan"}, l.Type())
		return child || !slices.Equal(l.Attrs().HardwareAddr, want)
	})
	if top := slices.DeleteFunc(slices.Clone(links), func(l netlink.Link) bool { return l.Attrs().MasterIndex != 0 }); len(top) > 0 {
		links = top
	}
	switch len(links) {
	case 0:
		return nil, fmt.Errorf("finding the trunk's interface: no interface of this node has the MAC %s of the trunk's parent port", mac)
	case 1:
		return links[0], nil
	}
	return nil, fmt.Errorf("finding the trunk's interface: %s and %s both have the MAC %s",
		links[0].Attrs().Name, links[1].Attrs().Name, mac)
}

// Attach makes the interface at a place. What an attempt that was cut off has left there is removed first. When the kernel says that the
// VLAN is in use, it is so by a link that outlived its pod, for the caller gives a subport to one pod only: it is removed, first looking
// in stale, the places where earlier holders of the subport had it, and then in all namespaces of the node.
func Attach(i Interface, at Place, stale []Place) error {
	mac, err := net.ParseMAC(i.MAC)
	if err != nil {
		return fmt.Errorf("making %s: %q of port %s is no MAC", at.Name, i.MAC, i.Port)
	}
	host, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("asking the kernel for interfaces: %w", err)
	}
	defer host.Close()
	parent, err := parentOf(host, i.ParentMAC)
	if err != nil {
		return err
	}
	if p := parent.Attrs(); i.MTU > p.MTU {
		return fmt.Errorf("making %s: the pod network's MTU %d does not fit into %s, which has %d: give the VM network an MTU as large",
			at.Name, i.MTU, p.Name, p.MTU)
	}
	pod, err := enter(at.Netns)
	if err != nil {
		return err
	}
	defer pod.close()
	if err := pod.clear(at.Name); err != nil {
		return err
	}
	birth := fmt.Sprint(birthPrefix, i.VLAN)
	vlan := func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.ParentIndex, attrs.MTU, attrs.HardwareAddr = birth, parent.Attrs().Index, i.MTU, mac
		attrs.Namespace = netlink.NsFd(int(pod.ns)) // it never is in the node's namespace, so there is nothing to be moved or left behind
		return host.LinkAdd(&netlink.Vlan{LinkAttrs: attrs, VlanId: i.VLAN, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q})
	}
	err = vlan()
	for _, remove := range []func() error{
		func() error { return i.removeStale(parent, stale) },
		func() error { return i.removeEverywhere(parent) },
	} {
		if !errors.Is(err, unix.EEXIST) {
			break
		}
		if err := remove(); err != nil {
			return err
		}
		err = vlan()
	}
	if err != nil {
		return fmt.Errorf("making VLAN %d of %s: %w", i.VLAN, parent.Attrs().Name, err)
	}
	if err := pod.complete(i, birth, at.Name); err != nil {
		return fmt.Errorf("making %s in %s: %w", at.Name, at.Netns, err)
	}
	return nil
}

// complete turns the new-born link into the pod's interface.
func (s *space) complete(i Interface, birth, name string) error {
	l, err := s.LinkByName(birth)
	if err != nil {
		return err
	}
	if err := s.LinkSetAlias(l, aliasPrefix+i.Port); err != nil {
		return fmt.Errorf("setting its alias: %w", err)
	}
	if err := s.LinkSetName(l, name); err != nil {
		return fmt.Errorf("naming it: %w", err)
	}
	if lo, err := s.LinkByName("lo"); err != nil {
		return fmt.Errorf("looking for lo: %w", err)
	} else if err := s.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bringing lo up: %w", err)
	}
	for _, a := range i.Addresses {
		addr := &netlink.Addr{IPNet: ipNet(a.Prefix)}
		if a.Prefix.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD // Neutron saw to it that it is the only one; detection would take a second
		}
		if err := s.AddrAdd(l, addr); err != nil {
			return fmt.Errorf("giving it %s: %w", a.Prefix, err)
		}
	}
	if err := s.LinkSetUp(l); err != nil {
		return fmt.Errorf("bringing it up: %w", err)
	}
	for _, a := range i.Addresses {
		if !a.Gateway.IsValid() {
			continue
		}
		if err := s.RouteReplace(defaultRoute(l, a)); err != nil {
			return fmt.Errorf("routing by %s: %w", a.Gateway, err)
		}
	}
	return nil
}

func defaultRoute(l netlink.Link, a Address) *netlink.Route {
	all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if a.Gateway.Is6() {
		all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	r := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet(all), Gw: a.Gateway.AsSlice()}
	if !a.Prefix.Contains(a.Gateway) {
		r.Flags = int(netlink.FLAG_ONLINK)
	}
	return r
}

// Detach removes an interface of ours and what an attempt to make it has left. A namespace or an interface that is gone is success, and
// so is one that is not ours.
func Detach(at Place) error {
	s, err := enter(at.Netns)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer s.close()
	return s.remove(at.Name)
}

// Check says in what an interface differs from what it shall be, or nil.
func Check(i Interface, at Place) error {
	host, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("asking the kernel for interfaces: %w", err)
	}
	defer host.Close()
	parent, err := parentOf(host, i.ParentMAC)
	if err != nil {
		return err
	}
	s, err := enter(at.Netns)
	if err != nil {
		return err
	}
	defer s.close()
	l, err := s.find(at.Name)
	if err != nil {
		return err
	}
	differs := func(what string, got, want any) error {
		return fmt.Errorf("%s in %s has %s %v instead of %v", at.Name, at.Netns, what, got, want)
	}
	v, ok := l.(*netlink.Vlan)
	a := l.Attrs()
	switch {
	case !ok:
		return differs("the type", l.Type(), "vlan")
	case v.VlanId != i.VLAN:
		return differs("VLAN", v.VlanId, i.VLAN)
	case a.ParentIndex != parent.Attrs().Index:
		return differs("a parent of index", a.ParentIndex, fmt.Sprintf("%d, which is %s", parent.Attrs().Index, parent.Attrs().Name))
	case a.HardwareAddr.String() != strings.ToLower(i.MAC):
		return differs("MAC", a.HardwareAddr, i.MAC)
	case a.MTU != i.MTU:
		return differs("MTU", a.MTU, i.MTU)
	case a.Alias != aliasPrefix+i.Port:
		return differs("alias", a.Alias, aliasPrefix+i.Port)
	case a.Flags&net.FlagUp == 0:
		return differs("the state", "down", "up")
	}
	have, err := list(func() ([]netlink.Addr, error) { return s.AddrList(l, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("listing the addresses of %s: %w", at.Name, err)
	}
	routes, err := list(func() ([]netlink.Route, error) { return s.RouteList(l, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("listing the routes of %s: %w", at.Name, err)
	}
	for _, w := range i.Addresses {
		if !slices.ContainsFunc(have, func(h netlink.Addr) bool { return h.IPNet.String() == w.Prefix.String() }) {
			return fmt.Errorf("%s in %s lacks the address %s", at.Name, at.Netns, w.Prefix)
		}
		if w.Gateway.IsValid() && !slices.ContainsFunc(routes, func(r netlink.Route) bool {
			length, _ := r.Dst.Mask.Size()
			return length == 0 && r.Gw.Equal(w.Gateway.AsSlice())
		}) {
			return fmt.Errorf("%s in %s lacks the default route by %s", at.Name, at.Netns, w.Gateway)
		}
	}
	return nil
}

// ours reports whether this package made the link.
func ours(l netlink.Link) bool {
	a := l.Attrs()
	return l.Type() == "vlan" && (strings.HasPrefix(a.Alias, aliasPrefix) || strings.HasPrefix(a.Name, birthPrefix))
}

// holds reports whether a link in another namespace keeps the VLAN of this interface from being made.
func (i Interface) holds(l netlink.Link, parent netlink.Link) bool {
	v, ok := l.(*netlink.Vlan)
	return ok && v.VlanId == i.VLAN && v.ParentIndex == parent.Attrs().Index
}

func (i Interface) removeStale(parent netlink.Link, places []Place) error {
	for _, p := range places {
		s, err := enter(p.Netns)
		if err != nil {
			continue // most are gone; the search that follows leaves nothing out
		}
		err = s.removeIf(func(l netlink.Link) bool { return i.holds(l, parent) })
		s.close()
		if err != nil {
			return err
		}
	}
	return nil
}

// removeEverywhere is the last resort: a namespace may live on without a name, in a process that nobody has ended.
func (i Interface) removeEverywhere(parent netlink.Link) error {
	seen := map[uint64]bool{}
	var errs []error
	for _, pattern := range []string{"/proc/thread-self/ns/net", "/run/netns/*", "/proc/[0-9]*/ns/net"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		for _, path := range paths {
			info, err := os.Stat(path)
			if err != nil {
				continue // processes come and go
			}
			inode := info.Sys().(*syscall.Stat_t).Ino
			if seen[inode] {
				continue
			}
			seen[inode] = true
			s, err := enter(path)
			if err != nil {
				continue
			}
			errs = append(errs, s.removeIf(func(l netlink.Link) bool { return i.holds(l, parent) }))
			s.close()
		}
	}
	return errors.Join(errs...)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

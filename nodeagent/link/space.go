package link

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// space is a network namespace: netlink calls that happen in it, from whatever thread.
type space struct {
	*netlink.Handle
	path string
	ns   netns.NsHandle
}

func enter(path string) (*space, error) {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return nil, fmt.Errorf("entering the network namespace %s: %w", path, err)
	}
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if errors.Is(err, unix.EINVAL) { // a file that was a namespace's name: its mount is gone
		err = fs.ErrNotExist
	}
	if err != nil {
		ns.Close()
		return nil, fmt.Errorf("entering the network namespace %s: %w", path, err)
	}
	return &space{Handle: h, path: path, ns: ns}, nil
}

func (s *space) close() {
	s.Close()
	s.ns.Close()
}

// find looks for the link of this name.
func (s *space) find(name string) (netlink.Link, error) {
	l, err := s.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("looking for %s in %s: %w", name, s.path, err)
	}
	return l, nil
}

// clear makes room for an interface of this name.
func (s *space) clear(name string) error {
	l, err := s.LinkByName(name)
	if err == nil && !ours(l) {
		return fmt.Errorf("making %s in %s: there is one already, of type %s, which is not ours", name, s.path, l.Type())
	}
	return s.remove(name)
}

// remove removes our interface of this name, and what attempts to make one have left.
func (s *space) remove(name string) error {
	return s.removeIf(func(l netlink.Link) bool {
		return l.Attrs().Name == name || strings.HasPrefix(l.Attrs().Name, birthPrefix)
	})
}

// removeIf removes those of our links that f picks.
func (s *space) removeIf(f func(netlink.Link) bool) error {
	links, err := list(s.LinkList)
	if err != nil {
		return fmt.Errorf("listing the interfaces in %s: %w", s.path, err)
	}
	for _, l := range links {
		if !ours(l) || !f(l) {
			continue
		}
		if err := s.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("removing %s in %s: %w", l.Attrs().Name, s.path, err)
		}
	}
	return nil
}

// list asks again when the list has changed while the kernel was writing it: what it gives then is not all there is.
func list[T any](f func() ([]T, error)) (all []T, err error) {
	for range 20 {
		if all, err = f(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return all, err
}

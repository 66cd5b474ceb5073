// Package passage sees whether the network lets a connection pass from one subport of this node to another. Whether it should is known to
// who asks: kuryrctl doctor.
//
// It owns two network namespaces that have no name: they belong to threads of this process, and when it ends, however it does, the kernel
// removes them with the links in them. It refuses to know OpenStack.
package passage

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kuryrctl/kuryrctl/nodeagent/link"
	"github.com/kuryrctl/kuryrctl/nodeagent/vif"
)

// attempt is how long a connection may take: three SYNs are sent in it. An address that nobody answers for by ARP is given up after 3 s.
const attempt = 4 * time.Second

// Run makes the links of both subports, tries, and removes them.
func Run(ctx context.Context, t vif.DropTest) (vif.Passage, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(t.Seconds)*time.Second)
	defer cancel()
	to, err := open(t.ParentMAC, t.To)
	if err != nil {
		return "", err
	}
	defer to.close()
	from, err := open(t.ParentMAC, t.From)
	if err != nil {
		return "", err
	}
	defer from.close()
	target := netip.AddrPortFrom(to.address, vif.DropTestPort).String()
	var listener net.Listener
	to.do(func() { listener, err = net.Listen("tcp4", target) })
	if err != nil {
		return "", fmt.Errorf("listening at the second subport: %w", err)
	}
	defer listener.Close()
	for passage := vif.Unreachable; ; {
		now, err := from.dial(ctx, target)
		if err != nil && ctx.Err() != nil {
			return passage, nil
		}
		if err != nil {
			return "", err
		}
		if passage = now; passage == vif.Passed || passage == vif.Dropped && !t.Open {
			return passage, nil
		}
	}
}

// space is a network namespace in which a subport is.
type space struct {
	calls   chan func()
	at      link.Place
	address netip.Addr
}

// open makes a namespace and a subport's link in it.
func open(parentMAC string, sub vif.Subport) (*space, error) {
	if err := sub.Problem(); err != nil {
		return nil, err
	}
	s := &space{calls: make(chan func())}
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with the goroutine, and the namespace with the thread
		s.at = link.Place{Netns: fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid()), Name: "eth0"}
		made <- unix.Unshare(unix.CLONE_NEWNET)
		for call := range s.calls {
			call()
		}
	}()
	if err := <-made; err != nil {
		close(s.calls)
		return nil, fmt.Errorf("making a network namespace: %w", err)
	}
	i := link.Interface{Port: sub.Port, ParentMAC: parentMAC, VLAN: sub.VLAN, MAC: sub.MAC, MTU: sub.MTU}
	for _, ip := range sub.IPs {
		prefix, err := netip.ParsePrefix(ip.Address)
		if err != nil {
			s.close()
			return nil, fmt.Errorf("reading the address of port %s: %w", sub.Port, err)
		}
		i.Addresses = append(i.Addresses, link.Address{Prefix: prefix})
		s.address = prefix.Addr()
	}
	if err := link.Attach(i, s.at, nil); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// do calls f in the namespace.
func (s *space) do(f func()) {
	done := make(chan struct{})
	s.calls <- func() { defer close(done); f() }
	<-done
}

// close removes the link first: the kernel takes its time with a namespace, and the next test may want the VLAN.
func (s *space) close() {
	_ = link.Detach(s.at) // the kernel does it otherwise
	close(s.calls)
}

// dial tries once. Who refuses a connection that is listened for is somebody in between.
func (s *space) dial(ctx context.Context, target string) (passage vif.Passage, err error) {
	s.do(func() {
		var conn net.Conn
		conn, err = (&net.Dialer{Timeout: attempt}).DialContext(ctx, "tcp4", target) // of one address: it stays on this thread
		if err == nil {
			conn.Close()
		}
	})
	var slow net.Error
	switch {
	case err == nil:
		return vif.Passed, nil
	case ctx.Err() != nil:
		return "", err
	case errors.Is(err, unix.EHOSTUNREACH):
		return vif.Unreachable, nil
	case errors.Is(err, unix.ECONNREFUSED), errors.As(err, &slow) && slow.Timeout():
		return vif.Dropped, nil
	}
	return "", fmt.Errorf("connecting from the first subport to the second: %w", err)
}

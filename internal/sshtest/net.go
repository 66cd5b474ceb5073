// Package sshtest is a set of hosts in this process that speak real SSH and SFTP, with scripted answers to commands or a real
// shell, and files in a temporary directory. Code under test uses its own SSH client; nothing is mocked.
//
//	hosts := sshtest.New(t, "jump", "worker-0")
//	w := hosts.Host("worker-0")
//	w.Shell(sshtest.Debian13)
//	w.Stub("kubeadm", "echo joined")
//	w.On("# join*", sshtest.DropAfter)
//
// Hosts are strict: a command that nobody scripted fails the test or, on a host with a shell, runs where nothing exists but POSIX
// tools and stubs; files are written with the rights of the user who logged in, and only that user's key is let in. They can be
// made to misbehave as real ones do: see [Host.Down], [Host.Hang], [Host.RefuseAuth], [Host.SetHostKey], [Host.FillDisk],
// [Host.SFTP], [Host.NoSudo], [Drop], [DropAfter]. The package knows nothing of the project's own SSH client.
package sshtest

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
)

// User is who may log in: an unprivileged user with sudo, as cloud images have.
const User = "debian"

// Net is a set of hosts that reach each other.
type Net struct {
	// UserKey logs in to every host; UserKeyPEM is the same as a private key file holds it.
	UserKey    ssh.Signer
	UserKeyPEM []byte

	// Route, if set before the first connection, says which host has an address among the hosts (nil: none), in the place of
	// [Host.Inside]: for tests in which something else hands out addresses.
	Route func(netip.Addr) *Host

	// Beyond, if set before the first connection, says where an address leads that is no host's, such as a load balancer's
	// ("": nowhere).
	Beyond func(addr string) string

	t     testing.TB
	hosts []*Host
}

// New starts hosts that run until the test ends.
func New(t testing.TB, names ...string) *Net {
	t.Helper()
	n := &Net{t: t}
	n.UserKey, n.UserKeyPEM = newKey(t)
	for i, name := range names {
		n.hosts = append(n.hosts, n.newHost(name, netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})))
	}
	return n
}

// Host returns the host of that name, which must be one of those given to New.
func (n *Net) Host(name string) *Host {
	n.t.Helper()
	for _, h := range n.hosts {
		if h.Name == name {
			return h
		}
	}
	n.t.Fatalf("sshtest: no host %s", name)
	return nil
}

// Host is one host.
type Host struct {
	Name string

	// Addr is where this process reaches the host. Inside is its address among the hosts, reachable only through one of them:
	// who gets there has used the jump host.
	Addr, Inside netip.AddrPort

	// Dir is the directory that stands for the root of the host's files. A test may read and write below it at will.
	Dir string

	net  *Net
	root *os.Root
	wg   sync.WaitGroup

	mu       sync.Mutex
	listener net.Listener
	conns    map[net.Conn]*connection
	key      ssh.Signer
	hang     HangPoint
	frozen   chan struct{} // closed when the host thaws; nil while it runs
	refuse   int
	logins   int

	keepalives int
	replies    []scripted
	forwards   map[string]string
	ran        []string
	noSFTP     bool
	transfers  map[ssh.Channel]bool // SFTP sessions
	system     OS                   // empty: no shell
	view       string               // where a full disk is mounted, in namespaces only
	tables     string               // a directory of tables of mounts
	noSudo     bool
	full       bool
	free       int64
}

func (n *Net) newHost(name string, inside netip.Addr) *Host {
	n.t.Helper()
	h := &Host{Name: name, Inside: netip.AddrPortFrom(inside, 22), Dir: n.t.TempDir(), net: n, conns: map[net.Conn]*connection{},
		transfers: map[ssh.Channel]bool{}}
	for _, dir := range []string{"etc", "tmp", "home/" + User} {
		if err := os.MkdirAll(filepath.Join(h.Dir, dir), 0o755); err != nil {
			n.t.Fatal(err)
		}
	}
	var err error
	if h.root, err = os.OpenRoot(h.Dir); err != nil {
		n.t.Fatal(err)
	}
	h.key, _ = newKey(n.t)
	h.listen("127.0.0.1:0")
	h.Addr = netip.MustParseAddrPort(h.listener.Addr().String())
	n.t.Cleanup(func() {
		h.Hang(Nowhere)
		h.Down()
		h.wg.Wait()
		h.root.Close()
	})
	return h
}

func (h *Host) listen(addr string) {
	h.net.t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		h.net.t.Fatalf("sshtest: %s: %v", h.Name, err)
	}
	h.mu.Lock()
	h.listener = l
	h.mu.Unlock()
	h.wg.Go(func() { h.accept(l) })
}

// Down shuts the host down: connections end, new ones are refused. Up starts it again at the same address.
func (h *Host) Down() {
	h.mu.Lock()
	if h.listener != nil {
		h.listener.Close()
		h.listener = nil
	}
	h.mu.Unlock()
	h.Disconnect()
}

// Up starts a host that is down.
func (h *Host) Up() {
	h.net.t.Helper()
	h.mu.Lock()
	running := h.listener != nil
	h.mu.Unlock()
	if !running {
		h.listen(h.Addr.String())
	}
}

// Disconnect cuts all connections.
func (h *Host) Disconnect() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for conn := range h.conns {
		conn.Close()
	}
}

// HangPoint is where a host stops answering.
type HangPoint int

// Nowhere is a host that works, BeforeBanner one that accepts connections and says nothing, InHandshake one that says who it is
// and nothing more. Everywhere is a host whose power fails: connections stay, and nothing ever comes again over new ones or
// those that exist.
const (
	Nowhere HangPoint = iota
	BeforeBanner
	InHandshake
	Everywhere
)

// Forward makes what clients reach through the host at one address, such as "127.0.0.1:2381", be at another of this machine.
func (h *Host) Forward(addr, to string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.forwards == nil {
		h.forwards = map[string]string{}
	}
	h.forwards[addr] = to
}

// Hang makes the host stop answering at a point, or with Nowhere go on.
func (h *Host) Hang(at HangPoint) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hang = at
	if h.frozen != nil {
		close(h.frozen)
		h.frozen = nil
	}
	if at == Everywhere {
		h.frozen = make(chan struct{})
	}
}

// RefuseAuth refuses the next n logins, as a host does whose user has no key yet.
func (h *Host) RefuseAuth(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refuse = n
}

// SFTP switches the SFTP subsystem off, which ends the sessions there are, or on again.
func (h *Host) SFTP(on bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.noSFTP = !on
	for channel := range h.transfers {
		if !on {
			channel.Close()
		}
	}
}

// Logins is how many logins succeeded.
func (h *Host) Logins() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.logins
}

// Keepalives is how many keepalives came over all connections.
func (h *Host) Keepalives() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.keepalives
}

// HostKey is the host's public key as an authorized_keys line.
func (h *Host) HostKey() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(h.key.PublicKey())))
}

// SetHostKey makes the host show another key on new connections: the private key in PEM, or a new one if that is nil.
func (h *Host) SetHostKey(privatePEM []byte) {
	h.net.t.Helper()
	key, _ := newKey(h.net.t)
	if privatePEM != nil {
		var err error
		if key, err = ssh.ParsePrivateKey(privatePEM); err != nil {
			h.net.t.Fatalf("sshtest: host key of %s: %v", h.Name, err)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.key = key
}

func newKey(t testing.TB) (ssh.Signer, []byte) {
	t.Helper()
	_, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(priv, "")
	if err != nil {
		t.Fatal(err)
	}
	return signer, pem.EncodeToMemory(block)
}

// at finds the host that owns an address among the hosts. Addresses of this machine lead to what a test serves itself.
func (n *Net) at(addr string) (string, error) {
	if a, err := netip.ParseAddrPort(addr); err == nil && a.Port() == 22 && n.Route != nil {
		if h := n.Route(a.Addr()); h != nil {
			return h.Addr.String(), nil
		}
	}
	for _, h := range n.hosts {
		if h.Inside.String() == addr {
			return h.Addr.String(), nil
		}
	}
	if n.Beyond != nil {
		if to := n.Beyond(addr); to != "" {
			return to, nil
		}
	}
	if a, err := netip.ParseAddrPort(addr); err == nil && a.Addr().IsLoopback() {
		return addr, nil
	}
	return "", fmt.Errorf("no route to host %s", addr)
}

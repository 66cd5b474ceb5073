// Package labtest joins the two fakes, a cloud and hosts that speak SSH, into a place where a whole stack can be built in a test:
// what boots in the fake cloud answers SSH with the host key from its user data.
//
// It owns that join and nothing else: the rules of OpenStack are in openstacktest, those of hosts in sshtest.
package labtest

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/goccy/go-yaml"
	"golang.org/x/crypto/ssh"

	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
	"github.com/kuryrctl/kuryrctl/internal/sshtest"
)

// Lab is a fake cloud whose servers answer SSH.
type Lab struct {
	*openstacktest.Cloud
	State string // where a stack keeps its secrets

	t     testing.TB
	hosts *sshtest.Net
	mu    sync.Mutex
	born  map[string]string // server name to the user data whose key it has
	next  map[string][]byte // server name to the host key that was generated there
	leads map[string]string // see Lead
}

// names lists the hosts that there can be.
func names(stacks []string, workers int) (all []string) {
	for _, s := range stacks {
		for i := range 3 {
			all = append(all, fmt.Sprintf("%s/master-%d", s, i))
		}
		for i := range workers {
			all = append(all, fmt.Sprintf("%s/worker-%d", s, i))
		}
	}
	return all
}

// New starts a lab with a state directory that holds a key for each of stacks, as if they had been made on this machine. A stack may have
// three masters and three workers.
func New(t testing.TB, stacks []string, options ...openstacktest.Option) *Lab {
	t.Helper()
	return NewOf(t, stacks, 3, options...)
}

// NewOf is [New] for stacks of up to so many workers.
func NewOf(t testing.TB, stacks []string, workers int, options ...openstacktest.Option) *Lab {
	t.Helper()
	hosts := names(stacks, workers)
	l := &Lab{Cloud: openstacktest.New(t, options...), State: t.TempDir(), t: t, hosts: sshtest.New(t, hosts...), born: map[string]string{}, next: map[string][]byte{}, leads: map[string]string{}}
	l.hosts.Route = l.boot
	l.hosts.Beyond = func(addr string) string {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.leads[addr]
	}
	for _, name := range stacks {
		l.Key(name)
	}
	for _, name := range hosts {
		h := l.hosts.Host(name)
		h.On("*", sshtest.Text("")) // what is run is the business of other tests
		h.On("# generate the next host key\n*", l.generate)
		h.On("# install the next host key\n*", func(e *sshtest.Exec) int {
			e.Host.SetHostKey(l.successor(name))
			return 0
		})
	}
	return l
}

// Key gives a stack the key that the hosts let in; without it, the stack makes a key of its own, which they do not.
func (l *Lab) Key(name string) {
	dir := filepath.Join(l.State, "stacks", l.ProjectID(), name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		l.t.Fatal(err)
	}
	for file, text := range map[string][]byte{"id_ed25519": l.hosts.UserKeyPEM, "id_ed25519.pub": ssh.MarshalAuthorizedKey(l.hosts.UserKey.PublicKey())} {
		if err := os.WriteFile(filepath.Join(dir, file), text, 0o600); err != nil {
			l.t.Fatal(err)
		}
	}
}

// Host is the host behind a server, such as "demo/worker-0".
func (l *Lab) Host(server string) *sshtest.Host { return l.hosts.Host(server) }

// Lead makes an address lead to what a test serves, from hosts and by Dial: a load balancer with something behind it.
func (l *Lab) Lead(from, to string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leads[from] = to
}

// Dial reaches what booted by its floating IP, what Lead leads elsewhere there, and everything else as usual.
func (l *Lab) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	at, err := netip.ParseAddrPort(addr)
	if err == nil && at.Port() == 22 {
		h := l.boot(at.Addr())
		if h == nil {
			return nil, fmt.Errorf("dialing %s: no route to host", addr)
		}
		addr = h.Addr.String()
	}
	l.mu.Lock()
	if to := l.leads[addr]; to != "" {
		addr = to
	}
	l.mu.Unlock()
	return new(net.Dialer).DialContext(ctx, network, addr)
}

// boot gives every new server's host the key it was born with, and finds the one with this address.
func (l *Lab) boot(at netip.Addr) (found *sshtest.Host) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, g := range l.Guests() {
		h := l.hosts.Host(g.Name)
		if l.born[g.Name] != string(g.UserData) {
			l.born[g.Name] = string(g.UserData)
			var config struct {
				Keys struct {
					Private string `yaml:"ed25519_private"`
				} `yaml:"ssh_keys"`
			}
			if err := yaml.Unmarshal(g.UserData, &config); err != nil {
				l.t.Errorf("labtest: user data of %s: %v", g.Name, err)
			}
			h.SetHostKey([]byte(config.Keys.Private))
			delete(l.next, g.Name)
		}
		for _, a := range g.Addresses {
			if a == at.String() {
				found = h
			}
		}
	}
	return found
}

// successor is the host key that was generated on a server, or nil.
func (l *Lab) successor(server string) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next[server]
}

// generate plays ssh-keygen: it makes a key unless there is one, which is in service when it is installed.
func (l *Lab) generate(e *sshtest.Exec) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next[e.Host.Name] == nil {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return 1
		}
		block, err := ssh.MarshalPrivateKey(private, "")
		if err != nil {
			return 1
		}
		l.next[e.Host.Name] = pem.EncodeToMemory(block)
	}
	key, err := ssh.ParsePrivateKey(l.next[e.Host.Name])
	if err != nil {
		return 1
	}
	e.Stdout.Write(ssh.MarshalAuthorizedKey(key.PublicKey()))
	return 0
}

// Package stack says what a lab consists of and leads it through its life: declared, planned, built, looked at, removed.
//
// It owns the declaration ([Config]), the one function that turns it into resources ([Stack.Design]), the joins of what is declared
// with what is there (plan, up, show, down, doctor), and the few secrets kept on this machine. It refuses to know how OpenStack is
// spoken to (package provision), how a host is reached (package bootstrap/ssh), or what a terminal looks like.
package stack

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/kuryrctl/kuryrctl/bootstrap"
	"github.com/kuryrctl/kuryrctl/bootstrap/ssh"
	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/provision"
)

// Stack is one named stack in one project, for the time of one command.
type Stack struct {
	Name string

	session *provision.Session
	local   local
	admin   *openstack.Cloud
	dial    Dialer
	log     *slog.Logger
	pins    func() (*ssh.Pins, error) // one for all: two would overwrite each other's file
	hosts   []*host                   // whose connections Close ends
	bundle  software
	tsigKey string
	lease   time.Duration
	cluster *bootstrap.Cluster // of the last design; nil before

	reaching  sync.Mutex
	reachable map[*View]map[string]*host
}

// Dialer reaches addresses of the cloud; nil is the ordinary way, the lab's cloud is dialed from inside its network namespace.
type Dialer func(ctx context.Context, network, addr string) (net.Conn, error)

// Options are what a command knows beyond the declaration.
type Options struct {
	Dial Dialer
	Log  *slog.Logger
	// Admin, if set, may raise the project's quotas.
	Admin *openstack.Cloud
	// State is the directory for secrets; "" is kuryrctl below XDG_STATE_HOME.
	State string
	// Bundle is the file or directory that nodes' software comes from; "" is the one in the cache, fetched from upstream when it is not there.
	Bundle string
	// TSIGKey is the key for updates of names, as [dns.ParseKey] takes it, in the place of the file that is declared.
	TSIGKey string
	Poll    time.Duration // between two looks at what changes by itself; 0 is one second
	Lease   time.Duration // how long this run may be silent before it gives its lock up; 0 is [provision.Lease]
}

// Open prepares a stack; it asks nothing of the cloud. Close it when done.
func Open(cloud *openstack.Cloud, name string, o Options) (*Stack, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	l, err := openLocal(o.State, cloud.ProjectID(), name)
	if err != nil {
		return nil, err
	}
	session := provision.NewSession(cloud, name)
	if session.Poll = o.Poll; session.Poll == 0 {
		session.Poll = time.Second
	}
	return &Stack{Name: name, session: session, local: l, admin: o.Admin, dial: o.Dial, log: cmp.Or(o.Log, slog.New(slog.DiscardHandler)), tsigKey: o.TSIGKey, lease: cmp.Or(o.Lease, provision.Lease), pins: sync.OnceValues(l.pins), bundle: software{local: l, named: o.Bundle},
		reachable: map[*View]map[string]*host{}}, nil
}

// Close ends the connections to the cluster and to hosts.
func (s *Stack) Close() {
	if s.cluster != nil {
		s.cluster.Close()
	}
	s.bundle.close()
	for _, h := range slices.Backward(s.hosts) { // the jump host is the first
		h.close()
	}
}

// KubeconfigPath is where the administrator's kubeconfig is, or an error that says where it might be.
func (s *Stack) KubeconfigPath() (string, error) {
	if _, err := os.Stat(s.local.kubeconfigPath()); err != nil {
		return "", fmt.Errorf("%w %s: it is kept only where the stack was made (here it would be %s)", ErrNoKubeconfig, s.Name, s.local.kubeconfigPath())
	}
	return s.local.kubeconfigPath(), nil
}

// KeyPath is where the stack's private SSH key is, or an error that says where it might be.
func (s *Stack) KeyPath() (string, error) {
	if !s.local.hasKey() {
		return "", fmt.Errorf("%w %s: the private key is kept only where the stack was made (here it would be %s)", ErrNoKey, s.Name, s.local.keyPath())
	}
	return s.local.keyPath(), nil
}

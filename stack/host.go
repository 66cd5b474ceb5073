package stack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"

	"github.com/kuryrctl/kuryrctl/bootstrap/ssh"
	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/provision"
	"github.com/kuryrctl/kuryrctl/templates"
)

// userData makes what a server is born with: its name and a host key of its own, which is pinned on this machine before the
// server exists. The key is replaced at the first login, since user data stays readable for a server's whole life.
func (s *Stack) userData(n *Node, c Config) ([]byte, error) {
	key, err := ssh.NewHostKey()
	if err != nil {
		return nil, err
	}
	pins, err := s.pins()
	if err != nil {
		return nil, err
	}
	if err := pins.Set(n.Name, ssh.Pin{PortID: n.Port.ID(), Keys: []string{key.Public}}); err != nil {
		return nil, err
	}
	return templates.CloudInit(templates.CloudInitData{
		Hostname: n.Name, FQDN: n.Name + "." + c.DNSDomain, HostKeyPrivate: string(key.Private), HostKeyPublic: key.Public,
	})
}

// host is a server that answers SSH with a key that only it knows.
type host struct {
	stack *Stack
	name  string
	at    func() place // where it is; called when its needs are ready
	via   *host        // the first master, through which all others are reached; nil for itself
	needs []graph.Resource

	mu     sync.Mutex
	client *ssh.Client
	log    *os.File // open while there is a connection
	down   error    // why it did not answer when it was last looked at; who works on it later need not find out again
}

// place is what has to be known of a server to log in to it.
type place struct {
	address          netip.Addr
	login            string
	portID, serverID string
}

// bootLimit bounds the way from an ACTIVE server to its first login. A slow cloud takes two or three minutes; a server that takes
// longer has no network, no cloud-init or another key, and waiting does not help.
const bootLimit = 10 * time.Minute

func (h *host) Key() graph.Key          { return graph.Key("host." + h.name) }
func (h *host) Needs() []graph.Resource { return h.needs }

// Observe implements [graph.Resource]: ready means that the host answers, in one attempt, with its own key.
func (h *host) Observe(ctx context.Context) (graph.State, error) {
	pins, err := h.stack.pins()
	if err != nil {
		return graph.State{}, err
	}
	pin, ok := pins.Node(h.name)
	if !ok {
		return graph.State{Phase: graph.Failed, Detail: "its host key is not known on this machine"}, nil
	}
	if !pin.Rotated {
		return graph.State{Phase: graph.Pending, Detail: "has the host key it was born with"}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if _, err := h.connect(ctx); err != nil {
		h.mu.Lock()
		h.down = err
		h.mu.Unlock()
		return graph.State{Phase: graph.Drifted, Detail: "does not answer SSH: " + err.Error()}, nil
	}
	return graph.State{Phase: graph.Ready, Detail: "answers SSH as " + h.at().login}, nil
}

// Apply implements [graph.Resource].
func (h *host) Apply(ctx context.Context) error {
	h.mu.Lock()
	cfg, err := h.sshConfig(ctx)
	h.mu.Unlock()
	if err != nil {
		return err
	}
	boot, cancel := context.WithTimeoutCause(ctx, bootLimit, errors.New("read its console: openstack console log show "+h.stack.Name+"/"+h.name))
	defer cancel()
	client, err := ssh.WaitReady(boot, cfg, h.stack.session.Poll)
	if err != nil {
		return err
	}
	h.keep(client)
	pins, err := h.stack.pins()
	if err != nil {
		return err
	}
	pin, _ := pins.Node(h.name)
	if id := h.at().serverID; pin.ServerID != id {
		pin.ServerID = id
		if err := pins.Set(h.name, pin); err != nil {
			return err
		}
	}
	return ssh.Rotate(ctx, client, pins)
}

// connect returns the one connection to the host, making it if need be.
func (h *host) connect(ctx context.Context) (*ssh.Client, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.client != nil && !h.client.Lost() {
		return h.client, nil
	}
	if h.down != nil {
		return nil, h.down
	}
	cfg, err := h.sshConfig(ctx)
	if err != nil {
		return nil, err
	}
	client, err := ssh.Dial(ctx, cfg)
	if err != nil {
		return nil, err
	}
	h.client = client
	return client, nil
}

func (h *host) keep(client *ssh.Client) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.client, h.down = client, nil
}

func (h *host) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.client != nil {
		h.client.Close()
		h.client = nil
	}
	if h.log != nil {
		h.log.Close()
		h.log = nil
	}
}

// sshConfig says how to reach the host. It is called with mu held.
func (h *host) sshConfig(ctx context.Context) (ssh.Config, error) {
	at := h.at()
	if !at.address.IsValid() {
		return ssh.Config{}, fmt.Errorf("reaching %s: it has no address", h.name)
	}
	signer, err := h.stack.local.signer()
	if err != nil {
		return ssh.Config{}, err
	}
	pins, err := h.stack.pins()
	if err != nil {
		return ssh.Config{}, err
	}
	pin, ok := pins.Node(h.name)
	if !ok || pin.PortID != at.portID {
		return ssh.Config{}, fmt.Errorf("%w %s: copy %s from the machine where the stack was made", errNoPin, h.name, h.stack.local.dir)
	}
	if h.log == nil {
		if h.log, err = h.stack.local.openLog(h.name); err != nil {
			return ssh.Config{}, err
		}
	}
	cfg := ssh.Config{Transcript: h.log, Node: h.name, Address: netip.AddrPortFrom(at.address, sshPort), User: at.login, Signer: signer, HostKeys: pin.Keys, Log: h.stack.log}
	if h.via == nil {
		cfg.Dial = h.stack.dial
		return cfg, nil
	}
	cfg.Via, err = h.via.connect(ctx)
	return cfg, err
}

// Host returns a connection to a node of a stack that was shown, through the first master. It lasts until [Stack.Close].
func (s *Stack) Host(ctx context.Context, v *View, name string) (*ssh.Client, error) {
	h, ok := s.reach(v)[name]
	if !ok {
		return nil, noNode(v, name)
	}
	return h.connect(ctx)
}

// noNode names the nodes that there are.
func noNode(v *View, name string) error {
	var names []string
	for _, n := range v.Nodes {
		names = append(names, n.Name)
	}
	return &provision.NotThere{Kind: "node", Name: name, There: "there are: " + strings.Join(names, ", ")}
}

// reach are the nodes of a stack that was shown, as hosts: one for each, so that all who ask share a connection. The first that has a
// floating IP leads to the others.
func (s *Stack) reach(v *View) map[string]*host {
	s.reaching.Lock()
	defer s.reaching.Unlock()
	if s.reachable[v] != nil {
		return s.reachable[v]
	}
	all := map[string]*host{}
	var jump *host
	for _, n := range v.Nodes {
		h := &host{stack: s, name: n.Name, at: func() place {
			address, _ := netip.ParseAddr(cmp.Or(n.FloatingIP, n.Address))
			return place{address, n.Login, n.PortID, n.ServerID}
		}}
		if n.FloatingIP != "" && jump == nil {
			jump = h
		}
		all[n.Name] = h
	}
	if jump != nil {
		s.hosts = append(s.hosts, jump)
	}
	for _, h := range all {
		if h != jump {
			h.via = jump
			s.hosts = append(s.hosts, h)
		}
	}
	s.reachable[v] = all
	return all
}

var errNoPin = errors.New("this machine does not know the host key of")

// login is the user name on servers of an image: declared, else what the image says, else what its name suggests.
func (c Config) login(image images.Image) (string, error) {
	if c.SSHUser != "" {
		return c.SSHUser, nil
	}
	if user, _ := image.Properties["os_admin_user"].(string); user != "" {
		return user, nil
	}
	for _, known := range []struct{ part, user string }{
		{"debian", "debian"}, {"ubuntu", "ubuntu"}, {"rocky", "rocky"}, {"centos", "cloud-user"}, {"stream", "cloud-user"}, {"alma", "almalinux"}, {"fedora", "fedora"},
	} {
		if strings.Contains(strings.ToLower(image.Name), known.part) {
			return known.user, nil
		}
	}
	return "", fmt.Errorf("finding the login of image %q: it has no property os_admin_user and its name tells nothing; set ssh_user", image.Name)
}

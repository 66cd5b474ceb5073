package bootstrap

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/kuryrctl/kuryrctl/bootstrap/bundle"
	"github.com/kuryrctl/kuryrctl/bootstrap/cluster"
	"github.com/kuryrctl/kuryrctl/bootstrap/ssh"
	"github.com/kuryrctl/kuryrctl/internal/graph"
)

// Cluster is what nodes are to become together.
type Cluster struct {
	Name        string
	Version     string // of Kubernetes: v1.37.1, v1.37, or "" for the newest that the bundle has
	Bundle      func() (*bundle.Bundle, error)
	Endpoint    netip.AddrPort    // of the API, as nodes and pods reach it
	Public      func() netip.Addr // the API's address for everybody else, at the same port
	ServiceCIDR netip.Prefix      // that Kubernetes hands out; its first address is the endpoint's
	DNSDomain   string
	Access      func() (Access, error) // to OpenStack, for the controller
	Kubeconfig  string                 // the administrator's, a file on this machine
	Entrance    *Node                  // through which the API is reached from here
	Limits      Limits

	mu    sync.Mutex
	api   *cluster.Cluster
	slots chan struct{} // see uploads
}

// Limits are how long a host or the cluster may take for what nothing but time can bring. Zero is long enough for a slow machine.
type Limits struct {
	Clock    time.Duration // to set the clock, once a host was told to; 30 s
	Etcd     time.Duration // etcd on a node of its own to serve; 4 min
	Register time.Duration // a kubelet that has joined to register its node; 2 min
	Health   time.Duration // the API to be healthy behind its load balancer once kubeadm is done; 5 min
}

// apiPort is where API servers listen; the endpoint leads there.
const apiPort = 6443

// Prepare is what comes before kubeadm on any node: its system, software, runtime and images. The last of what it returns needs all
// others. Host is ready when the node can be reached, source when there is a bundle, whose images of every node and of these parts come
// along.
func (c *Cluster) Prepare(n *Node, parts []bundle.Part, host, source graph.Resource) []graph.Resource {
	system := c.system(n, host)
	software := c.software(n, host, source)
	runtime := c.runtime(n, system, software)
	images := c.images(n, append([]bundle.Part{bundle.EveryNode}, parts...), runtime)
	return []graph.Resource{system, software, runtime, images}
}

// release is what of the bundle fits a node.
func (c *Cluster) release(ctx context.Context, n *Node, client *ssh.Client) (*bundle.Release, error) {
	f, err := n.known(ctx, client)
	if err != nil {
		return nil, err
	}
	b, err := c.Bundle()
	if err != nil {
		return nil, err
	}
	return b.Release(c.Version, f.Arch)
}

func ref(r *bundle.Release, component string) (string, error) {
	found, ok := r.Ref(component)
	if !ok {
		return "", fmt.Errorf("looking for the image of %s: the bundle has none for Kubernetes %s; make or fetch it again with this kuryrctl", component, r.Version)
	}
	return found, nil
}

// tag is the part of an image's reference that tells its version.
func tag(reference string) string { return reference[strings.LastIndex(reference, ":")+1:] }

// API is the cluster as seen by its administrator. It is reached through the entrance, whatever the kubeconfig says: SSH gets through
// where nothing else needs to.
func (c *Cluster) API() (*cluster.Cluster, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.api != nil {
		return c.api, nil
	}
	config, err := private(c.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("reading the stack's kubeconfig: %w", err)
	}
	c.api, err = cluster.New(config, func(ctx context.Context, network, _ string) (net.Conn, error) {
		client, err := c.Entrance.Connect(ctx)
		if err != nil {
			return nil, err
		}
		return client.DialContext(ctx, network, c.Endpoint.String())
	})
	return c.api, err
}

func (c *Cluster) uploading() chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.slots == nil {
		c.slots = make(chan struct{}, uploads)
	}
	return c.slots
}

// Close ends connections to the API.
func (c *Cluster) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.api != nil {
		c.api.Close()
		c.api = nil
	}
}

package bootstrap

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/kuryrctl/kuryrctl/bootstrap/cluster"
	"github.com/kuryrctl/kuryrctl/bootstrap/ssh"
	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/internal/wait"
	"github.com/kuryrctl/kuryrctl/templates"
)

// joining is how a node joins.
type joining struct {
	first        *Node // the first control plane
	controlPlane bool
	etcd         bool // the node runs etcd for the control plane, and nothing that is scheduled
}

// Join makes a prepared host a node, by `kubeadm join`.
func (c *Cluster) Join(n, first *Node, needs ...graph.Resource) graph.Resource {
	return c.join(n, graph.Key("node."+n.Name), joining{first: first}, needs...)
}

// JoinEtcd makes a host that runs etcd a node, which takes no pods but those that tolerate it.
func (c *Cluster) JoinEtcd(n, first *Node, needs ...graph.Resource) graph.Resource {
	return c.join(n, graph.Key("node."+n.Name), joining{first: first, etcd: true}, needs...)
}

// tokenLife bounds the use of a bootstrap token that a crash has left behind.
const tokenLife = 15 * time.Minute

func (c *Cluster) join(n *Node, key graph.Key, how joining, needs ...graph.Resource) graph.Resource {
	s := &step{key: key, node: n, needs: needs}
	s.look = func(ctx context.Context, client *ssh.Client) (graph.State, error) {
		state, err := lookAtJob(ctx, client, "join", "joined")
		if err != nil || state.Phase != graph.Ready {
			return state, err
		}
		api, err := c.API()
		if err != nil {
			return graph.State{}, err
		}
		node, ok, err := api.Node(ctx, n.Name)
		switch {
		case err != nil:
			return graph.State{}, err
		case !ok:
			return graph.State{Phase: graph.Drifted, Detail: "its kubelet runs, and the cluster knows no node of that name"}, nil
		}
		return graph.State{Phase: graph.Ready, Detail: "joined, " + node.Kubelet}, nil
	}
	s.do = func(ctx context.Context, client *ssh.Client) error {
		api, err := c.API()
		if err != nil {
			return err
		}
		token := ""
		err = runJob(ctx, client, "join", how.keep(), func() error {
			// What the cluster may know under this name is a host that is no more.
			if err := api.RemoveNode(ctx, n.Name); err != nil {
				return err
			}
			if token, err = api.NewToken(ctx, tokenLife, "kuryrctl: "+n.Name+" joins"); err != nil {
				return err
			}
			return c.prepareJoin(ctx, n, client, token, how)
		})
		if token != "" {
			// Whatever became of the join, and of the time for it.
			over, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
			defer cancel()
			err = errors.Join(err, api.DeleteToken(over, token))
		}
		if err != nil {
			return err
		}
		if token == "" { // it had joined before; then its node may have been deleted, and a kubelet registers only when it starts
			if err := register(ctx, client, api, n.Name); err != nil {
				return err
			}
		}
		return c.waitForNode(ctx, api, n.Name)
	}
	return s
}

// keep names what is not to be cleared before another attempt.
func (j joining) keep() string {
	if j.etcd {
		return "etcd"
	}
	return ""
}

func (c *Cluster) prepareJoin(ctx context.Context, n *Node, client *ssh.Client, token string, how joining) error {
	d := templates.KubeadmJoinData{Endpoint: c.Endpoint, Token: token, ControlPlane: how.controlPlane, APIPort: apiPort}
	var err error
	if d.Node, err = c.registration(ctx, n, client); err != nil {
		return err
	}
	if d.CAHash, err = caHash(ctx, how.first); err != nil {
		return err
	}
	if how.etcd {
		d.Node.Taints = []string{"node-role.kubernetes.io/etcd"}
		d.Node.Ignore = append(d.Node.Ignore, "DirAvailable--etc-kubernetes-manifests", "Port-10250")
	}
	config, err := templates.KubeadmJoin(d)
	if err != nil {
		return err
	}
	files := []file{{configDir + "join.yaml", 0o600, config}}
	if how.controlPlane {
		if err := copyFiles(ctx, how.first, client, authorities...); err != nil {
			return err
		}
		files = append(files, planeFiles()...)
	}
	return write(ctx, client, files)
}

// caHash is the digest of the cluster CA's public key, by which a joining node knows the cluster (RFC 7469, 2.4).
func caHash(ctx context.Context, first *Node) (string, error) {
	client, err := first.Connect(ctx)
	if err != nil {
		return "", err
	}
	out, err := client.Run(ctx, ssh.Command{Line: "# read the cluster's CA\ncat /etc/kubernetes/pki/ca.crt", Sudo: true})
	if err != nil {
		return "", err
	}
	block, _ := pem.Decode([]byte(out.Stdout))
	if block == nil {
		return "", fmt.Errorf("reading the CA of the cluster on %s: no PEM", first.Name)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", fmt.Errorf("reading the CA of the cluster on %s: %w", first.Name, err)
	}
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return "sha256:" + hex.EncodeToString(sum[:]), nil
}

// lookAtJob says how far kubeadm got on a host.
func lookAtJob(ctx context.Context, client *ssh.Client, job, ready string) (graph.State, error) {
	printed, err := look(ctx, client, templates.Script("job-check", map[string]string{"job": job}))
	return found(printed, ready), err
}

// runJob runs kubeadm as a job of the host, which goes on when we or the connection end: what runs or is complete is not begun again. What
// an attempt that ended early has left is cleared, and prepare called, only before a new one.
func runJob(ctx context.Context, client *ssh.Client, job, keep string, prepare func() error) error {
	values := map[string]string{"job": job, "keep": keep}
	out, err := client.Run(ctx, ssh.Command{Line: templates.Script("clear", values), Sudo: true})
	if err != nil {
		return err
	}
	if out.Stdout != "begun\n" {
		if err := prepare(); err != nil {
			return err
		}
	}
	values["work"] = string(templates.NodeFile(job + "-work.sh"))
	_, err = client.Run(ctx, ssh.Command{Line: templates.Script("job", values), Sudo: true})
	return err
}

// register makes the kubelet of a node that the cluster does not know start again.
func register(ctx context.Context, client *ssh.Client, api *cluster.Cluster, name string) error {
	if _, known, err := api.Node(ctx, name); known || err != nil {
		return err
	}
	_, err := client.Run(ctx, ssh.Command{Line: "# start kubelet again\nsystemctl restart kubelet.service", Sudo: true})
	return err
}

func (c *Cluster) waitForNode(ctx context.Context, api *cluster.Cluster, name string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, cmp.Or(c.Limits.Register, 2*time.Minute), errors.New("read `journalctl -u kubelet` there"))
	defer cancel()
	return wait.For(ctx, "node "+name+" to register", 500*time.Millisecond, func(ctx context.Context) (string, bool, error) {
		_, ok, err := api.Node(ctx, name)
		return "not known to the cluster", ok, err
	})
}

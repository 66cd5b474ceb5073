package bootstrap

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/kuryrctl/kuryrctl/bootstrap/ssh"
	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/internal/wait"
	"github.com/kuryrctl/kuryrctl/templates"
)

// Etcd is an etcd on a node of its own, for a control plane elsewhere: a static pod of a kubelet that belongs to no cluster yet, as kubeadm
// documents it for external etcd.
func (c *Cluster) Etcd(n *Node, needs ...graph.Resource) graph.Resource {
	s := &step{key: graph.Key("etcd." + n.Name), node: n, needs: needs}
	s.look = func(ctx context.Context, client *ssh.Client) (graph.State, error) {
		state, err := lookAtJob(ctx, client, "etcd", "runs")
		if err != nil || state.Phase != graph.Ready {
			return state, err
		}
		if err := etcdReady(ctx, client); err != nil {
			return graph.State{Phase: graph.Drifted, Detail: err.Error()}, nil
		}
		return state, nil
	}
	s.do = func(ctx context.Context, client *ssh.Client) error {
		err := runJob(ctx, client, "etcd", "etcd", func() error {
			config, err := c.initConfig(ctx, n, client, nil)
			if err != nil {
				return err
			}
			return write(ctx, client, []file{
				{configDir + "etcd.yaml", 0o600, config},
				{configDir + "etcd-kubelet.yaml", 0o600, templates.NodeFile("etcd-kubelet.yaml")},
				{etcdDropIn, 0o644, templates.NodeFile("etcd-kubelet.conf")},
			})
		})
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeoutCause(ctx, cmp.Or(c.Limits.Etcd, 4*time.Minute), errors.New("read /var/log/containers/etcd-* there"))
		defer cancel()
		return wait.For(ctx, "etcd on "+n.Name, time.Second, func(ctx context.Context) (string, bool, error) {
			if err := etcdReady(ctx, client); err != nil {
				return err.Error(), false, nil
			}
			return "", true, nil
		})
	}
	return s
}

// etcdDropIn makes kubelet run static pods for no cluster; joining one removes it.
const etcdDropIn = "/etc/systemd/system/kubelet.service.d/20-etcd.conf"

// etcdReady asks etcd on the port that kubeadm gives its probes, plain HTTP on the node's loopback.
func etcdReady(ctx context.Context, client *ssh.Client) error {
	transport := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		return client.DialContext(ctx, network, addr)
	}}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:2381/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return fmt.Errorf("asking etcd: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("asking etcd: %s", resp.Status)
	}
	return nil
}

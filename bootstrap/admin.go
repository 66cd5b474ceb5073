package bootstrap

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/kuryrctl/kuryrctl/bootstrap/cluster"
	"github.com/kuryrctl/kuryrctl/bootstrap/ssh"
	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/internal/wait"
)

// Admin is the administrator's kubeconfig on this machine, and an API that answers to it.
func (c *Cluster) Admin(first *Node, needs ...graph.Resource) graph.Resource {
	s := &step{key: "kubeconfig", node: first, needs: needs}
	s.look = func(ctx context.Context, _ *ssh.Client) (graph.State, error) {
		if _, err := os.Stat(c.Kubeconfig); errors.Is(err, fs.ErrNotExist) {
			return graph.State{Detail: "not fetched"}, nil
		}
		api, err := c.API()
		if err != nil {
			return graph.State{}, err
		}
		if _, err := api.Version(ctx); err != nil { // not its health, which comes and goes on a busy machine
			return graph.State{Phase: graph.Drifted, Detail: err.Error()}, nil
		}
		return graph.State{Phase: graph.Ready, Detail: c.publicURL()}, nil
	}
	s.do = func(ctx context.Context, client *ssh.Client) error {
		out, err := client.Run(ctx, ssh.Command{Line: "# read the administrator's kubeconfig\ncat /etc/kubernetes/admin.conf", Sudo: true, Secret: true})
		if err != nil {
			return err
		}
		config, err := cluster.Rename([]byte(out.Stdout), c.Name, c.publicURL())
		if err != nil {
			return err
		}
		if err := keep(c.Kubeconfig, config); err != nil {
			return err
		}
		c.Close() // of a cluster that had this name before
		api, err := c.API()
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeoutCause(ctx, cmp.Or(c.Limits.Health, 5*time.Minute), errors.New("read /var/log/containers on the masters, and look at the load balancer"))
		defer cancel()
		return wait.For(ctx, "the API of "+c.Name, time.Second, func(ctx context.Context) (string, bool, error) {
			err := api.Healthy(ctx)
			if err == nil {
				return "", true, nil
			}
			return err.Error(), false, nil
		})
	}
	return s
}

func (c *Cluster) publicURL() string {
	return fmt.Sprintf("https://%s:%d", c.Public(), c.Endpoint.Port())
}

// keep writes a secret of this machine, whole or not at all.
func keep(path string, content []byte) error {
	temporary := path + ".new"
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err == nil {
		_, err = f.Write(content)
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		return fmt.Errorf("keeping %s: %w", path, err)
	}
	return nil
}

// private reads a secret of this machine. As ssh does of keys, it refuses one that others can read: it is none.
func private(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat() // of the open file: the name may be swapped between two calls
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%s: mode %04o lets others read it; run chmod 600 %s", path, mode, path)
	}
	return io.ReadAll(f)
}

package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/kuryrctl/kuryrctl/bootstrap/bundle"
	"github.com/kuryrctl/kuryrctl/bootstrap/cluster"
	"github.com/kuryrctl/kuryrctl/bootstrap/payload"
	"github.com/kuryrctl/kuryrctl/bootstrap/ssh"
	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/internal/wait"
	"github.com/kuryrctl/kuryrctl/nodeagent/vif"
	"github.com/kuryrctl/kuryrctl/templates"
)

// Access is how the controller gets at OpenStack.
type Access struct {
	templates.KuryrCloud
	CA []byte // in PEM, of the cloud's endpoints; nil trusts what the node does
}

// PodAPI is what pods on Neutron need of the API: the definition of SubportPool, and rights.
func (c *Cluster) PodAPI(first *Node, needs ...graph.Resource) graph.Resource {
	manifest := append(append(vif.CRD(), "\n---\n"...), templates.KuryrFile("rbac.yaml")...)
	return c.install(addon{key: "pod-api", manifest: func(context.Context, *ssh.Client, *cluster.Cluster, bool) ([]byte, *graph.State, error) {
		return manifest, nil, nil
	}}, first, needs...)
}

// DNS is the cluster's DNS: pods like others, behind a Service at the address that kubelets tell pods.
func (c *Cluster) DNS(first *Node, needs ...graph.Resource) graph.Resource {
	a := addon{key: "addon.dns", namespace: "kube-system", deployment: "coredns"}
	a.manifest = func(ctx context.Context, client *ssh.Client, _ *cluster.Cluster, _ bool) ([]byte, *graph.State, error) {
		image, err := c.image(ctx, first, client, "coredns")
		if err != nil {
			return nil, nil, err
		}
		// CoreDNS does not start with a forwarder to nowhere, and a cloud need not have resolvers.
		resolvers, err := look(ctx, client, "grep -c '^nameserver' /etc/resolv.conf || :")
		if err != nil {
			return nil, nil, err
		}
		forward := strings.TrimSpace(resolvers) != "" && strings.TrimSpace(resolvers) != "0"
		manifest, err := templates.KuryrDNS(templates.DNS{Image: image, Domain: c.DNSDomain, Address: DNSAddress(c.ServiceCIDR), Forward: forward})
		return manifest, nil, err
	}
	return c.install(a, first, needs...)
}

// Controller is the program that keeps subports on trunks, on a master. One of several works, the others wait for its end.
func (c *Cluster) Controller(n *Node, needs ...graph.Resource) graph.Resource {
	return c.agent(n, graph.Key("controller."+n.Name), func(archive bundle.Blob) ([]file, error) {
		access, err := c.Access()
		if err != nil {
			return nil, err
		}
		clouds, err := templates.KuryrClouds(access.KuryrCloud)
		if err != nil {
			return nil, err
		}
		unit, err := templates.KuryrController(archive.Digest, c.Name)
		files := []file{{"/etc/kuryr/clouds.yaml", 0o600, clouds}, {"/etc/systemd/system/kuryr-controller.service", 0o644, unit}}
		if access.CA != nil {
			files = append(files, file{"/etc/kuryr/ca.crt", 0o644, access.CA})
		}
		return files, err
	}, "kuryr-controller", nil, needs...)
}

// cniConfig is the runtime's configuration of pods' networks.
const cniConfig = "/etc/cni/net.d/10-kuryr.conflist"

// PodNetwork is what gives the pods of a node their ports: the CNI plugin and, on a worker, the daemon. The node is ready then.
func (c *Cluster) PodNetwork(n *Node, worker bool, needs ...graph.Resource) graph.Resource {
	unit, conflist := "", "conflist-master.json"
	if worker {
		unit, conflist = "kuryr-daemon", "conflist.json"
	}
	files := func(archive bundle.Blob) ([]file, error) {
		all := []file{{cniConfig, 0o644, templates.KuryrFile(conflist)}}
		if !worker {
			return all, nil
		}
		text, err := templates.KuryrDaemon(archive.Digest, n.Name)
		return append(all, file{"/etc/systemd/system/kuryr-daemon.service", 0o644, text}), err
	}
	return c.agent(n, graph.Key("network."+n.Name), files, unit, c.nodeReady, needs...)
}

// agent is a program of the payload on a node, with its files and its unit, if it has one.
func (c *Cluster) agent(n *Node, key graph.Key, files func(bundle.Blob) ([]file, error), unit string, ready func(context.Context, string) (string, error), needs ...graph.Resource) *step {
	s := &step{key: key, node: n, needs: needs}
	prepare := func(ctx context.Context, client *ssh.Client) (bundle.Blob, []file, map[string]string, error) {
		f, err := n.known(ctx, client)
		if err != nil {
			return bundle.Blob{}, nil, nil, err
		}
		archive, err := payload.Archive(f.Arch)
		if err != nil {
			return archive, nil, nil, err
		}
		all, err := files(archive)
		return archive, all, map[string]string{"store": storeDir, "archives": archive.Digest, "unit": unit, "version": ""}, err
	}
	installed := func(ctx context.Context, client *ssh.Client) (graph.State, error) {
		_, all, values, err := prepare(ctx, client)
		if err != nil {
			return graph.State{}, err
		}
		printed, err := look(ctx, client, templates.Script("software-check", values)+templates.Script("agent-check", values)+checkFiles(all))
		return found(printed, "runs"), err
	}
	install := func(ctx context.Context, client *ssh.Client) error {
		archive, all, values, err := prepare(ctx, client)
		if err != nil {
			return err
		}
		if err := c.put(ctx, client, archive); err != nil {
			return err
		}
		if _, err := client.Run(ctx, ssh.Command{Line: templates.Script("software", values), Sudo: true}); err != nil {
			return err
		}
		if err := write(ctx, client, all); err != nil {
			return err
		}
		_, err = client.Run(ctx, ssh.Command{Line: templates.Script("agent", values), Sudo: true})
		return err
	}
	s.look = func(ctx context.Context, client *ssh.Client) (graph.State, error) {
		state, err := installed(ctx, client)
		if err != nil || state.Phase != graph.Ready || ready == nil {
			return state, err
		}
		lacks, err := ready(ctx, n.Name)
		return found(lacks, state.Detail), err
	}
	s.do = func(ctx context.Context, client *ssh.Client) error {
		// A node that is not ready for a moment is waited for; its daemon is not restarted for that.
		state, err := installed(ctx, client)
		if err == nil && state.Phase != graph.Ready {
			err = install(ctx, client)
		}
		if err != nil {
			return err
		}
		if ready == nil {
			return nil
		}
		ctx, cancel := context.WithTimeoutCause(ctx, readyLimit, errors.New("read `journalctl -u kuryr-daemon -u kubelet` there, and of kuryr-controller on the masters"))
		defer cancel()
		return wait.For(ctx, "node "+n.Name+" to be ready", 500*time.Millisecond, func(ctx context.Context) (string, bool, error) {
			lacks, err := ready(ctx, n.Name)
			return lacks, lacks == "", err
		})
	}
	return s
}

// readyLimit is how long a node may take to be ready once its network is there.
const readyLimit = 3 * time.Minute

// nodeReady says what keeps a node from being ready, or "".
func (c *Cluster) nodeReady(ctx context.Context, name string) (string, error) {
	api, err := c.API()
	if err != nil {
		return "", err
	}
	node, ok, err := api.Node(ctx, name)
	switch {
	case err != nil:
		return "", err
	case !ok:
		return "the cluster knows no such node", nil
	case !node.Ready:
		return fmt.Sprintf("it is not ready: %s: %s", node.Reason, node.Message), nil
	}
	return "", nil
}

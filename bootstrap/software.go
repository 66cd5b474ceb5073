package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/kuryrctl/kuryrctl/bootstrap/bundle"
	"github.com/kuryrctl/kuryrctl/bootstrap/ssh"
	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/templates"
)

// storeDir is where uploads wait to be unpacked. It belongs to the login user, since SFTP knows no sudo.
const storeDir = "/var/lib/kuryrctl/store"

// software is the state of the binaries of runtime and Kubernetes.
func (c *Cluster) software(n *Node, needs ...graph.Resource) *step {
	s := &step{key: graph.Key("software." + n.Name), node: n, needs: needs}
	values := func(r *bundle.Release) map[string]string {
		var names []string
		for _, a := range r.Archives() {
			names = append(names, a.Digest)
		}
		return map[string]string{"store": storeDir, "archives": strings.Join(names, " "), "version": r.Version}
	}
	s.look = func(ctx context.Context, client *ssh.Client) (graph.State, error) {
		r, err := c.release(ctx, n, client)
		if err != nil {
			return graph.State{}, err
		}
		printed, err := look(ctx, client, templates.Script("software-check", values(r)))
		if runs, ok := strings.CutPrefix(printed, "in a cluster of "); ok {
			runs, _, _ = strings.Cut(runs, "\n")
			return graph.State{}, fmt.Errorf("the cluster runs Kubernetes %s, and the bundle's choice is %s: declare kubernetes.version %s, or use a bundle that has it; stack does not upgrade", runs, r.Version, runs)
		}
		return found(printed, "Kubernetes "+r.Version), err
	}
	s.do = func(ctx context.Context, client *ssh.Client) error {
		r, err := c.release(ctx, n, client)
		if err != nil {
			return err
		}
		if err := c.put(ctx, client, r.Archives()...); err != nil {
			return err
		}
		_, err = client.Run(ctx, ssh.Command{Line: templates.Script("software", values(r)), Sudo: true})
		return err
	}
	return s
}

// uploads is how many nodes are uploaded to at once: all go through the same way in, and more only take each other's bandwidth.
const uploads = 4

// put uploads blobs into the store, each under its digest.
func (c *Cluster) put(ctx context.Context, client *ssh.Client, blobs ...bundle.Blob) error {
	select {
	case c.uploading() <- struct{}{}:
		defer func() { <-c.uploading() }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if _, err := client.Run(ctx, ssh.Command{Line: templates.Script("store", map[string]string{"store": storeDir}), Sudo: true}); err != nil {
		return err
	}
	for _, b := range blobs {
		if b.Digest == "" { // it cannot be read, and opening it says why
			content, err := b.Open()
			if err == nil {
				err = errors.Join(fmt.Errorf("reading %s: the bundle does not say what it is", b.Name), content.Close())
			}
			return err
		}
		u := ssh.Upload{Path: path.Join(storeDir, b.Digest), Mode: 0o644, Size: b.Size, SHA256: b.Digest, Open: b.Open}
		if _, err := client.Put(ctx, u); err != nil {
			return err
		}
	}
	return nil
}

// runtime is the state of containerd and of kubelet's unit.
func (c *Cluster) runtime(n *Node, needs ...graph.Resource) *step {
	s := &step{key: graph.Key("runtime." + n.Name), node: n, needs: needs}
	files := func(ctx context.Context, client *ssh.Client) ([]file, error) {
		r, err := c.release(ctx, n, client)
		if err != nil {
			return nil, err
		}
		pause, err := ref(r, "pause")
		if err != nil {
			return nil, err
		}
		config, err := templates.ContainerdConfig(pause)
		return []file{
			{"/etc/containerd/config.toml", 0o644, config},
			{"/etc/systemd/system/containerd.service", 0o644, templates.NodeFile("containerd.service")},
			{"/etc/systemd/system/kubelet.service", 0o644, templates.NodeFile("kubelet.service")},
			{"/etc/crictl.yaml", 0o644, templates.NodeFile("crictl.yaml")},
		}, err
	}
	s.look = func(ctx context.Context, client *ssh.Client) (graph.State, error) {
		all, err := files(ctx, client)
		if err != nil {
			return graph.State{}, err
		}
		printed, err := look(ctx, client, templates.Script("runtime-check", nil)+checkFiles(all))
		return found(printed, "containerd runs"), err
	}
	s.do = func(ctx context.Context, client *ssh.Client) error {
		all, err := files(ctx, client)
		if err != nil {
			return err
		}
		if err := write(ctx, client, all); err != nil {
			return err
		}
		_, err = client.Run(ctx, ssh.Command{Line: templates.Script("runtime", nil), Sudo: true})
		return err
	}
	return s
}

// images is the state of the images that the node starts from; nothing is pulled while it joins.
func (c *Cluster) images(n *Node, parts []bundle.Part, needs ...graph.Resource) *step {
	s := &step{key: graph.Key("images." + n.Name), node: n, needs: needs}
	s.look = func(ctx context.Context, client *ssh.Client) (graph.State, error) {
		r, err := c.release(ctx, n, client)
		if err != nil {
			return graph.State{}, err
		}
		all, err := r.ImageList()
		if err != nil {
			return graph.State{}, err
		}
		var wanted []string
		for _, i := range all {
			if slices.Contains(parts, i.Part) {
				wanted = append(wanted, i.Ref+"@"+i.Digest)
			}
		}
		printed, err := look(ctx, client, templates.Script("images-check", map[string]string{"images": strings.Join(wanted, " ")}))
		return found(printed, "all are there"), err
	}
	s.do = func(ctx context.Context, client *ssh.Client) error {
		r, err := c.release(ctx, n, client)
		if err != nil {
			return err
		}
		all, err := r.ImageList()
		if err != nil {
			return err
		}
		var archives []bundle.Blob
		for _, part := range parts {
			if slices.ContainsFunc(all, func(i bundle.Image) bool { return i.Part == part }) { // an older bundle lacks some
				archives = append(archives, r.Images(part))
			}
		}
		if err := c.put(ctx, client, archives...); err != nil {
			return err
		}
		var names []string
		for _, a := range archives {
			names = append(names, a.Digest)
		}
		_, err = client.Run(ctx, ssh.Command{Line: templates.Script("images", map[string]string{"store": storeDir, "archives": strings.Join(names, " ")}), Sudo: true})
		return err
	}
	return s
}

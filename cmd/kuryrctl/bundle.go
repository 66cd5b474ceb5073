package main

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kuryrctl/kuryrctl/bootstrap/bundle"
	"github.com/kuryrctl/kuryrctl/bootstrap/payload"
)

func (a *app) newBundleCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bundle",
		Short: "Fetch, inspect and verify the one file with the nodes' software",
		Long: `Fetch, inspect and verify bundles. A bundle is one file, a tar of an OCI image layout, with everything that nodes need of a
Kubernetes release: kubeadm, kubelet, kubectl, containerd, runc, CNI plugins and images, each by its digest, and a bill of materials.
Nodes get all of it from here and download nothing of Kubernetes.`,
	}
	cmd.AddCommand(a.newBundleCreateCommand(), a.newBundleInspectCommand(), a.newBundleVerifyCommand())
	return cmd
}

func (a *app) newBundleCreateCommand() *cobra.Command {
	var out, version, arch string
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Fetch a Kubernetes release from where it is published, into a bundle",
		Long: `Fetch a Kubernetes release into a bundle: from dl.k8s.io, registry.k8s.io and the GitHub releases of containerd, runc, the CNI plugins
and cri-tools, each file held against the checksum that its project publishes. The bundle is kept in the cache, below $XDG_CACHE_HOME
or ~/.cache, and fetched once. Its path is printed, or that of the copy that --out asks for.`,
		Example: "  kuryrctl bundle create -o bundle.tar\n  kuryrctl bundle create --kubernetes-version v1.37 --arch arm64",
		Args:    cobra.NoArgs,
	}
	cmd.Flags().StringVarP(&out, "out", "o", "", "copy the bundle to this `file`")
	cmd.Flags().StringVar(&version, "kubernetes-version", "", "the `version`, such as v1.37.2, or v1.37 for its newest; the newest stable one when not given")
	cmd.Flags().StringVar(&arch, "arch", "amd64", "the nodes' `architecture`: amd64 or arm64")
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("arch", cobra.FixedCompletions([]string{"amd64", "arm64"}, cobra.ShellCompDirectiveNoFileComp)))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if arch != "amd64" && arch != "arm64" {
			return usageError{fmt.Errorf("--arch %s: the architectures are amd64 and arm64", arch)}
		}
		ctx := cmd.Context()
		demo, err := payload.Demo(arch)
		if err != nil {
			return err
		}
		path, err := bundle.Fetch(ctx, cmp.Or(a.upstream, bundle.Upstream()), version, arch, demo, func(line string) { a.say("fetching %s", line) })
		if err != nil {
			return err
		}
		if out != "" {
			if err := bundle.Copy(ctx, path, out); err != nil {
				return err
			}
			path = out
		}
		_, err = fmt.Fprintln(a.stdout, path)
		return err
	}
	return cmd
}

func (a *app) newBundleInspectCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "inspect FILE",
		Short:   "List what is in a bundle",
		Example: "  kuryrctl bundle inspect bundle.tar\n  kuryrctl bundle inspect bundle.tar -o json",
		Args:    names("FILE"),
	}
	format := addOutput(cmd)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		b, err := bundle.Open(args[0])
		if err != nil {
			return err
		}
		defer b.Close()
		rows := []bundleRow{}
		for _, r := range b.Releases() {
			more, err := bundleRows(r)
			if err != nil {
				return err
			}
			rows = append(rows, more...)
		}
		t := table{columns: []column{{name: "KUBERNETES"}, {name: "ARCH"}, {name: "KIND"}, {name: "NAME"}, {name: "NODES"}, {name: "SIZE"},
			{name: "DIGEST", wide: true}}}
		for _, row := range rows {
			t.add(row.Kubernetes, row.Arch, row.Kind, row.Name, row.Nodes, fmt.Sprintf("%.1f MiB", float64(row.Size)/(1<<20)), row.Digest)
		}
		return format.print(a.stdout, rows, t)
	}
	return cmd
}

// bundleRow is one thing in a bundle. Its JSON is stable.
type bundleRow struct {
	Kubernetes string `json:"kubernetes"`
	Arch       string `json:"arch"`
	Kind       string `json:"kind"` // archive or image
	Name       string `json:"name"`
	Nodes      string `json:"nodes"`  // all or control-plane
	Size       int64  `json:"size"`   // bytes; images may share some
	Digest     string `json:"digest"` // of an archive's content, of an image's manifest
}

func bundleRows(r *bundle.Release) (rows []bundleRow, err error) {
	for _, archive := range r.Archives() {
		rows = append(rows, bundleRow{r.Version, r.Arch, "archive", archive.Name, "all", archive.Size, "sha256:" + archive.Digest})
	}
	images, err := r.ImageList()
	if err != nil {
		return nil, err
	}
	for _, image := range images {
		rows = append(rows, bundleRow{r.Version, r.Arch, "image", image.Ref, string(image.Part), image.Size, image.Digest})
	}
	return rows, nil
}

func (a *app) newBundleVerifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify FILE",
		Short: "Hold everything in a bundle against its digest",
		Long: `Read all of a bundle and hold everything in it against its digest. Every problem is told; the exit code is 3 when there is one, and 1 when
the file cannot be read.`,
		Example: "  kuryrctl bundle verify bundle.tar",
		Args:    names("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := bundle.Open(args[0])
			if errors.Is(err, bundle.ErrUnreadable) {
				return err
			}
			if err == nil {
				defer b.Close()
				err = b.Verify(cmd.Context())
			}
			if cmd.Context().Err() != nil {
				return err
			}
			if err != nil {
				for _, problem := range parts(err) {
					a.say("%v", problem)
				}
				return commandExit(exitDiffers)
			}
			a.say("%s is whole", args[0])
			return nil
		},
	}
}

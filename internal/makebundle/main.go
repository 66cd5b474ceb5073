// Command makebundle is behind `make bundle`: it builds the software of a Kubernetes node from the Go module proxy and from Debian,
// for where upstream's release sites cannot be reached. It owns the recipe; what a bundle is, package bundle knows.
//
// It refuses to change the host: the Go tool's own caches and kuryrctl's are all it writes to, besides the link it is told to make.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/kuryrctl/kuryrctl/bootstrap/bundle"
)

// recipe is part of the key. Raise it when the code here, or that of package bundle, changes what is in a bundle.
const recipe = 2

func main() {
	arch := flag.String("arch", runtime.GOARCH, "the `architecture` of the nodes: amd64 or arm64")
	link := flag.String("o", "bin/bundle.tar", "the `file` to make a link to the bundle")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *arch, *link); err != nil {
		fmt.Fprintln(os.Stderr, "makebundle:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, arch, link string) error {
	if err := missing(); err != nil {
		return err
	}
	key, err := key(ctx, arch)
	if err != nil {
		return err
	}
	path, err := bundle.Cached(ctx, key, func(scratch, path string) error {
		// What a killed run has left would be taken for this one's.
		if err := os.RemoveAll(scratch); err != nil {
			return err
		}
		if err := os.MkdirAll(scratch, 0o755); err != nil {
			return err
		}
		m := maker{arch: arch, scratch: scratch, log: filepath.Join(filepath.Dir(path), key+".log")}
		return m.make(ctx, path)
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "makebundle: %s is %s\n", link, path)
	return linkTo(path, link)
}

// missing names the programs that this machine lacks.
func missing() error {
	var lacking []string
	for _, tool := range []string{"go", "apt-get", "dpkg-deb"} {
		if _, err := exec.LookPath(tool); err != nil {
			lacking = append(lacking, tool)
		}
	}
	if len(lacking) > 0 {
		return fmt.Errorf("looking for what builds a bundle: this machine has no %s (apt-get and dpkg-deb: Debian, or the packages apt and dpkg of others)",
			strings.Join(lacking, ", "))
	}
	return nil
}

// linkTo puts a symbolic link in the place of whatever had that name.
func linkTo(path, link string) error {
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		return err
	}
	partial := link + ".partial"
	if err := os.Remove(partial); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(path, partial); err != nil {
		return err
	}
	return os.Rename(partial, link)
}

// modules are the directory of Go modules that are built, each with go.mod and go.sum of its own: 33 replace lines and two thousand
// checksums do not belong into the product's.
const modules = "bootstrap/bundle"

var sources = []string{"kubernetes", "coredns", "runtime", "registry", "router"}

// demo is the program of the demo's image, of the product's own module; it needs nothing but Go.
const demo = "cmd/kuryr-demo"

// key is a digest of everything that the bundle is made from. Debian's package is not in it: it is the newest at the time.
func key(ctx context.Context, arch string) (string, error) {
	version, err := exec.CommandContext(ctx, "go", "env", "GOVERSION").Output()
	if err != nil {
		return "", fmt.Errorf("asking go for its version: %w", err)
	}
	sum := sha256.New()
	fmt.Fprintf(sum, "%d\n%s%s\n%s\n", recipe, version, arch, suite)
	dirs := []string{demo}
	for _, source := range sources {
		dirs = append(dirs, filepath.Join(modules, source))
	}
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			text, err := os.ReadFile(path)
			fmt.Fprintf(sum, "%s %d\n%s", path, len(text), text)
			return err
		})
		if err != nil {
			return "", fmt.Errorf("reading the modules to build (makebundle runs at the root of a checkout): %w", err)
		}
	}
	return "made-" + arch + "-" + hex.EncodeToString(sum.Sum(nil))[:16], nil
}

// maker makes one bundle.
type maker struct {
	arch    string
	scratch string // for this run alone
	log     string
}

// module is a Go module as the go command lists it.
type module struct {
	Version string
	Time    time.Time
}

func (m *maker) make(ctx context.Context, path string) error {
	begin := time.Now()
	kubernetes, err := m.module(ctx, "kubernetes", "k8s.io/kubernetes")
	if err != nil {
		return err
	}
	versions, err := m.versions(ctx, kubernetes.Version)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "makebundle: Kubernetes %s for %s: with nothing cached, this takes twenty minutes on two cores; the log is %s\n",
		kubernetes.Version, m.arch, m.log)
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"runc", m.fetchRunc},
		{"containerd and the CNI plugins", m.buildRuntime},
		{"CoreDNS", m.buildCoreDNS},
		{"the registry and the demo", m.buildRegistry},
		{"Traefik", m.buildRouter},
		{"Kubernetes and etcd", func(ctx context.Context) error { return m.buildKubernetes(ctx, kubernetes) }},
		{"the bundle", func(ctx context.Context) error { return m.pack(ctx, path, kubernetes.Version, versions) }},
	} {
		fmt.Fprintf(os.Stderr, "makebundle: %6.1fs %s ...\n", time.Since(begin).Seconds(), step.name)
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("making %s: %w", step.name, err)
		}
	}
	fmt.Fprintf(os.Stderr, "makebundle: %6.1fs done\n", time.Since(begin).Seconds())
	return nil
}

func (m *maker) module(ctx context.Context, source, path string) (mod module, err error) {
	cmd := m.goTool(ctx, source, "list", "-m", "-json", path)
	var talk strings.Builder
	cmd.Stderr = &talk
	text, err := cmd.Output()
	if err != nil {
		return mod, fmt.Errorf("asking go for the version of %s: %w: %s", path, err, strings.TrimSpace(talk.String()))
	}
	if err := json.Unmarshal(text, &mod); err != nil {
		return mod, fmt.Errorf("asking go for the version of %s: %w", path, err)
	}
	return mod, nil
}

// versions are the tags that kubeadm asks for; what is built must be what they say.
func (m *maker) versions(ctx context.Context, kubernetes string) (v bundle.Versions, err error) {
	if v, err = bundle.VersionsFor(kubernetes); err != nil {
		return v, err
	}
	etcd, err := m.module(ctx, "kubernetes", "go.etcd.io/etcd/server/v3")
	if err != nil {
		return v, err
	}
	coredns, err := m.module(ctx, "coredns", "github.com/coredns/coredns")
	if err != nil {
		return v, err
	}
	if tag, _, _ := strings.Cut(v.Etcd, "-"); "v"+tag != etcd.Version || v.CoreDNS != coredns.Version {
		return v, fmt.Errorf("comparing versions: kubeadm %s asks for etcd %s and CoreDNS %s, and %s pins %s and %s",
			kubernetes, v.Etcd, v.CoreDNS, modules, etcd.Version, coredns.Version)
	}
	return v, nil
}

func (m *maker) goTool(ctx context.Context, source string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = m.dir(source)
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+m.arch, "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-mod=readonly")
	return cmd
}

// dir is where the module of a source is built.
func (m *maker) dir(source string) string {
	switch source {
	case "demo":
		return "."
	case "router":
		return filepath.Join(m.scratch, "traefik")
	}
	return filepath.Join(modules, source)
}

// build compiles packages of a module into the scratch directory.
func (m *maker) build(ctx context.Context, source, tags, variables string, packages ...string) error {
	out := filepath.Join(m.scratch, source)
	args := []string{"build", "-trimpath", "-buildvcs=false", "-tags", tags, "-ldflags", "-s -w " + variables, "-o", out + "/"}
	return m.logged(ctx, m.goTool(ctx, source, append(args, packages...)...))
}

// logged runs a command with its output in the log. It and what it starts end with the context: the go command leaves its
// compilers running.
func (m *maker) logged(ctx context.Context, cmd *exec.Cmd) error {
	log, err := os.OpenFile(m.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	fmt.Fprintf(log, "# %q\n", cmd.Args)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("running %s: %w; see %s", strings.Join(cmd.Args[:2], " "), err, m.log)
	}
	return nil
}

func (m *maker) buildRuntime(ctx context.Context) error {
	containerd, err := m.module(ctx, "runtime", "github.com/containerd/containerd/v2")
	if err != nil {
		return err
	}
	const path = "github.com/containerd/containerd/v2"
	variables := "-X " + path + "/version.Version=" + containerd.Version
	// The tags are upstream's for static binaries; the shim of every pod is small for the one more.
	const tags = "osusergo,netgo,static_build,urfave_cli_no_docs"
	if err := m.build(ctx, "runtime", tags, variables, path+"/cmd/containerd", path+"/cmd/ctr"); err != nil {
		return err
	}
	if err := m.build(ctx, "runtime", tags+",no_grpc", variables, path+"/cmd/containerd-shim-runc-v2"); err != nil {
		return err
	}
	plugins, err := m.module(ctx, "runtime", "github.com/containernetworking/plugins")
	if err != nil {
		return err
	}
	build := []string{"./pause"}
	for _, plugin := range bundle.Plugins() {
		build = append(build, "github.com/containernetworking/plugins/plugins/"+plugin)
	}
	return m.build(ctx, "runtime", "", "-X github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion="+plugins.Version, build...)
}

func (m *maker) buildCoreDNS(ctx context.Context) error {
	return m.build(ctx, "coredns", "", "", "github.com/coredns/coredns")
}

func (m *maker) buildRegistry(ctx context.Context) error {
	distribution, err := m.module(ctx, "registry", "github.com/distribution/distribution/v3")
	if err != nil {
		return err
	}
	if err := m.build(ctx, "registry", "", "-X github.com/distribution/distribution/v3/version.version="+distribution.Version, "."); err != nil {
		return err
	}
	return m.build(ctx, "demo", "", "", "./"+demo)
}

func (m *maker) buildKubernetes(ctx context.Context, mod module) error {
	// Without these, kubeadm and kubelet are v0.0.0, and kubeadm does not work. The commit is not in a module; the date is its own.
	number := strings.Split(strings.TrimPrefix(mod.Version, "v"), ".")
	var variables []string
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		for _, set := range []string{"gitVersion=" + mod.Version, "gitMajor=" + number[0], "gitMinor=" + number[1], "gitTreeState=clean", "gitCommit=",
			"buildDate=" + mod.Time.UTC().Format(time.RFC3339)} {
			variables = append(variables, "-X "+pkg+"."+set)
		}
	}
	return m.build(ctx, "kubernetes", "", strings.Join(variables, " "), "./node", "./controlplane")
}

// pack writes the bundle from what the steps before have left.
func (m *maker) pack(ctx context.Context, path, kubernetes string, v bundle.Versions) error {
	b, err := bundle.NewBuilder(filepath.Join(m.scratch, "bundle"), kubernetes, m.arch)
	if err != nil {
		return err
	}
	runtime := []bundle.File{{Path: "usr/local/bin/runc", From: filepath.Join(m.scratch, "debian/usr/sbin/runc")}}
	for _, name := range []string{"containerd", "containerd-shim-runc-v2", "ctr"} {
		runtime = append(runtime, m.file("usr/local/bin/"+name, "runtime"))
	}
	for _, plugin := range bundle.Plugins() {
		runtime = append(runtime, m.file("opt/cni/bin/"+filepath.Base(plugin), "runtime"))
	}
	if err := b.AddArchive(ctx, "runtime", runtime); err != nil {
		return err
	}
	node := bundle.File{Path: "usr/local/bin/kubelet", From: filepath.Join(m.scratch, "kubernetes/node")}
	if err := b.AddArchive(ctx, "kubernetes", append(links("kubelet", "kubeadm", "kubectl"), node)); err != nil {
		return err
	}
	if err := b.AddPrograms(ctx, []bundle.File{m.file("pause", "runtime")},
		bundle.Program{Ref: v.PauseImage(), Part: bundle.EveryNode, Entrypoint: "/pause", User: "65535:65535"}); err != nil {
		return err
	}
	if err := b.AddPrograms(ctx, []bundle.File{m.file("coredns", "coredns")},
		bundle.Program{Ref: v.CoreDNSImage(), Part: bundle.EveryNode, Entrypoint: "/coredns", User: "65532:65532"}); err != nil {
		return err
	}
	for _, p := range []struct {
		file    bundle.File
		program bundle.Program
	}{
		{m.file("registry", "registry"), bundle.Program{Ref: bundle.RegistryImage, Part: bundle.Registry, Entrypoint: "/registry"}},
		{m.file("traefik", "router"), bundle.Program{Ref: bundle.RouterImage, Part: bundle.Router, Entrypoint: "/traefik"}},
		{m.file(filepath.Base(demo), "demo"), bundle.Program{Ref: bundle.DemoImage, Part: bundle.Demo, Entrypoint: "/" + filepath.Base(demo), User: "65532:65532"}},
	} {
		if err := b.AddPrograms(ctx, []bundle.File{p.file}, p.program); err != nil {
			return err
		}
	}
	all := bundle.File{Path: "usr/local/bin/kube-apiserver", From: filepath.Join(m.scratch, "kubernetes/controlplane")}
	if err := b.AddPrograms(ctx, append(links("kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd", "etcdctl"), all),
		bundle.Program{Ref: bundle.ComponentImage("kube-apiserver", kubernetes), Part: bundle.ControlPlane},
		bundle.Program{Ref: bundle.ComponentImage("kube-controller-manager", kubernetes), Part: bundle.ControlPlane},
		bundle.Program{Ref: bundle.ComponentImage("kube-scheduler", kubernetes), Part: bundle.ControlPlane},
		bundle.Program{Ref: v.EtcdImage(), Part: bundle.ControlPlane}); err != nil {
		return err
	}
	if err := m.noteRunc(ctx, b); err != nil {
		return err
	}
	return b.Write(ctx, path)
}

func (m *maker) file(path, source string) bundle.File {
	return bundle.File{Path: path, From: filepath.Join(m.scratch, source, filepath.Base(path))}
}

// links are names of one binary that tells by them what to be.
func links(target string, names ...string) (all []bundle.File) {
	for _, name := range names {
		if name != target {
			all = append(all, bundle.File{Path: "usr/local/bin/" + name, Link: target})
		}
	}
	return all
}

package bundle

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/mod/semver"
	"golang.org/x/sync/errgroup"
)

// ErrUnreachable says that a release site could not be spoken to at all. Its text has the ways out.
var ErrUnreachable = errors.New("the release sites cannot be reached; bring a bundle along with --bundle FILE: `kuryrctl bundle create` makes one " +
	"on a machine with a network, `make bundle` in a checkout from the Go module proxy and Debian")

// Source is where a release is fetched from.
type Source struct {
	Kubernetes string // URL of dl.k8s.io or a mirror of it
	GitHub     string // URL of github.com, for the releases of containerd, runc, the CNI plugins and cri-tools
	Registry   string // host of registry.k8s.io or a mirror of it; images keep their names
	DockerHub  string // the same of docker.io, for the registry and the router

	// Stall is how long a download may bring nothing before it is given up.
	Stall time.Duration
}

// Upstream is where the projects themselves publish.
func Upstream() Source {
	return Source{Kubernetes: "https://dl.k8s.io", GitHub: "https://github.com", Registry: registry, DockerHub: dockerHub, Stall: time.Minute}
}

// fetchRecipe is part of the name of a fetched bundle. Raise it when the code here changes what is in one.
const fetchRecipe = 2

// Fetch returns the path of a bundle of that release in the cache (see CacheDir), fetched from src if it is not there. The version
// may be exact ("v1.37.2"), a minor ("v1.37"), or "", the newest stable release that this kuryrctl knows; of the latter two src
// is asked what they are. Every file is held against the checksum that its project publishes. Progress gets a line for each
// thing that is fetched, one at a time, and may be nil. What was fetched whole is not fetched again after a failure. The demo is the program of
// [DemoImage], which nobody publishes; nil leaves it out.
func Fetch(ctx context.Context, src Source, version, arch string, demo []byte, progress func(string)) (string, error) {
	f := &fetcher{src: src, arch: arch, demo: demo, client: &http.Client{Transport: impatient{http.DefaultTransport, src.Stall}}}
	if progress != nil {
		var one sync.Mutex
		f.tell = func(line string) {
			one.Lock()
			defer one.Unlock()
			progress(line)
		}
	} else {
		f.tell = func(string) {}
	}
	var err error
	if f.version, err = f.resolve(ctx, version); err != nil {
		return "", err
	}
	if f.third, err = VersionsFor(f.version); err != nil {
		return "", err
	}
	recipe := sha256.Sum256(fmt.Appendf(nil, "%d %+v %v %s %s %x", fetchRecipe, f.third, Plugins(), RegistryImage, RouterImage, sha256.Sum256(demo)))
	key := fmt.Sprintf("upstream-%s-%s-%x", f.version, arch, recipe[:4])
	return Cached(ctx, key, func(scratch, path string) error {
		if err := f.fetch(ctx, scratch, path); err != nil {
			return fmt.Errorf("fetching Kubernetes %s for %s: %w", f.version, arch, err)
		}
		return nil
	})
}

// fetcher fetches one release.
type fetcher struct {
	src           Source
	version, arch string
	demo          []byte
	third         Versions
	client        *http.Client
	tell          func(string)
}

// resolve makes an exact version of what was asked for.
func (f *fetcher) resolve(ctx context.Context, version string) (string, error) {
	if version == "" {
		newest, err := f.stable(ctx, "stable.txt")
		if err != nil {
			return "", err
		}
		if _, err := VersionsFor(newest); err == nil {
			return newest, nil
		}
		known := knownMinors()
		version = known[len(known)-1] // upstream is ahead of this program
	}
	if !strings.HasPrefix(version, "v") {
		version = "v" + version
	}
	if !semver.IsValid(version) {
		return "", fmt.Errorf("reading the version of Kubernetes: %q is none, such as v1.37.2 or v1.37", version)
	}
	if version != semver.MajorMinor(version) {
		return version, nil
	}
	if _, err := VersionsFor(version); err != nil {
		return "", err
	}
	return f.stable(ctx, "stable-"+strings.TrimPrefix(version, "v")+".txt")
}

func (f *fetcher) stable(ctx context.Context, file string) (string, error) {
	from := f.src.Kubernetes + "/release/" + file
	text, err := f.text(ctx, from)
	if err != nil {
		return "", fmt.Errorf("asking for the newest Kubernetes: %w", err)
	}
	if text = strings.TrimSpace(text); !semver.IsValid(text) || text == semver.MajorMinor(text) {
		return "", fmt.Errorf("asking for the newest Kubernetes: %s says %.40q, which is no version", from, text)
	}
	return text, nil
}

// download is a file of a release and where its checksum is.
type download struct {
	url, sums string
	archive   string            // the archive of the bundle that it is for
	takes     map[string]string // path in the bundle by path in the tar.gz; for a plain file, that path under ""
}

func (f *fetcher) downloads() (all []download) {
	github := func(project, version, file, sums string, takes map[string]string) {
		base := f.src.GitHub + "/" + project + "/releases/download/" + version + "/"
		all = append(all, download{url: base + file, sums: base + sums, archive: "runtime", takes: takes})
	}
	containerd := fmt.Sprintf("containerd-%s-linux-%s.tar.gz", strings.TrimPrefix(f.third.Containerd, "v"), f.arch)
	github("containerd/containerd", f.third.Containerd, containerd, containerd+".sha256sum", map[string]string{
		"bin/containerd": "usr/local/bin/containerd", "bin/containerd-shim-runc-v2": "usr/local/bin/containerd-shim-runc-v2", "bin/ctr": "usr/local/bin/ctr"})
	github("opencontainers/runc", f.third.Runc, "runc."+f.arch, "runc.sha256sum", map[string]string{"": "usr/local/bin/runc"})
	plugins := map[string]string{}
	for _, plugin := range Plugins() {
		plugins[path.Base(plugin)] = "opt/cni/bin/" + path.Base(plugin)
	}
	cni := fmt.Sprintf("cni-plugins-linux-%s-%s.tgz", f.arch, f.third.Plugins)
	github("containernetworking/plugins", f.third.Plugins, cni, cni+".sha256", plugins)
	crictl := fmt.Sprintf("crictl-%s-linux-%s.tar.gz", f.third.Crictl, f.arch)
	github("kubernetes-sigs/cri-tools", f.third.Crictl, crictl, crictl+".sha256", map[string]string{"crictl": "usr/local/bin/crictl"})
	for _, program := range []string{"kubeadm", "kubelet", "kubectl"} {
		from := fmt.Sprintf("%s/release/%s/bin/linux/%s/%s", f.src.Kubernetes, f.version, f.arch, program)
		all = append(all, download{url: from, sums: from + ".sha256", archive: "kubernetes", takes: map[string]string{"": "usr/local/bin/" + program}})
	}
	return all
}

func (f *fetcher) fetch(ctx context.Context, scratch, to string) error {
	kept := filepath.Join(scratch, "downloads")
	if err := os.MkdirAll(kept, 0o755); err != nil {
		return err
	}
	downloads := f.downloads()
	sums := make([]string, len(downloads))
	group, each := errgroup.WithContext(ctx)
	group.SetLimit(4)
	for i, d := range downloads {
		group.Go(func() (err error) {
			sums[i], err = f.get(each, d, filepath.Join(kept, path.Base(d.url)))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	b, err := NewBuilder(filepath.Join(scratch, "bundle"), f.version, f.arch)
	if err != nil {
		return err
	}
	archives := map[string][]File{}
	for i, d := range downloads {
		b.NoteDownload(d.url, sums[i])
		files, err := unpack(filepath.Join(kept, path.Base(d.url)), filepath.Join(scratch, "files"), d.takes)
		if err != nil {
			return fmt.Errorf("unpacking %s: %w", d.url, err)
		}
		archives[d.archive] = append(archives[d.archive], files...)
	}
	for _, archive := range []string{"runtime", "kubernetes"} {
		if err := b.AddArchive(ctx, archive, archives[archive]); err != nil {
			return err
		}
	}
	if err := f.pull(ctx, b); err != nil {
		return err
	}
	if f.demo != nil {
		program := filepath.Join(scratch, "kuryr-demo")
		if err := os.WriteFile(program, f.demo, 0o755); err != nil {
			return err
		}
		if err := b.AddPrograms(ctx, []File{{Path: "kuryr-demo", From: program}}, Program{Ref: DemoImage, Part: Demo, Entrypoint: "/kuryr-demo", User: "65532:65532"}); err != nil {
			return err
		}
	}
	return b.Write(ctx, to)
}

// pull copies the images as they are.
func (f *fetcher) pull(ctx context.Context, b *Builder) error {
	type image struct {
		ref  string
		part Part
	}
	for _, i := range []image{
		{f.third.PauseImage(), EveryNode}, {f.third.CoreDNSImage(), EveryNode},
		{ComponentImage("kube-apiserver", f.version), ControlPlane}, {ComponentImage("kube-controller-manager", f.version), ControlPlane},
		{ComponentImage("kube-scheduler", f.version), ControlPlane}, {f.third.EtcdImage(), ControlPlane},
		{RegistryImage, Registry}, {RouterImage, Router},
	} {
		f.tell(i.ref)
		host := f.src.Registry
		if strings.HasPrefix(i.ref, dockerHub) {
			host = f.src.DockerHub
		}
		from, err := name.ParseReference(host + i.ref[strings.Index(i.ref, "/"):])
		if err != nil {
			return fmt.Errorf("reading the name of the registry: %w", err)
		}
		img, err := remote.Image(from, remote.WithContext(ctx), remote.WithTransport(f.client.Transport), remote.WithPlatform(v1.Platform{OS: "linux", Architecture: f.arch}))
		if err == nil {
			err = forArch(img, f.arch)
		}
		if err == nil {
			err = b.AddImage(i.ref, i.part, img)
		}
		if err != nil {
			return told(ctx, "pulling "+from.String(), err)
		}
		digest, err := img.Digest()
		if err != nil {
			return err
		}
		b.NoteDownload("https://"+from.Context().Digest(digest.String()).String(), digest.Hex)
	}
	return nil
}

// forArch refuses an image for other machines, which a registry may give where it has only one.
func forArch(img v1.Image, arch string) error {
	config, err := img.ConfigFile()
	if err == nil && config.Architecture != arch {
		err = fmt.Errorf("the image is for %s, not for %s", config.Architecture, arch)
	}
	return err
}

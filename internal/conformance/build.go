package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/kuryrctl/kuryrctl/bootstrap/bundle"
)

// module pins what is built.
const module = "internal/conformance/kubernetes"

// recipe is part of the key. Raise it when the code here changes what is built.
const recipe = 2

// userland is what tests run in their containers besides agnhost. They come as Debian has them, unpacked and not set up.
var userland = []string{"base-files", "bind9-dnsutils", "coreutils", "curl", "dash", "grep", "hostname", "iproute2", "iputils-ping", "libc-bin",
	"netcat-openbsd", "sed", "wget"}

const debian = "trixie"

// names are the images of the suite that one image stands for. Upstream's agnhost has Alpine's userland and the others are other programs;
// the network's tests ask of all but agnhost and glibc-dns-testing only that they run.
var names = []string{"agnhost", "busybox", "glibc-dns-testing", "nginx"}

// suite is a directory with what was built: e2e.test, kubectl, images.tar.
type suite struct{ dir, key string }

func (s suite) path(name string) string { return filepath.Join(s.dir, name) }

// built returns what is in the cache, made first when it is not there.
func built(ctx context.Context) (suite, error) {
	key, err := key(ctx)
	if err != nil {
		return suite{}, err
	}
	bundles, err := bundle.CacheDir()
	if err != nil {
		return suite{}, err
	}
	cache := filepath.Join(filepath.Dir(bundles), "conformance")
	s := suite{filepath.Join(cache, key), key}
	if _, err := os.Stat(s.dir); err == nil {
		return s, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return suite{}, err
	}
	lock, err := os.OpenFile(filepath.Join(cache, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return suite{}, err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return suite{}, fmt.Errorf("locking %s: %w: another run is building there; wait for its end", cache, err)
	}
	// What a killed run has left would be taken for this one's.
	partial := suite{s.dir + ".partial", key}
	if err := errors.Join(os.RemoveAll(partial.dir), os.MkdirAll(partial.dir, 0o755)); err != nil {
		return suite{}, err
	}
	if err := partial.build(ctx, s.dir+".log"); err != nil {
		return suite{}, err
	}
	return s, os.Rename(partial.dir, s.dir)
}

// key is a digest of what the suite is made from. Debian's packages are not in it: they are the newest at the time.
func key(ctx context.Context) (string, error) {
	version, err := exec.CommandContext(ctx, "go", "env", "GOVERSION").Output()
	if err != nil {
		return "", fmt.Errorf("asking go for its version: %w", err)
	}
	sum := sha256.New()
	fmt.Fprintf(sum, "%d %s %s %s %q %q\n", recipe, version, runtime.GOARCH, debian, userland, names)
	for _, file := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join(module, file))
		if err != nil {
			return "", fmt.Errorf("reading what to build (conformance runs at the root of a checkout): %w", err)
		}
		fmt.Fprintf(sum, "%d\n%s", len(text), text)
	}
	return hex.EncodeToString(sum.Sum(nil))[:16], nil
}

func (s suite) build(ctx context.Context, logPath string) error {
	log, err := os.Create(logPath)
	if err != nil {
		return err
	}
	defer log.Close()
	fmt.Fprintf(os.Stderr, "conformance: building the tests; the first time this takes minutes; the log is %s\n", logPath)
	version, err := s.module(ctx, "Version")
	if err != nil {
		return err
	}
	mirror, err := archive(ctx)
	if err != nil {
		return err
	}
	const kubernetes = "k8s.io/kubernetes/"
	flags := []string{"-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X k8s.io/component-base/version.gitVersion=" + version +
		" -X k8s.io/client-go/pkg/version.gitVersion=" + version, "-o"}
	for _, argv := range [][]string{
		slices.Concat([]string{"go", "test", "-c", "-vet=off"}, flags, []string{s.path("e2e.test"), kubernetes + "test/e2e"}),
		slices.Concat([]string{"go", "build"}, flags, []string{s.path("kubectl"), kubernetes + "cmd/kubectl"}),
		slices.Concat([]string{"go", "build"}, flags, []string{s.path("agnhost"), kubernetes + "test/images/agnhost"}),
		{"mmdebstrap", "--variant=extract", "--format=tar", "--include=" + strings.Join(userland, ","), debian, s.path("userland.tar"), mirror},
	} {
		begin := time.Now()
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-mod=readonly", "SOURCE_DATE_EPOCH=0")
		cmd.Stdout, cmd.Stderr = log, log
		// The go command leaves its compilers running.
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
		cmd.WaitDelay = 10 * time.Second
		if argv[0] == "go" {
			cmd.Dir = module
		}
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("running %s: %w; see %s", strings.Join(argv[:2], " "), err, logPath)
		}
		fmt.Fprintf(log, "# %q took %.1fs\n", argv, time.Since(begin).Seconds())
	}
	refs, err := s.images(ctx)
	if err != nil {
		return err
	}
	source, err := s.module(ctx, "Dir")
	if err != nil {
		return err
	}
	if err := s.pack(refs, filepath.Join(source, "test/images/agnhost")); err != nil {
		return fmt.Errorf("making the tests' images: %w", err)
	}
	if err := errors.Join(os.Remove(s.path("userland.tar")), os.Remove(s.path("agnhost"))); err != nil {
		return err
	}
	return synced(s.dir, "e2e.test", "kubectl", "images.tar")
}

// module asks go for a field of the module of Kubernetes. What was built leaves its source in go's cache.
func (s suite) module(ctx context.Context, field string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{."+field+"}}", "k8s.io/kubernetes")
	cmd.Dir, cmd.Env = module, append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=readonly")
	value, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("asking go for the module of Kubernetes: %w", err)
	}
	return strings.TrimSpace(string(value)), nil
}

// archive is the Debian archive that the host's own apt uses, or the public one.
func archive(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)", "Created-By: Packages").Output()
	if err != nil {
		return "", fmt.Errorf("asking apt for its archive: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		if uri, ok := strings.CutPrefix(strings.TrimSpace(line), "Debian|Debian|"); ok {
			return uri, nil
		}
	}
	return "http://deb.debian.org/debian", nil
}

// images asks the suite what it calls the images.
func (s suite) images(ctx context.Context) ([]string, error) {
	text, err := exec.CommandContext(ctx, s.path("e2e.test"), "--list-images").Output()
	if err != nil {
		return nil, fmt.Errorf("listing the tests' images: %w", err)
	}
	return wanted(string(text))
}

// wanted are those references of a list that the image is to have. Each of names must be among them.
func wanted(list string) (refs []string, err error) {
	found := map[string]bool{}
	for ref := range strings.FieldsSeq(list) {
		image, _, _ := strings.Cut(ref[strings.LastIndex(ref, "/")+1:], ":")
		if strings.Contains(ref, "/e2e-test-images/") && slices.Contains(names, image) {
			refs = append(refs, ref)
			found[image] = true
		}
	}
	if len(found) != len(names) {
		return nil, fmt.Errorf("choosing the tests' images: there are only %q of %q", refs, names)
	}
	return refs, nil
}

// pack writes the image, under all of its names. Source is where agnhost's is.
func (s suite) pack(refs []string, source string) error {
	if err := s.packPrograms(source); err != nil {
		return err
	}
	image, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{Architecture: runtime.GOARCH, OS: "linux", Config: v1.Config{
		Env: []string{"PATH=/usr/sbin:/usr/bin"}, WorkingDir: "/", Entrypoint: []string{"/agnhost"}, Cmd: []string{"pause"}}})
	if err != nil {
		return err
	}
	for _, file := range []string{"userland.tar", "programs.tar"} {
		layer, err := tarball.LayerFromFile(s.path(file))
		if err != nil {
			return err
		}
		if image, err = mutate.AppendLayers(image, layer); err != nil {
			return err
		}
	}
	all := map[name.Reference]v1.Image{}
	for _, ref := range refs {
		tag, err := name.NewTag(ref)
		if err != nil {
			return err
		}
		all[tag] = image
	}
	if err := tarball.MultiRefWriteToFile(s.path("images.tar"), all); err != nil {
		return err
	}
	return os.Remove(s.path("programs.tar"))
}

// packPrograms writes the layer with agnhost and the certificate that it serves TLS with, and with what setting up Debian's packages would
// have made.
func (s suite) packPrograms(source string) error {
	var layer bytes.Buffer
	t := tar.NewWriter(&layer)
	for _, f := range []struct{ from, to string }{
		{s.path("agnhost"), "agnhost"},
		{filepath.Join(source, "porter/localhost.crt"), "localhost.crt"},
		{filepath.Join(source, "porter/localhost.key"), "localhost.key"},
	} {
		content, err := os.ReadFile(f.from)
		if err != nil {
			return err
		}
		if err := t.WriteHeader(&tar.Header{Name: f.to, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(content))}); err != nil {
			return err
		}
		if _, err := t.Write(content); err != nil {
			return err
		}
	}
	for _, h := range []tar.Header{
		{Name: "uploads/", Typeflag: tar.TypeDir, Mode: 0o755}, // netexec's
		{Name: "usr/bin/nc", Typeflag: tar.TypeSymlink, Linkname: "nc.openbsd"},
		{Name: "etc/nsswitch.conf", Typeflag: tar.TypeSymlink, Linkname: "/usr/share/libc-bin/nsswitch.conf"},
	} {
		if err := t.WriteHeader(&h); err != nil {
			return err
		}
	}
	if err := t.Close(); err != nil {
		return err
	}
	return os.WriteFile(s.path("programs.tar"), layer.Bytes(), 0o644)
}

// synced brings files and their directory to the disk.
func synced(dir string, files ...string) error {
	for _, file := range append(files, ".") {
		f, err := os.Open(filepath.Join(dir, file))
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

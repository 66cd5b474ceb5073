package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kuryrctl/kuryrctl/bootstrap/bundle"
)

func TestWhatIsBuiltIsWhatKubeadmAsksFor(t *testing.T) {
	t.Chdir("../..")
	pinned := func(source, module string) string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(modules, source, "go.mod"))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require ")); len(f) >= 2 && f[0] == module {
				return f[1]
			}
		}
		t.Fatalf("%s does not require %s", source, module)
		return ""
	}
	v, err := bundle.VersionsFor(pinned("kubernetes", "k8s.io/kubernetes"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ what, want, got string }{
		{"etcd", "v" + strings.TrimSuffix(v.Etcd, "-0"), pinned("kubernetes", "go.etcd.io/etcd/server/v3")},
		{"CoreDNS", v.CoreDNS, pinned("coredns", "github.com/coredns/coredns")},
		{"containerd", v.Containerd, pinned("runtime", "github.com/containerd/containerd/v2")},
		{"the registry", "v" + bundle.RegistryImage[strings.LastIndex(bundle.RegistryImage, ":")+1:], pinned("registry", "github.com/distribution/distribution/v3")},
		{"the router", bundle.RouterImage[strings.LastIndex(bundle.RouterImage, ":")+1:], pinned("router", "github.com/traefik/traefik/v3")},
		{"the CNI plugins", v.Plugins, pinned("runtime", "github.com/containernetworking/plugins")},
	} {
		if c.got != c.want {
			t.Errorf("%s: built is %s, the table of package bundle has %s", c.what, c.got, c.want)
		}
	}
}

func TestTheKeyIsThatOfTheSources(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.MkdirAll(demo, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, source := range sources {
		if err := errors.Join(os.MkdirAll(filepath.Join(modules, source), 0o755), os.WriteFile(filepath.Join(modules, source, "go.mod"), []byte("module x"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	of := func(arch string) string {
		t.Helper()
		k, err := key(t.Context(), arch)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	first := of("amd64")
	if of("amd64") != first || of("arm64") == first {
		t.Error("the key is not that of the architecture alone")
	}
	if err := os.WriteFile(filepath.Join(modules, "coredns", "go.sum"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if of("amd64") == first {
		t.Error("another file has no other key")
	}
	if err := os.RemoveAll(modules); err != nil {
		t.Fatal(err)
	}
	if _, err := key(t.Context(), "amd64"); err == nil || !strings.Contains(err.Error(), "at the root of a checkout") {
		t.Errorf("elsewhere than in a checkout: %v", err)
	}
}

func TestMissingToolsAreNamed(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if err := missing(); err == nil || !strings.Contains(err.Error(), "has no go, apt-get, dpkg-deb") {
		t.Errorf("with nothing: %v", err)
	}
}

func TestALinkReplacesWhatWasThere(t *testing.T) {
	link := filepath.Join(t.TempDir(), "bin", "bundle.tar")
	for _, target := range []string{"/a", "/b"} {
		if err := linkTo(target, link); err != nil {
			t.Fatal(err)
		}
		if got, err := os.Readlink(link); err != nil || got != target {
			t.Errorf("the link is to %s, %v; want %s", got, err, target)
		}
	}
}

func TestWhatFailsNamesItsLog(t *testing.T) {
	m := maker{log: filepath.Join(t.TempDir(), "log")}
	err := m.logged(t.Context(), exec.CommandContext(t.Context(), "sh", "-c", "echo the reason; exit 3"))
	if err == nil || !strings.Contains(err.Error(), "exit status 3; see "+m.log) {
		t.Errorf("the error is %v", err)
	}
	if text, err := os.ReadFile(m.log); err != nil || !strings.Contains(string(text), "the reason") {
		t.Errorf("the log has %q, %v", text, err)
	}
}

func TestWhatIsStartedEndsWithTheContext(t *testing.T) {
	m := maker{log: filepath.Join(t.TempDir(), "log")}
	pipe := filepath.Join(t.TempDir(), "pipe")
	if out, err := exec.Command("mkfifo", pipe).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	ended := make(chan error, 1)
	go func() {
		ended <- m.logged(ctx, exec.CommandContext(ctx, "sh", "-c", `sh -c 'exec 3>"$0"; echo >&3; exec sleep 60' "$0" & wait`, pipe))
	}()
	// The grandchild holds the pipe for as long as it lives.
	r, err := os.Open(pipe)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var line [1]byte
	if _, err := r.Read(line[:]); err != nil {
		t.Fatal(err)
	}
	cancel(stop)
	if err := <-ended; !errors.Is(err, stop) {
		t.Errorf("the error is %v", err)
	}
	if n, err := r.Read(line[:]); n != 0 || err == nil {
		t.Errorf("the grandchild lives: %d, %v", n, err)
	}
}

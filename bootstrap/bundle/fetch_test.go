package bundle

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kuryrctl/kuryrctl/internal/upstreamtest"
)

// images are those of a release, behind the registry's host.
func images(t *testing.T, version string) (all []string) {
	t.Helper()
	v, err := VersionsFor(version)
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{v.PauseImage(), v.CoreDNSImage(), v.EtcdImage(), ComponentImage("kube-apiserver", version),
		ComponentImage("kube-controller-manager", version), ComponentImage("kube-scheduler", version), RegistryImage, RouterImage} {
		all = append(all, ref[strings.Index(ref, "/")+1:])
	}
	return all
}

// upstream starts the sites with v1.37.2 for amd64, and gives the test a cache of its own.
func upstream(t *testing.T) (*upstreamtest.Upstream, Source) {
	t.Helper()
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	up := upstreamtest.New(t, "v1.37.2", "amd64", images(t, "v1.37.2")...)
	return up, Source{Kubernetes: up.URL, GitHub: up.URL, Registry: up.Registry, DockerHub: up.Registry, Stall: time.Minute}
}

func TestFetchMakesABundleOfWhatUpstreamPublishes(t *testing.T) {
	_, src := upstream(t)
	var told []string
	path, err := Fetch(t.Context(), src, "", "amd64", []byte("the demo"), func(line string) { told = append(told, line) })
	if err != nil {
		t.Fatal(err)
	}
	b := open(t, path)
	if err := b.Verify(t.Context()); err != nil {
		t.Error(err)
	}
	r := release(t, b, "v1.37.2", "amd64")
	text := map[string]string{}
	for _, archive := range r.Archives() {
		z, err := gzip.NewReader(bytes.NewReader(content(t, archive)))
		if err != nil {
			t.Fatal(err)
		}
		_, files := entries(t, z)
		for name, s := range files {
			if !strings.HasSuffix(name, "/") {
				text[name] = s
			}
		}
	}
	want := map[string]string{"usr/local/bin/runc": "this is runc.amd64"}
	for _, program := range []string{"usr/local/bin/containerd", "usr/local/bin/containerd-shim-runc-v2", "usr/local/bin/ctr", "usr/local/bin/crictl",
		"usr/local/bin/kubeadm", "usr/local/bin/kubelet", "usr/local/bin/kubectl", "opt/cni/bin/loopback", "opt/cni/bin/portmap",
		"opt/cni/bin/bandwidth"} {
		want[program] = "this is " + filepath.Base(program)
	}
	if diff := cmp.Diff(want, text); diff != "" {
		t.Error(diff)
	}
	list, err := r.ImageList()
	if err != nil {
		t.Fatal(err)
	}
	refs := map[string]Part{}
	for _, i := range list {
		refs[i.Ref] = i.Part
	}
	if diff := cmp.Diff(map[string]Part{"registry.k8s.io/pause:3.10.2": EveryNode, "registry.k8s.io/coredns/coredns:v1.14.6": EveryNode,
		"registry.k8s.io/kube-apiserver:v1.37.2": ControlPlane, "registry.k8s.io/kube-controller-manager:v1.37.2": ControlPlane,
		"registry.k8s.io/kube-scheduler:v1.37.2": ControlPlane, "registry.k8s.io/etcd:3.7.0-0": ControlPlane,
		RegistryImage: Registry, RouterImage: Router, DemoImage: Demo}, refs); diff != "" {
		t.Error(diff)
	}
	content(t, r.Images(ControlPlane))
	if len(told) != 7+8 {
		t.Errorf("told of %d things: %v", len(told), told)
	}
}

func TestFetchAsksForNothingThatIsThere(t *testing.T) {
	up, src := upstream(t)
	first, err := Fetch(t.Context(), src, "v1.37.2", "amd64", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	up.Asked()
	second, err := Fetch(t.Context(), src, "1.37.2", "amd64", nil, nil)
	if err != nil || second != first {
		t.Errorf("%s, %v; want %s", second, err, first)
	}
	if asked := up.Asked(); len(asked) > 0 {
		t.Errorf("asked for %v", asked)
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(first), "*.partial")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestFetchKnowsWhichVersionIsMeant(t *testing.T) {
	up, src := upstream(t)
	f := &fetcher{src: src, client: http.DefaultClient}
	for _, c := range []struct{ asked, file, want string }{{"", "/release/stable.txt", "v1.37.2"}, {"v1.37", "/release/stable-1.37.txt", "v1.37.2"}, {"1.36.4", "", "v1.36.4"}} {
		got, err := f.resolve(t.Context(), c.asked)
		if asked := strings.Join(up.Asked(), " "); err != nil || got != c.want || asked != c.file {
			t.Errorf("%q is %s (%v), asked for %s", c.asked, got, err, asked)
		}
	}
	up.Instead("stable.txt", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("v1.99.0\n")) })
	if got, err := f.resolve(t.Context(), ""); err != nil || got != "v1.37.2" {
		t.Errorf("with an upstream that is ahead: %s, %v", got, err)
	}
	up.Instead("stable-1.37.txt", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<html>log in to the hotel</html>")) })
	for asked, want := range map[string]string{"": "which is no version", "v1.20": "known are the releases of v1.35, v1.36, v1.37", "new": `"vnew" is none`} {
		if got, err := f.resolve(t.Context(), asked); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is %s, %v; want an error with %q", asked, got, err, want)
		}
	}
	if _, err := Fetch(t.Context(), src, "v1.20.1", "amd64", nil, nil); err == nil || !strings.Contains(err.Error(), "known are the releases of v1.35, v1.36, v1.37") {
		t.Errorf("a version that is not known: %v", err)
	}
}

func TestFetchRefusesWhatIsNotAsPublished(t *testing.T) {
	for name, c := range map[string]struct {
		path    string
		handler http.HandlerFunc
		want    string
	}{
		"another content": {"kubelet", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("evil")) }, "it is damaged or not what the project has published"},
		"not there":       {"kubelet", http.NotFound, "/release/v1.37.2/bin/linux/amd64/kubelet: the server says 404 Not Found"},
		"no checksum":     {"kubelet.sha256", http.NotFound, "asking for the checksum of kubelet"},
		"a page":          {"kubelet.sha256", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<html>")) }, "is no sha256 checksum"},
		"of other files":  {"runc.sha256sum", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("abcd  runc.s390x\n")) }, "it has no checksum of runc.amd64"},
		"cut off": {"kubelet", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			w.Write([]byte("this is"))
		}, "unexpected EOF"},
		"no image": {"v1.37.2", http.NotFound, "pulling "},
	} {
		t.Run(name, func(t *testing.T) {
			up, src := upstream(t)
			up.Instead(c.path, c.handler)
			_, err := Fetch(t.Context(), src, "v1.37.2", "amd64", nil, nil)
			if err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, ErrUnreachable) {
				t.Fatalf("want %q, got: %v", c.want, err)
			}
			dir, err := CacheDir()
			if err != nil {
				t.Fatal(err)
			}
			if bundles, err := filepath.Glob(filepath.Join(dir, "*.tar")); err != nil || len(bundles) > 0 {
				t.Errorf("a bundle is there nevertheless: %v, %v", bundles, err)
			}

			// What came whole stays, and is not asked for again.
			up.Instead(c.path, nil)
			up.Asked()
			if _, err := Fetch(t.Context(), src, "v1.37.2", "amd64", nil, nil); err != nil {
				t.Fatalf("the second time: %v", err)
			}
			if name == "no image" && slices.Contains(up.Asked(), "/release/v1.37.2/bin/linux/amd64/kubelet") {
				t.Error("kubelet was fetched twice")
			}
		})
	}
}

func TestFetchRefusesImagesForOtherMachines(t *testing.T) {
	_, src := upstream(t)
	if _, err := Fetch(t.Context(), src, "v1.37.2", "arm64", nil, nil); err == nil || !strings.Contains(err.Error(), "the image is for amd64, not for arm64") {
		t.Errorf("arm64: %v", err)
	}
}

func TestFetchWithoutANetworkSaysTheWaysOut(t *testing.T) {
	_, src := upstream(t)
	gone := httptest.NewServer(nil)
	gone.Close()
	src.Kubernetes = gone.URL
	_, err := Fetch(t.Context(), src, "", "amd64", nil, nil)
	if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "--bundle FILE") || !strings.Contains(err.Error(), "make bundle") {
		t.Errorf("no network: %v", err)
	}
}

// hangs answers with a beginning and then nothing, until the client has gone.
func hangs(begun chan<- struct{}) http.HandlerFunc {
	var once sync.Once
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		w.Write([]byte("this"))
		w.(http.Flusher).Flush()
		once.Do(func() { close(begun) })
		<-r.Context().Done()
	}
}

func TestFetchEndsWithItsContext(t *testing.T) {
	up, src := upstream(t)
	begun := make(chan struct{})
	up.Instead("kubelet", hangs(begun))
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("told to stop")
	go func() {
		<-begun
		cancel(stop)
	}()
	if _, err := Fetch(ctx, src, "v1.37.2", "amd64", nil, nil); !errors.Is(err, stop) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestFetchGivesUpADownloadThatStalls(t *testing.T) {
	up, src := upstream(t)
	up.Instead("kubelet", hangs(make(chan struct{})))
	src.Stall = 100 * time.Millisecond
	if _, err := Fetch(t.Context(), src, "v1.37.2", "amd64", nil, nil); !errors.Is(err, errStalled) {
		t.Errorf("stalled: %v", err)
	}
}

func TestTheCacheHasWholeBundlesOnly(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	broken := errors.New("broken")
	var left string
	if _, err := Cached(t.Context(), "k", func(scratch, path string) error {
		left = filepath.Join(scratch, "half")
		return errors.Join(os.WriteFile(left, nil, 0o600), broken)
	}); !errors.Is(err, broken) {
		t.Errorf("making that fails: %v", err)
	}
	path, err := Cached(t.Context(), "k", func(scratch, path string) error {
		if !there(left) {
			t.Error("what the last try has left is gone")
		}
		return os.WriteFile(path, nil, 0o600)
	})
	if err != nil || !there(path) || there(left) {
		t.Errorf("%s, %v", path, err)
	}
	if again, err := Cached(t.Context(), "k", func(_, _ string) error { return broken }); err != nil || again != path {
		t.Errorf("a second time: %s, %v", again, err)
	}
}

func TestOneMakesWhileOthersWait(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	making, done := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := Cached(t.Context(), "k", func(_, path string) error {
			close(making)
			<-done
			return os.WriteFile(path, nil, 0o600)
		}); err != nil {
			t.Error(err)
		}
	})
	<-making
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Cached(ctx, "k", func(_, _ string) error { t.Error("two at once"); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting with a context that has ended: %v", err)
	}
	wg.Go(func() {
		if _, err := Cached(t.Context(), "k", func(_, _ string) error { t.Error("made twice"); return nil }); err != nil {
			t.Error(err)
		}
	})
	close(done)
	wg.Wait()
}

// Package upstreamtest stands for the sites that Kubernetes and what belongs to it are released on: dl.k8s.io, GitHub's releases and
// registry.k8s.io, as far as a bundle is fetched from them. It owns a real HTTP server and a real registry with tiny files.
//
// It refuses to know versions: any version that is asked for by a path of the right form is there.
package upstreamtest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Upstream is the sites, all on one server. Its methods may be called from several goroutines.
type Upstream struct {
	URL      string // in place of https://dl.k8s.io and of https://github.com
	Registry string // in place of registry.k8s.io

	mu       sync.Mutex
	stable   string
	instead  map[string]http.HandlerFunc
	asked    []string
	registry http.Handler
}

// New starts the sites. Stable is the newest version of Kubernetes; the registry has images, by the part of their reference behind
// the host, for linux on arch.
func New(t testing.TB, stable, arch string, images ...string) *Upstream {
	t.Helper()
	u := &Upstream{stable: stable, instead: map[string]http.HandlerFunc{}, registry: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}
	server := httptest.NewServer(u)
	t.Cleanup(server.Close)
	u.URL, u.Registry = server.URL, strings.TrimPrefix(server.URL, "http://")
	for _, image := range images {
		ref, err := name.ParseReference(u.Registry + "/" + image)
		if err != nil {
			t.Fatal(err)
		}
		config := &v1.ConfigFile{OS: "linux", Architecture: arch}
		img, err := mutate.ConfigFile(mutate.MediaType(empty.Image, types.DockerManifestSchema2), config)
		if err != nil {
			t.Fatal(err)
		}
		if img, err = mutate.AppendLayers(img, static.NewLayer(packed(image), types.DockerLayer)); err != nil {
			t.Fatal(err)
		}
		if err := remote.Write(ref, img); err != nil {
			t.Fatal(err)
		}
	}
	u.Asked() // forgets what was pushed
	return u
}

// Instead lets a handler answer requests for a path, or for all that end in /NAME; with nil the sites answer again.
func (u *Upstream) Instead(name string, handler http.HandlerFunc) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.instead[name] = handler
}

// Asked are the paths of all requests until now, and forgets them.
func (u *Upstream) Asked() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	asked := u.asked
	u.asked = nil
	return asked
}

func (u *Upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.mu.Lock()
	u.asked = append(u.asked, r.URL.Path)
	handler := u.instead[r.URL.Path]
	if handler == nil {
		handler = u.instead[path.Base(r.URL.Path)]
	}
	u.mu.Unlock()
	if handler != nil {
		handler(w, r)
		return
	}
	if strings.HasPrefix(r.URL.Path, "/v2/") {
		u.registry.ServeHTTP(w, r)
		return
	}
	if text, ok := u.file(r.URL.Path); ok {
		w.Write(text)
		return
	}
	http.NotFound(w, r)
}

// file is what is published at a path.
func (u *Upstream) file(at string) ([]byte, bool) {
	base := path.Base(at)
	switch {
	case strings.HasPrefix(base, "stable"):
		return []byte(u.stable), true
	case base == "runc.sha256sum": // one file for all
		var lines bytes.Buffer
		for _, arch := range []string{"amd64", "arm64"} {
			fmt.Fprintf(&lines, "%x  runc.%s\n", sha256.Sum256(Content("runc."+arch)), arch)
		}
		return lines.Bytes(), true
	case strings.HasSuffix(base, ".sha256sum"):
		base = strings.TrimSuffix(base, ".sha256sum")
		return fmt.Appendf(nil, "%x  %s\n", sha256.Sum256(Content(base)), base), true
	case strings.HasSuffix(base, ".sha256"):
		return fmt.Appendf(nil, "%x", sha256.Sum256(Content(strings.TrimSuffix(base, ".sha256")))), true
	case strings.Contains(at, "/releases/download/"), strings.Contains(at, "/bin/linux/"):
		return Content(base), true
	}
	return nil, false
}

// Content is the file of that name in any release: a tar.gz with the programs that it has upstream, or text.
func Content(file string) []byte {
	for project, programs := range map[string][]string{
		"containerd-":  {"bin/containerd", "bin/containerd-shim-runc-v2", "bin/containerd-stress", "bin/ctr"},
		"cni-plugins-": {"./LICENSE", "./bandwidth", "./bridge", "./dhcp", "./firewall", "./host-local", "./loopback", "./portmap", "./tuning"},
		"crictl-":      {"crictl"},
	} {
		if strings.HasPrefix(file, project) {
			return packed(programs...)
		}
	}
	return []byte("this is " + file)
}

// packed is a tar.gz of files that say what they are.
func packed(files ...string) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	t := tar.NewWriter(z)
	for _, file := range slices.Sorted(slices.Values(files)) {
		text := "this is " + path.Base(file)
		// Neither fails: they write into memory, what the headers announce.
		_ = t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: file, Mode: 0o755, Size: int64(len(text))})
		_, _ = io.WriteString(t, text)
	}
	_ = t.Close()
	_ = z.Close()
	return out.Bytes()
}

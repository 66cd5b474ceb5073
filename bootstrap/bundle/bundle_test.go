package bundle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// small writes a bundle with a release of a few bytes and returns its path.
func small(t *testing.T, version, arch string) string {
	t.Helper()
	dir := t.TempDir()
	b, err := NewBuilder(filepath.Join(dir, "scratch"), version, arch)
	if err != nil {
		t.Fatal(err)
	}
	put := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(b.AddArchive(t.Context(), "runtime", []File{{Path: "usr/local/bin/runc", From: put("runc", "the runc")}}))
	must(b.AddArchive(t.Context(), "kubernetes", []File{
		{Path: "usr/local/bin/kubelet", From: put("kubelet", "the kubelet")}, {Path: "usr/local/bin/kubeadm", Link: "kubelet"}}))
	must(b.AddPrograms(t.Context(), []File{{Path: "pause", From: put("pause", "the pause")}}, Program{Ref: "registry.k8s.io/pause:3.10.2", Part: EveryNode, Entrypoint: "/pause", User: "65535:65535"}))
	must(b.AddPrograms(t.Context(), []File{{Path: "registry", From: put("registry", "the registry")}}, Program{Ref: RegistryImage, Part: Registry, Entrypoint: "/registry"}))
	must(b.AddPrograms(t.Context(), []File{{Path: "usr/local/bin/all", From: put("all", strings.Repeat("everything ", 1000))}},
		Program{Ref: "registry.k8s.io/kube-apiserver:" + version, Part: ControlPlane}, Program{Ref: "registry.k8s.io/etcd:3.7.0-0", Part: ControlPlane}))
	b.NotePackage("debian", "runc", "1.1.15+ds1-2", arch)
	b.NoteDownload("https://example.org/runc", strings.Repeat("ab", 32))
	path := filepath.Join(dir, "bundle.tar")
	must(b.Write(t.Context(), path))
	return path
}

func open(t *testing.T, path string) *Bundle {
	t.Helper()
	b, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func release(t *testing.T, b *Bundle, version, arch string) *Release {
	t.Helper()
	r, err := b.Release(version, arch)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// content reads a blob and holds it against what it says of itself.
func content(t *testing.T, b Blob) []byte {
	t.Helper()
	r, err := b.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	all, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(all); hex.EncodeToString(sum[:]) != b.Digest || int64(len(all)) != b.Size {
		t.Errorf("%s: %d bytes with sha256 %x, but it says %d and %s", b.Name, len(all), sum, b.Size, b.Digest)
	}
	return all
}

// entries lists a tar: a line for each entry, and the content by name.
func entries(t *testing.T, r io.Reader) (lines []string, content map[string]string) {
	t.Helper()
	content = map[string]string{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return lines, content
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		content[h.Name] = string(text)
		lines = append(lines, fmt.Sprintf("%04o %d:%d %d %s %s", h.Mode, h.Uid, h.Gid, h.ModTime.Unix(), h.Name, h.Linkname))
	}
}

func TestArchivesUnpackAtTheRootOfANode(t *testing.T) {
	r := release(t, open(t, small(t, "v1.37.2", "amd64")), "", "amd64")
	archives := r.Archives()
	if len(archives) != 2 || archives[0].Name != "runtime" || archives[1].Name != "kubernetes" {
		t.Fatalf("archives %v", archives)
	}
	z, err := gzip.NewReader(bytes.NewReader(content(t, archives[1])))
	if err != nil {
		t.Fatal(err)
	}
	lines, text := entries(t, z)
	want := []string{"0755 0:0 0 usr/ ", "0755 0:0 0 usr/local/ ", "0755 0:0 0 usr/local/bin/ ",
		"0777 0:0 0 usr/local/bin/kubeadm kubelet", "0755 0:0 0 usr/local/bin/kubelet "}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
	if text["usr/local/bin/kubelet"] != "the kubelet" {
		t.Errorf("kubelet is %q", text["usr/local/bin/kubelet"])
	}
}

func TestImagesAreALayoutThatContainerdImports(t *testing.T) {
	r := release(t, open(t, small(t, "v1.37.2", "amd64")), "", "amd64")
	for part, want := range map[Part][]string{
		EveryNode: {"registry.k8s.io/pause:3.10.2"}, Registry: {RegistryImage}, Router: nil, ControlPlane: {"registry.k8s.io/kube-apiserver:v1.37.2", "registry.k8s.io/etcd:3.7.0-0"}} {
		_, files := entries(t, bytes.NewReader(content(t, r.Images(part))))
		var index v1.IndexManifest
		if err := json.Unmarshal([]byte(files["index.json"]), &index); err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, d := range index.Manifests {
			names = append(names, d.Annotations["io.containerd.image.name"])
			if d.Annotations["org.opencontainers.image.ref.name"] != d.Annotations["io.containerd.image.name"] {
				t.Errorf("annotations %v", d.Annotations)
			}
			manifest, err := v1.ParseManifest(strings.NewReader(files[blobPath(d.Digest)]))
			if err != nil {
				t.Fatal(err)
			}
			for _, part := range append(manifest.Layers, manifest.Config) {
				if int64(len(files[blobPath(part.Digest)])) != part.Size {
					t.Errorf("%s of %s is not in the archive", part.Digest, d.Annotations)
				}
			}
		}
		if diff := cmp.Diff(want, names); diff != "" {
			t.Error(diff)
		}
		if part == ControlPlane && len(files) != 2+3 {
			t.Errorf("two images of the same bytes are one, but there are %d files", len(files))
		}
	}
}

func TestTheSameInIsTheSameOut(t *testing.T) {
	first, err := os.ReadFile(small(t, "v1.37.2", "amd64"))
	if err != nil {
		t.Fatal(err)
	}
	second, err := os.ReadFile(small(t, "v1.37.2", "amd64"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, second) {
		t.Error("two bundles of the same files differ")
	}
}

// unpacked is the bundle as a directory, with the releases of others added.
func unpacked(t *testing.T, paths ...string) string {
	t.Helper()
	dir := t.TempDir()
	var all v1.IndexManifest
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		_, files := entries(t, f)
		var index v1.IndexManifest
		if err := json.Unmarshal([]byte(files["index.json"]), &index); err != nil {
			t.Fatal(err)
		}
		index.Manifests = append(all.Manifests, index.Manifests...)
		all = index
		text, err := json.Marshal(all)
		if err != nil {
			t.Fatal(err)
		}
		files["index.json"] = string(text)
		for name, text := range files {
			to := filepath.Join(dir, name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, []byte(text), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

func TestReleaseFindsWhatIsAskedFor(t *testing.T) {
	b := open(t, unpacked(t, small(t, "v1.36.9", "amd64"), small(t, "v1.37.2", "amd64"), small(t, "v1.37.10", "amd64"),
		small(t, "v1.38.0-rc.1", "amd64"), small(t, "v1.37.2", "arm64")))
	for _, c := range []struct{ version, arch, want string }{
		{"", "amd64", "v1.37.10"}, {"v1.37", "amd64", "v1.37.10"}, {"1.37", "arm64", "v1.37.2"}, {"v1.37.2", "amd64", "v1.37.2"},
		{"1.36.9", "amd64", "v1.36.9"}, {"v1.38.0-rc.1", "amd64", "v1.38.0-rc.1"},
	} {
		if r := release(t, b, c.version, c.arch); r.Version != c.want || r.Arch != c.arch {
			t.Errorf("Release(%q, %q) is %s for %s, want %s", c.version, c.arch, r.Version, r.Arch, c.want)
		}
	}
	for _, c := range [][2]string{{"v1.38", "amd64"}, {"v1.36", "arm64"}, {"", "riscv64"}, {"latest", "amd64"}} {
		_, err := b.Release(c[0], c[1])
		if err == nil || !strings.Contains(err.Error(), "there is v1.38.0-rc.1 for amd64, v1.37.10 for amd64, v1.37.2 for amd64, v1.37.2 for arm64, v1.36.9 for amd64") {
			t.Errorf("Release(%q, %q): %v", c[0], c[1], err)
		}
	}
	if got := len(b.Releases()); got != 5 {
		t.Errorf("%d releases", got)
	}
}

func TestRefIsTheReferenceOfAComponent(t *testing.T) {
	r := release(t, open(t, small(t, "v1.37.2", "amd64")), "", "amd64")
	for component, want := range map[string]string{"pause": "registry.k8s.io/pause:3.10.2", "etcd": "registry.k8s.io/etcd:3.7.0-0",
		"kube-apiserver": "registry.k8s.io/kube-apiserver:v1.37.2", "kube-proxy": "", "": ""} {
		if got, ok := r.Ref(component); got != want || ok != (want != "") {
			t.Errorf("Ref(%q) is %q, %v", component, got, ok)
		}
	}
}

func TestTheBillHasModulesPackagesAndDownloads(t *testing.T) {
	r := release(t, open(t, small(t, "v1.37.2", "amd64")), "", "amd64")
	in, err := r.Bill()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	var got struct {
		BOMFormat  string
		Components []component
	}
	if err := json.NewDecoder(in).Decode(&got); err != nil {
		t.Fatal(err)
	}
	found := map[string]component{}
	for _, c := range got.Components {
		found[c.Type+" "+c.Name] = c
	}
	if got.BOMFormat != "CycloneDX" || len(found["application usr/local/bin/kubelet"].Hashes) != 1 {
		t.Errorf("the bill is %v", found)
	}
	if got := found["library runc"]; got.PURL != "pkg:deb/debian/runc@1.1.15%2Bds1-2?arch=amd64" {
		t.Errorf("the package is %v", got)
	}
	if got := found["file runc"]; len(got.References) != 1 || got.References[0].URL != "https://example.org/runc" {
		t.Errorf("the download is %v", got)
	}
}

func TestTheBillKnowsTheModulesOfABinary(t *testing.T) {
	path := filepath.Join(t.TempDir(), "program")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", path, "../../internal/makebundle")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b bill
	if err := b.addBinary("usr/local/bin/program", f); err != nil {
		t.Fatal(err)
	}
	for _, c := range b.components[0].Components {
		if c.Name == "github.com/google/go-containerregistry" && c.PURL == "pkg:golang/"+c.Name+"@"+c.Version {
			return
		}
	}
	t.Errorf("no module go-containerregistry in %v", b.components)
}

func TestVerifyFindsEveryDamage(t *testing.T) {
	path := small(t, "v1.37.2", "amd64")
	if err := open(t, path).Verify(t.Context()); err != nil {
		t.Fatalf("a whole bundle: %v", err)
	}
	dir := unpacked(t, path)
	b := open(t, dir)
	r := release(t, b, "", "amd64")
	archives := r.Archives()
	flip(t, filepath.Join(dir, "blobs", "sha256", archives[0].Digest))
	if err := os.Remove(filepath.Join(dir, "blobs", "sha256", archives[1].Digest)); err != nil {
		t.Fatal(err)
	}
	err := b.Verify(t.Context())
	if err == nil || !strings.Contains(err.Error(), "runtime of Kubernetes v1.37.2 for amd64: blob sha256:"+archives[0].Digest+" is damaged") ||
		!strings.Contains(err.Error(), "kubernetes of Kubernetes v1.37.2 for amd64: blob sha256:"+archives[1].Digest+" is missing") {
		t.Errorf("Verify: %v", err)
	}
	blob, err := archives[0].Open()
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close()
	if _, err := io.Copy(io.Discard, blob); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("reading a damaged blob: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	cancel(stop)
	if err := b.Verify(ctx); !errors.Is(err, stop) {
		t.Errorf("Verify with a context that has ended: %v", err)
	}
}

func flip(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text[len(text)/2] ^= 1
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestADamagedImageIsNoGoodArchive(t *testing.T) {
	dir := unpacked(t, small(t, "v1.37.2", "amd64"))
	b := open(t, dir)
	r := release(t, b, "", "amd64")
	var m v1.Manifest
	if err := b.decode(r.of(kindImage)[0].Digest, &m); err != nil {
		t.Fatal(err)
	}
	flip(t, filepath.Join(dir, blobPath(m.Layers[0].Digest)))
	if _, err := r.Images(EveryNode).Open(); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("images with a damaged layer: %v", err)
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	whole, err := os.ReadFile(small(t, "v1.37.2", "amd64"))
	if err != nil {
		t.Fatal(err)
	}
	foreign := new(bytes.Buffer)
	w := tar.NewWriter(foreign)
	for name, text := range map[string]string{"oci-layout": ociLayout, "index.json": `{"schemaVersion":2,"manifests":[]}`} {
		if err := writeEntry(w, name, int64(len(text)), strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for want, text := range map[string][]byte{
		"not a tar file, or cut off":          []byte(strings.Repeat("no tar at all ", 100)),
		"a tar file without oci-layout":       bytes.Repeat([]byte{0}, 1024),
		"cut off":                             whole[:len(whole)/2],
		"not a bundle of kuryrctl":            foreign.Bytes(),
		"is missing or cut off (manifest sha": withoutManifest(t, whole),
	} {
		path := filepath.Join(t.TempDir(), "b.tar")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "opening bundle "+path+": ") || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got: %v", want, err)
		}
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	if _, err := Open(t.TempDir()); err == nil || !strings.Contains(err.Error(), "not an OCI image layout") {
		t.Errorf("an empty directory: %v", err)
	}
}

// withoutManifest is a bundle that lacks the first manifest that its index names.
func withoutManifest(t *testing.T, whole []byte) []byte {
	t.Helper()
	_, files := entries(t, bytes.NewReader(whole))
	var index v1.IndexManifest
	if err := json.Unmarshal([]byte(files["index.json"]), &index); err != nil {
		t.Fatal(err)
	}
	delete(files, blobPath(index.Manifests[0].Digest))
	out := new(bytes.Buffer)
	w := tar.NewWriter(out)
	for name, text := range files {
		if err := writeEntry(w, name, int64(len(text)), strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

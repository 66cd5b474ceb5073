// Package bundle owns the one file that a node's software comes from: the binaries and images of a Kubernetes release, each
// by digest, in an OCI image layout (a tar of one, or a directory), with a bill of what is in them. It makes that file from
// upstream's release sites or from binaries built elsewhere, looks into it, and hands out what a node is to unpack and import.
//
// It refuses to speak to a node, to run what it carries, and to believe a blob that is not what its digest says.
//
// Start reading at Open; builder.go writes what Open reads, fetch.go asks upstream.
package bundle

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/mod/semver"
)

// What the index says of each manifest. The architecture is its platform's.
const (
	annotationRelease = "io.kuryrctl.kubernetes" // the version of Kubernetes that it is part of
	annotationKind    = "io.kuryrctl.kind"
	annotationNodes   = "io.kuryrctl.nodes"
	annotationName    = "org.opencontainers.image.ref.name" // an archive's name, or an image's reference

	kindFiles, kindImage, kindBill = "files", "image", "sbom"

	// containerd names an imported image by this one.
	annotationContainerd = "io.containerd.image.name"
)

// Part is what of a cluster an image is for, and so which nodes need it.
type Part string

// The parts. What is not for every node is for those that run it.
const (
	EveryNode    Part = "all"
	ControlPlane Part = "control-plane"
	Registry     Part = "registry"
	Router       Part = "router"
	Demo         Part = "demo"
)

// smallBlob bounds what is read into memory: manifests, configs and bills are, archives and layers are not.
const smallBlob = 64 << 20

// ErrUnreadable says that a file could not be read at all: nothing is known of what is in it.
var ErrUnreadable = errors.New("cannot be read")

// Bundle is an open bundle. It is safe for concurrent use. Blobs are read from the file when they are asked for, so the bundle
// must stay open, and the file as it is, until they have been.
type Bundle struct {
	path     string
	store    store
	releases []*Release
}

// Release is one version of Kubernetes for one architecture, complete: whatever a node needs besides its distribution.
type Release struct {
	Version string // with its v, as in v1.37.2
	Arch    string // as Go calls it: amd64, arm64

	bundle    *Bundle
	manifests []v1.Descriptor

	mu     sync.Mutex
	images map[Part]func() Blob
}

// Blob is something to take to a node.
type Blob struct {
	Name   string // runtime, kubernetes, all-images, control-plane-images, ...
	Digest string // sha256 of the content, in hex
	Size   int64  // bytes

	// Open reads the content from its beginning. What is read is checked on the way: a damaged bundle ends in an error, not
	// in a damaged node.
	Open func() (io.ReadCloser, error)
}

// Image is one container image of a release.
type Image struct {
	Ref    string // as kubeadm names it: registry.k8s.io/pause:3.10.2
	Digest string // of its manifest: sha256:...
	Size   int64  // of its layers, compressed; images may share some
	Part   Part
}

// Open opens the bundle at path, a file or a directory. It reads what the bundle says of itself; Verify reads all of it. An error
// names the path and what is wrong with it.
func Open(path string) (_ *Bundle, err error) {
	b := &Bundle{path: path}
	if b.store, err = openStore(path); err != nil {
		return nil, fmt.Errorf("opening bundle %s: %w", path, err)
	}
	if err := b.read(); err != nil {
		return nil, errors.Join(fmt.Errorf("opening bundle %s: %w", path, err), b.store.Close())
	}
	return b, nil
}

// Close closes the file. Blobs of the bundle cannot be read after it.
func (b *Bundle) Close() error { return b.store.Close() }

func (b *Bundle) read() error {
	var index v1.IndexManifest
	if err := decode(b.store.index, "index.json", &index); err != nil {
		return err
	}
	for _, d := range index.Manifests {
		version, kind := d.Annotations[annotationRelease], d.Annotations[annotationKind]
		if version == "" || kind == "" {
			continue // somebody else's image in the same layout is no business of ours
		}
		if !semver.IsValid(version) || d.Platform == nil || d.Platform.Architecture == "" {
			return fmt.Errorf("index.json: manifest %s is of version %q and names no architecture: not something kuryrctl wrote", d.Digest, version)
		}
		r := b.find(version, d.Platform.Architecture)
		if r == nil {
			r = &Release{Version: version, Arch: d.Platform.Architecture, bundle: b}
			b.releases = append(b.releases, r)
		}
		if !b.store.has(d.Digest, d.Size) {
			return fmt.Errorf("%s of Kubernetes %s for %s is missing or cut off (manifest %s); make or fetch the bundle again",
				cmp.Or(d.Annotations[annotationName], kind), version, r.Arch, d.Digest)
		}
		r.manifests = append(r.manifests, d)
	}
	if len(b.releases) == 0 {
		return errors.New("an OCI image layout, but with no Kubernetes in it: not a bundle of kuryrctl")
	}
	slices.SortStableFunc(b.releases, func(x, y *Release) int {
		return cmp.Or(semver.Compare(y.Version, x.Version), strings.Compare(x.Arch, y.Arch))
	})
	return nil
}

func (b *Bundle) find(version, arch string) *Release {
	for _, r := range b.releases {
		if r.Version == version && r.Arch == arch {
			return r
		}
	}
	return nil
}

// Releases are what the bundle has, the newest first.
func (b *Bundle) Releases() []*Release { return slices.Clone(b.releases) }

// Release finds a release for an architecture. The version may be exact ("v1.37.2"), a minor ("v1.37"), of which the newest is
// taken, or "", the newest that is no pre-release.
func (b *Bundle) Release(version, arch string) (*Release, error) {
	want := version
	if want != "" && !strings.HasPrefix(want, "v") {
		want = "v" + want
	}
	for _, r := range b.releases {
		stable := semver.Prerelease(r.Version) == ""
		if r.Arch == arch && (r.Version == want || (want == "" || semver.MajorMinor(r.Version) == want) && stable) {
			return r, nil
		}
	}
	var there []string
	for _, r := range b.releases {
		there = append(there, r.Version+" for "+r.Arch)
	}
	return nil, fmt.Errorf("looking for Kubernetes %s for %s in bundle %s: there is %s",
		cmp.Or(version, "(the newest stable)"), arch, b.path, strings.Join(there, ", "))
}

// Archives are the tar.gz files to unpack at / of every node: runtime, then kubernetes.
func (r *Release) Archives() (all []Blob) {
	for _, d := range r.of(kindFiles) {
		all = append(all, r.archive(d))
	}
	return all
}

func (r *Release) of(kind string) (all []v1.Descriptor) {
	for _, d := range r.manifests {
		if d.Annotations[annotationKind] == kind {
			all = append(all, d)
		}
	}
	return all
}

// archive is the one layer of an archive's manifest. One that cannot be read is a blob that says so when it is opened.
func (r *Release) archive(d v1.Descriptor) Blob {
	name := d.Annotations[annotationName]
	var m v1.Manifest
	err := r.bundle.decode(d.Digest, &m)
	if err == nil && len(m.Layers) != 1 {
		err = fmt.Errorf("reading %s of bundle %s: %d layers, want 1", name, r.bundle.path, len(m.Layers))
	}
	if err != nil {
		return broken(name, err)
	}
	layer := m.Layers[0]
	return Blob{Name: name, Digest: layer.Digest.Hex, Size: layer.Size, Open: func() (io.ReadCloser, error) { return r.bundle.open(layer.Digest) }}
}

func broken(name string, err error) Blob {
	return Blob{Name: name, Open: func() (io.ReadCloser, error) { return nil, err }}
}

// ImageList tells of each image, in the order of the bundle.
func (r *Release) ImageList() (all []Image, err error) {
	for _, d := range r.of(kindImage) {
		var m v1.Manifest
		if err := r.bundle.decode(d.Digest, &m); err != nil {
			return nil, err
		}
		i := Image{Ref: d.Annotations[annotationName], Digest: d.Digest.String(), Part: Part(d.Annotations[annotationNodes])}
		for _, l := range m.Layers {
			i.Size += l.Size
		}
		all = append(all, i)
	}
	return all, nil
}

// Ref is the reference of a component's image, by its last name: "pause" is registry.k8s.io/pause:3.10.2.
func (r *Release) Ref(component string) (string, bool) {
	for _, d := range r.of(kindImage) {
		ref := d.Annotations[annotationName]
		name, _, _ := strings.Cut(ref[strings.LastIndex(ref, "/")+1:], ":")
		if name == component {
			return ref, true
		}
	}
	return "", false
}

// Bill is the release's software bill of materials, CycloneDX in JSON: every binary with the modules in it, every package and
// every download.
func (r *Release) Bill() (io.ReadCloser, error) {
	for _, d := range r.of(kindBill) {
		return r.archive(d).Open()
	}
	return nil, fmt.Errorf("reading bundle %s: no bill of materials of Kubernetes %s for %s", r.bundle.path, r.Version, r.Arch)
}

// Images is one archive, an OCI image layout that `ctr images import` takes, of the images that are for a part. It is made while it
// is read, always the same to the byte; its digest takes reading it once, when first asked for.
func (r *Release) Images(part Part) Blob {
	r.mu.Lock()
	if r.images == nil {
		r.images = map[Part]func() Blob{}
	}
	if r.images[part] == nil {
		r.images[part] = sync.OnceValue(func() Blob { return r.imageArchive(part) })
	}
	archive := r.images[part]
	r.mu.Unlock()
	return archive()
}

func (r *Release) imageArchive(part Part) Blob {
	name := string(part) + "-images"
	l, err := r.imageLayout(part)
	if err != nil {
		return broken(name, err)
	}
	sum := sha256.New()
	size, err := counted(sum, l.write)
	if err != nil {
		return broken(name, err)
	}
	return Blob{Name: name, Digest: hex.EncodeToString(sum.Sum(nil)), Size: size, Open: func() (io.ReadCloser, error) {
		pr, pw := io.Pipe()
		go func() { pw.CloseWithError(l.write(pw)) }() // closing the reader ends it
		return pr, nil
	}}
}

// imageLayout is what an archive of images consists of.
type imageLayout struct {
	bundle *Bundle
	index  []byte
	blobs  []v1.Descriptor // in order of their digests
}

func (r *Release) imageLayout(part Part) (imageLayout, error) {
	l := imageLayout{bundle: r.bundle}
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{}}
	for _, d := range r.of(kindImage) {
		if Part(d.Annotations[annotationNodes]) != part {
			continue
		}
		var m v1.Manifest
		if err := r.bundle.decode(d.Digest, &m); err != nil {
			return l, err
		}
		l.blobs = append(append(l.blobs, d, m.Config), m.Layers...)
		ref := d.Annotations[annotationName]
		index.Manifests = append(index.Manifests, v1.Descriptor{MediaType: d.MediaType, Size: d.Size, Digest: d.Digest, Platform: d.Platform,
			Annotations: map[string]string{annotationContainerd: ref, annotationName: ref}})
	}
	slices.SortFunc(l.blobs, func(x, y v1.Descriptor) int { return strings.Compare(x.Digest.Hex, y.Digest.Hex) })
	l.blobs = slices.CompactFunc(l.blobs, func(x, y v1.Descriptor) bool { return x.Digest == y.Digest })
	var err error
	l.index, err = json.Marshal(index)
	return l, err
}

func (l imageLayout) write(w io.Writer) error {
	t := tar.NewWriter(w)
	if err := writeEntry(t, "oci-layout", int64(len(ociLayout)), strings.NewReader(ociLayout)); err != nil {
		return err
	}
	if err := writeEntry(t, "index.json", int64(len(l.index)), bytes.NewReader(l.index)); err != nil {
		return err
	}
	for _, d := range l.blobs {
		blob, err := l.bundle.open(d.Digest)
		if err != nil {
			return err
		}
		err = writeEntry(t, blobPath(d.Digest), d.Size, blob)
		if err := errors.Join(err, blob.Close()); err != nil {
			return err
		}
	}
	return t.Close()
}

// Verify reads every blob that the bundle refers to and holds it against its digest. It returns all problems, joined.
func (b *Bundle) Verify(ctx context.Context) error {
	var problems []error
	seen := map[v1.Hash]bool{}
	check := func(what string, d v1.Descriptor) bool {
		if seen[d.Digest] {
			return true
		}
		seen[d.Digest] = true
		err := b.check(ctx, d)
		if err != nil && ctx.Err() == nil {
			problems = append(problems, fmt.Errorf("%s: %w", what, err))
		}
		return err == nil
	}
	for _, r := range b.releases {
		for _, d := range r.manifests {
			what := fmt.Sprintf("%s of Kubernetes %s for %s", cmp.Or(d.Annotations[annotationName], d.Annotations[annotationKind]), r.Version, r.Arch)
			if !check("the manifest of "+what, d) {
				continue
			}
			var m v1.Manifest
			if err := b.decode(d.Digest, &m); err != nil {
				problems = append(problems, err)
				continue
			}
			for _, part := range append(m.Layers, m.Config) {
				check(what, part)
			}
			if ctx.Err() != nil {
				return fmt.Errorf("verifying bundle %s: %w", b.path, context.Cause(ctx))
			}
		}
	}
	return errors.Join(problems...)
}

func (b *Bundle) check(ctx context.Context, d v1.Descriptor) error {
	if !b.store.has(d.Digest, d.Size) {
		return fmt.Errorf("blob %s is missing, or is not the %d bytes it should be", d.Digest, d.Size)
	}
	blob, err := b.open(d.Digest)
	if err != nil {
		return err
	}
	defer blob.Close()
	_, err = io.Copy(io.Discard, readerUntil{ctx, blob})
	return err
}

// open reads a blob and checks it on the way.
func (b *Bundle) open(digest v1.Hash) (io.ReadCloser, error) {
	blob, err := b.store.open(digest)
	if err != nil {
		return nil, fmt.Errorf("reading bundle %s: %w", b.path, err)
	}
	return &checkedReader{ReadCloser: blob, sum: sha256.New(), want: digest.Hex}, nil
}

// decode reads a small blob as JSON.
func (b *Bundle) decode(digest v1.Hash, into any) error {
	return decode(func() (io.ReadCloser, error) { return b.open(digest) }, "blob "+digest.String(), into)
}

func decode(open func() (io.ReadCloser, error), what string, into any) error {
	r, err := open()
	if err != nil {
		return err
	}
	defer r.Close()
	text, err := io.ReadAll(io.LimitReader(r, smallBlob))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("reading %s: %w", what, err)
	}
	return nil
}

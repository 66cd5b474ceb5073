package bundle

import (
	"archive/tar"
	"bytes"
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

// Package bundle owns the one file that a node's software comes from: the binaries and images of a Kubernetes release, each
// by digest, in an OCI image layout (a tar of one, or a directory), with a bill of what is in them. It makes that file from
// upstream's release sites or from binaries built elsewhere, looks into it, and hands out what a node is to unpack and import.
//
// It refuses to speak to a node, to run what it carries, and to believe a blob that is not what its digest says.
//
// Start reading at Open; release.go has what a node takes, builder.go writes what Open reads, fetch.go asks upstream.
package bundle

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
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

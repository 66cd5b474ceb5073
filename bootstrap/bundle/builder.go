package bundle

import (
	"archive/tar"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/compression"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// The media types that say what an artifact is, in the place of an image's config.
const (
	typeFiles types.MediaType = "application/vnd.kuryrctl.files.v1+json"
	typeBill  types.MediaType = "application/vnd.cyclonedx+json"
)

// zstdLevel is as small as it gets before it takes minutes.
const zstdLevel = 9

// Builder puts a bundle of one release together. The same calls with the same files give the same bundle to the byte. It is for
// one goroutine.
type Builder struct {
	version, arch string

	dir    string
	layout layout.Path
	bill   bill
}

// NewBuilder begins a bundle in dir, a directory for the builder alone, which it makes. It is left to the caller to remove.
func NewBuilder(dir, version, arch string) (*Builder, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	l, err := layout.Write(filepath.Join(dir, "layout"), empty.Index)
	if err != nil {
		return nil, fmt.Errorf("beginning a bundle in %s: %w", dir, err)
	}
	return &Builder{version: version, arch: arch, dir: dir, layout: l}, nil
}

// File is a file or link of an archive or image: owned by root, executable by all.
type File struct {
	Path string // relative to /, as in usr/local/bin/kubelet
	From string // the file with the content; with Link it is not read
	Link string // the target of a symbolic link
}

// Program is an image to make.
type Program struct {
	Ref        string // as its pods name it
	Part       Part
	Entrypoint string // what it runs; empty for those whose pods name a command
	User       string // UID:GID; empty for root
}

// AddArchive adds an archive for every node.
func (b *Builder) AddArchive(ctx context.Context, name string, files []File) error {
	packed := filepath.Join(b.dir, name+".tar.gz")
	err := writeFile(packed, func(w io.Writer) error {
		z := gzip.NewWriter(w)
		if err := b.pack(ctx, z, files); err != nil {
			return err
		}
		return z.Close()
	})
	if err != nil {
		return fmt.Errorf("packing %s: %w", name, err)
	}
	layer, err := tarball.LayerFromFile(packed, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return fmt.Errorf("packing %s: %w", name, err)
	}
	if err := b.addArtifact(kindFiles, name, typeFiles, layer); err != nil {
		return fmt.Errorf("adding %s: %w", name, err)
	}
	return os.Remove(packed)
}

func (b *Builder) addArtifact(kind, name string, media types.MediaType, layer v1.Layer) error {
	img, err := mutate.AppendLayers(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), media), layer)
	if err != nil {
		return err
	}
	return b.append(img, kind, name, EveryNode)
}

// AddPrograms adds images that share one layer with these files: what is common to programs is carried, stored and unpacked once.
func (b *Builder) AddPrograms(ctx context.Context, files []File, programs ...Program) error {
	packed := filepath.Join(b.dir, "layer.tar")
	if err := writeFile(packed, func(w io.Writer) error { return b.pack(ctx, w, files) }); err != nil {
		return fmt.Errorf("packing %s: %w", programs[0].Ref, err)
	}
	layer, err := tarball.LayerFromFile(packed, tarball.WithCompression(compression.ZStd), tarball.WithCompressionLevel(zstdLevel),
		tarball.WithMediaType(types.OCILayerZStd))
	if err != nil {
		return fmt.Errorf("packing %s: %w", programs[0].Ref, err)
	}
	for _, p := range programs {
		config := &v1.ConfigFile{Architecture: b.arch, OS: "linux", Config: v1.Config{
			Env: []string{"PATH=/usr/local/bin"}, User: p.User, WorkingDir: "/", Labels: map[string]string{annotationRelease: b.version}}}
		if p.Entrypoint != "" {
			config.Config.Entrypoint = []string{p.Entrypoint}
		}
		img, err := mutate.ConfigFile(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON), config)
		if err == nil {
			img, err = mutate.AppendLayers(img, layer)
		}
		if err == nil {
			err = b.AddImage(p.Ref, p.Part, img)
		}
		if err != nil {
			return fmt.Errorf("adding %s: %w", p.Ref, err)
		}
	}
	return os.Remove(packed)
}

// AddImage adds an image as it is.
func (b *Builder) AddImage(ref string, part Part, img v1.Image) error {
	return b.append(img, kindImage, ref, part)
}

func (b *Builder) append(img v1.Image, kind, name string, part Part) error {
	return b.layout.AppendImage(img, layout.WithPlatform(v1.Platform{OS: "linux", Architecture: b.arch}), layout.WithAnnotations(map[string]string{
		annotationRelease: b.version, annotationKind: kind, annotationName: name, annotationNodes: string(part)}))
}

// pack writes files as a tar that does not depend on when and where it is written, and notes what is in the binaries.
func (b *Builder) pack(ctx context.Context, w io.Writer, files []File) error {
	t := tar.NewWriter(w)
	made := map[string]bool{}
	for _, f := range slices.SortedFunc(slices.Values(files), func(x, y File) int { return strings.Compare(x.Path, y.Path) }) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		for _, dir := range parents(f.Path) {
			if !made[dir] {
				if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: time.Unix(0, 0)}); err != nil {
					return err
				}
			}
			made[dir] = true
		}
		if err := b.packFile(t, f); err != nil {
			return err
		}
	}
	return t.Close()
}

func (b *Builder) packFile(t *tar.Writer, f File) error {
	if f.Link != "" {
		return t.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: f.Path, Linkname: f.Link, Mode: 0o777, ModTime: time.Unix(0, 0)})
	}
	in, err := os.Open(f.From)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.Path, Size: info.Size(), Mode: 0o755, ModTime: time.Unix(0, 0)}); err != nil {
		return err
	}
	if _, err := io.Copy(t, in); err != nil {
		return err
	}
	return b.bill.addBinary(f.Path, in)
}

// parents are the directories above a path, the outermost first.
func parents(name string) (all []string) {
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		all = append(all, dir)
	}
	slices.Reverse(all)
	return all
}

// NotePackage puts a distribution's package into the bill, from which files in the bundle come.
func (b *Builder) NotePackage(distribution, name, version, arch string) {
	b.bill.add(component{Type: "library", Name: name, Version: version,
		PURL: fmt.Sprintf("pkg:deb/%s/%s@%s?arch=%s", distribution, name, escapePURL(version), arch)})
}

// NoteDownload puts a download into the bill: where it came from, and its sha256 in hex.
func (b *Builder) NoteDownload(url, sum string) {
	b.bill.add(component{Type: "file", Name: path.Base(url), Hashes: sha256Of(sum), References: []reference{{Type: "distribution", URL: url}}})
}

// Write ends the bundle and writes it to path, whole or not at all.
func (b *Builder) Write(ctx context.Context, path string) error {
	text, err := b.bill.encode(b.version, b.arch)
	if err != nil {
		return err
	}
	if err := b.addArtifact(kindBill, "bill-of-materials", typeBill, static.NewLayer(text, typeBill)); err != nil {
		return fmt.Errorf("adding the bill of materials: %w", err)
	}
	return writeWhole(path, func(w io.Writer) error { return b.tar(ctx, w) })
}

// writeWhole writes a bundle beside its place, and puts it there when all of it is on the disk.
func writeWhole(path string, write func(io.Writer) error) error {
	partial := path + ".partial"
	err := writeFile(partial, write)
	if err == nil {
		err = os.Rename(partial, path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("writing bundle %s: %w", path, err), removed(partial))
	}
	return nil
}

// tar writes the layout, what names it first, then its blobs in order.
func (b *Builder) tar(ctx context.Context, w io.Writer) error {
	root := string(b.layout)
	text, err := os.ReadFile(filepath.Join(root, "index.json"))
	if err != nil {
		return err
	}
	var index v1.IndexManifest
	if err := json.Unmarshal(text, &index); err != nil {
		return err
	}
	if text, err = json.Marshal(index); err != nil {
		return err
	}
	t := tar.NewWriter(w)
	for _, small := range []struct{ name, text string }{{"oci-layout", ociLayout}, {"index.json", string(text)}} {
		if err := writeEntry(t, small.name, int64(len(small.text)), strings.NewReader(small.text)); err != nil {
			return err
		}
	}
	blobs, err := os.ReadDir(filepath.Join(root, "blobs", "sha256")) // sorted
	if err != nil {
		return err
	}
	for _, entry := range blobs {
		if err := packBlob(ctx, t, root, path.Join("blobs", "sha256", entry.Name())); err != nil {
			return err
		}
	}
	return t.Close()
}

func packBlob(ctx context.Context, t *tar.Writer, root, name string) error {
	f, err := os.Open(filepath.Join(root, name))
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return writeEntry(t, name, info.Size(), readerUntil{ctx, f})
}

func writeEntry(t *tar.Writer, name string, size int64, content io.Reader) error {
	if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0)}); err != nil {
		return err
	}
	_, err := io.Copy(t, content)
	return err
}

// writeFile writes a file and brings it to the disk.
func writeFile(path string, write func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	err = cmp.Or(write(f), f.Sync())
	return cmp.Or(err, f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func removed(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

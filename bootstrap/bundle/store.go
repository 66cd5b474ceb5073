package bundle

import (
	"archive/tar"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// ociLayout is the file that makes a directory an OCI image layout.
const ociLayout = `{"imageLayoutVersion":"1.0.0"}`

// store is where the blobs of a bundle are: a directory, or the places of their content in a tar file.
type store struct {
	dir  string
	file *os.File
	at   map[string]place // by path in the layout
}

type place struct{ offset, size int64 }

func blobPath(digest v1.Hash) string { return path.Join("blobs", digest.Algorithm, digest.Hex) }

func openStore(name string) (store, error) {
	f, err := os.Open(name)
	if err != nil {
		return store{}, fmt.Errorf("%w: %w", ErrUnreadable, reason(err))
	}
	info, err := f.Stat()
	if err != nil {
		return store{}, errors.Join(fmt.Errorf("%w: %w", ErrUnreadable, reason(err)), f.Close())
	}
	if info.IsDir() {
		s := store{dir: name}
		if err := f.Close(); err != nil {
			return s, reason(err)
		}
		if _, err := os.Stat(filepath.Join(name, "oci-layout")); err != nil {
			return s, errors.New("a directory without a file oci-layout: not an OCI image layout")
		}
		return s, nil
	}
	s := store{file: f, at: map[string]place{}}
	if err := s.scan(); err != nil {
		return s, errors.Join(err, f.Close())
	}
	return s, nil
}

// scan finds where each entry of the tar is. The reader seeks over the content, and notices when the file ends before it does.
func (s store) scan() error {
	for t := tar.NewReader(s.file); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("not a tar file, or cut off: %w", err)
		}
		at, err := s.file.Seek(0, io.SeekCurrent)
		if err != nil {
			return reason(err)
		}
		if h.Typeflag == tar.TypeReg {
			s.at[strings.TrimPrefix(path.Clean(h.Name), "./")] = place{at, h.Size}
		}
	}
	if _, ok := s.at["oci-layout"]; !ok {
		return errors.New("a tar file without oci-layout: not an OCI image layout")
	}
	return nil
}

func (s store) Close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}

func (s store) openPath(name string) (io.ReadCloser, error) {
	if s.file == nil {
		f, err := os.Open(filepath.Join(s.dir, filepath.FromSlash(name)))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, reason(err))
		}
		return f, nil
	}
	at, ok := s.at[name]
	if !ok {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return io.NopCloser(io.NewSectionReader(s.file, at.offset, at.size)), nil
}

func (s store) index() (io.ReadCloser, error) { return s.openPath("index.json") }

func (s store) open(digest v1.Hash) (io.ReadCloser, error) { return s.openPath(blobPath(digest)) }

// has reports whether a blob of that size is there; what is in it only reading tells.
func (s store) has(digest v1.Hash, size int64) bool {
	if s.file == nil {
		info, err := os.Stat(filepath.Join(s.dir, blobPath(digest)))
		return err == nil && info.Size() == size
	}
	at, ok := s.at[blobPath(digest)]
	return ok && at.size == size
}

// reason is an error of a file without its path, for a message that has named it.
func reason(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// checkedReader is a blob that ends in an error when it was not what its digest says.
type checkedReader struct {
	io.ReadCloser
	sum  hash.Hash
	want string
}

func (r *checkedReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.sum.Write(p[:n]) // never fails
	if errors.Is(err, io.EOF) {
		if got := hex.EncodeToString(r.sum.Sum(nil)); got != r.want {
			return n, fmt.Errorf("blob sha256:%s is damaged: its sha256 is %s", r.want, got)
		}
	}
	return n, err
}

// readerUntil reads until its context ends.
type readerUntil struct {
	ctx context.Context
	io.Reader
}

func (r readerUntil) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.Reader.Read(p)
}

// counted runs a writer and returns how much it wrote.
func counted(w io.Writer, write func(io.Writer) error) (int64, error) {
	c := &counter{w: w}
	err := write(c)
	return c.n, err
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

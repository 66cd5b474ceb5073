package stack

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kuryrctl/kuryrctl/internal/redact"
)

// archive is a tar.gz that comes to be whole or not at all, and has no secrets in it. Parts may be added from many sides at once.
type archive struct {
	path, top string
	begun     time.Time

	mu     sync.Mutex
	file   *os.File
	zip    *gzip.Writer
	tar    *tar.Writer
	known  []string // secrets
	parts  int
	errors []string
	broken error // of the writing itself
}

// newArchive begins an archive at a path, all of it below one directory.
func newArchive(at, top string) (*archive, error) {
	f, err := os.CreateTemp(filepath.Dir(at), ".kuryrctl-dump-*") // 0600
	if err != nil {
		return nil, fmt.Errorf("writing the dump: %w", err)
	}
	a := &archive{path: at, top: top, begun: time.Now(), file: f, zip: gzip.NewWriter(f)}
	a.tar = tar.NewWriter(a.zip)
	return a, nil
}

// know makes values be masked wherever they are in what is added from now on.
func (a *archive) know(secrets ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.known = append(slices.Clip(a.known), secrets...)
}

// add puts a part into the archive, masked and then cut to its end, or notes why it could not be had.
func (a *archive) add(name string, text []byte, err error) {
	a.mu.Lock()
	known := a.known
	a.mu.Unlock()
	if err != nil {
		line := string(redact.Text([]byte(name+": "+strings.ReplaceAll(err.Error(), "\n", " ")), known...))
		a.mu.Lock()
		defer a.mu.Unlock()
		a.errors = append(a.errors, line)
		return
	}
	size := len(text)
	if !json.Valid(text) { // which is masked by its structure
		text = end(text, 2*partLimit)
	}
	clean := end(redact.Text(text, known...), partLimit)
	if size > partLimit {
		clean = append(fmt.Appendf(nil, "(the end of %d bytes)\n", size), clean...)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.write(name, clean)
	a.parts++
}

// end is the end of a text, from the beginning of a line.
func end(text []byte, limit int) []byte {
	if len(text) <= limit {
		return text
	}
	text = text[len(text)-limit:]
	return text[bytes.IndexByte(text, '\n')+1:]
}

// write is called with mu held. A name from a host does not lead out of the directory.
func (a *archive) write(name string, text []byte) {
	h := &tar.Header{Name: a.top + path.Clean("/"+name), Mode: 0o600, Size: int64(len(text)), ModTime: a.begun}
	err := a.tar.WriteHeader(h)
	if err == nil {
		_, err = a.tar.Write(text)
	}
	a.broken = cmp.Or(a.broken, err)
}

// finish makes the archive be there. It returns how many parts are missing.
func (a *archive) finish() (missing int, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.parts == 0 {
		return len(a.errors), errors.New("dumping: nothing could be had: " + strings.Join(a.errors, "; "))
	}
	slices.Sort(a.errors)
	if len(a.errors) > 0 {
		a.write("errors.txt", []byte(strings.Join(a.errors, "\n")+"\n"))
	}
	err = cmp.Or(a.broken, a.tar.Close(), a.zip.Close(), a.file.Sync(), a.file.Close())
	if err == nil {
		err = os.Rename(a.file.Name(), a.path)
	}
	if err != nil {
		return 0, fmt.Errorf("writing the dump: %w", err)
	}
	return len(a.errors), nil
}

// abandon removes what is not finished.
func (a *archive) abandon() {
	a.file.Close()
	os.Remove(a.file.Name())
}

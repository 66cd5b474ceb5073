package bundle

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// get downloads a file, or finds it downloaded, and returns its sha256, which is the published one.
func (f *fetcher) get(ctx context.Context, d download, to string) (string, error) {
	text, err := f.text(ctx, d.sums)
	if err != nil {
		return "", fmt.Errorf("asking for the checksum of %s: %w", path.Base(d.url), err)
	}
	want, err := published(text, path.Base(d.url))
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", d.sums, err)
	}
	if got, err := sumOf(to); err == nil && got == want {
		return want, nil
	}
	f.tell(d.url)
	partial := to + ".partial"
	sum := sha256.New()
	err = f.body(ctx, d.url, func(body io.Reader) error {
		return writeFile(partial, func(w io.Writer) error {
			_, err := io.Copy(io.MultiWriter(w, sum), body)
			return err
		})
	})
	if got := hex.EncodeToString(sum.Sum(nil)); err == nil && got != want {
		err = fmt.Errorf("downloading %s: its sha256 is %s, and %s says %s; it is damaged or not what the project has published",
			d.url, got, d.sums, want)
	}
	if err != nil {
		return "", errors.Join(err, removed(partial))
	}
	return want, os.Rename(partial, to)
}

// published finds the sum of a file in what a project publishes: the sum alone, or lines of sum and name.
func published(text, file string) (string, error) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 || len(fields) == 2 && path.Base(strings.TrimPrefix(fields[1], "*")) != file {
			continue
		}
		if sum, err := hex.DecodeString(fields[0]); err != nil || len(sum) != sha256.Size || len(fields) > 2 {
			return "", fmt.Errorf("%.80q is no sha256 checksum", strings.TrimSpace(line))
		}
		return strings.ToLower(fields[0]), nil
	}
	return "", fmt.Errorf("it has no checksum of %s", file)
}

func sumOf(file string) (string, error) {
	r, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer r.Close()
	sum := sha256.New()
	_, err = io.Copy(sum, r)
	return hex.EncodeToString(sum.Sum(nil)), err
}

// text gets a small file.
func (f *fetcher) text(ctx context.Context, from string) (text string, err error) {
	err = f.body(ctx, from, func(body io.Reader) error {
		all, err := io.ReadAll(io.LimitReader(body, 1<<20))
		text = string(all)
		return err
	})
	return text, err
}

// body gets a file and lets use read it.
func (f *fetcher) body(ctx context.Context, from string, use func(io.Reader) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return err
	}
	resp, err := f.client.Do(req)
	if err != nil {
		return told(ctx, "downloading "+from, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("downloading %s: the server says %s", from, resp.Status)
	}
	if err := use(resp.Body); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("downloading %s: %w", from, err)
	}
	return nil
}

// told adds the ways out to the error of a conversation that never began. That of one which was ended is why.
func told(ctx context.Context, doing string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if silent, ok := errors.AsType[*url.Error](err); ok {
		return fmt.Errorf("%s: %w: %w", doing, silent.Err, ErrUnreachable)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// unpack makes files of a download: of those in a tar.gz that are asked for, or of the file itself.
func unpack(from, dir string, takes map[string]string) (files []File, err error) {
	if place, plain := takes[""]; plain {
		return []File{{Path: place, From: from}}, nil
	}
	in, err := os.Open(from)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	z, err := gzip.NewReader(in)
	if err != nil {
		return nil, err
	}
	missing := maps.Clone(takes)
	for t := tar.NewReader(z); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		place, ok := missing[path.Clean(h.Name)]
		if !ok || h.Typeflag != tar.TypeReg {
			continue
		}
		delete(missing, path.Clean(h.Name))
		to := filepath.Join(dir, place)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return nil, err
		}
		if err := writeFile(to, func(w io.Writer) error { _, err := io.Copy(w, t); return err }); err != nil {
			return nil, err
		}
		files = append(files, File{Path: place, From: to})
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("it has no %s", strings.Join(slices.Sorted(maps.Keys(missing)), ", "))
	}
	return files, nil
}

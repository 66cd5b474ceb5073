package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// CacheDir is where bundles that were made or fetched are kept: $XDG_CACHE_HOME/kuryrctl/bundle, or below ~/.cache. Everything in
// it can be made again.
func CacheDir() (string, error) {
	dir := os.Getenv("XDG_CACHE_HOME")
	if !filepath.IsAbs(dir) { // so says the specification
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("finding the cache of bundles: set XDG_CACHE_HOME or HOME: %w", err)
		}
		dir = filepath.Join(home, ".cache")
	}
	return filepath.Join(dir, "kuryrctl", "bundle"), nil
}

// Cached returns the path of the bundle with that key in the cache, and lets make write it there when it is missing. Scratch is a
// directory for making it, which stays when making fails, for the next try to look at. One bundle is made at a time, whoever
// makes it; others wait.
func Cached(ctx context.Context, key string, make func(scratch, path string) error) (string, error) {
	dir, err := CacheDir()
	if err != nil {
		return "", err
	}
	path, scratch := filepath.Join(dir, key+".tar"), filepath.Join(dir, key+".partial")
	if there(path) {
		return path, nil
	}
	if err := os.MkdirAll(scratch, 0o755); err != nil {
		return "", fmt.Errorf("making room for a bundle: %w", err)
	}
	unlock, err := lock(ctx, filepath.Join(dir, "lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if there(path) { // made by another, while this one waited
		return path, nil
	}
	if err := os.MkdirAll(scratch, 0o755); err != nil { // the other has removed it
		return "", fmt.Errorf("making room for a bundle: %w", err)
	}
	if err := make(scratch, path); err != nil {
		return "", err
	}
	return path, os.RemoveAll(scratch)
}

// Copy copies a bundle to another path, whole or not at all.
func Copy(ctx context.Context, from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("copying the bundle: %w", err)
	}
	defer in.Close()
	return writeWhole(to, func(w io.Writer) error {
		_, err := io.Copy(w, readerUntil{ctx, in})
		return err
	})
}

func there(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// lock waits until no other process holds the file. The kernel lets go of it when this one ends, however it does.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("locking the cache of bundles: %w", err)
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("locking %s: %w", path, err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("waiting for another that makes a bundle: %w", context.Cause(ctx)), f.Close())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

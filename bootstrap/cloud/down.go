package cloud

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// Down stops every process of the lab and frees its memory. What was made in the cloud stays on disk for the next Up, where
// servers are started again. A lab that does not run is no error.
func (l *Lab) Down(ctx context.Context) error {
	unlock, err := l.lock("down")
	if err != nil {
		return err
	}
	defer unlock()
	return l.down(ctx)
}

func (l *Lab) down(ctx context.Context) error {
	if p, ok := l.running(); ok {
		if err := l.end(ctx, p); err != nil {
			return err
		}
	}
	return l.removeNamespace()
}

// forget removes what belongs to this one cloud and keeps logs and layers. The base goes first: without it, whatever else is
// left counts for nothing.
func (l *Lab) forget() error {
	for _, name := range []string{"base.json", "overlay", "secrets.json", "clouds.yaml", "names.key", "start.json", "supervisor.json", "report"} {
		if err := os.RemoveAll(filepath.Join(l.state, name)); err != nil {
			return err
		}
	}
	return nil
}

// DestroyOptions changes what Destroy leaves. The zero value leaves nothing.
type DestroyOptions struct {
	KeepCache bool // leave the layers, from which the next Up starts in a minute
}

// Destroy stops the lab and removes all of it: processes, namespace, state, logs and layers.
func (l *Lab) Destroy(ctx context.Context, opts DestroyOptions) error {
	unlock, err := l.lock("destroy")
	if err != nil {
		return err
	}
	defer unlock()
	if err := l.down(ctx); err != nil {
		return err
	}
	if err := l.endBakes(ctx); err != nil {
		return err
	}
	dirs := []string{l.state}
	if !opts.KeepCache {
		dirs = append(dirs, l.cache)
	}
	for _, dir := range dirs {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("removing the lab: %w", err)
		}
		// The directory above is kuryrctl's; it stays while anything else is in it.
		if err := os.Remove(filepath.Dir(dir)); err != nil && !errors.Is(err, syscall.ENOTEMPTY) && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("removing the lab: %w", err)
		}
	}
	return nil
}

// endBakes stops what a killed Up has left baking.
func (l *Lab) endBakes(ctx context.Context) error {
	partial, err := filepath.Glob(filepath.Join(l.cache, "bake-*.partial"))
	if err != nil {
		return err
	}
	for _, dir := range partial {
		if err := l.baker(dir).down(ctx); err != nil {
			return err
		}
	}
	return nil
}

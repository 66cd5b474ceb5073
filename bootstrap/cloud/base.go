package cloud

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// base is what the overlay in the state directory lies on. An overlay must never be put on another one, so a newer kuryrctl
// goes on with the old base until it is asked for a fresh cloud.
type base struct {
	Root     string `json:"root"` // directories
	Bake     string `json:"bake"`
	Guest    string `json:"guest"`
	Kernel   string `json:"kernel"`    // empty where none could be had
	NoKernel string `json:"no_kernel"` // why
	ImageID  string `json:"image_id"`
}

func (l *Lab) baseFile() string { return filepath.Join(l.state, "base.json") }

// readBase returns the zero base where there is no overlay yet.
func (l *Lab) readBase() (base, error) {
	var b base
	data, err := os.ReadFile(l.baseFile())
	if errors.Is(err, os.ErrNotExist) {
		return b, nil
	}
	if err != nil {
		return b, err
	}
	if err := json.Unmarshal(data, &b); err != nil {
		return b, fmt.Errorf("reading %s: %w", l.baseFile(), err)
	}
	for _, dir := range []string{b.Root, b.Bake, b.Guest} {
		if _, err := os.Stat(dir); err != nil {
			return base{}, fmt.Errorf("looking for the layers under this cloud: %w; start a new one with --fresh", err)
		}
	}
	return b, nil
}

// overlay lays a writable layer in dir over others, and says what else is to be seen in it.
func (l *Lab) overlay(b base, lower []string, dir string) (filesystem, error) {
	fs := filesystem{
		Lower: lower, Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work"), Root: filepath.Join(l.state, "root"),
		Binds: map[string]string{guestPlace: b.Guest, logPlace: l.Logs(), reportPlace: filepath.Dir(l.reportFile())},
		Fixed: []string{guestPlace},
	}
	if b.Kernel != "" {
		fs.Binds[umlPlace] = b.Kernel
		fs.Fixed = append(fs.Fixed, umlPlace)
	}
	for _, d := range []string{fs.Upper, fs.Work, fs.Root, l.Logs(), filepath.Dir(l.reportFile())} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return fs, err
		}
	}
	return fs, nil
}

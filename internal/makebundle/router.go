package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// lego gets certificates for Traefik. It is built with a package of ours in it (see bootstrap/bundle/router/dns), so that go.sum does not
// vouch for it; this does.
const (
	legoModule  = "github.com/go-acme/lego/v5"
	legoVersion = "v5.4.1"
	legoSum     = "h1:Jt6xAP9xQrJ3SLLGgxejfDDd3pzdrmuLCWe4oTqHHQc="
)

// buildRouter builds Traefik in the scratch directory: a copy of the module that pins it, and beside that the copy of lego that its go.mod
// asks for.
func (m *maker) buildRouter(ctx context.Context) error {
	lego, err := m.download(ctx, legoModule, legoVersion, legoSum)
	if err != nil {
		return err
	}
	if err := prepareRouter(m.dir("router"), filepath.Join(modules, "router"), lego); err != nil {
		return fmt.Errorf("preparing Traefik's module: %w", err)
	}
	traefik, err := m.module(ctx, "router", "github.com/traefik/traefik/v3")
	if err != nil {
		return err
	}
	return m.build(ctx, "router", "", "-X github.com/traefik/traefik/v3/pkg/version.Version="+strings.TrimPrefix(traefik.Version, "v"),
		"github.com/traefik/traefik/v3/cmd/traefik")
}

// download returns the directory of a module in Go's cache, which must have that sum.
func (m *maker) download(ctx context.Context, path, version, sum string) (string, error) {
	cmd := m.goTool(ctx, "registry", "mod", "download", "-json", path+"@"+version)
	text, err := cmd.Output()
	var got struct{ Dir, Sum, Error string }
	if len(text) > 0 {
		err = errors.Join(err, json.Unmarshal(text, &got))
	}
	if err == nil && got.Error != "" {
		err = errors.New(got.Error)
	}
	if err == nil && got.Sum != sum {
		err = fmt.Errorf("its checksum is %s, and should be %s", got.Sum, sum)
	}
	if err != nil {
		return "", fmt.Errorf("downloading module %s@%s: %w", path, version, err)
	}
	return got.Dir, nil
}

// prepareRouter makes dir a module that Traefik can be built in: source, and lego with source's package dns and no provider but the one
// that it names.
func prepareRouter(dir, source, lego string) error {
	if err := copyTree(dir, source, func(string) bool { return true }); err != nil {
		return err
	}
	providers := "providers/dns"
	err := copyTree(filepath.Join(dir, "lego"), lego, func(path string) bool {
		rest, below := strings.CutPrefix(path, providers+"/")
		return !below || rest == "dnsupdate" || strings.HasPrefix(rest, "dnsupdate/")
	})
	if err != nil {
		return err
	}
	return copyTree(filepath.Join(dir, "lego", providers), filepath.Join(source, "dns"), func(string) bool { return true })
}

// copyTree copies the files and directories below from that are wanted, by their paths below it.
func copyTree(to, from string, wanted func(path string) bool) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		switch {
		case err != nil:
			return err
		case !wanted(filepath.ToSlash(name)) && d.IsDir():
			return fs.SkipDir
		case !wanted(filepath.ToSlash(name)):
			return nil
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, name), 0o755)
		}
		in, err := os.Open(path)
		if err != nil {
			return err
		}
		defer in.Close()
		out, err := os.Create(filepath.Join(to, name))
		if err != nil {
			return err
		}
		_, err = io.Copy(out, in)
		return errors.Join(err, out.Close())
	})
}

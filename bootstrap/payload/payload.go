// Package payload carries the programs of this project that run on nodes: kuryr-node (controller and daemon), kuryr-cni, the CNI
// plugin, and kuryr-demo, which runs in pods, for the architectures that nodes may have; and the definitions of the Gateway API. It owns their
// packing; what runs in them is in nodeagent, and how they get onto a node or into a cluster is the business of package bootstrap.
//
// They are built before kuryrctl and embedded in it, so that the two are always of one version: `make build` does both. A kuryrctl built
// without them says so when it would need them.
package payload

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/kuryrctl/kuryrctl/bootstrap/bundle"
)

//go:embed all:dist
var dist embed.FS

// Archive is the tar.gz to unpack at / of a node of that architecture.
func Archive(arch string) (bundle.Blob, error) {
	content, err := dist.ReadFile("dist/kuryr-linux-" + arch + ".tar.gz")
	if err != nil {
		return bundle.Blob{}, fmt.Errorf("looking for kuryr-node: this kuryrctl was built without the programs of %s nodes; `make build` makes one with them", arch)
	}
	sum := sha256.Sum256(content)
	return bundle.Blob{Name: "kuryr", Digest: hex.EncodeToString(sum[:]), Size: int64(len(content)), Open: func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content)), nil
	}}, nil
}

// Demo is the program of the demo image for that architecture, nil where this kuryrctl was built without.
func Demo(arch string) ([]byte, error) {
	program, err := unzipped("kuryr-demo-linux-" + arch + ".gz")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("unpacking kuryr-demo: %w", err)
	}
	return program, nil
}

// GatewayAPI are the CustomResourceDefinitions of the Gateway API's standard channel, as its project publishes them, of the version that
// the router is built with: a manifest.
func GatewayAPI() ([]byte, error) {
	manifest, err := unzipped("gateway-api.yaml.gz")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("looking for the Gateway API: this kuryrctl was built without its definitions; `make build` makes one with them")
	}
	if err != nil {
		return nil, fmt.Errorf("unpacking the Gateway API: %w", err)
	}
	return manifest, nil
}

func unzipped(name string) ([]byte, error) {
	f, err := dist.Open("dist/" + name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

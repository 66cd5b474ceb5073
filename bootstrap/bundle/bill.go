package bundle

import (
	"cmp"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strings"
)

// bill is a software bill of materials while it is collected.
type bill struct{ components []component }

// component is CycloneDX's, as far as it is used here.
type component struct {
	Type       string      `json:"type"`
	Name       string      `json:"name"`
	Version    string      `json:"version,omitempty"`
	PURL       string      `json:"purl,omitempty"`
	Hashes     []sum       `json:"hashes,omitempty"`
	References []reference `json:"externalReferences,omitempty"`
	Components []component `json:"components,omitempty"`
}

type sum struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

type reference struct {
	Type string `json:"type"`
	URL  string `json:"url"`
}

func sha256Of(hex string) []sum { return []sum{{Algorithm: "SHA-256", Content: hex}} }

func (b *bill) add(c component) { b.components = append(b.components, c) }

// addBinary adds a file that was just read, with the Go modules that it says it was built from.
func (b *bill) addBinary(name string, f *os.File) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return err
	}
	c := component{Type: "application", Name: name, Hashes: sha256Of(hex.EncodeToString(sum.Sum(nil)))}
	if info, err := buildinfo.Read(f); err == nil { // anything else is no Go program, and has no modules
		c.Version = info.Main.Version
		c.Components = append(c.Components, component{Type: "platform", Name: "go", Version: info.GoVersion})
		for _, m := range info.Deps {
			if m.Replace != nil {
				m = m.Replace
			}
			c.Components = append(c.Components, component{Type: "library", Name: m.Path, Version: m.Version,
				PURL: "pkg:golang/" + m.Path + "@" + escapePURL(m.Version)})
		}
	}
	b.add(c)
	return nil
}

func escapePURL(version string) string {
	return strings.ReplaceAll(url.QueryEscape(version), "+", "%20")
}

func (b *bill) encode(version, arch string) ([]byte, error) {
	slices.SortStableFunc(b.components, func(x, y component) int { return cmp.Or(cmp.Compare(x.Type, y.Type), cmp.Compare(x.Name, y.Name)) })
	text, err := json.MarshalIndent(map[string]any{
		"bomFormat":   "CycloneDX",
		"specVersion": "1.6",
		"version":     1,
		"metadata":    map[string]any{"component": component{Type: "platform", Name: "kubernetes-" + arch, Version: version}},
		"components":  b.components,
	}, "", " ")
	if err != nil {
		return nil, fmt.Errorf("writing the bill of materials: %w", err)
	}
	return text, nil
}

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTraefikIsBuiltWithOneProviderOfDNS(t *testing.T) {
	source, lego, dir := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "traefik")
	for path, text := range map[string]string{
		source + "/go.mod": "module router", source + "/dns/dns.go": "package dns // ours",
		lego + "/acme/acme.go": "package acme", lego + "/providers/dns/dns.go": "package dns // theirs", lego + "/providers/dns/generated.go": "package dns",
		lego + "/providers/dns/dnsupdate/internal/a.go": "package internal", lego + "/providers/dns/route53/a.go": "package route53",
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o444); err != nil {
			t.Fatal(err)
		}
	}
	if err := prepareRouter(dir, source, lego); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"go.mod": "module router", "lego/acme/acme.go": "package acme", "lego/providers/dns/dns.go": "package dns // ours",
		"lego/providers/dns/dnsupdate/internal/a.go": "package internal", "lego/providers/dns/generated.go": "", "lego/providers/dns/route53/a.go": ""} {
		text, err := os.ReadFile(filepath.Join(dir, path))
		if string(text) != want || (err == nil) != (want != "") {
			t.Errorf("%s is %q, %v", path, text, err)
		}
	}
}

func TestTheRouterIsWhatThePinsSay(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("../..", modules, "router", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{legoModule + " " + legoVersion + " ", legoModule + " => ./lego "} {
		if !strings.Contains(string(text), want) {
			t.Errorf("go.mod of the router has no %q", want)
		}
	}
}

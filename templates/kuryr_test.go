package templates_test

import (
	"encoding/json"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/kuryrctl/kuryrctl/templates"
)

func TestKuryrFiles(t *testing.T) {
	for name, render := range map[string]func() ([]byte, error){
		"kuryr-controller.service": func() ([]byte, error) { return templates.KuryrController("0123abcd", "demo") },
		"kuryr-daemon.service":     func() ([]byte, error) { return templates.KuryrDaemon("0123abcd", "worker-0") },
		"kuryr-clouds.yaml": func() ([]byte, error) {
			return templates.KuryrClouds(templates.KuryrCloud{AuthURL: "https://keystone.example.org:5000/v3", ID: "i", Secret: "s\"e'c", Region: "RegionOne", Interface: "public",
				Own: map[string]string{"network_endpoint_override": "https://neutron.example.org", "load_balancer_interface": "internal"}, CACert: true})
		},
		"kuryr-clouds-bare.yaml": func() ([]byte, error) {
			return templates.KuryrClouds(templates.KuryrCloud{AuthURL: "http://10.99.0.1:5000/v3", ID: "i", Secret: "s"})
		},
	} {
		got, err := render()
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name, got)
		if strings.HasSuffix(name, ".yaml") {
			var clouds struct {
				Clouds map[string]struct{ Auth map[string]string }
			}
			if err := yaml.Unmarshal(got, &clouds); err != nil || !strings.HasPrefix(clouds.Clouds["kuryr"].Auth["application_credential_secret"], "s") {
				t.Errorf("%s: %v, %+v", name, err, clouds)
			}
		}
	}
}

// What is written as it is has to be what its name says; a conflist that cannot be read leaves a node without pods.
func TestKuryrFilesAreWhatTheySay(t *testing.T) {
	err := fs.WalkDir(os.DirFS("files/kuryr"), ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || d.IsDir():
		case strings.HasSuffix(path, ".json"):
			var list struct {
				CNIVersion string
				Name       string
				Plugins    []struct{ Type string }
			}
			if err := json.Unmarshal(templates.KuryrFile(path), &list); err != nil || list.Name != "kuryr" || list.Plugins[0].Type != "kuryr-cni" {
				t.Errorf("%s: %v, %+v", path, err, list)
			}
		case strings.HasSuffix(path, ".yaml"):
			for _, document := range strings.Split(string(templates.KuryrFile(path)), "\n---\n") {
				var o struct {
					APIVersion, Kind string
					Metadata         struct{ Name string }
				}
				if err := yaml.Unmarshal([]byte(document), &o); err != nil || o.Kind == "" || o.Metadata.Name == "" {
					t.Errorf("%s: %v in\n%s", path, err, document)
				}
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestTheClustersDNSForwardsOnlyWhereThereAreResolvers(t *testing.T) {
	for _, forward := range []bool{true, false} {
		text, err := templates.KuryrDNS(templates.DNS{Image: "registry.k8s.io/coredns/coredns:v1", Domain: "cluster.local", Address: netip.MustParseAddr("172.30.0.10"), Forward: forward})
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "forward .") != forward {
			t.Errorf("resolvers %v: %s", forward, text)
		}
		for _, want := range []string{"kubernetes cluster.local in-addr.arpa", "clusterIP: 172.30.0.10\n", "image: registry.k8s.io/coredns/coredns:v1\n"} {
			if !strings.Contains(string(text), want) {
				t.Errorf("it lacks %q", want)
			}
		}
		for _, document := range strings.Split(string(text), "\n---\n") {
			var o struct{ Kind, APIVersion string }
			if err := yaml.Unmarshal([]byte(document), &o); err != nil || o.Kind == "" {
				t.Errorf("%v: %s", err, document)
			}
		}
	}
}

package templates_test

import (
	"io"
	"net/netip"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/kuryrctl/kuryrctl/templates"
)

func TestAddons(t *testing.T) {
	registry := templates.RegistryData{Image: "docker.io/library/registry:3.1.2", Address: netip.MustParseAddr("172.30.0.20"), Node: "worker-0", Digest: "0123",
		Secret: map[string][]byte{"tls.crt": []byte("a certificate"), "htpasswd": []byte("a: password")}}
	onClaim := registry
	onClaim.Claim = "images"
	insecure := templates.RegistryData{Image: registry.Image, Address: registry.Address, Node: "worker-0", Insecure: true}
	router := templates.RouterData{Image: "docker.io/library/traefik:v3.7.13", Replicas: 1}
	for name, render := range map[string]func() ([]byte, error){
		"registry.yaml":          func() ([]byte, error) { return templates.Registry(registry) },
		"registry-claim.yaml":    func() ([]byte, error) { return templates.Registry(onClaim) },
		"registry-insecure.yaml": func() ([]byte, error) { return templates.Registry(insecure) },
		"router.yaml":            func() ([]byte, error) { return templates.Router(router) },
		"router-host.yaml": func() ([]byte, error) {
			return templates.Router(templates.RouterData{Image: router.Image, Replicas: 2, HostNetwork: true})
		},
		"hosts.toml": func() ([]byte, error) {
			return templates.RegistryHosts("https://172.30.0.20:5000", "Basic a3VyeXI6c2VjcmV0")
		},
		"hosts-insecure.toml": func() ([]byte, error) { return templates.RegistryHosts("http://172.30.0.20:5000", "") },
	} {
		got, err := render()
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name, got)
		if !strings.HasSuffix(name, ".yaml") {
			continue
		}
		for d := yaml.NewDecoder(strings.NewReader(string(got)), yaml.Strict()); ; {
			var o struct {
				APIVersion string `yaml:"apiVersion"`
				Kind       string
				Metadata   struct {
					Name, Namespace     string
					Labels, Annotations map[string]string
				}
				Spec, Data, Rules, Subjects any
				RoleRef                     any `yaml:"roleRef"`
			}
			if err := d.Decode(&o); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			// What is removed when it is turned off is what bears the label and is in no namespace.
			if o.Metadata.Name == "" || (o.Metadata.Namespace == "") != (o.Metadata.Labels["app.kubernetes.io/managed-by"] == "kuryrctl") {
				t.Errorf("%s: %s %+v", name, o.Kind, o.Metadata)
			}
		}
	}
}

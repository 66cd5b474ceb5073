package bootstrap_test

import (
	"crypto/tls"
	"encoding/base64"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/kuryrctl/kuryrctl/bootstrap"
	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/internal/sshtest"
)

const gatewayDefinition = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/gateways.gateway.networking.k8s.io"

const registrySecret = "/api/v1/namespaces/kuryr-registry/secrets/registry"

// secret is what is in the registry's Secret.
func (l *lab) secret() map[string]string {
	l.t.Helper()
	text := map[string]string{}
	l.api.EditApplied(registrySecret, func(o map[string]any) {
		for key, value := range o["data"].(map[string]any) {
			decoded, err := base64.StdEncoding.DecodeString(value.(string))
			l.must(err)
			text[key] = string(decoded)
		}
	})
	return text
}

// gatewayAPI defines the kinds that the router has objects of.
func gatewayAPI() ([]byte, error) {
	return []byte(`apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: gatewayclasses.gateway.networking.k8s.io
  annotations: {gateway.networking.k8s.io/bundle-version: v1.6.1, gateway.networking.k8s.io/channel: standard}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: gateways.gateway.networking.k8s.io
  annotations: {gateway.networking.k8s.io/bundle-version: v1.6.1, gateway.networking.k8s.io/channel: standard}
`), nil
}

func TestRegistryAndRouterComeAndGo(t *testing.T) {
	t.Parallel()
	l := newLab(t, sshtest.Debian13, 1, 2)
	l.addons = &addons{registry: bootstrap.RegistryOptions{Enabled: true}, router: bootstrap.RouterOptions{Enabled: true, Replicas: 2, GatewayAPI: gatewayAPI}}
	r := l.up()
	for _, key := range []graph.Key{"addon.registry", "addon.router", "registry.master-0", "registry.worker-0", "registry.worker-1"} {
		if r.events[key] != graph.Done {
			t.Errorf("%s is %v", key, r.events[key])
		}
	}
	secret := l.secret()
	name, hash, _ := strings.Cut(strings.TrimSpace(secret["htpasswd"]), ":")
	if name != secret["username"] || bcrypt.CompareHashAndPassword([]byte(hash), []byte(secret["password"])) != nil {
		t.Errorf("the password %q is not that of %q", secret["password"], secret["htpasswd"])
	}
	if _, err := tls.X509KeyPair([]byte(secret["tls.crt"]), []byte(secret["tls.key"])); err != nil {
		t.Error(err)
	}
	login := "Basic " + base64.StdEncoding.EncodeToString([]byte(secret["username"]+":"+secret["password"]))
	for _, host := range []string{"master-0", "worker-0", "worker-1"} {
		for _, at := range []string{"172.30.0.20:5000", "registry.kuryr-registry.svc:5000"} {
			file := "etc/containerd/certs.d/" + at + "/hosts.toml"
			text := l.read(host, file)
			if !strings.Contains(text, login) || !strings.Contains(text, "https://172.30.0.20:5000") {
				t.Errorf("%s of %s: %s", file, host, text)
			}
			if info, err := os.Stat(l.path(host, file)); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s of %s: %v, %v", file, host, info, err)
			}
		}
		if log, err := os.ReadFile(l.log(host)); err != nil || strings.Contains(string(log), secret["password"]) || strings.Contains(string(log), "PRIVATE KEY") {
			t.Errorf("a secret is in the log of %s: %v", host, err)
		}
	}

	// Once more nothing is written.
	before := len(l.api.Requests())
	r = l.up()
	for key, kind := range r.events {
		if kind != graph.Unchanged {
			t.Errorf("%s is %s again: %s", key, kind, r.found[key])
		}
	}
	t.Logf("a second look takes %d requests", len(l.api.Requests())-before)

	// What was changed is put right, and the password stays.
	l.api.EditApplied("/apis/apps/v1/namespaces/kuryr-registry/deployments/registry", func(o map[string]any) { o["spec"].(map[string]any)["replicas"] = 0.0 })
	l.write("worker-1", "etc/containerd/certs.d/172.30.0.20:5000/hosts.toml", "server = 'elsewhere'\n")
	r = l.up()
	if !strings.Contains(r.found["addon.registry"], "to be applied: Deployment registry") || r.events["registry.worker-1"] != graph.Done {
		t.Errorf("found %q, %v", r.found["addon.registry"], r.events["registry.worker-1"])
	}
	if l.secret()["password"] != secret["password"] {
		t.Error("the password is another one")
	}

	// A certificate that does not fit is replaced, alone.
	l.api.EditApplied(registrySecret, func(o map[string]any) {
		o["data"].(map[string]any)["tls.crt"] = base64.StdEncoding.EncodeToString([]byte("none"))
	})
	if r = l.up(); !strings.Contains(r.found["addon.registry"], "there is no certificate") || l.secret()["password"] != secret["password"] {
		t.Errorf("found %q", r.found["addon.registry"])
	}
	if _, err := tls.X509KeyPair([]byte(l.secret()["tls.crt"]), []byte(l.secret()["tls.key"])); err != nil {
		t.Error(err)
	}

	// A Gateway that leads nowhere is told of, and so are kinds that are gone.
	l.api.EditApplied("/apis/gateway.networking.k8s.io/v1/namespaces/kuryr-router/gateways/router", func(o map[string]any) {
		o["metadata"].(map[string]any)["generation"] = 2.0
	})
	if r = l.up(); !strings.Contains(r.found["addon.router"], "its gateway is not programmed") {
		t.Errorf("found %q", r.found["addon.router"])
	}
	l.api.EditApplied(gatewayDefinition, func(o map[string]any) {
		o["metadata"].(map[string]any)["annotations"].(map[string]any)["gateway.networking.k8s.io/bundle-version"] = "v1.4.0"
	})
	if r = l.up(); r.found["addon.router"] != "to be applied: definitions (1)" {
		t.Errorf("found %q", r.found["addon.router"])
	}

	// Turned off, they are removed, and stay away. Others may have objects of the kinds.
	l.addons = &addons{}
	if r = l.up(); r.events["addon.registry"] != graph.Done || r.events["addon.router"] != graph.Done {
		t.Errorf("%v", r.events)
	}
	for _, left := range l.api.Applied() {
		if !strings.HasPrefix(left, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/") {
			t.Errorf("left is %s", left)
		}
	}
	if !slices.Contains(l.api.Applied(), gatewayDefinition) {
		t.Error("the kinds went, with everybody's objects")
	}
	if r = l.up(); r.events["addon.registry"] != graph.Unchanged || r.events["addon.router"] != graph.Unchanged {
		t.Errorf("%v", r.events)
	}
}

func TestAnInsecureRegistryHasNoSecretAndIsWaitedFor(t *testing.T) {
	t.Parallel()
	l := newLab(t, sshtest.Debian13, 1, 1)
	l.addons = &addons{registry: bootstrap.RegistryOptions{Enabled: true, Insecure: true}}
	failed := false
	l.api.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		l.register()
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, "/deployments/registry") || failed || !slices.Contains(l.api.Applied(), r.URL.Path) {
			return false
		}
		failed = true // while it is waited for, the API server is away for a moment
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	l.up()
	if !failed {
		t.Error("nothing failed")
	}
	if slices.Contains(l.api.Applied(), registrySecret) {
		t.Error("there is a secret")
	}
	if text := l.read("worker-0", "etc/containerd/certs.d/172.30.0.20:5000/hosts.toml"); !strings.Contains(text, "http://172.30.0.20:5000") || strings.Contains(text, "authorization") {
		t.Error(text)
	}
}

func TestABundleWithoutTheRouterIsToldOf(t *testing.T) {
	t.Parallel()
	l := newLab(t, sshtest.Debian13, 1, 1)
	l.addons = &addons{router: bootstrap.RouterOptions{Enabled: true, Replicas: 1}}
	l.lean = true
	l.bundle = l.pack(release, "amd64")
	r := l.run(t.Context())
	if err := r.errs["addon.router"]; err == nil || !strings.Contains(err.Error(), "looking for the image of traefik: the bundle has none for Kubernetes v1.37.1; make or fetch it again") {
		t.Errorf("%v, %v", err, r.err)
	}
}

func TestAnAddonThatIsRefusedNamesTheObject(t *testing.T) {
	t.Parallel()
	l := newLab(t, sshtest.Debian13, 1, 1)
	l.addons = &addons{router: bootstrap.RouterOptions{Enabled: true, Replicas: 1}}
	l.api.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		l.register()
		if r.Method == http.MethodPatch && strings.HasSuffix(r.URL.Path, "/ingressclasses/traefik") {
			w.WriteHeader(http.StatusUnprocessableEntity)
			w.Write([]byte(`{"kind": "Status", "message": "spec.controller: Invalid value"}`))
			return true
		}
		return false
	})
	r := l.run(t.Context())
	if err := r.errs["addon.router"]; err == nil || !strings.Contains(err.Error(), "on master-0: applying IngressClass traefik: spec.controller: Invalid value") {
		t.Errorf("%v, %v", err, r.err)
	}
}

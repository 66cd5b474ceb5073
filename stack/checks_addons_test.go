package stack_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/kuryrctl/kuryrctl/internal/dnstest"
	"github.com/kuryrctl/kuryrctl/stack"
)

// ofAddons are the checks of what comes with a cluster.
var ofAddons = []string{"registry", "router"}

// addons is a healthy cluster with its registry, its router and their names.
type addons struct {
	*example
	config   stack.Config
	names    *dnstest.Server
	pods     map[string]int // that are ready, by Deployment
	registry int            // the status that it answers with
	silent   bool           // the router is
	fip      string         // the id of its floating IP
}

func newAddons(t *testing.T) *addons {
	a := &addons{example: newExample(t), config: stack.Defaults(), names: dnstest.New(t, "kuryr.internal"), pods: map[string]int{"registry": 1, "router": 1},
		registry: http.StatusUnauthorized}
	a.config.DNS.Update.Server = a.names.Address
	a.api.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		_, name, ok := strings.Cut(r.URL.Path, "/deployments/")
		if ok {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": %q}, "spec": {"replicas": 1},
				"status": {"replicas": 1, "updatedReplicas": 1, "availableReplicas": %d}}`, name, a.pods[name])
		}
		return ok
	})
	registry := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(a.registry) }))
	registry.TLS = &tls.Config{Certificates: []tls.Certificate{a.api.Issue("172.30.0.20")}}
	registry.Config.ErrorLog = log.New(io.Discard, "", 0)
	registry.StartTLS()
	router := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a.silent {
			panic(http.ErrAbortHandler)
		}
		http.NotFound(w, r)
	}))
	t.Cleanup(registry.Close)
	t.Cleanup(router.Close)
	a.lab.Lead("172.30.0.20:5000", strings.TrimPrefix(registry.URL, "https://"))
	_, port := a.balancer("kuryr-router/router/5678abcd", "172.30.0.51", "10.10.77.100")
	fip, made := a.post("network", "floatingips", "floatingip", map[string]any{"floating_network_id": a.id("networks", "public"), "port_id": port})
	a.fip = fip
	a.router, _ = made["floating_ip_address"].(string)
	a.lab.Lead(a.router+":80", strings.TrimPrefix(router.URL, "http://"))
	a.names.Add(t, "*.apps.kuryr.internal. 300 IN A "+a.router)
	return a
}

func TestFaultsOfTheRegistryAndTheRouterAreFoundAndNamed(t *testing.T) {
	t.Parallel()
	const well, bad = stack.Good, stack.Bad
	const you, ours = stack.You, stack.Kuryrctl
	for name, x := range map[string]struct {
		check   string
		verdict stack.Verdict
		whose   stack.Whose
		text    string
		plant   func(*testing.T, *addons)
	}{
		"nothing, of the registry": {"registry", well, "", "answers at https://172.30.0.20:5000", func(*testing.T, *addons) {}},
		"nothing, of the router":   {"router", well, "", "where the names below apps.kuryr.internal lead by 127.0.0.1", func(*testing.T, *addons) {}},
		"no place for names":       {"router", well, "", "no place for names is declared", func(_ *testing.T, a *addons) { a.config.DNS.Update.Server = "" }},

		"a registry without pods": {"registry", bad, ours, "0 of 1 pods are ready", func(_ *testing.T, a *addons) { a.pods["registry"] = 0 }},
		"a registry that is lost": {"registry", bad, ours, "connection refused", func(_ *testing.T, a *addons) { a.lab.Lead("172.30.0.20:5000", "127.0.0.1:1") }},
		"another registry": {"registry", bad, ours, "failed to verify certificate", func(t *testing.T, a *addons) {
			other := httptest.NewUnstartedServer(http.NotFoundHandler())
			other.Config.ErrorLog = log.New(io.Discard, "", 0)
			other.StartTLS()
			t.Cleanup(other.Close)
			a.lab.Lead("172.30.0.20:5000", strings.TrimPrefix(other.URL, "https://"))
		}},
		"a registry that is broken": {"registry", bad, ours, "answers 503 Service Unavailable", func(_ *testing.T, a *addons) { a.registry = 503 }},

		"a router without pods": {"router", bad, ours, "0 of 1 pods are ready", func(_ *testing.T, a *addons) { a.pods["router"] = 0 }},
		"a router without a floating IP": {"router", bad, ours, "no floating IP leads to its load balancer", func(t *testing.T, a *addons) {
			neutron(t, a.lab, "PUT", "floatingips/"+a.fip, map[string]any{"floatingip": map[string]any{"port_id": nil}}, nil)
		}},
		"a router that is silent": {"router", bad, ours, "EOF", func(_ *testing.T, a *addons) { a.silent = true }},
		"names that lead nowhere": {"router", bad, you, ": no such host", func(_ *testing.T, a *addons) { a.names.Drop("*.apps.kuryr.internal.") }},
		"names that lead elsewhere": {"router", bad, you, "says [192.0.2.1], and the router is at 172.24.4.", func(t *testing.T, a *addons) {
			a.names.Drop("*.apps.kuryr.internal.")
			a.names.Add(t, "*.apps.kuryr.internal. 300 IN A 192.0.2.1")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAddons(t)
			x.plant(t, a)
			f := diagnose(t, a.lab, "demo", a.config)[x.check]
			if f.Verdict != x.verdict || f.Whose != x.whose || !strings.Contains(f.Answer, x.text) || (f.Do == "") != (x.verdict == well) {
				t.Errorf("got %+v, want %s of %q with %q", f, x.verdict, x.whose, x.text)
			}
		})
	}
}

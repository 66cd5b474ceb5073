package cluster_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const definitions = `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: gateways.gateway.networking.k8s.io
  annotations: {gateway.networking.k8s.io/bundle-version: v1.6.1, gateway.networking.k8s.io/channel: standard}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: httproutes.gateway.networking.k8s.io
  annotations: {gateway.networking.k8s.io/bundle-version: v1.6.1, gateway.networking.k8s.io/channel: standard}
`

const httproutes = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/httproutes.gateway.networking.k8s.io"

const gateway = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: g}
`

func TestWhatIsDefinedIsServed(t *testing.T) {
	_, c := operator(t)
	if names, err := c.Undefined(t.Context(), []byte(definitions)); err != nil || len(names) != 2 {
		t.Errorf("in an empty cluster %v, %v", names, err)
	}
	if err := c.Apply(t.Context(), []byte(gateway)); err == nil {
		t.Error("a Gateway without its kind was taken")
	}
	if err := c.Define(t.Context(), []byte(definitions)); err != nil {
		t.Fatal(err)
	}
	if err := c.Apply(t.Context(), []byte(gateway)); err != nil {
		t.Error(err)
	}
	if names, err := c.Undefined(t.Context(), []byte(definitions)); err != nil || len(names) > 0 {
		t.Errorf("once defined %v, %v", names, err)
	}
}

func TestADefinitionOfOthersIsMadeNewerAndNeverOlder(t *testing.T) {
	server, c := operator(t)
	if err := c.Define(t.Context(), []byte(definitions)); err != nil {
		t.Fatal(err)
	}
	for name, there := range map[string]struct {
		version, channel any
		ours             bool // afterwards
	}{
		"older":                 {"v1.5.0", "standard", true},
		"older by the number":   {"v1.6.0", "standard", true},
		"much newer":            {"v1.10.0", "standard", false},
		"newer by the number":   {"v1.6.2", "standard", false},
		"of another channel":    {"v1.5.0", "experimental", false},
		"of no known version":   {"main", "standard", true},
		"that says nothing":     {nil, nil, true},
		"of the channel's past": {"v0.4.0", nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			annotations := map[string]any{}
			for key, value := range map[string]any{"bundle-version": there.version, "channel": there.channel} {
				if value != nil {
					annotations["gateway.networking.k8s.io/"+key] = value
				}
			}
			server.EditApplied(httproutes, func(o map[string]any) { o["metadata"].(map[string]any)["annotations"] = annotations })
			var want []string
			if there.ours {
				want = []string{"httproutes.gateway.networking.k8s.io"}
			}
			names, err := c.Undefined(t.Context(), []byte(definitions))
			if diff := cmp.Diff(want, names); err != nil || diff != "" {
				t.Errorf("%v\n%s", err, diff)
			}
			if err := c.Define(t.Context(), []byte(definitions)); err != nil {
				t.Fatal(err)
			}
			server.EditApplied(httproutes, func(o map[string]any) {
				is := o["metadata"].(map[string]any)["annotations"].(map[string]any)["gateway.networking.k8s.io/bundle-version"]
				if (is == "v1.6.1") != there.ours {
					t.Errorf("it is of %v", is)
				}
			})
		})
	}
}

func TestAKindThatIsNotServedIsWaitedFor(t *testing.T) {
	server, c := operator(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("long enough")
	looks := 0
	server.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || r.URL.Path != httproutes {
			return false
		}
		if looks++; looks == 1 { // whether it is there
			return false
		}
		w.Write([]byte(`{"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "status": {"conditions": [
			{"type": "Established", "status": "False", "message": "not all names are accepted"}]}}`))
		if looks == 4 {
			cancel(stop)
		}
		return true
	})
	err := c.Define(ctx, []byte(definitions))
	if !errors.Is(err, stop) || !strings.Contains(err.Error(), "httproutes.gateway.networking.k8s.io: waiting for it to be served: still not all names are accepted") {
		t.Errorf("the error is %v", err)
	}
}

func TestAGatewayThatLeadsNowhereSaysWhy(t *testing.T) {
	server, c := operator(t)
	expect := func(want string) {
		t.Helper()
		if got, err := c.Unprogrammed(t.Context(), "", "g"); err != nil || got != want {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	}
	expect("there is no gateway g")
	if err := errors.Join(c.Define(t.Context(), []byte(definitions)), c.Apply(t.Context(), []byte(gateway))); err != nil {
		t.Fatal(err)
	}
	expect("")
	condition := func(o map[string]any) map[string]any {
		return o["status"].(map[string]any)["conditions"].([]any)[0].(map[string]any)
	}
	const path = "/apis/gateway.networking.k8s.io/v1/gateways/g"
	server.EditApplied(path, func(o map[string]any) { o["metadata"].(map[string]any)["generation"] = 2.0 })
	expect("its gateway is not programmed: as clustertest does it") // yet
	server.EditApplied(path, func(o map[string]any) {
		o["metadata"].(map[string]any)["generation"] = 1.0
		condition(o)["status"], condition(o)["message"] = "False", "No Listener is valid"
	})
	expect("its gateway is not programmed: No Listener is valid")
	server.EditApplied(path, func(o map[string]any) { o["status"] = map[string]any{} })
	expect("its gateway is not programmed: nobody has looked at it")
}

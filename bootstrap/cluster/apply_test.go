package cluster_test

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kuryrctl/kuryrctl/bootstrap/cluster"
	"github.com/kuryrctl/kuryrctl/internal/clustertest"
)

const manifest = `apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: a
rules: []
---
# nothing but a comment
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: b
  namespace: kube-system
rules: []
`

// applied is server-side apply as far as one field manager notices it: what is applied is there, with what the server adds.
type applied struct {
	t       *testing.T
	mu      sync.Mutex
	objects map[string]map[string]any
	refuse  string
}

func (a *applied) serve(w http.ResponseWriter, r *http.Request) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !strings.HasPrefix(r.URL.Path, "/apis/rbac.authorization.k8s.io/v1/") {
		return false
	}
	w.Header().Set("Content-Type", "application/json")
	reply := func(status int, v any) {
		w.WriteHeader(status)
		if err := json.NewEncoder(w).Encode(v); err != nil {
			a.t.Error(err)
		}
	}
	switch {
	case r.Method == http.MethodGet && a.objects[r.URL.Path] == nil:
		reply(404, map[string]any{"kind": "Status", "message": "not found"})
	case r.Method == http.MethodGet:
		reply(200, a.objects[r.URL.Path])
	case a.refuse != "":
		reply(422, map[string]any{"kind": "Status", "message": a.refuse})
	case r.Method == http.MethodPatch && r.Header.Get("Content-Type") == "application/apply-patch+yaml" && r.URL.Query().Get("fieldManager") == "kuryrctl":
		text, err := io.ReadAll(r.Body)
		var o map[string]any
		if err == nil {
			err = json.Unmarshal(text, &o)
		}
		if err != nil {
			a.t.Error(err)
		}
		meta := o["metadata"].(map[string]any)
		meta["uid"], meta["resourceVersion"] = "u", "1"
		if old := a.objects[r.URL.Path]; old != nil {
			for k, v := range old { // fields of others stay
				if _, ours := o[k]; !ours {
					o[k] = v
				}
			}
		}
		if r.URL.Query().Get("dryRun") == "" {
			a.objects[r.URL.Path] = o
		}
		reply(200, o)
	default:
		a.t.Errorf("%s %s", r.Method, r.URL)
		reply(400, map[string]any{})
	}
	return true
}

func TestApplyMakesWhatDiffersNames(t *testing.T) {
	server := clustertest.New(t)
	api := &applied{t: t, objects: map[string]map[string]any{}}
	server.Intercept(api.serve)
	c, err := cluster.New(server.Kubeconfig(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	expect := func(want ...string) {
		t.Helper()
		got, err := c.Differs(t.Context(), []byte(manifest))
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%v\n%s", err, diff)
		}
	}
	expect("ClusterRole a", "Role b")
	if len(api.objects) != 0 {
		t.Errorf("a look made %v", api.objects)
	}
	if err := c.Apply(t.Context(), []byte(manifest)); err != nil {
		t.Fatal(err)
	}
	expect()
	paths := slices.Sorted(maps.Keys(api.objects))
	if diff := cmp.Diff([]string{"/apis/rbac.authorization.k8s.io/v1/clusterroles/a", "/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system/roles/b"}, paths); diff != "" {
		t.Error(diff)
	}
	api.objects[paths[0]]["others"] = "stay"
	expect()
	api.objects[paths[0]]["rules"] = []any{map[string]any{"verbs": []any{"*"}}}
	expect("ClusterRole a")
	if err := c.Apply(t.Context(), []byte(manifest)); err != nil || api.objects[paths[0]]["others"] != "stay" {
		t.Errorf("%v, %v", err, api.objects[paths[0]])
	}
	expect()

	api.refuse = "metadata.name: Invalid value"
	if err := c.Apply(t.Context(), []byte(manifest)); err == nil || !strings.Contains(err.Error(), "applying ClusterRole a: metadata.name: Invalid value") {
		t.Errorf("a refused object: %v", err)
	}
	if err := c.Apply(t.Context(), []byte("apiVersion: v1\nkind: Pod\nmetadata: {name: x}\n")); err == nil || !strings.Contains(err.Error(), "applying Pod x: not a kind") {
		t.Errorf("a kind that is not ours to apply: %v", err)
	}
}

func operator(t *testing.T) (*clustertest.Server, *cluster.Cluster) {
	t.Helper()
	server := clustertest.New(t)
	c, err := cluster.New(server.Kubeconfig(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return server, c
}

func TestADeploymentIsFinishedWhenAllOfItsPodsAreOfItsLastState(t *testing.T) {
	server, c := operator(t)
	for name, d := range map[string]struct{ status, want string }{
		"none yet":         {`{}`, "0 of 2 pods are ready"},
		"one of two":       {`{"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 1}`, "1 of 2 pods are ready"},
		"not looked at":    {`{"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}`, "2 of 2 pods are ready"},
		"the old are left": {`{"observedGeneration": 2, "replicas": 3, "updatedReplicas": 2, "availableReplicas": 2}`, "2 of 2 pods are ready"},
		"refused": {`{"observedGeneration": 2, "conditions": [{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}]}`,
			"0 of 2 pods are ready: exceeded quota"},
		"all": {`{"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}`, ""},
	} {
		server.Intercept(func(w http.ResponseWriter, _ *http.Request) bool {
			io.WriteString(w, `{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"generation": 2}, "spec": {"replicas": 2}, "status": `+d.status+`}`)
			return true
		})
		if lacks, err := c.Unfinished(t.Context(), "n", "d"); err != nil || lacks != d.want {
			t.Errorf("%s: %q, %v; want %q", name, lacks, err, d.want)
		}
	}
}

package clustertest

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// appliedKinds are those of which a single object is answered for when it was applied, or never was.
var appliedKinds = regexp.MustCompile(`/(namespaces|configmaps|serviceaccounts|secrets|services|deployments|clusterroles|clusterrolebindings|ingressclasses|customresourcedefinitions|gatewayclasses|gateways)/[^/]+$`)

// Applied lists the paths of what was made by server-side apply, such as "/api/v1/namespaces/a", sorted.
func (s *Server) Applied() (all []string) {
	s.locked(func() { all = slices.Sorted(maps.Keys(s.applied)) })
	return all
}

// EditApplied changes an applied object behind the clients' backs; f gets it and changes it.
func (s *Server) EditApplied(path string, f func(o map[string]any)) {
	s.t.Helper()
	s.locked(func() {
		o, ok := s.applied[path]
		if !ok {
			s.t.Errorf("clustertest: %s was not applied", path)
			return
		}
		f(o)
	})
}

// serveApplied is server-side apply as far as one field manager notices: what is applied is there, with what is there of others. Pods of a
// Deployment are ready, a Service of type LoadBalancer has an address, and a Gateway is programmed, at once. What is defined is served when
// somebody has looked at the definition since. A namespace takes what is in it along.
func (s *Server) serveApplied(w http.ResponseWriter, r *http.Request) bool {
	apply := r.Method == http.MethodPatch && r.Header.Get("Content-Type") == "application/apply-patch+yaml"
	path := r.URL.Path
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.announce()
	old, there := s.applied[path]
	switch {
	case apply:
		if r.URL.Query().Get("fieldManager") == "" {
			s.t.Errorf("clustertest: %s %s has no field manager", r.Method, r.URL)
		}
		text, err := io.ReadAll(r.Body)
		var o map[string]any
		if err == nil {
			err = json.Unmarshal(text, &o)
		}
		if err != nil {
			s.t.Errorf("clustertest: %s: %v", path, err)
			return false
		}
		if namespace, _ := meta(o)["namespace"].(string); namespace != "" && s.applied["/api/v1/namespaces/"+namespace] == nil {
			refuse(w, notFound("namespaces", namespace))
			return true
		}
		if !s.served(path) {
			refuse(w, notFound("objects", path))
			return true
		}
		s.settle(o, old)
		if r.URL.Query().Get("dryRun") == "" {
			s.applied[path] = o
		}
		reply(w, 200, o)
	case !there && (r.Method != http.MethodGet || !appliedKinds.MatchString(path) || s.secretAt(path) || s.shelf[below(path)] != nil):
		return false
	case !there:
		refuse(w, notFound("objects", path))
	case r.Method == http.MethodGet:
		reply(w, 200, old)
		if old["kind"] == "CustomResourceDefinition" {
			old["status"] = condition("Established", "True", nil)
		}
	case r.Method == http.MethodDelete:
		maps.DeleteFunc(s.applied, func(p string, _ map[string]any) bool {
			return p == path || strings.HasPrefix(path, "/api/v1/namespaces/") && strings.Contains(p, strings.TrimPrefix(path, "/api/v1")+"/")
		})
		reply(w, 200, metav1.Status{TypeMeta: kind("v1", "Status"), Status: metav1.StatusSuccess})
	default:
		return false
	}
	return true
}

// secretAt reports whether there is a secret that was not applied at a path.
func (s *Server) secretAt(path string) bool {
	return slices.ContainsFunc(s.secrets, func(o corev1.Secret) bool {
		return strings.HasSuffix(path, "/namespaces/"+o.Namespace+"/secrets/"+o.Name)
	})
}

// settle makes of what is applied what a cluster makes of it, over what was there.
func (s *Server) settle(o, old map[string]any) {
	generation := 1.0
	if old != nil {
		generation, _ = meta(old)["generation"].(float64)
		for k, v := range old {
			if _, ours := o[k]; !ours {
				o[k] = v
			}
		}
		if !reflect.DeepEqual(o["spec"], old["spec"]) {
			generation++
		}
	}
	meta(o)["generation"] = generation
	spec, _ := o["spec"].(map[string]any)
	switch {
	case o["kind"] == "Deployment":
		n := spec["replicas"]
		o["status"] = map[string]any{"observedGeneration": generation, "replicas": n, "updatedReplicas": n, "availableReplicas": n}
	case o["kind"] == "Service" && spec["type"] == "LoadBalancer":
		o["status"] = map[string]any{"loadBalancer": map[string]any{"ingress": []any{map[string]any{"ip": "172.24.4.99"}}}}
	case o["kind"] == "Gateway":
		o["status"] = condition("Programmed", "True", generation)
	case o["kind"] == "CustomResourceDefinition" && old == nil:
		o["status"] = condition("Established", "False", nil)
	}
}

// condition is a status with one.
func condition(name, status string, generation any) map[string]any {
	return map[string]any{"conditions": []any{map[string]any{"type": name, "status": status, "message": "as clustertest does it", "observedGeneration": generation}}}
}

// served reports whether the kind of an object at a path is known: those of the Gateway API have to be defined.
func (s *Server) served(path string) bool {
	const group = "gateway.networking.k8s.io"
	if !strings.HasPrefix(path, "/apis/"+group+"/") {
		return true
	}
	parts := strings.Split(path, "/")
	definition := s.applied["/apis/apiextensions.k8s.io/v1/customresourcedefinitions/"+parts[len(parts)-2]+"."+group]
	return definition != nil && reflect.DeepEqual(definition["status"], condition("Established", "True", nil))
}

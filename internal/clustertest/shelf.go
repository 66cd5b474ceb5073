package clustertest

import (
	"crypto/rand"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// kept are the collections of kinds that this package knows nothing about, by path, with the kind of their objects and whether these have a
// status apart. Objects of theirs are on the server's shelf, by path below /apis/ (for the core group below /api/), without /status, and it
// does with them what every API server does: uids, resource versions and conflicts, the status apart from the rest, merge patches.
var kept = map[string]struct {
	kind   string
	status bool
}{
	"kuryr.openstack.org/v1alpha1/subportpools": {"SubportPool", true},
	"coordination.k8s.io/v1/leases":             {"Lease", false},
	"events.k8s.io/v1/events":                   {"Event", false},
	"discovery.k8s.io/v1/endpointslices":        {"EndpointSlice", false},
	"v1/services":                               {"Service", true},
}

// below cuts off what says where the API's groups begin.
func below(path string) string {
	return strings.TrimPrefix(strings.TrimPrefix(path, "/apis/"), "/api/")
}

// root is what [below] has cut off: the core group alone is called by nothing but its version.
func root(path string) string {
	if strings.HasPrefix(path, "v1/") {
		return "/api/"
	}
	return "/apis/"
}

// place splits a path into the collection it is in, its namespace, and what follows: "", a name, or a name and "status".
func place(path string) (collection, namespace, rest string, ok bool) {
	parts := strings.Split(below(path), "/")
	group := 2
	if strings.HasPrefix(path, "/api/") {
		group = 1
	}
	if len(parts) > group+2 && parts[group] == "namespaces" {
		namespace = parts[group+1]
		parts = append(parts[:group:group], parts[group+2:]...)
	}
	if len(parts) > group {
		collection, rest = strings.Join(parts[:group+1], "/"), strings.Join(parts[group+1:], "/")
	}
	_, ok = kept[collection]
	return collection, namespace, rest, ok
}

// Object returns what is at a path below /apis/, such as "kuryr.openstack.org/v1alpha1/subportpools/worker-0", into a pointer.
func (s *Server) Object(path string, into any) (ok bool) {
	s.reading(func() {
		var o map[string]any
		if o, ok = s.shelf[path]; ok {
			s.recode(o, into)
		}
	})
	return ok
}

// Edit changes what is at a path below /apis/ behind the clients' backs, as another client would: f gets it and changes it.
func (s *Server) Edit(path string, f func(o map[string]any)) {
	s.t.Helper()
	s.locked(func() {
		o, ok := s.shelf[path]
		if !ok {
			s.t.Errorf("clustertest: there is no %s", path)
			return
		}
		f(o)
		s.keptHappens("MODIFIED", path, o)
	})
}

// Remove makes what is at a path below /apis/ be gone.
func (s *Server) Remove(path string) {
	s.locked(func() {
		if o, ok := s.shelf[path]; ok {
			delete(s.shelf, path)
			s.keptHappens("DELETED", path, o)
		}
	})
}

// Put makes what is at a path below /apis/ be as given, as its owner does: the uid of what was there, and a status where none is given, stay.
func (s *Server) Put(path string, object any) {
	s.t.Helper()
	s.locked(func() {
		var o map[string]any
		s.recode(object, &o)
		what := "ADDED"
		if meta(o)["creationTimestamp"] = metav1.Now(); meta(o)["uid"] == nil {
			meta(o)["uid"] = rand.Text()
		}
		if old, ok := s.shelf[path]; ok {
			what = "MODIFIED"
			meta(o)["uid"], meta(o)["creationTimestamp"] = meta(old)["uid"], meta(old)["creationTimestamp"]
			if _, given := o["status"]; !given && old["status"] != nil {
				o["status"] = old["status"]
			}
		}
		s.shelf[path] = o
		s.keptHappens(what, path, o)
	})
}

// Paths lists what is kept below /apis/, sorted.
func (s *Server) Paths() (all []string) {
	s.reading(func() { all = slices.Sorted(maps.Keys(s.shelf)) })
	return all
}

// keptHappens gives an object of the shelf its new version, and writes that down.
func (s *Server) keptHappens(what, path string, o map[string]any) {
	meta(o)["resourceVersion"] = s.upcoming()
	collection, _, name, _ := place(root(path) + path)
	s.happen(root(path)+collection, path, what, o, map[string]string{"metadata.name": name})
}

// serveKept answers for the collections of kept kinds.
func (s *Server) serveKept(w http.ResponseWriter, r *http.Request) {
	collection, namespace, rest, ok := place(r.URL.Path)
	if !ok {
		s.unknown(w, r)
		return
	}
	name, sub, _ := strings.Cut(rest, "/")
	path := strings.TrimSuffix(below(r.URL.Path), "/status")
	resource := collection[strings.LastIndex(collection, "/")+1:]
	old, found := s.shelf[path]
	if name != "" && !found {
		refuse(w, notFound(resource, name))
		return
	}
	status := sub == "status" && kept[collection].status
	if sub != "" && !status {
		s.unknown(w, r)
		return
	}
	switch {
	case r.Method == http.MethodPost && name == "":
		s.create(w, r, path, kept[collection].status)
	case r.Method == http.MethodGet && name == "":
		items := []any{}
		matches := s.selector(r)
		for _, path := range slices.Sorted(maps.Keys(s.shelf)) {
			c, in, name, _ := place(root(path) + path)
			if c == collection && (namespace == "" || namespace == in) && matches(map[string]string{"metadata.name": name}) {
				items = append(items, s.shelf[path])
			}
		}
		reply(w, 200, map[string]any{"apiVersion": collection[:strings.LastIndex(collection, "/")], "kind": kept[collection].kind + "List",
			"metadata": map[string]any{"resourceVersion": s.latest()}, "items": items})
	case r.Method == http.MethodGet && sub == "":
		reply(w, 200, old)
	case r.Method == http.MethodDelete && sub == "":
		delete(s.shelf, path)
		s.keptHappens("DELETED", path, old)
		reply(w, 200, metav1.Status{TypeMeta: kind("v1", "Status"), Status: metav1.StatusSuccess})
	case r.Method == http.MethodPut:
		var o map[string]any
		if !s.read(w, r, &o) {
			return
		}
		if v, _ := meta(o)["resourceVersion"].(string); v != "" && v != meta(old)["resourceVersion"] {
			refuse(w, metav1.Status{Code: 409, Reason: metav1.StatusReasonConflict,
				Message: fmt.Sprintf("Operation cannot be fulfilled on %s %q: the object has been modified; please apply your changes to the latest version and try again", resource, name)})
			return
		}
		s.replace(path, old, o, status, kept[collection].status)
		reply(w, 200, s.shelf[path])
	case r.Method == http.MethodPatch && r.Header.Get("Content-Type") == string(types.MergePatchType):
		var patch map[string]any
		if !s.read(w, r, &patch) {
			return
		}
		var o map[string]any
		s.recode(old, &o)
		merge(o, patch)
		s.replace(path, old, o, status, kept[collection].status)
		reply(w, 200, s.shelf[path])
	default:
		s.unknown(w, r)
	}
}

func (s *Server) create(w http.ResponseWriter, r *http.Request, path string, status bool) {
	var o map[string]any
	if !s.read(w, r, &o) {
		return
	}
	if _, in, _, _ := place(r.URL.Path); s.spaces[in].Status.Phase == corev1.NamespaceTerminating {
		refuse(w, metav1.Status{Code: 403, Reason: metav1.StatusReasonForbidden,
			Message: fmt.Sprintf("%s is forbidden: unable to create new content in namespace %s because it is being terminated", path, in),
			Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause, Message: "namespace " + in + " is being terminated", Field: "metadata.namespace"}}}})
		return
	}
	m := meta(o)
	name, _ := m["name"].(string)
	if prefix, _ := m["generateName"].(string); name == "" && prefix != "" {
		name = prefix + s.latest()
		m["name"] = name
	}
	path += "/" + name
	if _, there := s.shelf[path]; there || name == "" {
		refuse(w, metav1.Status{Code: 409, Reason: metav1.StatusReasonAlreadyExists, Message: fmt.Sprintf("%q already exists", name)})
		return
	}
	if status {
		delete(o, "status")
	}
	m["uid"], m["creationTimestamp"], m["generation"] = "uid-"+s.latest(), metav1.Now(), 1
	s.shelf[path] = o
	s.keptHappens("ADDED", path, o)
	reply(w, 201, o)
}

// replace takes from o what the path may change, the status or all but the status.
func (s *Server) replace(path string, old, o map[string]any, status, apart bool) {
	switch {
	case status:
		changed := maps.Clone(old)
		changed["metadata"] = maps.Clone(meta(old))
		changed["status"] = o["status"]
		o = changed
	case apart:
		if delete(o, "status"); old["status"] != nil {
			o["status"] = old["status"]
		}
	}
	for _, key := range []string{"uid", "creationTimestamp"} {
		meta(o)[key] = meta(old)[key]
	}
	s.shelf[path] = o
	s.keptHappens("MODIFIED", path, o)
}

// merge is RFC 7396.
func merge(into, patch map[string]any) {
	for k, v := range patch {
		inner, ok := v.(map[string]any)
		switch {
		case v == nil:
			delete(into, k)
		case ok:
			below, was := into[k].(map[string]any)
			if !was {
				below = map[string]any{}
			}
			merge(below, inner)
			into[k] = below
		default:
			into[k] = v
		}
	}
}

func meta(o map[string]any) map[string]any {
	m, ok := o["metadata"].(map[string]any)
	if !ok {
		m = map[string]any{}
		o["metadata"] = m
	}
	return m
}

package clustertest

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// shelf keeps objects of kinds that this package knows nothing about, by path, with what every API server does for them: uids, resource
// versions and conflicts, the status apart from the rest, merge patches.
type shelf struct {
	objects map[string]map[string]any // by path below /apis/ (for the core group below /api/), without /status
	changed chan struct{}             // closed at the next request or change
}

// history is what has happened to everything that can be watched: event N made resource version N+1.
type history struct {
	events  []event
	expired int           // watches from versions up to this one are refused
	closing chan struct{} // closed when all watches end
}

// event is one change. Its object is what a watch shows; fields are what selectors may ask for.
type event struct {
	collection string // as in the URL: /api/v1/nodes
	key, kind  string
	object     json.RawMessage
	fields     map[string]string
}

// happen writes down a change of o, which must carry its version already (see upcoming). It is called with the lock held.
func (s *Server) happen(collection, key, kind string, o any, fields map[string]string) {
	data, err := json.Marshal(o)
	if err != nil {
		s.t.Errorf("clustertest: %v", err)
	}
	s.history.events = append(s.history.events, event{collection, key, kind, data, fields})
}

// upcoming is the resource version of what happens next.
func (s *Server) upcoming() string { return strconv.Itoa(len(s.history.events) + 1) }

// latest is the resource version of all there is.
func (s *Server) latest() string { return strconv.Itoa(len(s.history.events)) }

func (s *Server) nodeHappens(kind string, n *corev1.Node) {
	n.ResourceVersion = s.upcoming()
	shown := *n
	shown.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}
	s.happen("/api/v1/nodes", n.Name, kind, shown, map[string]string{"metadata.name": n.Name})
}

func (s *Server) podHappens(kind string, p *corev1.Pod) {
	p.ResourceVersion = s.upcoming()
	shown := *p
	shown.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
	s.happen("/api/v1/pods", p.Namespace+"/"+p.Name, kind, shown,
		map[string]string{"metadata.name": p.Name, "spec.nodeName": p.Spec.NodeName, "status.phase": string(p.Status.Phase)})
}

// keptHappens gives an object of the shelf its new version, and writes that down.
func (s *Server) keptHappens(kind, path string, o map[string]any) {
	meta(o)["resourceVersion"] = s.upcoming()
	collection, _, name, _ := place(root(path) + path)
	s.happen(root(path)+collection, path, kind, o, map[string]string{"metadata.name": name})
}

// EndWatches closes all watches, as a server that restarts does; when history is lost, a watch from before answers 410 Gone.
func (s *Server) EndWatches(lost bool) {
	s.locked(func() {
		if lost {
			s.history.expired = len(s.history.events)
			s.history.events = append(s.history.events, event{}) // the version moves on, so that a list is newer than what was lost
		}
		close(s.history.closing)
		s.history.closing = make(chan struct{})
	})
}

// kept are the collections of a shelf, by path, with the kind of their objects and whether these have a status apart.
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

// Object returns what is at a path below /apis/, such as "kuryr.openstack.org/v1alpha1/subportpools/worker-0", into a pointer.
func (s *Server) Object(path string, into any) (ok bool) {
	s.reading(func() {
		var o map[string]any
		if o, ok = s.shelf.objects[path]; ok {
			s.recode(o, into)
		}
	})
	return ok
}

// Edit changes what is at a path below /apis/ behind the clients' backs, as another client would: f gets it and changes it.
func (s *Server) Edit(path string, f func(o map[string]any)) {
	s.t.Helper()
	s.locked(func() {
		o, ok := s.shelf.objects[path]
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
		if o, ok := s.shelf.objects[path]; ok {
			delete(s.shelf.objects, path)
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
		if old, ok := s.shelf.objects[path]; ok {
			what = "MODIFIED"
			meta(o)["uid"], meta(o)["creationTimestamp"] = meta(old)["uid"], meta(old)["creationTimestamp"]
			if _, given := o["status"]; !given && old["status"] != nil {
				o["status"] = old["status"]
			}
		}
		s.shelf.objects[path] = o
		s.keptHappens(what, path, o)
	})
}

// Paths lists what is kept below /apis/, sorted.
func (s *Server) Paths() (all []string) {
	s.reading(func() { all = slices.Sorted(maps.Keys(s.shelf.objects)) })
	return all
}

// RemoveNode makes a node be gone.
func (s *Server) RemoveNode(name string) {
	s.locked(func() {
		if i := s.nodeAt(name); i >= 0 {
			s.nodeHappens("DELETED", &s.nodes[i])
			s.nodes = slices.Delete(s.nodes, i, i+1)
		}
	})
}

// Pod returns a pod as it is.
func (s *Server) Pod(namespace, name string) (p corev1.Pod, ok bool) {
	s.reading(func() {
		if i := s.podAt(namespace, name); i >= 0 {
			p, ok = *s.pods[i].DeepCopy(), true
		}
	})
	return p, ok
}

// Changed returns a channel that is closed when the next request was answered, or something was changed past the API.
func (s *Server) Changed() (c <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.next()
}

func (s *Server) next() chan struct{} {
	if s.shelf.changed == nil {
		s.shelf.changed = make(chan struct{})
	}
	return s.shelf.changed
}

// announce wakes who watches; it is called with the lock held, after whatever may have changed something.
func (s *Server) announce() {
	if s.shelf.changed != nil {
		close(s.shelf.changed)
		s.shelf.changed = nil
	}
}

func (s *Server) podAt(namespace, name string) int {
	return slices.IndexFunc(s.pods, func(p corev1.Pod) bool { return p.Namespace == namespace && p.Name == name })
}

func (s *Server) recode(from, into any) {
	data, err := json.Marshal(from)
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		s.t.Errorf("clustertest: %v", err)
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

// serveKept answers for the collections of the shelf.
func (s *Server) serveKept(w http.ResponseWriter, r *http.Request) {
	collection, namespace, rest, ok := place(r.URL.Path)
	if !ok {
		s.unknown(w, r)
		return
	}
	name, sub, _ := strings.Cut(rest, "/")
	path := strings.TrimSuffix(below(r.URL.Path), "/status")
	resource := collection[strings.LastIndex(collection, "/")+1:]
	old, found := s.shelf.objects[path]
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
		for _, path := range slices.Sorted(maps.Keys(s.shelf.objects)) {
			c, in, name, _ := place(root(path) + path)
			if c == collection && (namespace == "" || namespace == in) && matches(map[string]string{"metadata.name": name}) {
				items = append(items, s.shelf.objects[path])
			}
		}
		reply(w, 200, map[string]any{"apiVersion": collection[:strings.LastIndex(collection, "/")], "kind": kept[collection].kind + "List",
			"metadata": map[string]any{"resourceVersion": s.latest()}, "items": items})
	case r.Method == http.MethodGet && sub == "":
		reply(w, 200, old)
	case r.Method == http.MethodDelete && sub == "":
		delete(s.shelf.objects, path)
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
		reply(w, 200, s.shelf.objects[path])
	case r.Method == http.MethodPatch && r.Header.Get("Content-Type") == string(types.MergePatchType):
		var patch map[string]any
		if !s.read(w, r, &patch) {
			return
		}
		var o map[string]any
		s.recode(old, &o)
		merge(o, patch)
		s.replace(path, old, o, status, kept[collection].status)
		reply(w, 200, s.shelf.objects[path])
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
	if _, there := s.shelf.objects[path]; there || name == "" {
		refuse(w, metav1.Status{Code: 409, Reason: metav1.StatusReasonAlreadyExists, Message: fmt.Sprintf("%q already exists", name)})
		return
	}
	if status {
		delete(o, "status")
	}
	m["uid"], m["creationTimestamp"], m["generation"] = "uid-"+s.latest(), metav1.Now(), 1
	s.shelf.objects[path] = o
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
	s.shelf.objects[path] = o
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

// patchPod merges into a pod's metadata.
func (s *Server) patchPod(w http.ResponseWriter, r *http.Request, namespace, name string) {
	i := s.podAt(namespace, name)
	if i < 0 {
		refuse(w, notFound("pods", name))
		return
	}
	var patch, o map[string]any
	if !s.read(w, r, &patch) {
		return
	}
	s.recode(s.pods[i], &o)
	merge(o, patch)
	var p corev1.Pod
	s.recode(o, &p)
	s.podHappens("MODIFIED", &p)
	s.pods[i] = p
	p.TypeMeta = kind("v1", "Pod")
	reply(w, 200, p)
}

// selector tells by its fields whether r asks for an object.
func (s *Server) selector(r *http.Request) func(map[string]string) bool {
	fields := strings.Split(r.URL.Query().Get("fieldSelector"), ",")
	return func(values map[string]string) bool {
		for _, f := range fields {
			key, want, unlike := strings.Cut(f, "!=")
			if !unlike {
				key, want, _ = strings.Cut(f, "=")
			}
			value, ok := values[key]
			if f != "" && !ok {
				s.t.Errorf("clustertest: %s: unknown field selector %s", r.URL.Path, f)
			}
			if f != "" && (value == want) == unlike {
				return false
			}
		}
		return true
	}
}

// core are the collections of the core group that can be watched, with the kinds in them.
var core = map[string]string{"/api/v1/nodes": "Node", "/api/v1/pods": "Pod", "/api/v1/namespaces": "Namespace"}

// watches tells whether r is a watch of what can be watched.
func watches(r *http.Request) bool {
	if r.Method != http.MethodGet || r.URL.Query().Get("watch") != "true" && r.URL.Query().Get("watch") != "1" {
		return false
	}
	_, _, rest, ok := place(r.URL.Path)
	return core[r.URL.Path] != "" || ok && rest == ""
}

// serveWatch streams what happens after a version, or, where the client asks for it, what there is, a bookmark, and then that. What
// comes to match the selector is ADDED to this watch, and what ceases to is DELETED from it.
func (s *Server) serveWatch(w http.ResponseWriter, r *http.Request) {
	from := -1
	if v := r.URL.Query().Get("resourceVersion"); r.URL.Query().Get("sendInitialEvents") != "true" {
		var err error
		if from, err = strconv.Atoi(v); err != nil {
			s.t.Errorf("clustertest: a watch of %s from version %q", r.URL.Path, v)
			from = 0
		}
	}
	w.Header().Set("Content-Type", "application/json")
	send := func(kind string, object any) {
		_ = json.NewEncoder(w).Encode(map[string]any{"type": kind, "object": object}) // a client that is gone is seen below
	}
	matches := s.selector(r)
	shown := map[string]json.RawMessage{} // what the client knows
	take := func(events []event, tell bool) {
		for _, e := range events {
			if e.collection != r.URL.Path {
				continue
			}
			_, known := shown[e.key]
			kind := e.kind
			switch is := kind != "DELETED" && matches(e.fields); {
			case !known && !is:
				continue
			case !known:
				kind = "ADDED"
			case is:
				kind = "MODIFIED"
			default:
				kind = "DELETED"
			}
			if shown[e.key] = e.object; kind == "DELETED" {
				delete(shown, e.key)
			}
			if tell {
				send(kind, e.object)
			}
		}
	}
	s.mu.Lock()
	closing, begun, expired := s.history.closing, len(s.history.events), s.history.expired
	events := s.history.events
	s.mu.Unlock()
	switch {
	case from < 0:
		take(events, false)
		for _, key := range slices.Sorted(maps.Keys(shown)) {
			send("ADDED", shown[key])
		}
		send("BOOKMARK", json.RawMessage(bookmark(r, begun)))
		from = begun
	case from <= expired && expired > 0: // a server says so in the stream
		send("ERROR", metav1.Status{TypeMeta: kind("v1", "Status"), Status: metav1.StatusFailure, Code: 410, Reason: metav1.StatusReasonExpired,
			Message: "too old resource version"})
		return
	default:
		take(events[:min(from, begun)], false)
	}
	for {
		s.mu.Lock()
		events, next := s.history.events, s.next()
		s.mu.Unlock()
		take(events[from:], true)
		from = len(events)
		w.(http.Flusher).Flush()
		select {
		case <-next:
		case <-closing:
			return
		case <-r.Context().Done():
			return
		}
	}
}

// bookmark ends what was there when the watch began. Its kind is that of what is watched, or the client cannot read it.
func bookmark(r *http.Request, version int) string {
	group, kind := "v1", core[r.URL.Path]
	if collection, _, _, ok := place(r.URL.Path); ok {
		group, kind = collection[:strings.LastIndex(collection, "/")], kept[collection].kind
	}
	return fmt.Sprintf(`{"apiVersion":%q,"kind":%q,"metadata":{"resourceVersion":"%d","annotations":{"k8s.io/initial-events-end":"true"}}}`, group, kind, max(version, 1))
}

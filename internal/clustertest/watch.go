package clustertest

import (
	"bytes"
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
	revision int
	objects  map[string]map[string]any // by path below /apis/, without /status
	changed  chan struct{}             // closed at the next request or change
}

// kept are the collections of a shelf, by path, with whether they have a status of its own.
var kept = map[string]bool{
	"kuryr.openstack.org/v1alpha1/subportpools": true,
	"coordination.k8s.io/v1/leases":             false,
	"events.k8s.io/v1/events":                   false,
}

// Object returns what is at a path below /apis/, such as "kuryr.openstack.org/v1alpha1/subportpools/worker-0", into a pointer.
func (s *Server) Object(path string, into any) (ok bool) {
	s.locked(func() {
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
		s.stamp(o)
	})
}

// Remove makes what is at a path below /apis/ be gone.
func (s *Server) Remove(path string) {
	s.locked(func() {
		delete(s.shelf.objects, path)
		s.shelf.revision++
	})
}

// Paths lists what is kept below /apis/, sorted.
func (s *Server) Paths() (all []string) {
	s.locked(func() { all = slices.Sorted(maps.Keys(s.shelf.objects)) })
	return all
}

// RemoveNode makes a node be gone.
func (s *Server) RemoveNode(name string) {
	s.locked(func() { s.nodes = slices.DeleteFunc(s.nodes, func(n corev1.Node) bool { return n.Name == name }) })
}

// Pod returns a pod as it is.
func (s *Server) Pod(namespace, name string) (p corev1.Pod, ok bool) {
	s.locked(func() {
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

// stamp gives an object that changed a new version.
func (s *Server) stamp(o map[string]any) {
	s.shelf.revision++
	meta(o)["resourceVersion"] = strconv.Itoa(s.shelf.revision)
}

func meta(o map[string]any) map[string]any {
	m, ok := o["metadata"].(map[string]any)
	if !ok {
		m = map[string]any{}
		o["metadata"] = m
	}
	return m
}

// place splits a path into the collection it is in, and what follows: "", a name, or a name and "status".
func place(path string) (collection, rest string, ok bool) {
	parts := strings.Split(strings.TrimPrefix(path, "/apis/"), "/")
	if len(parts) > 4 && parts[2] == "namespaces" {
		collection = strings.Join(append(slices.Clone(parts[:2]), parts[4]), "/")
		rest = strings.Join(parts[5:], "/")
	} else if len(parts) > 2 {
		collection, rest = strings.Join(parts[:3], "/"), strings.Join(parts[3:], "/")
	}
	_, ok = kept[collection]
	return collection, rest, ok
}

// serveKept answers for the collections of the shelf.
func (s *Server) serveKept(w http.ResponseWriter, r *http.Request) {
	collection, rest, ok := place(r.URL.Path)
	if !ok {
		s.unknown(w, r)
		return
	}
	name, sub, _ := strings.Cut(rest, "/")
	path := strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/apis/"), "/status")
	resource := collection[strings.LastIndex(collection, "/")+1:]
	old, found := s.shelf.objects[path]
	if name != "" && !found {
		refuse(w, notFound(resource, name))
		return
	}
	status := sub == "status" && kept[collection]
	if sub != "" && !status {
		s.unknown(w, r)
		return
	}
	switch {
	case r.Method == http.MethodPost && name == "":
		s.create(w, r, path, kept[collection])
	case r.Method == http.MethodGet && name == "":
		list := map[string]any{"apiVersion": collection[:strings.LastIndex(collection, "/")], "kind": "List", "metadata": map[string]any{"resourceVersion": strconv.Itoa(s.shelf.revision)}}
		items := []any{}
		for _, o := range s.sight(r) {
			items = append(items, json.RawMessage(o))
		}
		list["items"] = items
		reply(w, 200, list)
	case r.Method == http.MethodGet && sub == "":
		reply(w, 200, old)
	case r.Method == http.MethodDelete && sub == "":
		delete(s.shelf.objects, path)
		s.shelf.revision++
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
		s.replace(path, old, o, status, kept[collection])
		reply(w, 200, s.shelf.objects[path])
	case r.Method == http.MethodPatch && r.Header.Get("Content-Type") == string(types.MergePatchType):
		var patch map[string]any
		if !s.read(w, r, &patch) {
			return
		}
		var o map[string]any
		s.recode(old, &o)
		merge(o, patch)
		s.replace(path, old, o, status, kept[collection])
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
	m := meta(o)
	name, _ := m["name"].(string)
	if prefix, _ := m["generateName"].(string); name == "" && prefix != "" {
		name = fmt.Sprintf("%s%d", prefix, s.shelf.revision)
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
	m["uid"], m["creationTimestamp"], m["generation"] = fmt.Sprintf("uid-%d", s.shelf.revision), metav1.Now(), 1
	s.stamp(o)
	s.shelf.objects[path] = o
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
	s.stamp(o)
	s.shelf.objects[path] = o
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
	s.pods[i] = p
	p.TypeMeta = kind("v1", "Pod")
	reply(w, 200, p)
}

// sight is what a list or watch shows now, by key. It is called with the lock held.
func (s *Server) sight(r *http.Request) map[string][]byte {
	seen := map[string][]byte{}
	show := func(key string, o any) {
		data, err := json.Marshal(o)
		if err != nil {
			s.t.Errorf("clustertest: %v", err)
		}
		seen[key] = data
	}
	fields := strings.Split(r.URL.Query().Get("fieldSelector"), ",")
	selected := func(values map[string]string) bool {
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
	switch r.URL.Path {
	case "/api/v1/nodes":
		for _, n := range s.nodes {
			n.TypeMeta = kind("v1", "Node")
			if selected(map[string]string{"metadata.name": n.Name}) {
				show(n.Name, n)
			}
		}
	case "/api/v1/pods":
		for _, p := range s.pods {
			p.TypeMeta = kind("v1", "Pod")
			if selected(map[string]string{"metadata.name": p.Name, "spec.nodeName": p.Spec.NodeName, "status.phase": string(p.Status.Phase)}) {
				show(p.Namespace+"/"+p.Name, p)
			}
		}
	default:
		prefix := strings.TrimPrefix(r.URL.Path, "/apis/") + "/"
		for path, o := range s.shelf.objects {
			if name, ok := strings.CutPrefix(path, prefix); ok && selected(map[string]string{"metadata.name": name}) {
				show(name, o)
			}
		}
	}
	return seen
}

// watches tells whether r is a watch of what can be watched.
func watches(r *http.Request) bool {
	if r.Method != http.MethodGet || r.URL.Query().Get("watch") != "true" && r.URL.Query().Get("watch") != "1" {
		return false
	}
	_, rest, ok := place(r.URL.Path)
	return r.URL.Path == "/api/v1/nodes" || r.URL.Path == "/api/v1/pods" || ok && rest == ""
}

// serveWatch streams changes, found by comparing what is with what was last shown. There is no history: a watch from a version is told
// to begin anew, as after a compaction, and what changes twice in between is seen once, as in any watch.
func (s *Server) serveWatch(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("sendInitialEvents") != "true" {
		refuse(w, metav1.Status{Code: 410, Reason: metav1.StatusReasonExpired, Message: "too old resource version"})
		return
	}
	w.Header().Set("Content-Type", "application/json")
	shown := map[string][]byte{}
	for first := true; ; first = false {
		s.mu.Lock()
		now, next, revision := s.sight(r), s.next(), s.shelf.revision
		s.mu.Unlock()
		send := func(what string, data []byte) {
			var o map[string]any
			s.recode(json.RawMessage(data), &o)
			if meta(o)["resourceVersion"] == nil || what == "DELETED" {
				meta(o)["resourceVersion"] = strconv.Itoa(max(revision, 1))
			}
			_ = json.NewEncoder(w).Encode(map[string]any{"type": what, "object": o}) // a client that is gone is seen below
		}
		for _, key := range slices.Sorted(maps.Keys(now)) {
			switch old, ok := shown[key]; {
			case !ok:
				send("ADDED", now[key])
			case !bytes.Equal(old, now[key]):
				send("MODIFIED", now[key])
			}
		}
		for _, key := range slices.Sorted(maps.Keys(shown)) {
			if _, ok := now[key]; !ok {
				send("DELETED", shown[key])
			}
		}
		if first {
			send("BOOKMARK", []byte(s.bookmark(r)))
		}
		shown = now
		w.(http.Flusher).Flush()
		select {
		case <-next:
		case <-r.Context().Done():
			return
		}
	}
}

// bookmark ends what was there when the watch began. Its kind is that of what is watched, or the client cannot read it.
func (s *Server) bookmark(r *http.Request) string {
	version, kind := "v1", "Node"
	switch {
	case r.URL.Path == "/api/v1/pods":
		kind = "Pod"
	case strings.HasSuffix(r.URL.Path, "/subportpools"):
		version, kind = "kuryr.openstack.org/v1alpha1", "SubportPool"
	}
	return fmt.Sprintf(`{"apiVersion":%q,"kind":%q,"metadata":{"annotations":{"k8s.io/initial-events-end":"true"}}}`, version, kind)
}

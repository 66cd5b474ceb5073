package clustertest

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// PoolsPath is where the custom resource SubportPool is served: lists and watches of one by its name, and merge patches of the status.
const PoolsPath = "/apis/kuryr.openstack.org/v1alpha1/subportpools"

// pools are the objects of one resource, kept as JSON, and everything that has happened to them.
type pools struct {
	objects map[string]map[string]any
	events  []poolEvent // event N made resource version N+1
	expired int         // watches from versions up to this one are refused
	closing chan struct{}
	changed chan struct{}
}

type poolEvent struct {
	Type   string         `json:"type"`
	Object map[string]any `json:"object"`
}

func (p *pools) happen(kind, name string, o map[string]any) {
	if o["metadata"] == nil {
		o["metadata"] = map[string]any{}
	}
	o["metadata"].(map[string]any)["resourceVersion"] = fmt.Sprint(len(p.events) + 1)
	p.events = append(p.events, poolEvent{kind, clone(o)})
	if p.objects[name] = o; kind == "DELETED" {
		delete(p.objects, name)
	}
	close(p.changed)
	p.changed = make(chan struct{})
}

func clone(o map[string]any) (c map[string]any) {
	text, err := json.Marshal(o)
	if err == nil {
		err = json.Unmarshal(text, &c)
	}
	if err != nil {
		panic(err) // it came from JSON
	}
	return c
}

// SetPool makes a pool be as given, as its controller does: the status that is there stays.
func (s *Server) SetPool(pool any) {
	text, err := json.Marshal(pool)
	var o map[string]any
	if err == nil {
		err = json.Unmarshal(text, &o)
	}
	if err != nil {
		s.t.Fatalf("clustertest: a pool that is no JSON: %v", err)
	}
	s.locked(func() {
		name := o["metadata"].(map[string]any)["name"].(string)
		kind, uid := "ADDED", any(rand.Text())
		if old, ok := s.pools.objects[name]; ok {
			kind, uid = "MODIFIED", old["metadata"].(map[string]any)["uid"]
			if _, given := o["status"]; !given && old["status"] != nil {
				o["status"] = old["status"]
			}
		}
		o["metadata"].(map[string]any)["uid"] = uid
		s.pools.happen(kind, name, o)
	})
}

// DeletePool makes a pool be gone.
func (s *Server) DeletePool(name string) {
	s.locked(func() {
		if o, ok := s.pools.objects[name]; ok {
			s.pools.happen("DELETED", name, o)
		}
	})
}

// Pool decodes a pool into what is given, and reports whether it is there.
func (s *Server) Pool(name string, into any) (ok bool) {
	s.locked(func() {
		var o map[string]any
		if o, ok = s.pools.objects[name]; ok {
			text, err := json.Marshal(o)
			if err == nil {
				err = json.Unmarshal(text, into)
			}
			if err != nil {
				s.t.Errorf("clustertest: reading pool %s: %v", name, err)
			}
		}
	})
	return ok
}

// PoolsChanged is closed at the next change of a pool.
func (s *Server) PoolsChanged() (c <-chan struct{}) {
	s.locked(func() { c = s.pools.changed })
	return c
}

// EndWatches closes all watches, as a server that restarts does; when history is lost, a watch from before answers 410 Gone.
func (s *Server) EndWatches(lost bool) {
	s.locked(func() {
		if lost {
			s.pools.expired = len(s.pools.events)
			s.pools.events = append(s.pools.events, poolEvent{}) // the version moves on, so that a list is newer than what was lost
		}
		close(s.pools.closing)
		s.pools.closing = make(chan struct{})
	})
}

// ofOneNode tells what a node's daemon asks, which sees the pools of [Server.SetPool], from what the controller does, whose pools are kept
// with all that it makes.
func (s *Server) ofOneNode(r *http.Request) bool {
	rest, pools := strings.CutPrefix(r.URL.Path, PoolsPath)
	name, _, _ := strings.Cut(strings.TrimPrefix(rest, "/"), "/")
	ours := false
	s.locked(func() { _, ours = s.pools.objects[name] })
	return pools && (ours || strings.HasPrefix(r.URL.Query().Get("fieldSelector"), "metadata.name="))
}

// servePools holds the lock only while it looks: a watch lasts.
func (s *Server) servePools(w http.ResponseWriter, r *http.Request) {
	path := strings.Split(strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, PoolsPath), "/"), "/")
	name, one := strings.CutPrefix(r.URL.Query().Get("fieldSelector"), "metadata.name=")
	switch {
	case r.Method == http.MethodGet && path[0] == "" && one && r.URL.Query().Get("watch") == "true":
		s.watchPool(w, r, name)
	case r.Method == http.MethodGet && path[0] == "" && one && r.URL.Query().Get("resourceVersion") == "":
		s.locked(func() {
			items := []any{}
			if o, ok := s.pools.objects[name]; ok {
				items = append(items, o)
			}
			reply(w, 200, map[string]any{"apiVersion": "kuryr.openstack.org/v1alpha1", "kind": "SubportPoolList",
				"metadata": map[string]any{"resourceVersion": fmt.Sprint(len(s.pools.events))}, "items": items})
		})
	case r.Method == http.MethodPatch && len(path) == 2 && path[1] == "status" && r.Header.Get("Content-Type") == string(types.MergePatchType):
		s.locked(func() {
			o, ok := s.pools.objects[path[0]]
			if !ok {
				refuse(w, notFound("subportpools", path[0]))
				return
			}
			var patch map[string]any
			if !s.read(w, r, &patch) {
				return
			}
			o = clone(o)
			o["status"] = merged(o["status"], patch["status"]) // of the rest a status patch changes nothing
			s.pools.happen("MODIFIED", path[0], o)
			reply(w, 200, o)
		})
	default:
		s.unknown(w, r)
	}
}

// merged is RFC 7386 for any value.
func merged(target, patch any) any {
	p, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	t, ok := target.(map[string]any)
	if !ok {
		t = map[string]any{}
	}
	for k, v := range p {
		if v == nil {
			delete(t, k)
		} else {
			t[k] = merged(t[k], v)
		}
	}
	return t
}

func (s *Server) watchPool(w http.ResponseWriter, r *http.Request, name string) {
	var from int
	if _, err := fmt.Sscan(r.URL.Query().Get("resourceVersion"), &from); err != nil {
		s.t.Errorf("clustertest: a watch from version %q", r.URL.Query().Get("resourceVersion"))
	}
	encoder := json.NewEncoder(w)
	w.Header().Set("Content-Type", "application/json")
	var closing chan struct{}
	s.locked(func() { closing = s.pools.closing })
	for {
		var events []poolEvent
		var changed chan struct{}
		gone := false
		s.locked(func() {
			gone = from <= s.pools.expired && s.pools.expired > 0
			if !gone && from < len(s.pools.events) {
				events = s.pools.events[from:]
			}
			from, changed = len(s.pools.events), s.pools.changed
		})
		if gone { // a server says so in the stream
			st := metav1.Status{TypeMeta: kind("v1", "Status"), Status: metav1.StatusFailure, Code: 410, Reason: metav1.StatusReasonExpired,
				Message: "too old resource version"}
			_ = encoder.Encode(map[string]any{"type": "ERROR", "object": st})
			return
		}
		for _, e := range events {
			if e.Object != nil && e.Object["metadata"].(map[string]any)["name"] == name && encoder.Encode(e) != nil {
				return
			}
		}
		w.(http.Flusher).Flush()
		select {
		case <-changed:
		case <-closing:
			return
		case <-r.Context().Done():
			return
		}
	}
}

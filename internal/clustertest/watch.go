package clustertest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

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

package clustertest

import (
	"net/http"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// AddNode adds a node.
func (s *Server) AddNode(n corev1.Node) {
	s.locked(func() {
		if n.CreationTimestamp.IsZero() {
			n.CreationTimestamp = metav1.Now()
		}
		s.nodeHappens("ADDED", &n)
		s.nodes = append(s.nodes, n)
	})
}

// EditNode changes a node behind the clients' backs, as its kubelet or a person does.
func (s *Server) EditNode(name string, f func(*corev1.Node)) {
	s.t.Helper()
	s.locked(func() {
		i := s.nodeAt(name)
		if i < 0 {
			s.t.Errorf("clustertest: there is no node %s", name)
			return
		}
		n := s.nodes[i].DeepCopy()
		f(n)
		s.nodeHappens("MODIFIED", n)
		s.nodes[i] = *n
	})
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

// Node returns a node as it is.
func (s *Server) Node(name string) (n corev1.Node, ok bool) {
	s.reading(func() {
		if i := s.nodeAt(name); i >= 0 {
			n, ok = s.nodes[i], true
		}
	})
	return n, ok
}

func (s *Server) nodeAt(name string) int {
	return slices.IndexFunc(s.nodes, func(n corev1.Node) bool { return n.Name == name })
}

func (s *Server) nodeHappens(what string, n *corev1.Node) {
	n.ResourceVersion = s.upcoming()
	shown := *n
	shown.TypeMeta = kind("v1", "Node")
	s.happen("/api/v1/nodes", n.Name, what, shown, map[string]string{"metadata.name": n.Name})
}

func (s *Server) serveNodes(w http.ResponseWriter, r *http.Request, name []string) {
	if len(name) == 0 {
		if r.Method != http.MethodGet {
			s.unknown(w, r)
			return
		}
		reply(w, 200, corev1.NodeList{TypeMeta: kind("v1", "NodeList"), ListMeta: metav1.ListMeta{ResourceVersion: s.latest()}, Items: s.nodes})
		return
	}
	i := s.nodeAt(name[0])
	if len(name) == 2 && (name[1] != "status" || r.Method != http.MethodPatch) {
		s.unknown(w, r)
		return
	}
	if i < 0 {
		refuse(w, notFound("nodes", name[0]))
		return
	}
	n := s.nodes[i]
	switch {
	case r.Method == http.MethodGet:
	case r.Method == http.MethodDelete:
		s.nodeHappens("DELETED", &s.nodes[i])
		s.nodes = slices.Delete(s.nodes, i, i+1)
	case r.Method == http.MethodPatch && r.Header.Get("Content-Type") == string(types.MergePatchType):
		var patch, o map[string]any
		if !s.read(w, r, &patch) {
			return
		}
		for field := range patch {
			if len(name) == 1 && field == "status" || len(name) == 2 && field != "status" {
				delete(patch, field) // each of the two paths changes its own half
			}
		}
		s.recode(n, &o)
		merge(o, patch)
		n = corev1.Node{}
		s.recode(o, &n)
		s.nodeHappens("MODIFIED", &n)
		s.nodes[i] = n
	default:
		s.unknown(w, r)
		return
	}
	n.TypeMeta = kind("v1", "Node")
	reply(w, 200, n)
}

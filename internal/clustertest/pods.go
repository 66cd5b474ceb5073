package clustertest

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Budget is a PodDisruptionBudget.
type Budget struct {
	Namespace, Name string
	Match           map[string]string // labels of the pods it protects
	MinAvailable    int
	RetryAfter      int // seconds the server asks to wait, as while it works out a new budget
}

// AddPod adds a pod; its uid is made when it has none.
func (s *Server) AddPod(p corev1.Pod) {
	s.locked(func() {
		if p.UID == "" {
			p.UID = types.UID(rand.Text())
		}
		s.podHappens("ADDED", &p)
		s.pods = append(s.pods, p)
	})
}

// DeletePod makes a pod be gone.
func (s *Server) DeletePod(namespace, name string) {
	s.locked(func() {
		if i := s.podAt(namespace, name); i >= 0 {
			s.podHappens("DELETED", &s.pods[i])
			s.pods = slices.Delete(s.pods, i, i+1)
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

// SetBudgets replaces all budgets.
func (s *Server) SetBudgets(b ...Budget) { s.locked(func() { s.budgets = b }) }

// EndAfter sets how often a pod that was evicted is still listed; a negative number keeps it for good, as a dead kubelet does.
func (s *Server) EndAfter(lists int) { s.locked(func() { s.endAfter = lists }) }

// Pods lists the pods that are there as namespace/name, sorted.
func (s *Server) Pods() (names []string) {
	s.reading(func() {
		for _, p := range s.pods {
			names = append(names, p.Namespace+"/"+p.Name)
		}
	})
	slices.Sort(names)
	return names
}

// Evictions lists the evictions that were granted.
func (s *Server) Evictions() (all []policyv1.Eviction) {
	s.reading(func() { all = slices.Clone(s.evictions) })
	return all
}

func (s *Server) podAt(namespace, name string) int {
	return slices.IndexFunc(s.pods, func(p corev1.Pod) bool { return p.Namespace == namespace && p.Name == name })
}

func (s *Server) podHappens(what string, p *corev1.Pod) {
	p.ResourceVersion = s.upcoming()
	shown := *p
	shown.TypeMeta = kind("v1", "Pod")
	s.happen("/api/v1/pods", p.Namespace+"/"+p.Name, what, shown,
		map[string]string{"metadata.name": p.Name, "spec.nodeName": p.Spec.NodeName, "status.phase": string(p.Status.Phase)})
}

func (s *Server) listPods(w http.ResponseWriter, r *http.Request) {
	node, ok := strings.CutPrefix(r.URL.Query().Get("fieldSelector"), "spec.nodeName=")
	if r.URL.RawQuery == "" {
		reply(w, 200, corev1.PodList{TypeMeta: kind("v1", "PodList"), Items: s.pods})
		return
	}
	if !ok {
		s.unknown(w, r)
		return
	}
	list := corev1.PodList{TypeMeta: kind("v1", "PodList")}
	s.pods = slices.DeleteFunc(s.pods, func(p corev1.Pod) bool {
		if p.Spec.NodeName != node {
			return false
		}
		if p.DeletionTimestamp != nil {
			if s.endAfter >= 0 && s.shown[p.UID] >= s.endAfter {
				s.podHappens("DELETED", &p)
				return true
			}
			s.shown[p.UID]++
		}
		list.Items = append(list.Items, p)
		return false
	})
	reply(w, 200, list)
}

func (s *Server) listNamespace(w http.ResponseWriter, namespace string) {
	list := corev1.PodList{TypeMeta: kind("v1", "PodList")}
	for _, p := range s.pods {
		if p.Namespace == namespace {
			list.Items = append(list.Items, p)
		}
	}
	reply(w, 200, list)
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

func (s *Server) evict(w http.ResponseWriter, r *http.Request, namespace, name string) {
	var e policyv1.Eviction
	if !s.read(w, r, &e) {
		return
	}
	i := s.podAt(namespace, name)
	if i < 0 {
		refuse(w, notFound("pods", name))
		return
	}
	p := &s.pods[i]
	if o := e.DeleteOptions; o != nil && o.Preconditions != nil && o.Preconditions.UID != nil && *o.Preconditions.UID != p.UID {
		refuse(w, metav1.Status{Code: 409, Reason: metav1.StatusReasonConflict, Message: "the UID in the precondition does not match"})
		return
	}
	for _, b := range s.budgets {
		if healthy := s.healthy(b); covers(b, p) && p.DeletionTimestamp == nil && healthy <= b.MinAvailable {
			if b.RetryAfter > 0 {
				w.Header().Set("Retry-After", fmt.Sprint(b.RetryAfter))
			}
			refuse(w, metav1.Status{Code: 429, Reason: metav1.StatusReasonTooManyRequests,
				Message: "Cannot evict pod as it would violate the pod's disruption budget.",
				Details: &metav1.StatusDetails{RetryAfterSeconds: int32(b.RetryAfter), Causes: []metav1.StatusCause{{
					Type:    policyv1.DisruptionBudgetCause,
					Message: fmt.Sprintf("The disruption budget %s needs %d healthy pods and has %d currently", b.Name, b.MinAvailable, healthy),
				}}}})
			return
		}
	}
	now := metav1.Now()
	p.DeletionTimestamp = &now
	s.podHappens("MODIFIED", p)
	s.evictions = append(s.evictions, e)
	reply(w, 201, metav1.Status{TypeMeta: kind("v1", "Status"), Status: metav1.StatusSuccess, Code: 201})
}

func covers(b Budget, p *corev1.Pod) bool {
	if p.Namespace != b.Namespace {
		return false
	}
	for k, v := range b.Match {
		if p.Labels[k] != v {
			return false
		}
	}
	return true
}

func (s *Server) healthy(b Budget) (n int) {
	for i := range s.pods {
		if p := &s.pods[i]; covers(b, p) && p.DeletionTimestamp == nil {
			n++
		}
	}
	return n
}

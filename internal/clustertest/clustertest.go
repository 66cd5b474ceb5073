// Package clustertest is an API server in one process, for tests that speak to it with the real client-go: nodes, pods and their
// eviction, secrets, /readyz and /version, and pools of subports, over TLS with client certificates, as stateful as those calls can notice.
//
// For what runs inside a cluster there are also watches of nodes and pods, and SubportPools, leases and events (see watch.go).
//
// What is made by server-side apply is kept whatever its kind (see apply.go).
//
// It refuses to be lenient: an unknown route, selector or content type fails the test that sent it. It runs nothing and schedules
// nothing, and it is no reference: where a real API server disagrees, this package is wrong.
//
// Nothing happens by itself: a pod that was evicted is gone after it was listed a number of times (see [Server.EndAfter]), so a
// test that polls without sleeping sees every state and never waits.
package clustertest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Server is the API server. Its methods may be called while it serves.
type Server struct {
	URL string // https://127.0.0.1:PORT

	t          testing.TB
	http       *httptest.Server
	kubeconfig []byte
	caKey      []byte
	issue      func(addresses ...string) tls.Certificate

	mu        sync.Mutex
	version   string
	unready   []string
	nodes     []corev1.Node
	pods      []corev1.Pod
	spaces    map[string]corev1.Namespace
	secrets   []corev1.Secret
	said      []corev1.Event
	budgets   []Budget
	evictions []policyv1.Eviction
	endAfter  int
	shown     map[types.UID]int // how often an ending pod was listed
	intercept func(http.ResponseWriter, *http.Request) bool
	requests  []string
	shelf     shelf
	history   history
	applied   map[string]map[string]any // by path, see apply.go
}

// Budget is a PodDisruptionBudget.
type Budget struct {
	Namespace, Name string
	Match           map[string]string // labels of the pods it protects
	MinAvailable    int
	RetryAfter      int // seconds the server asks to wait, as while it works out a new budget
}

// New starts an empty cluster of version v1.37.1, which ends with the test. Its certificate carries these addresses too.
func New(t testing.TB, addresses ...string) *Server {
	t.Helper()
	s := &Server{t: t, applied: map[string]map[string]any{}, version: "v1.37.1", endAfter: 1, shown: map[types.UID]int{}, spaces: map[string]corev1.Namespace{}, shelf: shelf{objects: map[string]map[string]any{}},
		history: history{closing: make(chan struct{})}}
	ca, caKey := certificate(t, nil, nil, pkix.Name{CommonName: "kubernetes"})
	server, serverKey := certificate(t, ca, caKey, pkix.Name{CommonName: "kube-apiserver"}, addresses...)
	admin, adminKey := certificate(t, ca, caKey, pkix.Name{CommonName: "kubernetes-admin", Organization: []string{"kubeadm:cluster-admins"}})
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	s.http = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	s.http.EnableHTTP2 = true
	s.http.TLS = &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{server.Raw}, PrivateKey: serverKey}},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    pool,
	}
	s.http.Config.ErrorLog = log.New(io.Discard, "", 0) // of clients that refuse us, which is what some tests are about
	s.http.StartTLS()
	t.Cleanup(s.Stop)
	s.URL = s.http.URL
	signing, err := x509.MarshalECPrivateKey(caKey)
	if err != nil {
		t.Fatal(err)
	}
	s.caKey = pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: signing})
	key, err := x509.MarshalPKCS8PrivateKey(adminKey)
	if err != nil {
		t.Fatal(err)
	}
	text := func(kind string, der []byte) string {
		return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	s.issue = func(addresses ...string) tls.Certificate {
		cert, key := certificate(t, ca, caKey, pkix.Name{CommonName: "server"}, addresses...)
		return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
	}
	s.kubeconfig = fmt.Appendf(nil, `apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: %s
    server: %s
  name: kubernetes
contexts:
- context:
    cluster: kubernetes
    user: kubernetes-admin
  name: kubernetes-admin@kubernetes
current-context: kubernetes-admin@kubernetes
kind: Config
preferences: {}
users:
- name: kubernetes-admin
  user:
    client-certificate-data: %s
    client-key-data: %s
`, text("CERTIFICATE", ca.Raw), s.URL, text("CERTIFICATE", admin.Raw), text("PRIVATE KEY", key))
	return s
}

// certificate makes one that its parent signs; without a parent it is a CA of its own.
func certificate(t testing.TB, parent *x509.Certificate, parentKey *ecdsa.PrivateKey, subject pkix.Name, addresses ...string) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      subject,
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	for _, a := range addresses {
		template.IPAddresses = append(template.IPAddresses, net.ParseIP(a))
	}
	if parent == nil {
		template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// Kubeconfig is the admin's, as kubeadm writes it.
func (s *Server) Kubeconfig() []byte { return slices.Clone(s.kubeconfig) }

// AuthorityKey is the private key of the cluster's authority, in PEM as kubeadm writes it.
func (s *Server) AuthorityKey() []byte { return slices.Clone(s.caKey) }

// Issue makes a certificate of the cluster's authority for another server, at these addresses.
func (s *Server) Issue(addresses ...string) tls.Certificate { return s.issue(addresses...) }

// Stop ends the server: connections are refused from now on.
func (s *Server) Stop() {
	s.EndWatches(false)
	s.http.CloseClientConnections()
	s.http.Close()
}

// Unready makes /readyz fail with these checks; none makes it succeed.
func (s *Server) Unready(checks ...string) { s.locked(func() { s.unready = checks }) }

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

// SetNamespace makes a namespace be as given. Those that pods are in need not be there. In one that is Terminating nothing new is made.
func (s *Server) SetNamespace(n corev1.Namespace) {
	s.locked(func() {
		what := "ADDED"
		if _, ok := s.spaces[n.Name]; ok {
			what = "MODIFIED"
		}
		n.ResourceVersion, n.TypeMeta = s.upcoming(), kind("v1", "Namespace")
		s.spaces[n.Name] = n
		s.happen("/api/v1/namespaces", n.Name, what, n, map[string]string{"metadata.name": n.Name, "status.phase": string(n.Status.Phase)})
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

// SetBudgets replaces all budgets.
func (s *Server) SetBudgets(b ...Budget) { s.locked(func() { s.budgets = b }) }

// EndAfter sets how often a pod that was evicted is still listed; a negative number keeps it for good, as a dead kubelet does.
func (s *Server) EndAfter(lists int) { s.locked(func() { s.endAfter = lists }) }

// Intercept lets f answer requests; where it returns false the server does. nil takes it away.
func (s *Server) Intercept(f func(http.ResponseWriter, *http.Request) bool) {
	s.locked(func() { s.intercept = f })
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

// Secrets lists the secrets.
func (s *Server) Secrets() (all []corev1.Secret) {
	s.reading(func() { all = slices.Clone(s.secrets) })
	return all
}

// Evictions lists the evictions that were granted.
func (s *Server) Evictions() (all []policyv1.Eviction) {
	s.reading(func() { all = slices.Clone(s.evictions) })
	return all
}

// Requests lists what was asked, such as "GET /version".
func (s *Server) Requests() (all []string) {
	s.reading(func() { all = slices.Clone(s.requests) })
	return all
}

func (s *Server) locked(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	s.announce()
}

// reading is locked for what changes nothing: a test that waits for changes is not woken by its own looking.
func (s *Server) reading(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *Server) nodeAt(name string) int {
	return slices.IndexFunc(s.nodes, func(n corev1.Node) bool { return n.Name == name })
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests = append(s.requests, r.Method+" "+r.URL.Path)
	intercept := s.intercept
	s.mu.Unlock()
	if intercept != nil && intercept(w, r) {
		return
	}
	if s.serveApplied(w, r) {
		return
	}
	if watches(r) {
		s.serveWatch(w, r)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.announce()
	path := strings.Split(strings.TrimPrefix(r.URL.Path, "/api/v1/"), "/")
	_, _, _, keeps := place(r.URL.Path)
	switch {
	case r.URL.Path == "/readyz":
		s.readyz(w)
	case r.URL.Path == "/version":
		reply(w, 200, map[string]string{"major": "1", "minor": "37", "gitVersion": s.version})
	case path[0] == "nodes" && len(path) <= 3:
		s.serveNodes(w, r, path[1:])
	case r.URL.Path == "/api/v1/events" && r.Method == http.MethodGet:
		s.listEvents(w, r)
	case path[0] == "pods" && len(path) == 1 && r.Method == http.MethodGet:
		s.listPods(w, r)
	case len(path) == 3 && path[0] == "namespaces" && path[2] == "pods" && r.Method == http.MethodGet:
		s.listNamespace(w, path[1])
	case len(path) == 5 && path[2] == "pods" && path[4] == "eviction" && r.Method == http.MethodPost:
		s.evict(w, r, path[1], path[3])
	case len(path) == 4 && path[2] == "pods" && r.Method == http.MethodPatch && r.Header.Get("Content-Type") == string(types.MergePatchType):
		s.patchPod(w, r, path[1], path[3])
	case strings.HasPrefix(r.URL.Path, "/apis/") || keeps:
		s.serveKept(w, r)
	case len(path) >= 3 && path[2] == "secrets":
		s.serveSecrets(w, r, path[1], path[3:])
	default:
		s.unknown(w, r)
	}
}

func (s *Server) unknown(w http.ResponseWriter, r *http.Request) {
	s.t.Errorf("clustertest: unknown request %s %s (%s)", r.Method, r.URL, r.Header.Get("Content-Type"))
	refuse(w, metav1.Status{Code: 404, Reason: metav1.StatusReasonNotFound, Message: "the server could not find the requested resource"})
}

func (s *Server) readyz(w http.ResponseWriter) {
	if len(s.unready) > 0 {
		w.WriteHeader(http.StatusInternalServerError)
	}
	fmt.Fprint(w, "[+]ping ok\n[+]log ok\n")
	for _, check := range s.unready {
		fmt.Fprintf(w, "[-]%s failed: reason withheld\n", check)
	}
	if len(s.unready) > 0 {
		fmt.Fprint(w, "readyz check failed\n")
		return
	}
	fmt.Fprint(w, "readyz check passed\n")
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

// AddEvent adds an event, as a kubelet writes it.
func (s *Server) AddEvent(e corev1.Event) { s.locked(func() { s.said = append(s.said, e) }) }

func (s *Server) listEvents(w http.ResponseWriter, r *http.Request) {
	reason, ok := strings.CutPrefix(r.URL.Query().Get("fieldSelector"), "reason=")
	if !ok && r.URL.RawQuery != "" {
		s.unknown(w, r)
		return
	}
	list := corev1.EventList{TypeMeta: kind("v1", "EventList")}
	for _, e := range s.said {
		if reason == "" || e.Reason == reason {
			list.Items = append(list.Items, e)
		}
	}
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

func (s *Server) evict(w http.ResponseWriter, r *http.Request, namespace, name string) {
	var e policyv1.Eviction
	if !s.read(w, r, &e) {
		return
	}
	i := slices.IndexFunc(s.pods, func(p corev1.Pod) bool { return p.Namespace == namespace && p.Name == name })
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

func (s *Server) serveSecrets(w http.ResponseWriter, r *http.Request, namespace string, name []string) {
	switch {
	case r.Method == http.MethodPost && len(name) == 0:
		var secret corev1.Secret
		if !s.read(w, r, &secret) {
			return
		}
		s.secrets = append(s.secrets, secret)
		reply(w, 201, secret)
	case r.Method == http.MethodDelete && len(name) == 1:
		i := slices.IndexFunc(s.secrets, func(x corev1.Secret) bool { return x.Namespace == namespace && x.Name == name[0] })
		if i < 0 {
			refuse(w, notFound("secrets", name[0]))
			return
		}
		s.secrets = slices.Delete(s.secrets, i, i+1)
		reply(w, 200, metav1.Status{TypeMeta: kind("v1", "Status"), Status: metav1.StatusSuccess})
	default:
		s.unknown(w, r)
	}
}

func (s *Server) read(w http.ResponseWriter, r *http.Request, into any) bool {
	if err := json.NewDecoder(r.Body).Decode(into); err != nil {
		if r.Context().Err() != nil {
			return false // the client is gone
		}
		s.t.Errorf("clustertest: %s %s: reading the body: %v", r.Method, r.URL, err)
		refuse(w, metav1.Status{Code: 400, Reason: metav1.StatusReasonBadRequest, Message: err.Error()})
		return false
	}
	return true
}

func kind(version, name string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: version, Kind: name}
}

func notFound(resource, name string) metav1.Status {
	return metav1.Status{Code: 404, Reason: metav1.StatusReasonNotFound, Message: fmt.Sprintf("%s %q not found", resource, name),
		Details: &metav1.StatusDetails{Kind: resource, Name: name}}
}

func refuse(w http.ResponseWriter, st metav1.Status) {
	st.TypeMeta, st.Status = kind("v1", "Status"), metav1.StatusFailure
	reply(w, int(st.Code), st)
}

func reply(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body) // a client that is gone is its own business
}

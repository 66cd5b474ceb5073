// Package clustertest is an API server in one process, for tests that speak to it with the real client-go: nodes, pods and their
// eviction, secrets, /readyz and /version, and pools of subports, over TLS with client certificates, as stateful as those calls can notice.
//
// For what runs inside a cluster there are also watches (see watch.go), and SubportPools, leases, events and the like (see shelf.go).
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
	changed   chan struct{} // closed at the next request or change
	history   history
	shelf     map[string]map[string]any // by path, see shelf.go
	applied   map[string]map[string]any // by path, see apply.go
}

// New starts an empty cluster of version v1.37.1, which ends with the test. Its certificate carries these addresses too.
func New(t testing.TB, addresses ...string) *Server {
	t.Helper()
	s := &Server{t: t, applied: map[string]map[string]any{}, endAfter: 1, shown: map[types.UID]int{}, spaces: map[string]corev1.Namespace{}, shelf: map[string]map[string]any{},
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

// Intercept lets f answer requests; where it returns false the server does. nil takes it away.
func (s *Server) Intercept(f func(http.ResponseWriter, *http.Request) bool) {
	s.locked(func() { s.intercept = f })
}

// Secrets lists the secrets.
func (s *Server) Secrets() (all []corev1.Secret) {
	s.reading(func() { all = slices.Clone(s.secrets) })
	return all
}

// Requests lists what was asked, such as "GET /version".
func (s *Server) Requests() (all []string) {
	s.reading(func() { all = slices.Clone(s.requests) })
	return all
}

// Changed returns a channel that is closed when the next request was answered, or something was changed past the API.
func (s *Server) Changed() (c <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.next()
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

func (s *Server) next() chan struct{} {
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return s.changed
}

// announce wakes who watches; it is called with the lock held, after whatever may have changed something.
func (s *Server) announce() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
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
		reply(w, 200, map[string]string{"major": "1", "minor": "37", "gitVersion": "v1.37.1"})
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

func (s *Server) recode(from, into any) {
	data, err := json.Marshal(from)
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		s.t.Errorf("clustertest: %v", err)
	}
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

package cluster_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"

	"github.com/kuryrctl/kuryrctl/bootstrap/cluster"
	"github.com/kuryrctl/kuryrctl/internal/clustertest"
)

func connect(t *testing.T, s *clustertest.Server) *cluster.Cluster {
	t.Helper()
	c, err := cluster.New(s.Kubeconfig(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error; want one with %q", parts)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not say %q", err, part)
		}
	}
}

// watched is a connection that tells when it was closed.
type watched struct {
	net.Conn
	closed chan struct{}
}

func (w *watched) Close() error {
	select {
	case <-w.closed:
	default:
		close(w.closed)
	}
	return w.Conn.Close()
}

func TestEveryConnectionIsDialedAsToldAndCloseEndsIt(t *testing.T) {
	s := clustertest.New(t)
	var conns []*watched
	c, err := cluster.New(s.Kubeconfig(), func(ctx context.Context, network, addr string) (net.Conn, error) {
		if "https://"+addr != s.URL {
			t.Errorf("dialed %s, want %s", addr, s.URL)
		}
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		conns = append(conns, &watched{Conn: conn, closed: make(chan struct{})})
		return conns[len(conns)-1], nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := c.Healthy(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if len(conns) != 1 {
		t.Fatalf("%d connections for three calls, want 1", len(conns))
	}
	c.Close()
	<-conns[0].closed
	if err := c.Healthy(t.Context()); err != nil || len(conns) != 2 {
		t.Fatalf("after Close: err %v, %d connections; want a new one", err, len(conns))
	}
	c.Close()
	<-conns[1].closed
}

func TestHealthyNamesTheChecksThatFailed(t *testing.T) {
	s := clustertest.New(t)
	c := connect(t, s)
	s.Unready("etcd", "poststarthook/rbac/bootstrap-roles")
	err := c.Healthy(t.Context())
	want := "checking whether the API server is ready: etcd failed, poststarthook/rbac/bootstrap-roles failed"
	if err == nil || err.Error() != want {
		t.Fatalf("got %v, want %s", err, want)
	}
	s.Unready()
	if err := c.Healthy(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.Close()
	s.Stop()
	wantError(t, c.Healthy(t.Context()), "checking whether the API server is ready: ", "connection refused")
}

func TestAServerOfAnotherCAIsNotBelieved(t *testing.T) {
	s, other := clustertest.New(t), clustertest.New(t)
	text := strings.Replace(string(s.Kubeconfig()), s.URL, other.URL, 1)
	c, err := cluster.New([]byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	wantError(t, c.Healthy(t.Context()), "certificate signed by unknown authority")
	if got := other.Requests(); len(got) > 0 {
		t.Fatalf("asked it %v", got)
	}
}

func TestEveryCallEndsWithItsContext(t *testing.T) {
	s := clustertest.New(t)
	c := connect(t, s)
	arrived := make(chan struct{})
	s.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		arrived <- struct{}{}
		<-r.Context().Done()
		return true
	})
	late := errors.New("too late")
	for name, call := range map[string]func(context.Context) error{
		"Healthy":     c.Healthy,
		"Version":     func(ctx context.Context) error { _, err := c.Version(ctx); return err },
		"Nodes":       func(ctx context.Context) error { _, err := c.Nodes(ctx); return err },
		"Node":        func(ctx context.Context) error { _, _, err := c.Node(ctx, "worker-0"); return err },
		"RemoveNode":  func(ctx context.Context) error { return c.RemoveNode(ctx, "worker-0") },
		"NewToken":    func(ctx context.Context) error { _, err := c.NewToken(ctx, time.Hour, ""); return err },
		"DeleteToken": func(ctx context.Context) error { return c.DeleteToken(ctx, "abcdef.0123456789abcdef") },
		"Drain":       func(ctx context.Context) error { return c.Drain(ctx, "worker-0", cluster.DrainOptions{}) },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			go func() { <-arrived; cancel(late) }()
			if err := call(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, late) {
				t.Fatalf("got %v", err)
			}
		})
	}
}

func TestNodesSayWhatTheKubeletsReported(t *testing.T) {
	s := clustertest.New(t)
	c := connect(t, s)
	created := metav1.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	s.AddNode(corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "worker-0", CreationTimestamp: created},
		Spec:       corev1.NodeSpec{Unschedulable: true},
		Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{
			{Type: corev1.NodeMemoryPressure, Status: corev1.ConditionFalse, Reason: "KubeletHasSufficientMemory"},
			{Type: corev1.NodeReady, Status: corev1.ConditionUnknown, Reason: "NodeStatusUnknown", Message: "Kubelet stopped posting node status."},
		}},
	})
	s.AddNode(corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "master-0", CreationTimestamp: created, Labels: map[string]string{
			"node-role.kubernetes.io/control-plane": "", "node-role.kubernetes.io/api": "", "kubernetes.io/os": "linux"}},
		Status: corev1.NodeStatus{
			Addresses: []corev1.NodeAddress{
				{Type: corev1.NodeHostName, Address: "master-0"},
				{Type: corev1.NodeExternalIP, Address: "172.24.4.2"},
				{Type: corev1.NodeInternalIP, Address: "10.11.0.5"},
				{Type: corev1.NodeInternalIP, Address: "fd00::5"},
			},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady", Message: "ready"}},
			NodeInfo:   corev1.NodeSystemInfo{KubeletVersion: "v1.37.1", ContainerRuntimeVersion: "containerd://2.1.9", OSImage: "Debian GNU/Linux 13 (trixie)"},
		},
	})
	s.AddNode(corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "worker-1", CreationTimestamp: created}})
	want := []cluster.Node{
		{Name: "master-0", Roles: []string{"api", "control-plane"}, ControlPlane: true, Ready: true, InternalIP: netip.MustParseAddr("10.11.0.5"),
			Kubelet: "v1.37.1", Runtime: "containerd://2.1.9", OSImage: "Debian GNU/Linux 13 (trixie)", Created: created.Time},
		{Name: "worker-0", Reason: "NodeStatusUnknown", Message: "Kubelet stopped posting node status.", Unschedulable: true, Created: created.Time},
		{Name: "worker-1", Reason: "NeverReported", Message: "the kubelet has not reported yet", Created: created.Time},
	}
	got, err := c.Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("nodes (-want +got):\n%s", diff)
	}
	if n, ok, err := c.Node(t.Context(), "master-0"); err != nil || !ok || !n.Ready {
		t.Errorf("master-0: %v, %v, %v", n, ok, err)
	}
	if _, ok, err := c.Node(t.Context(), "worker-9"); err != nil || ok {
		t.Errorf("worker-9: found %v, err %v", ok, err)
	}
	for range 2 { // gone is fine
		if err := c.RemoveNode(t.Context(), "worker-1"); err != nil {
			t.Error(err)
		}
	}
	if _, ok := s.Node("worker-1"); ok {
		t.Error("worker-1 is still there")
	}
}

func TestVersion(t *testing.T) {
	s := clustertest.New(t)
	c := connect(t, s)
	if v, err := c.Version(t.Context()); err != nil || v != "v1.37.1" {
		t.Fatalf("got %q, %v", v, err)
	}
	s.Intercept(func(w http.ResponseWriter, _ *http.Request) bool { _, _ = w.Write([]byte("<html>")); return true })
	_, err := c.Version(t.Context())
	wantError(t, err, "asking for the API server's version")
}

func TestSkewProblem(t *testing.T) {
	for _, c := range []struct{ server, kubelet, want string }{
		{"v1.37.1", "v1.37.1", ""},
		{"v1.37.1", "v1.37.2", ""},
		{"v1.37.1", "v1.34.9", ""},
		{"v1.37.0-rc.1", "v1.37.0-beta.0", ""},
		{"v1.37.1+abc", "v1.36.0", ""},
		{"v1.37.1", "v1.33.0", "4 minor versions older"},
		{"v1.37.1", "v1.38.0", "newer"},
		{"v1.37.1", "v2.37.0", "major"},
		{"v1.37.1", "", `version "" of the kubelet cannot be read`},
		{"main", "v1.37.1", `version "main" of the API server cannot be read`},
	} {
		got := cluster.SkewProblem(c.server, c.kubelet)
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s with kubelet %s: %q, want %q", c.server, c.kubelet, got, c.want)
		}
	}
}

func TestATokenIsWhatKubeadmMakes(t *testing.T) {
	s := clustertest.New(t)
	c := connect(t, s)
	before := time.Now().Truncate(time.Second)
	token, err := c.NewToken(t.Context(), 2*time.Hour, "joining worker-0")
	if err != nil {
		t.Fatal(err)
	}
	form := regexp.MustCompile(`^([a-z0-9]{6})\.([a-z0-9]{16})$`).FindStringSubmatch(token)
	if form == nil {
		t.Fatalf("token %q", token)
	}
	secrets := s.Secrets()
	if len(secrets) != 1 {
		t.Fatalf("%d secrets", len(secrets))
	}
	got := secrets[0]
	if got.Namespace != "kube-system" || got.Name != "bootstrap-token-"+form[1] || got.Type != "bootstrap.kubernetes.io/token" {
		t.Errorf("secret %s/%s of type %s", got.Namespace, got.Name, got.Type)
	}
	data := map[string]string{}
	for k, v := range got.Data {
		data[k] = string(v)
	}
	expiration, err := time.Parse(time.RFC3339, data["expiration"])
	if err != nil || expiration.Before(before.Add(2*time.Hour)) || expiration.After(time.Now().Add(2*time.Hour)) {
		t.Errorf("expiration %q, %v", data["expiration"], err)
	}
	delete(data, "expiration")
	if diff := cmp.Diff(map[string]string{
		"token-id": form[1], "token-secret": form[2], "description": "joining worker-0",
		"usage-bootstrap-authentication": "true", "usage-bootstrap-signing": "true",
		"auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token",
	}, data); diff != "" {
		t.Errorf("data (-want +got):\n%s", diff)
	}
	if again, err := c.NewToken(t.Context(), time.Hour, ""); err != nil || again == token {
		t.Errorf("a second token: %v, the same: %v", err, again == token)
	}
	for range 2 { // gone is fine
		if err := c.DeleteToken(t.Context(), token); err != nil {
			t.Fatal(err)
		}
	}
	if left := s.Secrets(); len(left) != 1 || left[0].Name == got.Name {
		t.Errorf("left: %v", left)
	}
	_, err = c.NewToken(t.Context(), 0, "")
	wantError(t, err, "must be positive") // without an expiration it would live for ever
	err = c.DeleteToken(t.Context(), form[2])
	wantError(t, err, "not of the form")
	if strings.Contains(err.Error(), form[2]) {
		t.Errorf("the error shows the secret: %v", err)
	}
}

func TestNewRefusesWhatKubeadmDoesNotWrite(t *testing.T) {
	admin := string(clustertest.New(t).Kubeconfig())
	change := func(old, to string) string {
		t.Helper()
		if !strings.Contains(admin, old) {
			t.Fatalf("no %q in it", old)
		}
		return strings.Replace(admin, old, to, 1)
	}
	if _, err := cluster.New([]byte(change("current-context: kubernetes-admin@kubernetes", "")), nil); err != nil {
		t.Errorf("with one context and none current: %v", err)
	}
	for name, c := range map[string]struct{ text, want string }{
		"nothing":     {"", "no current context"},
		"not YAML":    {"\t{", "reading a kubeconfig"},
		"plain HTTP":  {change("server: https:", "server: http:"), "https://HOST:PORT"},
		"no server":   {change("server: https://", "server: https:///"), "https://HOST:PORT"},
		"no user":     {change("user: kubernetes-admin", "user: other"), "no cluster or no user"},
		"a command":   {change("client-key-data:", "exec: {apiVersion: client.authentication.k8s.io/v1, command: /bin/evil}\n    client-key-data:"), "plug-ins"},
		"a file":      {change("client-key-data:", "client-key: /etc/shadow\n    client-key-data:"), "files"},
		"unverified":  {change("    server:", "    insecure-skip-tls-verify: true\n    server:"), "unverified"},
		"a proxy":     {change("    server:", "    proxy-url: http://evil:8080\n    server:"), "proxies"},
		"no CA":       {change("certificate-authority-data", "x-data"), "no embedded CA"},
		"no identity": {change("client-certificate-data", "x-data"), "neither"},
		"a bad key":   {change("client-key-data: ", "client-key-data: AAAA"), "certificates of kubeconfig"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := cluster.New([]byte(c.text), nil)
			wantError(t, err, c.want)
		})
	}
}

func TestClientGoDoesNotWriteToTheTerminal(t *testing.T) {
	connect(t, clustertest.New(t))
	path := filepath.Join(t.TempDir(), "stderr")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	stderr := os.Stderr
	os.Stderr = f
	klog.Warning("a word")
	klog.ErrorS(errors.New("x"), "another")
	klog.Flush()
	os.Stderr = stderr
	if text, err := os.ReadFile(path); err != nil || len(text) > 0 {
		t.Fatalf("stderr has %q, %v", text, err)
	}
}

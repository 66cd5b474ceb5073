package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kuryrctl/kuryrctl/internal/clustertest"
	"github.com/kuryrctl/kuryrctl/nodeagent/socket"
	"github.com/kuryrctl/kuryrctl/nodeagent/vif"
)

// asProcess makes the test binary a daemon, for tests that kill one. Its value is the directory of setting.
const asProcess = "KURYR_TEST_DAEMON"

func TestMain(m *testing.M) {
	dir := os.Getenv(asProcess)
	if dir == "" {
		os.Exit(m.Run())
	}
	kubeconfig, err := os.ReadFile(filepath.Join(dir, "kubeconfig"))
	if err == nil {
		var c Config
		if c, err = config(dir, kubeconfig); err == nil {
			err = runOnce(context.Background(), c)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func runOnce(ctx context.Context, c Config) error {
	d, err := Open(c)
	if err != nil {
		return err
	}
	return errors.Join(d.Run(ctx), d.Close())
}

func config(dir string, kubeconfig []byte) (Config, error) {
	kube, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	return Config{Node: "worker-0", State: filepath.Join(dir, "state"), Socket: filepath.Join(dir, "run", "s"), Kube: kube,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Cooldown: time.Millisecond, Patience: 30 * time.Second}, err
}

// setting is a cluster and a node in it.
type setting struct {
	*testing.T
	cluster *clustertest.Server
	dir     string
	config  Config
	client  *socket.Client
	stop    func() // ends the daemon and waits for it
}

// begin makes a cluster with this pool, if any, and starts no daemon.
func begin(t *testing.T, pool *vif.SubportPool) *setting {
	t.Helper()
	dir, err := os.MkdirTemp("", "kuryr") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	s := &setting{T: t, cluster: clustertest.New(t), dir: dir}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if s.config, err = config(dir, s.cluster.Kubeconfig()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "kubeconfig"), s.cluster.Kubeconfig(), 0o600); err != nil {
		t.Fatal(err)
	}
	s.client = socket.NewClient(s.config.Socket)
	if pool != nil {
		s.cluster.SetPool(pool)
	}
	return s
}

// start runs a daemon until stop, or the end of the test.
func (s *setting) start() {
	s.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	d, err := Open(s.config)
	if err != nil {
		s.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- errors.Join(d.Run(ctx), d.Close()) }()
	var once sync.Once
	s.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				s.Error(err)
			}
		})
	}
	s.Cleanup(s.stop)
	s.answering()
}

// open opens a daemon that does not run, until the end of the test.
func (s *setting) open() *Daemon {
	s.Helper()
	d, err := Open(s.config)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { d.Close() })
	return d
}

// answering waits until the daemon does.
func (s *setting) answering() {
	s.Helper()
	s.until("the daemon answers", func() bool {
		_, err := s.client.Status(s.Context())
		return err == nil
	})
}

// until waits for what nothing tells of.
func (s *setting) until(what string, f func() bool) {
	s.Helper()
	for end := time.Now().Add(30 * time.Second); !f(); {
		if time.Now().After(end) {
			s.Fatalf("it does not happen that %s", what)
		}
		pause(s.Context(), 5*time.Millisecond)
	}
}

func (s *setting) ready() {
	s.Helper()
	s.until("the daemon is ready", func() bool {
		status, err := s.client.Status(s.Context())
		return err == nil && status.NotReady == ""
	})
}

func subport(n int) vif.Subport {
	return vif.Subport{Port: fmt.Sprint("port-", n), MAC: fmt.Sprintf("fa:16:3e:00:00:%02x", n), VLAN: n, MTU: 1400,
		IPs: []vif.IP{{Address: fmt.Sprintf("10.10.0.%d/16", n), Gateway: "10.10.255.254"}}}
}

// subports are those from the first on.
func subports(n int) (all []vif.Subport) {
	for i := range n {
		all = append(all, subport(i+1))
	}
	return all
}

func pool(subports ...vif.Subport) *vif.SubportPool {
	return &vif.SubportPool{TypeMeta: metav1.TypeMeta{APIVersion: vif.GroupVersion.String(), Kind: vif.Kind}, ObjectMeta: metav1.ObjectMeta{Name: "worker-0"},
		Spec: vif.SubportPoolSpec{Trunk: "trunk", ParentMAC: "fa:16:3e:00:00:00", Min: 1, Max: 100, Batch: 1, Subports: subports}}
}

func attachment(n int) socket.Attachment {
	return socket.Attachment{Container: fmt.Sprint("container-", n), IfName: "eth0"}
}

func request(n int) socket.Add {
	return socket.Add{Attachment: attachment(n), Network: "kuryr", Namespace: "default", Pod: fmt.Sprint("pod-", n), UID: fmt.Sprint("uid-", n)}
}

func (s *setting) add(n int) socket.Added {
	s.Helper()
	a, err := s.client.Add(s.Context(), request(n))
	if err != nil {
		s.Fatal(err)
	}
	return a
}

func (s *setting) del(n int) {
	s.Helper()
	if err := s.client.Del(s.Context(), attachment(n)); err != nil {
		s.Fatal(err)
	}
}

func (s *setting) pool() (p vif.SubportPool) {
	s.cluster.Pool("worker-0", &p)
	return p
}

// reported waits for a status that is as wanted.
func (s *setting) reported(what string, f func(vif.SubportPoolStatus) bool) {
	s.Helper()
	for patience := time.After(30 * time.Second); ; {
		changed := s.cluster.Changed()
		if f(s.pool().Status) {
			return
		}
		select {
		case <-changed:
		case <-patience:
			s.Fatalf("the status does not come to say that %s: %+v", what, s.pool().Status)
		}
	}
}

// served waits until that many pods are reported to have a subport.
func (s *setting) served(n int) {
	s.Helper()
	s.reported(fmt.Sprint(n, " pods are served"), func(st vif.SubportPoolStatus) bool { return len(st.Allocations) == n })
}

// outage makes the API server be away.
func (s *setting) outage() {
	s.cluster.Intercept(func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) })
	s.cluster.EndWatches(false)
}

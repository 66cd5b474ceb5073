package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
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

// outage makes the API server be away.
func (s *setting) outage() {
	s.cluster.Intercept(func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) })
	s.cluster.EndWatches(false)
}

func TestAPodIsServedReportedAndGivenBack(t *testing.T) {
	s := begin(t, pool(subport(1), subport(2)))
	s.start()
	s.ready()
	a := s.add(1)
	if again := s.add(1); !reflect.DeepEqual(a, again) {
		t.Errorf("asked again, the answer is %+v instead of %+v", again, a)
	}
	i := a.Interface
	if i.Port != "port-1" || i.VLAN != 1 || i.ParentMAC != "fa:16:3e:00:00:00" || i.Addresses[0].Gateway.String() != "10.10.255.254" {
		t.Errorf("got %+v", i)
	}
	if got, err := s.client.Allocation(t.Context(), attachment(1)); err != nil || got.Port != i.Port {
		t.Errorf("the allocation is %v, %v", got, err)
	}
	s.reported("pod-1 has port-1", func(st vif.SubportPoolStatus) bool {
		return len(st.Allocations) == 1 && st.Allocations[0].Port == "port-1" && st.Allocations[0].Pod == "pod-1" && st.Allocations[0].UID == "uid-1" &&
			st.Allocations[0].Namespace == "default" && st.Allocations[0].Container == "container-1" && !st.Allocations[0].Since.IsZero() &&
			st.Subports == 2 && st.Used == 1 && !st.Heartbeat.IsZero()
	})
	s.del(1)
	s.del(1)
	s.reported("nobody has anything", func(st vif.SubportPoolStatus) bool { return len(st.Allocations) == 0 && st.Used == 0 })
	var no *socket.Refusal
	if _, err := s.client.Allocation(t.Context(), attachment(1)); !errors.As(err, &no) || no.Code != 404 {
		t.Errorf("got %v", err)
	}
	if info, err := os.Stat(s.config.Socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket is %v, %v", info.Mode(), err)
	}
}

func TestTheControllersPartOfTheStatusIsLeftAlone(t *testing.T) {
	p := pool(subport(1))
	p.Status.Conditions = []metav1.Condition{{Type: vif.Ready, Status: "True"}}
	s := begin(t, p)
	s.start()
	s.reported("a daemon is there", func(st vif.SubportPoolStatus) bool { return !st.Heartbeat.IsZero() })
	if got := s.pool().Status.Conditions; len(got) != 1 {
		t.Errorf("the conditions are %v", got)
	}
}

func TestAPodWaitsForThePoolToGrow(t *testing.T) {
	s := begin(t, pool(subport(1)))
	s.start()
	s.ready()
	s.add(1)
	got := make(chan socket.Added)
	go func() {
		a, err := s.client.Add(t.Context(), request(2))
		if err != nil {
			t.Error(err)
		}
		got <- a
	}()
	s.reported("pod-1 is served", func(st vif.SubportPoolStatus) bool { return len(st.Allocations) == 1 })
	s.cluster.SetPool(pool(subport(1), subport(2)))
	if a := <-got; a.Interface.Port != "port-2" {
		t.Errorf("got %v", a)
	}
}

// A node that cannot have any pod says so before one is sent there; one whose pods have all there is stays as it is.
func TestANodeThatNeverHadASubportIsNotReady(t *testing.T) {
	p := pool()
	p.Status.Conditions = []metav1.Condition{{Type: vif.QuotaExceeded, Status: "True", Message: "50 of 50 ports"}}
	s := begin(t, p)
	s.start()
	s.until("the reason is told", func() bool {
		status, err := s.client.Status(t.Context())
		return err == nil && strings.Contains(status.NotReady, "no subports for this node; the controller says QuotaExceeded=True: 50 of 50 ports")
	})
	p = pool(subport(1))
	s.cluster.SetPool(p)
	s.ready()
	s.add(1)
	s.cluster.SetPool(pool())
	s.reported("the pool is empty", func(st vif.SubportPoolStatus) bool { return st.Subports == 0 && len(st.Allocations) == 1 })
	s.ready()
}

// As many as a kubelet takes, in one moment.
func TestAFullNodeAtOnce(t *testing.T) {
	const pods = 110
	var all []vif.Subport
	for n := range pods {
		all = append(all, subport(n+1))
	}
	s := begin(t, pool(all...))
	s.start()
	s.ready()
	for _, round := range []int{0, pods} { // the second one waits for what the first gives back
		var wg sync.WaitGroup
		var mu sync.Mutex
		has := map[string]bool{}
		for n := range pods {
			wg.Go(func() {
				a, err := s.client.Add(t.Context(), request(round+n))
				mu.Lock()
				defer mu.Unlock()
				if err != nil || has[a.Interface.Port] {
					t.Errorf("got %v, %v", a, err)
				}
				has[a.Interface.Port] = true
			})
			if round > 0 {
				wg.Go(func() {
					if err := s.client.Del(t.Context(), attachment(n)); err != nil {
						t.Error(err)
					}
				})
			}
		}
		wg.Wait()
	}
	s.reported("the second round has all", func(st vif.SubportPoolStatus) bool {
		first := false
		for _, a := range st.Allocations {
			first = first || a.Container == "container-0"
		}
		return len(st.Allocations) == pods && !first
	})
}

func TestThePatienceIsBoundedAndTheReasonTold(t *testing.T) {
	p := pool(subport(1))
	p.Status.Conditions = []metav1.Condition{{Type: vif.QuotaExceeded, Status: "True", Message: "50 of 50 ports"}}
	s := begin(t, p)
	s.config.Patience = 50 * time.Millisecond
	s.start()
	s.ready()
	s.add(1)
	_, err := s.client.Add(t.Context(), request(2))
	var no *socket.Refusal
	if !errors.As(err, &no) || no.Code != 503 {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{"of 1, 1 are in use", "QuotaExceeded=True: 50 of 50 ports", "waited 50ms"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q lacks %q", err, want)
		}
	}
}

// Who came late because others were served first has not waited for a subport.
func TestPatienceEndsAWaitAndNothingElse(t *testing.T) {
	s := begin(t, nil)
	s.config.Patience, s.config.Cooldown = 0, 0
	d, err := Open(s.config)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	d.ledger.publish(pool(subport(1)), time.Now())
	if _, err := d.add(t.Context(), request(1)); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.del(attachment(1)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.add(ctx, request(2)); err == nil || len(d.ledger.taken) != 0 {
		t.Errorf("got %v; who is gone has a subport: %v", err, d.ledger.taken)
	}
}

func TestNoSubportIsTakenForASandboxThatWasGivenUp(t *testing.T) {
	s := begin(t, pool())
	s.start()
	refused := make(chan error)
	go func() {
		_, err := s.client.Add(t.Context(), request(1))
		refused <- err
	}()
	s.until("the wait has ended", func() bool {
		s.del(1)
		select {
		case err := <-refused:
			if err == nil || !strings.Contains(err.Error(), "given up") {
				t.Errorf("got %v", err)
			}
			return true
		default:
			return false
		}
	})
	s.cluster.SetPool(pool(subport(1)))
	s.reported("nobody has the new subport", func(st vif.SubportPoolStatus) bool { return st.Subports == 1 && len(st.Allocations) == 0 })
	if a := s.add(2); a.Interface.Port != "port-1" {
		t.Errorf("got %v", a)
	}
}

func TestPodsAreServedWithoutTheAPIServerAlsoAfterARestart(t *testing.T) {
	s := begin(t, pool(subport(1), subport(2), subport(3)))
	s.start()
	s.ready()
	s.add(1)
	s.reported("pod-1 is served", func(st vif.SubportPoolStatus) bool { return len(st.Allocations) == 1 })
	s.outage()
	if a := s.add(2); a.Interface.Port != "port-2" {
		t.Errorf("got %v", a)
	}
	s.stop()
	s.config.Patience = 50 * time.Millisecond
	s.start()
	if a := s.add(1); a.Interface.Port != "port-1" {
		t.Errorf("after a restart pod-1 has %v", a)
	}
	if a := s.add(3); a.Interface.Port != "port-3" {
		t.Errorf("got %v", a)
	}
	s.until("the API server's absence is given as a reason", func() bool {
		_, err := s.client.Add(t.Context(), request(4))
		return err != nil && strings.Contains(err.Error(), "the API server cannot be asked")
	})
	s.cluster.Intercept(nil)
	s.reported("all three are served", func(st vif.SubportPoolStatus) bool { return len(st.Allocations) == 3 })
	s.cluster.SetPool(pool(subport(1), subport(2), subport(3), subport(4)))
	s.reported("the pool has grown", func(st vif.SubportPoolStatus) bool { return st.Subports == 4 })
	if a := s.add(4); a.Interface.Port != "port-4" {
		t.Errorf("got %v", a)
	}
}

func TestAWatchThatEndsOrIsTooOldIsBegunAnew(t *testing.T) {
	for _, lost := range []bool{false, true} {
		s := begin(t, pool())
		s.start()
		for n := 1; n <= 3; n++ {
			s.cluster.EndWatches(lost)
			var all []vif.Subport
			for i := range n {
				all = append(all, subport(i+1))
			}
			s.cluster.SetPool(pool(all...))
			s.add(n)
		}
		s.stop()
	}
}

func TestAPoolThatIsDeletedAndMadeAgain(t *testing.T) {
	s := begin(t, pool(subport(1)))
	s.start()
	s.ready()
	s.add(1)
	s.reported("pod-1 is served", func(st vif.SubportPoolStatus) bool { return len(st.Allocations) == 1 })
	s.cluster.DeletePool("worker-0")
	s.until("the daemon is not ready", func() bool {
		status, err := s.client.Status(t.Context())
		return err == nil && strings.Contains(status.NotReady, "published no subports")
	})
	if a := s.add(1); a.Interface.Port != "port-1" {
		t.Errorf("without a pool pod-1 has %v", a)
	}
	s.cluster.SetPool(pool(subport(1)))
	s.reported("pod-1 is served", func(st vif.SubportPoolStatus) bool { return len(st.Allocations) == 1 }) // to an object that knows nothing
	s.cluster.SetPool(pool(subport(1), subport(2)))
	if a := s.add(2); a.Interface.Port != "port-2" {
		t.Errorf("got %v", a)
	}
	s.reported("both are served", func(st vif.SubportPoolStatus) bool { return len(st.Allocations) == 2 })
}

func TestWhatRetiresIsReleasedWhenNobodyHasItAndNeverHandedOut(t *testing.T) {
	s := begin(t, pool(subport(1), subport(2)))
	s.start()
	s.ready()
	s.add(1)
	one, two := subport(1), subport(2)
	one.Retiring, two.Retiring = true, true
	s.cluster.SetPool(pool(one, two))
	s.reported("port-2 is released", func(st vif.SubportPoolStatus) bool { return cmp.Equal(st.Released, []string{"port-2"}) })
	s.cluster.SetPool(pool(one, subport(2), subport(3))) // the controller has changed its mind too late
	if a := s.add(2); a.Interface.Port != "port-3" {
		t.Errorf("got %v", a)
	}
	s.stop()
	s.start()
	s.del(1)
	s.reported("both are released", func(st vif.SubportPoolStatus) bool { return cmp.Equal(st.Released, []string{"port-1", "port-2"}) })
	s.cluster.SetPool(pool(subport(3)))
	s.reported("nothing is left to release", func(st vif.SubportPoolStatus) bool { return len(st.Released) == 0 })
}

func TestThePluginsWordIsReadAtOnceAndLater(t *testing.T) {
	s := begin(t, pool(subport(1)))
	s.start()
	s.ready()
	s.add(1)
	if err := socket.Bury(s.config.State, attachment(1)); err != nil {
		t.Fatal(err)
	}
	if a := s.add(2); a.Interface.Port != "port-1" { // while it runs
		t.Errorf("got %v", a)
	}
	s.stop()
	if err := socket.Bury(s.config.State, attachment(2)); err != nil {
		t.Fatal(err)
	}
	s.start()
	a := s.add(2) // the word is older than this question, so it is acted upon first, and never afterwards
	s.until("the word is taken back", func() bool {
		words, err := socket.Buried(s.config.State)
		return err == nil && len(words) == 0
	})
	if got, err := s.client.Allocation(t.Context(), attachment(2)); err != nil || got.Port != a.Interface.Port {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestWordIsOlderThanTheQuestionThatFollowsIt(t *testing.T) {
	s := begin(t, nil)
	s.config.Cooldown = 0
	d, err := Open(s.config)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	d.ledger.publish(pool(subport(1)), time.Now())
	for range 2 {
		if _, err := d.add(t.Context(), request(1)); err != nil {
			t.Fatal(err)
		}
		if err := d.readWords(); err != nil {
			t.Fatal(err)
		}
		if _, err := d.allocation(attachment(1)); err != nil {
			t.Errorf("old word has freed a new allocation: %v", err)
		}
		if err := socket.Bury(s.config.State, attachment(1)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestARestartBeginsCoolingAnew(t *testing.T) {
	s := begin(t, nil)
	s.config.Cooldown = time.Minute
	future := time.Now().Add(time.Hour)
	text, err := encode([]record{{Freed: &freeing{Port: "port-1", VLAN: 1, At: future}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.MkdirAll(s.config.State, 0o700), os.WriteFile(filepath.Join(s.config.State, "journal"), text, 0o600)); err != nil {
		t.Fatal(err)
	}
	d, err := Open(s.config)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if at := d.ledger.freed["port-1"].At; !at.Before(future) {
		t.Errorf("it cools down from %v on", at)
	}
}

func TestASandboxWithoutItsNamespaceGivesBack(t *testing.T) {
	s := begin(t, pool(subport(1)))
	s.start()
	s.ready()
	r := request(1)
	r.Netns = filepath.Join(s.dir, "netns")
	if err := os.WriteFile(r.Netns, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.client.Add(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(r.Netns); err != nil {
		t.Fatal(err)
	}
	a := s.add(2)
	if a.Interface.Port != "port-1" || len(a.Stale) != 1 || a.Stale[0].Netns != r.Netns {
		t.Errorf("got %+v", a)
	}
}

func TestGCGivesBackAllButTheValid(t *testing.T) {
	s := begin(t, pool(subport(1), subport(2), subport(3)))
	s.start()
	s.ready()
	for n := 1; n <= 3; n++ {
		s.add(n)
	}
	if c, err := s.client.GC(t.Context(), socket.GC{Network: "another"}); err != nil || len(c.Places) != 0 {
		t.Errorf("another network's garbage: %v, %v", c, err)
	}
	c, err := s.client.GC(t.Context(), socket.GC{Network: "kuryr", Valid: []socket.Attachment{attachment(2)}})
	if err != nil || len(c.Places) != 2 {
		t.Errorf("got %v, %v", c, err)
	}
	s.reported("pod-2 alone is there", func(st vif.SubportPoolStatus) bool {
		return len(st.Allocations) == 1 && st.Allocations[0].Container == "container-2"
	})
}

func TestThereIsOneDaemon(t *testing.T) {
	s := begin(t, pool())
	s.start()
	if _, err := Open(s.config); err == nil || !strings.Contains(err.Error(), "another daemon is running") {
		t.Errorf("got %v", err)
	}
}

func TestAJournalThatCannotBeWrittenServesNobody(t *testing.T) {
	s := begin(t, nil)
	d, err := Open(s.config)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	d.ledger.publish(pool(subport(1)), time.Now())
	if err := d.journal.file.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.add(t.Context(), request(1)); err == nil {
		t.Error("it was handed out")
	}
	shown := httptest.NewRecorder()
	d.observed().ServeHTTP(shown, httptest.NewRequest("GET", "/healthz", nil))
	if shown.Code != 500 {
		t.Errorf("it is healthy: %d", shown.Code)
	}
	if _, err := d.add(t.Context(), request(1)); err != nil { // the disk has room again
		t.Error(err)
	}
}

func TestWhatIsAskedWronglyIsRefused(t *testing.T) {
	s := begin(t, pool(subport(1)))
	s.start()
	if _, err := s.client.Add(t.Context(), socket.Add{}); err == nil || !strings.Contains(err.Error(), "are needed") {
		t.Errorf("got %v", err)
	}
}

func TestMetricsCountAndHealthIsShown(t *testing.T) {
	s := begin(t, nil)
	d, err := Open(s.config)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		d.observed().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		return w.Code, w.Body.String()
	}
	if code, _ := get("/readyz"); code != 503 {
		t.Errorf("without a pool it is ready: %d", code)
	}
	if err := d.publish(pool(subport(1), subport(2))); err != nil {
		t.Fatal(err)
	}
	if _, err := d.add(t.Context(), request(1)); err != nil {
		t.Fatal(err)
	}
	d.metrics.deleted(700 * time.Microsecond)
	d.metrics.added(3*time.Millisecond, nil)
	d.metrics.added(2*time.Hour, nil)
	d.metrics.added(0, errors.New("no"))
	_, text := get("/metrics")
	for _, want := range []string{`add_milliseconds_bucket{le="2"} 0`, `add_milliseconds_bucket{le="5"} 1`, `add_milliseconds_bucket{le="60000"} 1`,
		`add_milliseconds_bucket{le="+Inf"} 2`, "add_milliseconds_count 2", "refused_total 1", `del_milliseconds_bucket{le="1"} 1`, "del_milliseconds_sum 0.7",
		`kuryr_subports{state="free"} 1`, `kuryr_subports{state="used"} 1`, `kuryr_subports{state="cooling"} 0`} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not in\n%s", want, text)
		}
	}
	for _, path := range []string{"/readyz", "/healthz", "/debug/pprof/"} {
		if code, body := get(path); code != 200 {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
}

// A daemon is killed again and again while pods come and go. Whoever was answered keeps what they were told, and nobody else has it.
func TestKilledAtAnyMomentItForgetsNothing(t *testing.T) {
	var all []vif.Subport
	for n := range 40 {
		all = append(all, subport(n+1))
	}
	s := begin(t, pool(all...))
	told := map[string]socket.Attachment{} // by port
	var mu sync.Mutex
	for round := range 4 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), asProcess+"="+s.dir)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		s.answering()
		for port, a := range told {
			if i, err := s.client.Allocation(t.Context(), a); err != nil || i.Port != port {
				t.Errorf("%v was told %s and has %v, %v: %s", a, port, i, err, &stderr)
			}
		}
		var wg sync.WaitGroup
		answered := make(chan bool, 100)
		for n := range 10 {
			wg.Go(func() {
				r := request(round*10 + n)
				a, err := s.client.Add(t.Context(), r)
				if err != nil {
					return // killed first
				}
				mu.Lock()
				defer mu.Unlock()
				if other, ok := told[a.Interface.Port]; ok {
					t.Errorf("%v and %v have %s", other, r.Attachment, a.Interface.Port)
				}
				told[a.Interface.Port] = r.Attachment
				answered <- true
			})
		}
		for range round*3 + 1 { // killed earlier and later
			<-answered
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		wg.Wait()
	}
	if len(told) < 22 {
		t.Errorf("only %d pods were served", len(told))
	}
	s.start()
	s.reported("all who were told are there", func(st vif.SubportPoolStatus) bool {
		have := map[string]string{}
		for _, a := range st.Allocations {
			have[a.Port] = a.Container
		}
		for port, a := range told {
			if have[port] != a.Container {
				return false
			}
		}
		return true
	})
}

// The copy of the pool has to be as new as the ledger, whatever is cut off.
func TestTheCopyOfThePoolIsReadBack(t *testing.T) {
	s := begin(t, nil)
	d, err := Open(s.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.publish(pool(subport(1))); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if d, err = Open(s.config); err != nil || d.ledger.pool == nil || len(d.ledger.pool.Spec.Subports) != 1 {
		t.Fatalf("got %v, %v", d.ledger.pool, err)
	}
	if err := d.publish(nil); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	other := pool(subport(1))
	other.Name = "worker-1"
	text, err := json.Marshal(other)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", "{", string(text)} { // none, damaged, another node's: no reason not to start
		if err := os.Remove(d.cachePath()); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		if text != "" {
			if err := os.WriteFile(d.cachePath(), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if d, err = Open(s.config); err != nil || d.ledger.pool != nil {
			t.Errorf("%q: got %v, %v", text, d.ledger.pool, err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

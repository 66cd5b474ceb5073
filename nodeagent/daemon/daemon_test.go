package daemon

import (
	"context"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kuryrctl/kuryrctl/nodeagent/socket"
	"github.com/kuryrctl/kuryrctl/nodeagent/vif"
)

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
	s.served(1)
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
	s := begin(t, pool(subports(pods)...))
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
	d := s.open()
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

func TestAWatchThatEndsOrIsTooOldIsBegunAnew(t *testing.T) {
	for _, lost := range []bool{false, true} {
		s := begin(t, pool())
		s.start()
		for n := 1; n <= 3; n++ {
			s.cluster.EndWatches(lost)
			s.cluster.SetPool(pool(subports(n)...))
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
	s.served(1)
	s.cluster.DeletePool("worker-0")
	s.until("the daemon is not ready", func() bool {
		status, err := s.client.Status(t.Context())
		return err == nil && strings.Contains(status.NotReady, "published no subports")
	})
	if a := s.add(1); a.Interface.Port != "port-1" {
		t.Errorf("without a pool pod-1 has %v", a)
	}
	s.cluster.SetPool(pool(subport(1)))
	s.served(1) // to an object that knows nothing
	s.cluster.SetPool(pool(subport(1), subport(2)))
	if a := s.add(2); a.Interface.Port != "port-2" {
		t.Errorf("got %v", a)
	}
	s.served(2)
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
	d := s.open()
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
	d := begin(t, nil).open()
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

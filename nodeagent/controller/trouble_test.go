package controller_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
	"github.com/kuryrctl/kuryrctl/nodeagent/controller"
	"github.com/kuryrctl/kuryrctl/nodeagent/vif"
)

// number is a metric as one.
func number(t *testing.T, c *controller.Controller, name string) float64 {
	t.Helper()
	v, err := strconv.ParseFloat(metric(t, c, name), 64)
	if err != nil {
		return -1
	}
	return v
}

func workers(k int) (names []string) {
	for i := range k {
		names = append(names, fmt.Sprintf("worker-%d", i))
	}
	return names
}

// all tells whether something is so of every worker.
func all(names []string, is func(string) bool) func() bool {
	return func() bool { return !slices.ContainsFunc(names, func(n string) bool { return !is(n) }) }
}

func TestTheFirstBatchIsUsableBeforeTheRestIsMade(t *testing.T) {
	l := newLab(t, []string{"worker-0"}, openstacktest.Polls(0))
	var names []string
	for i := range 40 {
		names = append(names, fmt.Sprintf("web-%d", i))
	}
	l.addPods("worker-0", names...)
	l.fake.CutAfter(2) // one batch, and then nothing
	l.start(nil)
	l.until("a batch is published", func() bool { return len(l.pool("worker-0").Spec.Subports) == 5 })
	l.fake.Heal()
	l.until("the rest as well", func() bool { return len(l.pool("worker-0").Spec.Subports) >= 43 })
	l.check("worker-0")
}

func TestAStormOfRefusalsSlowsWritesDownToOneAtATime(t *testing.T) {
	for name, fault := range map[string]struct {
		status int
		header http.Header
	}{"too many": {429, nil}, "unavailable": {503, http.Header{"Retry-After": {"0"}}}, "conflicts": {409, nil}} {
		t.Run(name, func(t *testing.T) {
			names := workers(6)
			l := newLab(t, names, openstacktest.Polls(0))
			l.fake.Fail("POST /v2.0/ports", -1, fault.status, `{"NeutronError": {"type": "Busy", "message": "no", "detail": ""}}`, fault.header)
			c, _ := l.start(nil)
			l.until("one at a time", func() bool { return metric(t, c, "write_limit") == "1" })
			l.fake.Heal()
			l.until("ready", all(names, l.ready))
			l.until("faster again", func() bool { return number(t, c, "write_limit") > 1 })
			l.check(names...)
		})
	}
}

func TestAddressesThatAreUsedUpAreToldAndHeal(t *testing.T) {
	l := newLab(t, []string{"worker-0"})
	l.fake.Fail("POST /v2.0/ports", -1, 409, `{"NeutronError": {"type": "IpAddressGenerationFailure", "message": "No more IP addresses available on network x.", "detail": ""}}`, nil)
	c, _ := l.start(nil)
	l.until("told", func() bool { return l.condition("worker-0", vif.NoAddresses) == "True NoAddresses" })
	var last struct {
		Time  time.Time
		Error string
	}
	w := httptest.NewRecorder()
	c.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/debug/last-cloud-error", nil))
	if err := json.Unmarshal(w.Body.Bytes(), &last); err != nil || last.Time.IsZero() || !strings.Contains(last.Error, "No more IP addresses") || !strings.Contains(last.Error, "req-") {
		t.Errorf("the last error is told as %s", w.Body)
	}
	if at := number(t, c, "last_cloud_error_timestamp_seconds"); at < float64(time.Now().Add(-time.Minute).Unix()) {
		t.Errorf("the last error was at %f", at)
	}
	l.fake.Heal()
	l.until("healed", func() bool {
		return l.ready("worker-0") && l.condition("worker-0", vif.NoAddresses) == "False AddressesLeft"
	})
	l.check("worker-0")
}

func TestATokenThatEndsInTheMiddleIsRenewed(t *testing.T) {
	l := newLab(t, []string{"worker-0"})
	l.start(nil)
	l.until("ready", func() bool { return l.ready("worker-0") })
	logins := l.cloud.Calls().Auths
	l.fake.RevokeTokens()
	l.addPods("worker-0", "a", "b", "c", "d", "e", "f")
	l.until("a subport for each pod, and three", func() bool { return len(l.pool("worker-0").Spec.Subports) >= 9 })
	if n := l.cloud.Calls().Auths - logins; n != 1 {
		t.Errorf("%d logins, want one", n)
	}
	if l.events("CloudError") > 0 {
		t.Error("it is told as an error")
	}
	l.check("worker-0")
}

func TestAWatchThatIsTooOldIsBegunAnew(t *testing.T) {
	l := newLab(t, []string{"worker-0"})
	l.start(nil)
	l.until("ready", func() bool { return l.ready("worker-0") })
	l.kube.EndWatches(true)
	l.addPods("worker-0", "a", "b", "c", "d", "e", "f")
	l.until("a subport for each pod, and three", func() bool { return len(l.pool("worker-0").Spec.Subports) >= 9 })
	l.check("worker-0")
}

func TestANodeThatGoesWhileItIsWorkedOn(t *testing.T) {
	l := newLab(t, []string{"worker-0", "worker-1"})
	removed := make(chan struct{})
	var once sync.Once
	l.cloud.Observe(func(s openstack.Sent) { // ports were made and are on no trunk yet
		if s.Method == "POST" && strings.HasSuffix(s.Path, "/ports") {
			once.Do(func() {
				l.kube.RemoveNode("worker-0")
				l.kube.RemoveNode("worker-1")
				close(removed)
			})
		}
	})
	l.start(nil)
	l.until("nothing is left", func() bool {
		return closed(removed) && l.pool("worker-0").Name == "" && l.pool("worker-1").Name == "" && l.podPorts() == 0
	})
}

func closed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// podPorts counts the ports in the cloud that are for pods.
func (l *lab) podPorts() int {
	n := 0
	for _, thing := range l.fake.Left() {
		if strings.HasPrefix(thing, "port ") && !strings.HasPrefix(thing, "port demo/worker") {
			n++
		}
	}
	return n
}

func TestALostActiveIsRevived(t *testing.T) {
	l := newLab(t, []string{"worker-0"}, openstacktest.Polls(0))
	c, _ := l.start(func(o *controller.Options) { o.Patience = 300 * time.Millisecond })
	l.until("ready", func() bool { return l.ready("worker-0") })
	before := l.pool("worker-0").Spec.Subports
	l.fake.Set("port", before[1].Port, "status", "DOWN")
	l.until("it was attached anew", func() bool { return l.events("SubportRevived") >= 1 })
	l.until("all are up", func() bool { return metric(t, c, `subports_down{node="worker-0"}`) == "0" })
	if after := l.pool("worker-0").Spec.Subports; fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("was %v, is %v", before, after)
	}
	l.check("worker-0")
}

func TestAThousandPodsOnTwentyNodesTakeFewCalls(t *testing.T) {
	names := workers(20)
	l := newLab(t, names, openstacktest.Polls(0), openstacktest.Quota("network", "port", -1))
	l.start(func(o *controller.Options) { o.Max = 110 })
	l.until("ready", all(names, l.ready))
	before := l.cloud.Calls()
	for i := range 1000 {
		l.addPods(names[i%20], fmt.Sprintf("web-%d", i))
	}
	l.until("a subport for each pod, and three", all(names, func(n string) bool { return len(l.pool(n).Spec.Subports) >= 53 }))
	after := l.cloud.Calls()
	calls := after.Reads + after.Writes - before.Reads - before.Writes
	t.Logf("%d calls for 1,000 pods", calls)
	if calls > 300 {
		t.Errorf("%d calls for 1,000 pods, want 0.3 for each at most", calls)
	}
	l.check(names...)
}

func TestLeaksAreReportedFirstAndRemovedWhenTheyStay(t *testing.T) {
	l := newLab(t, []string{"worker-0", "worker-9"})
	_, stop := l.start(nil)
	l.until("ready", func() bool { return l.ready("worker-0") && l.ready("worker-9") })
	stop()
	// While nobody works, a node goes, and its pool with it: nothing tells any more whose its ports were.
	l.fake.Delete("trunk", "demo/worker-9")
	l.kube.RemoveNode("worker-9")
	l.kube.DeletePool("worker-9")
	l.fake.ResetLog()
	once, stop := l.start(func(o *controller.Options) { o.Identity, o.Lease = "b", time.Second })
	l.until("reported", func() bool { return l.events("LeaksFound") == 1 })
	if n := number(t, once, "leaks"); n != 5 || len(l.fake.Writes()) > 0 {
		t.Errorf("%v leaks, and after one look %v", n, l.fake.Writes())
	}
	stop()
	c, _ := l.start(func(o *controller.Options) { o.Identity, o.Lease, o.Resync = "c", time.Second, 50*time.Millisecond })
	l.until("removed", func() bool { return l.events("LeaksRemoved") == 1 })
	l.until("none are left", func() bool { return number(t, c, "leaks") == 0 })
	l.check("worker-0")
}

func TestMetricsTellFastFromSlow(t *testing.T) {
	l := newLab(t, []string{"worker-0"}, openstacktest.Latency(2*time.Millisecond))
	c, _ := l.start(nil)
	l.until("ready", func() bool { return l.ready("worker-0") })
	for name, least := range map[string]float64{
		`cloud_request_duration_seconds_count{method="POST",resource="ports",status="201"}`:                         1,
		`cloud_request_duration_seconds_bucket{method="PUT",resource="trunks/add_subports",status="200",le="+Inf"}`: 1,
		"reconcile_duration_seconds_count": 1,
		"pool_fill_duration_seconds_count": 0,
		"ports_without_pods":               5,
		`subports_free{node="worker-0"}`:   5,
	} {
		l.until(name, func() bool { return number(t, c, name) >= least })
	}
	if v := number(t, c, `cloud_request_duration_seconds_bucket{method="POST",resource="ports",status="201",le="0.001"}`); v != 0 {
		t.Errorf("%v requests took less than the cloud does", v)
	}
}

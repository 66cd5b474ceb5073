package controller

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/nodeagent/subport"
	"github.com/kuryrctl/kuryrctl/nodeagent/vif"
)

// metrics are counted as things happen. They are few, and their text is simple, so that no library is needed for them.
type metrics struct {
	mu        sync.Mutex
	values    map[string]float64 // by name with labels
	durations map[string]*histogram
	lastError lastError
}

type lastError struct {
	Time  time.Time `json:"time,omitzero"`
	Error string    `json:"error"`
}

// buckets are upper bounds in seconds: what is fast is told apart too.
var buckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}

type histogram struct {
	counts []uint64 // of each bucket alone, the last without bound
	sum    float64
}

func newMetrics() *metrics {
	return &metrics{values: map[string]float64{}, durations: map[string]*histogram{}}
}

func (m *metrics) add(name string, v float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.values[name] += v
}

func (m *metrics) set(name string, v float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.values[name] = v
}

// observe takes one duration; labels are without braces, or "".
func (m *metrics) observe(name, labels string, d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := name + "{" + labels
	h, ok := m.durations[key]
	if !ok {
		h = &histogram{counts: make([]uint64, len(buckets)+1)}
		m.durations[key] = h
	}
	i, _ := slices.BinarySearch(buckets, d.Seconds())
	h.counts[i]++
	h.sum += d.Seconds()
}

// ofNodes are the metrics of single nodes.
var ofNodes = []string{"subports", "subports_free", "subports_wanted", "subports_down"}

func (m *metrics) node(name string, r subport.Result) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, v := range []int{len(r.Subports), r.Free, r.Wanted, r.Down} {
		m.values[fmt.Sprintf("%s{node=%q}", ofNodes[i], name)] = float64(v)
	}
	m.values["subports_revived_total"] += float64(len(r.Revived))
}

// forget ends the series of a node that is gone.
func (m *metrics) forget(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, of := range ofNodes {
		delete(m.values, fmt.Sprintf("%s{node=%q}", of, name))
	}
}

// failed keeps the last error of the cloud's.
func (m *metrics) failed(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lastError = lastError{time.Now(), err.Error()}
	m.values["last_cloud_error_timestamp_seconds"] = float64(m.lastError.Time.UnixMilli()) / 1000
}

func (m *metrics) write(w io.Writer, more map[string]float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := maps.Clone(m.values)
	maps.Copy(all, more)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(w, "kuryr_controller_%s %.15g\n", name, all[name])
	}
	typed := ""
	for _, key := range slices.Sorted(maps.Keys(m.durations)) {
		h := m.durations[key]
		name, labels, _ := strings.Cut(key, "{")
		if name != typed {
			typed = name
			fmt.Fprintf(w, "# TYPE kuryr_controller_%s histogram\n", name)
		}
		comma, braces := "", ""
		if labels != "" {
			comma, braces = labels+",", "{"+labels+"}"
		}
		total := uint64(0)
		for i, n := range h.counts {
			bound := "+Inf"
			if i < len(buckets) {
				bound = fmt.Sprint(buckets[i])
			}
			total += n
			fmt.Fprintf(w, "kuryr_controller_%s_bucket{%sle=%q} %d\n", name, comma, bound, total)
		}
		fmt.Fprintf(w, "kuryr_controller_%s_sum%s %g\nkuryr_controller_%s_count%s %d\n", name, braces, h.sum, name, braces, total)
	}
}

// sent takes account of a request to the cloud.
func (c *Controller) sent(s openstack.Sent) {
	c.count.observe("cloud_request_duration_seconds", fmt.Sprintf("method=%q,resource=%q,status=\"%d\"", s.Method, resource(s), s.Status), s.Took)
	if !s.Login && s.Method != http.MethodGet && s.Method != http.MethodHead {
		c.pace.Answered(s.Status)
	}
}

// resource is what a request is about, without the ids in its path: ports, or trunks/add_subports.
func resource(s openstack.Sent) string {
	if s.Login {
		return "auth/tokens"
	}
	_, path, ok := strings.Cut(s.Path, "/v2.0/")
	if !ok {
		return "other"
	}
	parts := strings.Split(path, "/")
	if len(parts) > 2 {
		return parts[0] + "/" + parts[2]
	}
	return parts[0]
}

// Handler serves /healthz, /readyz, /metrics (Prometheus' text format), /debug/last-cloud-error and /debug/pprof/. It has no
// authentication: serve it to this machine alone.
func (c *Controller) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", c.readyz)
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		c.metrics(w)
	})
	mux.HandleFunc("GET /debug/last-cloud-error", func(w http.ResponseWriter, _ *http.Request) {
		c.count.mu.Lock()
		last := c.count.lastError
		c.count.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(last) // a client that is gone is its own business
	})
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

// readyz is about this process and not about who leads: one that waits for its turn is ready.
func (c *Controller) readyz(w http.ResponseWriter, _ *http.Request) {
	for i, informer := range c.informers {
		if !informer.HasSynced() {
			http.Error(w, []string{"nodes", "pods", "namespaces", "subport pools"}[i]+" are not known yet", http.StatusServiceUnavailable)
			return
		}
	}
	fmt.Fprintln(w, "ok")
}

func (c *Controller) metrics(w io.Writer) {
	calls := c.o.Cloud.Calls()
	leading := 0.0
	if c.mayWrite() == nil {
		leading = 1
	}
	published, allocated := 0, 0
	for _, o := range c.poolStore.List() {
		p := o.(*vif.SubportPool)
		published += len(p.Spec.Subports)
		allocated += len(p.Status.Allocations)
	}
	c.count.write(w, map[string]float64{
		"leading":                         leading,
		"queue_depth":                     float64(c.queue.Len()),
		"write_limit":                     float64(c.pace.Limit()),
		"ports_without_pods":              float64(published - allocated),
		`cloud_calls_total{kind="read"}`:  float64(calls.Reads),
		`cloud_calls_total{kind="write"}`: float64(calls.Writes),
		`cloud_calls_total{kind="login"}`: float64(calls.Auths),
	})
}

package daemon

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"sync"
	"time"
)

// buckets of a histogram, in milliseconds.
var buckets = [...]int{1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000}

// histogram is how long something took.
type histogram struct {
	counts [len(buckets) + 1]int // the last one: longer
	sum    time.Duration
}

func (h *histogram) took(d time.Duration) {
	h.sum += d
	i := 0
	for i < len(buckets) && d > time.Duration(buckets[i])*time.Millisecond {
		i++
	}
	h.counts[i]++
}

func (h *histogram) text(b *strings.Builder, name, help string) {
	fmt.Fprintf(b, "# HELP %s %s\n# TYPE %s histogram\n", name, help, name)
	n := 0
	for i, bucket := range buckets {
		n += h.counts[i]
		fmt.Fprintf(b, "%s_bucket{le=\"%d\"} %d\n", name, bucket, n)
	}
	n += h.counts[len(buckets)]
	fmt.Fprintf(b, "%s_bucket{le=\"+Inf\"} %d\n%s_sum %g\n%s_count %d\n", name, n, name, float64(h.sum)/float64(time.Millisecond), name, n)
}

// metrics are what is counted, in the text format of Prometheus.
type metrics struct {
	mu        sync.Mutex
	add, del  histogram
	refused   int
	unreports int
}

func (m *metrics) added(took time.Duration, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		m.refused++
		return
	}
	m.add.took(took)
}

func (m *metrics) deleted(took time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.del.took(took)
}

func (m *metrics) unreported() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unreports++
}

func (m *metrics) text(c counts) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b strings.Builder
	m.add.text(&b, "kuryr_add_milliseconds", "Time the daemon took to give a pod a subport.")
	m.del.text(&b, "kuryr_del_milliseconds", "Time the daemon took to take one back.")
	fmt.Fprintf(&b, "# HELP kuryr_add_refused_total Pods that were given none.\n# TYPE kuryr_add_refused_total counter\nkuryr_add_refused_total %d\n", m.refused)
	fmt.Fprintf(&b, "# HELP kuryr_report_failures_total Reports the API server did not take.\n# TYPE kuryr_report_failures_total counter\n"+
		"kuryr_report_failures_total %d\n", m.unreports)
	b.WriteString("# HELP kuryr_subports Subports of this node by what they are.\n# TYPE kuryr_subports gauge\n")
	for _, s := range []struct {
		state string
		n     int
	}{{"free", c.free}, {"used", c.used}, {"cooling", c.cooling}, {"retired", c.retired}} {
		fmt.Fprintf(&b, "kuryr_subports{state=%q} %d\n", s.state, s.n)
	}
	return b.String()
}

func (d *Daemon) serveMetrics(ctx context.Context) error {
	if d.Metrics == "" {
		return nil
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", d.Metrics)
	if err != nil {
		return fmt.Errorf("listening for metrics: %w", err)
	}
	return serveUntil(ctx, l, d.observed())
}

// observed is what the daemon shows of itself.
func (d *Daemon) observed() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		d.mu.Lock()
		c := d.ledger.count(time.Now())
		d.mu.Unlock()
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		fmt.Fprint(w, d.metrics.text(c))
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		d.mu.Lock() // a daemon that is stuck holds it
		broken := d.journal.broken
		d.mu.Unlock()
		if broken {
			http.Error(w, "the journal cannot be written", http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if s := d.status(); s.NotReady != "" {
			http.Error(w, s.NotReady, http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

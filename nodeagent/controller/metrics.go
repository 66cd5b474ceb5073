package controller

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/pprof"
	"slices"

	"github.com/kuryrctl/kuryrctl/nodeagent/subport"
)

// counters are the metrics that are counted as things happen, by name with labels. Their lock is the controller's.
type counters map[string]float64

func (n counters) add(c *Controller, name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n[name]++
}

func (n counters) set(c *Controller, name string, v int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n[name] = float64(v)
}

func (n counters) node(c *Controller, name string, r subport.Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n[fmt.Sprintf("subports{node=%q}", name)] = float64(len(r.Subports))
	n[fmt.Sprintf("subports_free{node=%q}", name)] = float64(r.Free)
	n[fmt.Sprintf("subports_wanted{node=%q}", name)] = float64(r.Wanted)
	n["subports_revived_total"] += float64(len(r.Revived))
}

// Handler serves /healthz, /readyz, /metrics (Prometheus' text format) and /debug/pprof/. It has no authentication: serve it to this
// machine alone.
func (c *Controller) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", c.readyz)
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		c.metrics(w)
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
	leading := 0
	if c.mayWrite() == nil {
		leading = 1
	}
	c.mu.Lock()
	all := maps.Clone(c.count)
	c.mu.Unlock()
	all["leading"] = float64(leading)
	all["queue_depth"] = float64(c.queue.Len())
	all[`cloud_calls_total{kind="read"}`] = float64(calls.Reads)
	all[`cloud_calls_total{kind="write"}`] = float64(calls.Writes)
	all[`cloud_calls_total{kind="login"}`] = float64(calls.Auths)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(w, "kuryr_controller_%s %g\n", name, all[name])
	}
}

package stack

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The ports on the loopback of a node at which the programs for pods show their metrics.
const (
	daemonPort     = 9655
	controllerPort = 9656
)

const (
	scrapeLimit = 10 * time.Second
	addLimit    = time.Second // for a pod to be given its port
)

// errNoPage means that a program runs and has no such page.
var errNoPage = errors.New("it has no such page")

// scrape reads a page of a program on a node's loopback, through SSH.
func (d *diagnosis) scrape(ctx context.Context, node string, port int, path string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, scrapeLimit, fmt.Errorf("it did not answer within %v", scrapeLimit))
	defer cancel()
	client, err := d.stack.Host(ctx, d.view, node)
	if err != nil {
		return "", err
	}
	transport := &http.Transport{DialContext: client.DialContext, DisableKeepAlives: true}
	at := "http://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) + path
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return "", err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	switch {
	case err != nil:
	case resp.StatusCode == http.StatusNotFound:
		err = errNoPage
	case resp.StatusCode != http.StatusOK:
		err = fmt.Errorf("it answers %s", resp.Status)
	}
	return string(text), err
}

// metrics are series with their values, as Prometheus' text format has them.
type metrics map[string]float64

func readMetrics(text string) metrics {
	all := metrics{}
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		line := lines.Text()
		at := strings.LastIndexByte(line, ' ')
		if at < 0 || strings.HasPrefix(line, "#") {
			continue
		}
		if v, err := strconv.ParseFloat(line[at+1:], 64); err == nil {
			all[line[:at]] = v
		}
	}
	return all
}

// quantile is the bound of a histogram's bucket below which this part of what it counted is; +Inf where it is in the last.
func (m metrics) quantile(histogram string, part float64) float64 {
	type bucket struct{ le, n float64 }
	var all []bucket
	for series, n := range m {
		label, ok := strings.CutPrefix(series, histogram+`_bucket{le="`)
		if le, err := strconv.ParseFloat(strings.TrimSuffix(label, `"}`), 64); ok && err == nil {
			all = append(all, bucket{le, n})
		}
	}
	slices.SortFunc(all, func(a, b bucket) int { return cmp.Compare(a.le, b.le) })
	for _, b := range all {
		if b.n >= part*m[histogram+"_count"] {
			return b.le
		}
	}
	return math.Inf(1)
}

// scrapes reads a page of some nodes at once, of those that answer.
func (d *diagnosis) scrapes(ctx context.Context, nodes []NodeView, port int, path string) (map[string]string, map[string]error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	all, failures := map[string]string{}, map[string]error{}
	for _, n := range nodes {
		if !d.answers[n.Name] {
			continue
		}
		wg.Go(func() {
			text, err := d.scrape(ctx, n.Name, port, path)
			mu.Lock()
			defer mu.Unlock()
			if failures[n.Name] = err; err == nil {
				all[n.Name] = text
			}
		})
	}
	wg.Wait()
	return all, failures
}

const addHistogram = "kuryr_add_milliseconds"

func checkPodLatency(ctx context.Context, d *diagnosis) answer {
	if why := d.bare(); why != "" {
		return skipped(why)
	}
	all, failures := d.scrapes(ctx, d.workers(), daemonPort, "/metrics")
	var r remarks
	var well []string
	for _, n := range d.workers() {
		if err := failures[n.Name]; err != nil {
			r.problem(n.Name, "its daemon shows no metrics: "+err.Error(), "see whether it runs: "+d.daemonLog(n.Name))
			continue
		}
		text, ok := all[n.Name]
		if !ok {
			continue
		}
		m := readMetrics(text)
		count, refused := m[addHistogram+"_count"], m["kuryr_add_refused_total"]
		text = fmt.Sprintf("of %.0f pods half had their port within %s, 99 of 100 within %s", count, ms(m.quantile(addHistogram, 0.5)), ms(m.quantile(addHistogram, 0.99)))
		if count == 0 {
			text = "no pod has got one yet"
		}
		if refused > 0 {
			text += fmt.Sprintf("; %.0f were refused", refused)
		}
		well = append(well, n.Name+": "+text)
		if count > 0 && m.quantile(addHistogram, 0.99) > float64(addLimit.Milliseconds()) {
			r.warning(n.Name, text+" since its daemon was started", "pods come faster than ports: see pod-pools, and let the pool keep more free ones (docs/pods.md)")
		}
	}
	return d.withUnreached(r, well)
}

// ms writes a bound of milliseconds.
func ms(bound float64) string {
	if math.IsInf(bound, 1) {
		return "more than a minute"
	}
	return (time.Duration(bound) * time.Millisecond).String()
}

// withUnreached sums up what the nodes that answer had to say.
func (d *diagnosis) withUnreached(r remarks, well []string) answer {
	missing := d.unreached()
	if len(well)+len(r.bad)+len(r.odd) == 0 {
		return skipped(missing)
	}
	a := r.answer(strings.Join(well, "; "))
	if missing != "" {
		a.text += "; " + missing
	}
	return a
}

// refusalPage is what OpenStack refused a controller last, as JSON.
const refusalPage = "/debug/last-cloud-error"

func checkPodCloud(ctx context.Context, d *diagnosis) answer {
	if why := d.bare(); why != "" {
		return skipped(why)
	}
	all, failures := d.scrapes(ctx, d.controllers(), controllerPort, refusalPage)
	var r remarks
	var well []string
	for _, n := range d.controllers() {
		text, ok := all[n.Name]
		switch err := failures[n.Name]; {
		case errors.Is(err, errNoPage):
			well = append(well, n.Name+": its controller is older than this kuryrctl, and keeps no record")
			continue
		case err != nil:
			r.problem(n.Name, "its controller does not say: "+err.Error(), "see whether it runs: kuryrctl logs "+d.name+" "+n.Name+" --unit kuryr-controller")
			continue
		case !ok:
			continue
		}
		var last struct {
			Time  time.Time
			Error string
		}
		if err := json.Unmarshal([]byte(text), &last); err != nil {
			r.problem(n.Name, "what its controller says cannot be read: "+err.Error(), "kuryrctl stack "+d.name+" brings one that fits this kuryrctl")
			continue
		}
		if last.Time.IsZero() {
			well = append(well, n.Name+": none since its controller was started")
			continue
		}
		age := time.Since(last.Time).Round(time.Second)
		said := fmt.Sprintf("%v ago its controller was told: %s", age, strings.Join(strings.Fields(last.Error), " "))
		well = append(well, n.Name+": "+said)
		if age < recently {
			r.warning(n.Name, said, "the controller tries again by itself; see pod-pools for what it costs. The operator finds the request id in the service's log")
		}
	}
	return d.withUnreached(r, well)
}

package daemon

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestMetricsCountAndHealthIsShown(t *testing.T) {
	d := begin(t, nil).open()
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

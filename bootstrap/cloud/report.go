package cloud

import (
	"encoding/json"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/kuryrctl/kuryrctl/internal/graph"
)

// report is what the first process tells everybody outside, in one file that is replaced at every change.
type report struct {
	Ready   bool          `json:"ready"`
	Baked   bool          `json:"baked,omitempty"`   // the baking one has stopped cleanly
	Failure string        `json:"failure,omitempty"` // why the start ended without Ready
	Virt    VirtStatus    `json:"virt"`
	Units   []UnitStatus  `json:"services"`
	Took    time.Duration `json:"took"` // from the first process to Ready
}

// VirtStatus says how servers are run.
type VirtStatus struct {
	Kind   Virt   `json:"kind"`
	Reason string `json:"reason"` // why this one, and why none of the better ones
}

// UnitStatus is one service, or one step of the start.
type UnitStatus struct {
	Name     string        `json:"name"`
	Phase    string        `json:"phase"` // waiting, started, ready, done, failed or skipped
	PID      int           `json:"pid,omitempty"`
	Restarts int           `json:"restarts"` // in a row: forgotten when it has run for a minute
	Took     time.Duration `json:"took"`     // from its start to being ready
	Detail   string        `json:"detail,omitempty"`
}

// reporter writes the report. It is safe for concurrent use.
type reporter struct {
	mu   sync.Mutex
	path string
	now  report
}

// change applies f and writes the result. A report that cannot be written is no reason to end a cloud; its reader will notice.
func (r *reporter) change(f func(*report)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.now)
	_ = writeJSON(r.path, r.now, 0o644)
}

func (r *reporter) unit(name string, f func(*UnitStatus)) {
	r.change(func(now *report) {
		for i := range now.Units {
			if now.Units[i].Name == name {
				f(&now.Units[i])
			}
		}
	})
}

func (r *reporter) virt() VirtStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now.Virt
}

// event keeps the graph's progress in the report.
func (r *reporter) event(e graph.Event) {
	r.unit(string(e.Key), func(u *UnitStatus) {
		u.Took = e.Took
		switch e.Kind {
		case graph.Started:
			u.Phase = "started"
		case graph.Waiting:
			u.Detail = e.Detail
		case graph.Done:
			u.Phase, u.Detail = "done", ""
			if u.PID != 0 {
				u.Phase = "ready"
			}
		case graph.Error:
			u.Phase, u.Detail = "failed", e.Err.Error()
		case graph.Skipped:
			u.Phase, u.Detail = "skipped", e.Detail
		}
	})
}

// report reads what the first process has told. It knows its logs by their place inside; here they are where they are outside.
func (l *Lab) report() (report, error) {
	r, err := readReport(l.reportFile())
	outside := strings.NewReplacer(logPlace, l.Logs())
	r.Failure, r.Virt.Reason = outside.Replace(r.Failure), outside.Replace(r.Virt.Reason)
	for i := range r.Units {
		r.Units[i].Detail = outside.Replace(r.Units[i].Detail)
	}
	return r, err
}

func readReport(path string) (report, error) {
	var r report
	data, err := os.ReadFile(path)
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(data, &r)
}

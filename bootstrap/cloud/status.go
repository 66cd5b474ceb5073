package cloud

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// Status is what there is to know about the lab.
type Status struct {
	Running    bool              `json:"running"`
	Ready      bool              `json:"ready"`
	Failure    string            `json:"failure,omitempty"` // of the start
	Virt       VirtStatus        `json:"virt"`
	Services   []UnitStatus      `json:"services"`
	Endpoints  map[string]string `json:"endpoints"`
	CloudsYAML string            `json:"clouds_yaml"`
	NamesKey   string            `json:"names_key,omitempty"` // path of the TSIG key for updates
	Logs       string            `json:"logs"`
	PID        int               `json:"pid,omitempty"`
	Uptime     time.Duration     `json:"uptime"`       // since the first process began
	StartTook  time.Duration     `json:"start_took"`   // until all services worked
	Memory     int64             `json:"memory_bytes"` // of all processes and servers, shared pages counted once
	Cache      int64             `json:"cache_bytes"`  // layers that can be built again
	State      int64             `json:"state_bytes"`  // this cloud's own
}

// Status looks at the lab. A lab that does not run, or was never built, is no error.
func (l *Lab) Status(ctx context.Context) (Status, error) {
	s := Status{CloudsYAML: l.CloudsYAML(), Logs: l.Logs(), Endpoints: map[string]string{}}
	var err error
	if s.Cache, err = diskUsage(l.cache); err != nil {
		return s, err
	}
	if s.State, err = diskUsage(l.state); err != nil {
		return s, err
	}
	p, ok := l.running()
	if !ok {
		return s, ctx.Err()
	}
	s.Running, s.PID, s.Uptime = true, p.PID, time.Since(p.Started)
	for _, w := range apis() {
		s.Endpoints[w.Name] = "http://" + Address + ":" + strconv.Itoa(w.Port)
	}
	if _, err := os.Stat(l.NamesKey()); err == nil {
		s.Endpoints["named"] = "dns://" + NameServer + "/" + Zone
		s.NamesKey = l.NamesKey()
	}
	r, err := l.report()
	if os.IsNotExist(err) {
		return s, nil // it has only just begun
	}
	if err != nil {
		return s, err
	}
	s.Ready, s.Failure, s.Virt, s.Services, s.StartTook = r.Ready, r.Failure, r.Virt, r.Units, r.Took
	users, err := l.namespaceUsers()
	if err != nil {
		return s, err
	}
	for _, pid := range users {
		s.Memory += proportionalSize(pid)
	}
	return s, ctx.Err()
}

// proportionalSize is a process's share of the memory in bytes, or 0 when it has just ended.
func proportionalSize(pid string) int64 {
	data, err := os.ReadFile(filepath.Join("/proc", pid, "smaps_rollup"))
	if err != nil {
		return 0
	}
	_, rest, _ := bytes.Cut(data, []byte("\nPss:"))
	field, _, _ := bytes.Cut(rest, []byte("kB"))
	kib, err := strconv.ParseInt(string(bytes.TrimSpace(field)), 10, 64)
	if err != nil {
		return 0
	}
	return kib << 10
}

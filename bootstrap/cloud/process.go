package cloud

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// process names the lab's first process. A process id alone does not: it is used again after its owner has ended.
type process struct {
	PID     int       `json:"pid"`
	Ticks   uint64    `json:"ticks"` // start time in clock ticks since boot, field 22 of proc(5) stat
	Boot    string    `json:"boot"`  // boot id of the kernel, since ticks begin again with it
	Started time.Time `json:"started"`
}

func (l *Lab) processFile() string { return filepath.Join(l.state, "supervisor.json") }

// running returns the recorded process if it still lives.
func (l *Lab) running() (process, bool) {
	var p process
	data, err := os.ReadFile(l.processFile())
	if err != nil || json.Unmarshal(data, &p) != nil {
		return process{}, false
	}
	return p, p.alive()
}

func (p process) alive() bool {
	ticks, zombie, err := startTicks(strconv.Itoa(p.PID))
	return err == nil && !zombie && ticks == p.Ticks && bootID() == p.Boot
}

// currentProcess describes the caller. /proc must still be the host's: the id is read there because a process in a new PID
// namespace knows itself as 1.
func currentProcess() (process, error) {
	self, err := os.Readlink("/proc/self")
	if err != nil {
		return process{}, fmt.Errorf("finding the own process id: %w", err)
	}
	pid, err := strconv.Atoi(self)
	if err != nil {
		return process{}, fmt.Errorf("finding the own process id: %w", err)
	}
	ticks, _, err := startTicks(self)
	if err != nil {
		return process{}, fmt.Errorf("finding the own start time: %w", err)
	}
	return process{PID: pid, Ticks: ticks, Boot: bootID(), Started: time.Now()}, nil
}

func startTicks(pid string) (ticks uint64, zombie bool, err error) {
	data, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return 0, false, err
	}
	// The command name may hold spaces and parentheses; the last one closes it, and the state is field 3.
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(fields) < 20 {
		return 0, false, fmt.Errorf("reading /proc/%s/stat: %d fields", pid, len(fields))
	}
	ticks, err = strconv.ParseUint(fields[19], 10, 64)
	return ticks, fields[0] == "Z" || fields[0] == "X", err
}

func bootID() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// writeFile replaces a file in one step, so that a reader or a crash never meets half of it.
func writeFile(path string, data []byte, mode os.FileMode) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, data, mode); err != nil {
		return err
	}
	// The file may be there from a killed run, with another mode.
	if err := os.Chmod(tmp, mode); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func writeJSON(path string, v any, mode os.FileMode) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(path, append(data, '\n'), mode)
}

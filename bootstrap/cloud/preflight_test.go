package cloud

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
)

// roomy is a host on which everything is well.
func roomy() host {
	return host{
		uid:       func() int { return 0 },
		find:      func(string) error { return nil },
		available: func() (uint64, error) { return 16 * gib, nil },
		free:      func(string) (uint64, error) { return 100 * gib, nil },
	}
}

func TestCheckNamesFigureAndWayOut(t *testing.T) {
	tests := map[string]struct {
		change   func(*host)
		building bool
		running  bool
		want     []string // all in the error; none: no error
	}{
		"all is well":    {change: func(*host) {}, building: true},
		"not root":       {change: func(h *host) { h.uid = func() int { return 1000 } }, want: []string{"root", "sudo"}},
		"little memory":  {change: func(h *host) { h.available = func() (uint64, error) { return 5 * gib, nil } }, want: []string{"5.0 GiB", "6.0 GiB", "stop something"}},
		"it has it":      {change: func(h *host) { h.available = func() (uint64, error) { return 5 * gib, nil } }, running: true},
		"little disk":    {change: func(h *host) { h.free = func(string) (uint64, error) { return 7 * gib, nil } }, building: true, want: []string{"7.0 GiB", "8.0 GiB", "/c", "XDG_CACHE_HOME"}},
		"enough to go":   {change: func(h *host) { h.free = func(string) (uint64, error) { return 7 * gib, nil } }},
		"no disk at all": {change: func(h *host) { h.free = func(string) (uint64, error) { return gib, nil } }, want: []string{"1.0 GiB", "2.0 GiB", "/s", "XDG_STATE_HOME"}},
		"no mmdebstrap": {change: func(h *host) {
			h.find = func(p string) error {
				if p == "mmdebstrap" {
					return exec.ErrNotFound
				}
				return nil
			}
		}, building: true, want: []string{"mmdebstrap", "apt-get install"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			h := roomy()
			tt.change(&h)
			err := h.check(&Lab{cache: "/c", state: "/s"}, demand{tt.building, tt.running})
			if (err != nil) != (tt.want != nil) {
				t.Fatalf("check: %v", err)
			}
			for _, word := range tt.want {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("%q does not say %q", err, word)
				}
			}
		})
	}
}

func TestMissingProgramsComeWithTheirPackages(t *testing.T) {
	h := roomy()
	h.find = func(p string) error {
		if p == "mmdebstrap" || p == "mkfs.ext4" {
			return exec.ErrNotFound
		}
		return nil
	}
	var missing *MissingError
	if err := h.check(&Lab{cache: "/c", state: "/s"}, demand{building: true}); !errors.As(err, &missing) {
		t.Fatalf("check: %v", err)
	}
	if got := strings.Join(missing.Command(), " "); got != "apt-get install --yes --no-install-recommends mmdebstrap e2fsprogs" {
		t.Errorf("the command is %q", got)
	}
	if err := h.check(&Lab{cache: "/c", state: "/s"}, demand{}); err != nil {
		t.Errorf("a start from the cache needs none of them: %v", err)
	}
}

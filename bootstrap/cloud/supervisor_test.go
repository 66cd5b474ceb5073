package cloud

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/internal/wait"
)

// TestStartOrder checks the edges that were found the hard way.
func TestStartOrder(t *testing.T) {
	for _, baking := range []bool{false, true} {
		s := &supervisor{start: start{Baking: baking}}
		before := map[string]map[string]bool{} // everything that a unit waits for
		for _, r := range s.units().Resources() {
			all := map[string]bool{}
			for _, need := range r.Needs() {
				all[string(need.Key())] = true
				for further := range before[string(need.Key())] {
					all[further] = true
				}
			}
			before[string(r.Key())] = all
		}
		want := map[string][]string{
			"keystone":               {"mariadb", "memcached"},
			"neutron":                {"keystone", "ovn-nb", "ovn-sb", "rabbitmq"},
			"nova-compute":           {"nova-conductor", "placement", "virt", "ovn-controller"},
			"ovs-vswitchd":           {"ovs-settings"},
			"ovn-controller":         {"bridges"},
			"neutron-metadata-agent": {"ovn-controller"},
			"named":                  {"zone", "bridges"}, // on which its address is
		}
		if baking {
			want["nova-conductor"] = []string{"schemas", "identity"}
			want["cell"] = []string{"nova-compute"}
			want["images"] = []string{"glance", "identity"}
		} else {
			want["keystone"] = append(want["keystone"], "passwords")
		}
		for unit, needs := range want {
			for _, need := range needs {
				if !before[unit][need] {
					t.Errorf("baking %t: %s does not wait for %s", baking, unit, need)
				}
			}
		}
		for _, only := range []string{"schemas", "identity", "images", "flavors", "public-network"} {
			if _, there := before[only]; there != baking {
				t.Errorf("baking %t: %s is there: %t", baking, only, there)
			}
		}
	}
}

func TestChooseVirt(t *testing.T) {
	broken := func(context.Context) error { return errors.New("ended by aborted") }
	works := func(context.Context) error { return nil }
	probes := func(kvm, uml func(context.Context) error) []virtProbe {
		return []virtProbe{{KVM, kvm}, {UML, uml}, {QEMU, works}}
	}
	tests := map[string]struct {
		forced Virt
		probes []virtProbe
		want   Virt
		reason string
	}{
		"best first":        {"", probes(works, works), KVM, "kvm boots a guest"},
		"KVM is broken":     {"", probes(broken, works), UML, "kvm: ended by aborted; uml boots"},
		"nothing but QEMU":  {"", probes(broken, broken), QEMU, "uml: ended by aborted; qemu"},
		"forced":            {QEMU, probes(works, works), QEMU, "asked for"},
		"forced and broken": {KVM, probes(broken, works), "", "kvm: ended by aborted"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := chooseVirt(t.Context(), tt.forced, tt.probes)
			if got.Kind != tt.want || (err != nil) != (tt.want == "") {
				t.Fatalf("%+v, %v", got, err)
			}
			said := got.Reason
			if err != nil {
				said = err.Error()
			}
			if !strings.Contains(said, tt.reason) {
				t.Errorf("%q does not say %q", said, tt.reason)
			}
		})
	}
}

// reaping runs f with children that are collected in the background.
func reaping(t *testing.T, f func(c *children, log string)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c := newChildren()
	var wg sync.WaitGroup
	wg.Go(func() { c.reap(ctx) })
	defer wg.Wait()
	defer cancel()
	f(c, filepath.Join(t.TempDir(), "log"))
}

func TestChildrenRun(t *testing.T) {
	reaping(t, func(c *children, log string) {
		if err := c.run(t.Context(), command{argv: []string{"cat"}, in: "text", log: log}); err != nil {
			t.Error(err)
		}
		if got, _ := os.ReadFile(log); string(got) != "text" {
			t.Errorf("cat printed %q", got)
		}
		err := c.run(t.Context(), command{argv: []string{"sh", "-c", "exit 3"}, log: log})
		if err == nil || !strings.Contains(err.Error(), "exit code 3") || !strings.Contains(err.Error(), log) {
			t.Errorf("exit 3 gives: %v", err)
		}
		if err := c.run(t.Context(), command{argv: []string{"no-such-program"}, log: log}); err == nil {
			t.Error("a program that is not there ran")
		}
	})
}

func TestChildrenAreKilledWithTheirGroupAtTheEndOfTheContext(t *testing.T) {
	reaping(t, func(c *children, log string) {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		err := c.run(ctx, command{argv: []string{"sh", "-c", "sleep 600 & echo $!; wait"}, log: log})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("run: %v", err)
		}
		printed, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		cmdline := filepath.Join("/proc", strings.TrimSpace(string(printed)), "cmdline")
		await(t, "the grandchild to end", func() bool {
			data, err := os.ReadFile(cmdline)
			return err != nil || len(data) == 0
		})
	})
}

// TestDaemonIsRestartedAFewTimes runs one that ends at once.
func TestDaemonIsRestartedAFewTimes(t *testing.T) {
	reaping(t, func(c *children, log string) {
		s := newSupervisor(c, &reporter{path: log + ".json", now: report{Units: []UnitStatus{{Name: "d"}}}})
		s.pause = 5 * time.Millisecond
		runs, began := log+".runs", time.Now()
		if err := s.keep("d", command{argv: []string{"sh", "-c", "echo >> " + runs + "; exit 9"}, log: log}); err != nil {
			t.Fatal(err)
		}
		err := s.await(t.Context(), "d", func(context.Context) error { return errors.New("not yet") })
		if err == nil || !strings.Contains(err.Error(), "exit code 9") {
			t.Errorf("await of a daemon that was given up: %v", err)
		}
		s.daemons.Wait()
		if got, _ := os.ReadFile(runs); len(got) != 1+maxRestarts {
			t.Errorf("it ran %d times", len(got))
		}
		if took, want := time.Since(began), s.pause*(1<<maxRestarts-1); took < want {
			t.Errorf("it was given up after %v, and was to have %v", took, want)
		}
		r, err := readReport(log + ".json")
		if err != nil || r.Units[0].Phase != "failed" || r.Units[0].Restarts != maxRestarts {
			t.Errorf("the report says %+v, %v", r, err)
		}
	})
}

// TestDaemonThatSettledIsRestartedAgain has one end after it ran for long, as often as it may end in a row already.
func TestDaemonThatSettledIsRestartedAgain(t *testing.T) {
	reaping(t, func(c *children, log string) {
		s := newSupervisor(c, &reporter{path: log + ".json", now: report{Units: []UnitStatus{{Name: "d", Restarts: maxRestarts}}}})
		s.pause = 0
		s.died("d", command{argv: []string{"sleep", "60"}, log: log}, 9, settled)
		if r, err := readReport(log + ".json"); err != nil || r.Units[0].PID == 0 || r.Units[0].Restarts != 1 || s.failed["d"] != nil {
			t.Errorf("the report says %+v, %v; failed: %v", r, err, s.failed)
		}
		s.stop()
	})
}

// TestDaemonsWorkersEndWithIt has a master that is killed while its worker holds what the next master needs.
func TestDaemonsWorkersEndWithIt(t *testing.T) {
	reaping(t, func(c *children, log string) {
		s := newSupervisor(c, &reporter{path: log + ".json", now: report{Units: []UnitStatus{{Name: "d"}}}})
		s.pause = 5 * time.Millisecond
		worker := "exec flock --nonblock " + log + ".port sh -c 'echo has it >>" + log + "; exec sleep 600'"
		if err := s.keep("d", command{argv: []string{"sh", "-c", worker + " & wait"}, log: log}); err != nil {
			t.Fatal(err)
		}
		for n := 1; n <= 2; n++ {
			await(t, "the worker to have what it needs", func() bool {
				said, _ := os.ReadFile(log)
				return strings.Count(string(said), "has it") == n
			})
			s.mu.Lock()
			pid := s.running["d"].pid
			s.mu.Unlock()
			syscall.Kill(pid, syscall.SIGKILL)
		}
		s.stop()
	})
}

func TestStopEndsTheWaitForARestart(t *testing.T) {
	reaping(t, func(c *children, log string) {
		s := newSupervisor(c, &reporter{path: log + ".json", now: report{Units: []UnitStatus{{Name: "d"}}}})
		s.pause = time.Hour
		if err := s.keep("d", command{argv: []string{"false"}, log: log}); err != nil {
			t.Fatal(err)
		}
		await(t, "its end", func() bool {
			r, err := readReport(log + ".json")
			return err == nil && r.Units[0].Restarts == 1
		})
		s.stop()
	})
}

func TestStopEndsDaemonsWithoutRestart(t *testing.T) {
	reaping(t, func(c *children, log string) {
		s := newSupervisor(c, &reporter{path: log + ".json", now: report{Units: []UnitStatus{{Name: "mariadb"}, {Name: "other"}}}})
		// One that is asked and one that is not.
		if err := s.keep("mariadb", command{argv: []string{"sh", "-c", "trap 'echo asked; exit' TERM; echo up; while :; do sleep 0.05; done"}, log: log}); err != nil {
			t.Fatal(err)
		}
		if err := s.keep("other", command{argv: []string{"sleep", "600"}, log: log}); err != nil {
			t.Fatal(err)
		}
		await(t, "the trap to be set", func() bool { said, _ := os.ReadFile(log); return string(said) == "up\n" })
		s.stop()
		if said, _ := os.ReadFile(log); string(said) != "up\nasked\n" {
			t.Errorf("they said %q", said)
		}
		if err := s.keep("other", command{argv: []string{"true"}, log: log}); err == nil {
			t.Error("a daemon was started after the stop")
		}
	})
}

func TestReportFollowsTheGraph(t *testing.T) {
	path := filepath.Join(t.TempDir(), "report.json")
	r := &reporter{path: path, now: report{Units: []UnitStatus{{Name: "task"}, {Name: "daemon"}, {Name: "bad"}}}}
	r.unit("daemon", func(u *UnitStatus) { u.PID = 7 })
	for _, e := range []graph.Event{
		{Key: "task", Kind: graph.Done, Took: time.Second}, {Key: "daemon", Kind: graph.Done}, {Key: "bad", Kind: graph.Error, Err: errors.New("why")},
	} {
		r.event(e)
	}
	got, err := readReport(path)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []UnitStatus{{Name: "task", Phase: "done", Took: time.Second}, {Name: "daemon", Phase: "ready", PID: 7}, {Name: "bad", Phase: "failed", Detail: "why"}} {
		if got.Units[i] != want {
			t.Errorf("%+v, want %+v", got.Units[i], want)
		}
	}
}

func TestReportNamesLogsWhereTheyAreOutside(t *testing.T) {
	l := testLab(t)
	if err := os.MkdirAll(filepath.Dir(l.reportFile()), 0o755); err != nil {
		t.Fatal(err)
	}
	inside := report{Failure: "see /var/log/lab/a.log", Virt: VirtStatus{Reason: "see /var/log/lab/b.log"}, Units: []UnitStatus{{Detail: "see /var/log/lab/c.log"}}}
	if err := writeJSON(l.reportFile(), inside, 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := l.report()
	if err != nil {
		t.Fatal(err)
	}
	for i, said := range []string{r.Failure, r.Virt.Reason, r.Units[0].Detail} {
		if want := "see " + l.Logs() + "/" + []string{"a", "b", "c"}[i] + ".log"; said != want {
			t.Errorf("%q, want %q", said, want)
		}
	}
}

func TestSuperviseIsNotForPeople(t *testing.T) {
	if err := Supervise(t.Context(), "/nonexistent"); err == nil || !strings.Contains(err.Error(), "cloud up") {
		t.Errorf("Supervise: %v", err)
	}
}

func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := wait.For(ctx, what, 200*time.Millisecond, func(context.Context) (string, bool, error) { return "not yet", done(), nil })
	if err != nil {
		t.Fatal(err)
	}
}

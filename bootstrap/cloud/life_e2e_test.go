//go:build e2e

package cloud

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kuryrctl/kuryrctl/internal/graph"
)

func superviseMain(orders string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := Supervise(ctx, orders); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// second is a lab beside the user's own: the same layers, another state and namespace.
func second(t *testing.T) *Lab {
	t.Helper()
	lab, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	return &Lab{cache: lab.cache, state: filepath.Join(t.TempDir(), "state"), namespace: "kuryrctl-e2e"}
}

// upMain is `kuryrctl cloud up` for a second lab; it prints each step when it begins.
func upMain(arg string) int {
	cache, state, _ := strings.Cut(arg, "|")
	l := &Lab{cache: cache, state: state, namespace: "kuryrctl-e2e"}
	err := l.Up(context.Background(), UpOptions{}, func(e Event) {
		if e.Kind == graph.Started {
			fmt.Println(e.Key)
		}
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// upUntil starts an Up in a process of its own and kills that when the step begins.
func upUntil(t *testing.T, l *Lab, step string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), "KURYRCTL_E2E_UP="+l.cache+"|"+l.state)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	seen := false
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if seen = lines.Text() == step; seen {
			break
		}
	}
	cmd.Process.Kill()
	if err := cmd.Wait(); !seen {
		t.Fatalf("the step %s never began: %v", step, err)
	}
}

func TestKilledAnywhereGoesOn(t *testing.T) {
	l := second(t)
	defer gone(t, l)
	for _, step := range []string{"start", "start.mariadb", "start.ovs-vswitchd", "start.passwords", "start.neutron", "start.nova-compute"} {
		upUntil(t, l, step)
	}
	if err := l.Up(t.Context(), UpOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	if code, err := l.Exec(t.Context(), []string{"openstack", "image", "list"}, nil, os.Stderr, os.Stderr); code != 0 || err != nil {
		t.Fatalf("the cloud is up and does not answer: exit code %d, %v", code, err)
	}
	// All again, on an overlay that is there.
	if err := l.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	stopped(t, l)
	upUntil(t, l, "start.keystone")
	if err := l.Up(t.Context(), UpOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	// The first process itself is killed: nothing of the cloud may outlive it.
	p, ok := l.running()
	if !ok {
		t.Fatal("the lab is up and not running")
	}
	if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, "the cloud's processes to end", func() bool {
		users, err := l.namespaceUsers()
		return err == nil && len(users) == 0
	})
	if err := l.Up(t.Context(), UpOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	status, err := l.Status(t.Context())
	if err != nil || !status.Ready {
		t.Fatalf("status after all of it: %+v, %v", status, err)
	}
	t.Run("servers come back", func(t *testing.T) { serversComeBack(t, l) })
}

// serversComeBack stops a lab in which a server runs, and starts it again.
func serversComeBack(t *testing.T, l *Lab) {
	n := newTenant(t, l)
	g := n.boot("e2e-back")
	defer n.remove(g)
	n.await(g, "ACTIVE")
	n.console(g, started)
	if err := l.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	stopped(t, l)
	if err := l.Up(t.Context(), UpOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	await(t, "the server to run again", func() bool { return n.bootPID(g) != "" })
	n.await(g, "ACTIVE")
	n.console(g, started)
}

func TestKilledBakingGoesOn(t *testing.T) {
	l := second(t)
	defer gone(t, l)
	// All layers but the baked one.
	cache := filepath.Join(t.TempDir(), "cache")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"kernel", "root", "guest"} {
		paths, err := filepath.Glob(filepath.Join(l.cache, kind+"-*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			if err := os.Symlink(path, filepath.Join(cache, filepath.Base(path))); err != nil {
				t.Fatal(err)
			}
		}
	}
	l.cache = cache
	upUntil(t, l, "bake.schemas")
	upUntil(t, l, "bake.images")
	if err := l.Up(t.Context(), UpOptions{}, nil); err != nil {
		t.Fatal(err)
	}
}

// TestKilledToolsLeaveNothing ends an Up while mmdebstrap installs packages.
func TestKilledToolsLeaveNothing(t *testing.T) {
	l := second(t)
	defer gone(t, l)
	l.cache = filepath.Join(t.TempDir(), "cache")
	upUntil(t, l, "guest") // the root is being built beside it
	await(t, "the tools to end", func() bool { return len(mentioning(t, l.cache)) == 0 })
}

func TestRefusals(t *testing.T) {
	l := second(t)
	defer gone(t, l)
	if err := l.makeNamespace(); err != nil {
		t.Fatal(err)
	}
	stranger := exec.CommandContext(t.Context(), "nsenter", "--net="+l.namespacePath(), "sleep", "600")
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, "the stranger to enter", func() bool { users, _ := l.namespaceUsers(); return len(users) > 0 })
	if err := l.makeNamespace(); !errors.Is(err, ErrNamespaceInUse) || !strings.Contains(err.Error(), fmt.Sprint(stranger.Process.Pid)) {
		t.Errorf("a namespace in use gives: %v", err)
	}
	stranger.Process.Kill()
	stranger.Wait()

	unlock, err := l.lock("up")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Up(t.Context(), UpOptions{}, nil); !errors.Is(err, ErrBusy) {
		t.Errorf("a second Up at the same time gives: %v", err)
	}
	unlock()
}

// stopped fails unless nothing of the lab is left but files.
func stopped(t *testing.T, l *Lab) {
	t.Helper()
	if _, err := os.Lstat(l.namespacePath()); !os.IsNotExist(err) {
		t.Errorf("the namespace %s is still there: %v", l.namespacePath(), err)
	}
	if left := mentioning(t, l.state); len(left) > 0 {
		t.Errorf("processes are left: %q", left)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, l.state) || strings.Contains(line, l.namespace) {
			t.Errorf("a mount is left: %s", line)
		}
	}
}

// gone destroys the lab and fails unless nothing at all is left of it.
func gone(t *testing.T, l *Lab) {
	t.Helper()
	if err := l.Destroy(context.WithoutCancel(t.Context()), DestroyOptions{KeepCache: true}); err != nil {
		t.Error(err)
	}
	stopped(t, l)
	if _, err := os.Lstat(l.state); !os.IsNotExist(err) {
		t.Errorf("the state is still there: %v", err)
	}
}

// mentioning lists the processes, other than this one, with text in their command line.
func mentioning(t *testing.T, text string) (left []string) {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(data), text) && filepath.Base(filepath.Dir(path)) != fmt.Sprint(os.Getpid()) {
			left = append(left, strings.ReplaceAll(string(data), "\x00", " "))
		}
	}
	return left
}

// TestFromNothing builds everything once and prints what it took. The figures of docs/lab.md come from here.
func TestFromNothing(t *testing.T) {
	l := second(t)
	l.cache = filepath.Join(t.TempDir(), "cache")
	defer gone(t, l)
	timed := func(what string, f func() error) time.Duration {
		begin := time.Now()
		if err := f(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		took := time.Since(begin)
		t.Logf("%-24s %6.1f s", what, took.Seconds())
		return took
	}
	up := func() error {
		return l.Up(t.Context(), UpOptions{}, func(e Event) {
			if e.Kind == graph.Done && !strings.Contains(string(e.Key), ".") {
				t.Logf("    %-20s %6.1f s", e.Key, e.Took.Seconds())
			}
		})
	}
	first := timed("first up", up)
	if first > 6*time.Minute {
		t.Errorf("the first up took %s, more than 6 minutes", first)
	}
	status, err := l.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("memory %.1f GiB, cache %.1f GiB, state %.1f GiB", float64(status.Memory)/gib, float64(status.Cache)/gib, float64(status.State)/gib)
	timed("up when up", up)
	timed("down", func() error { return l.Down(t.Context()) })
	if again := timed("up again", up); again > time.Minute {
		t.Errorf("up again took %s, more than a minute", again)
	}
	timed("down again", func() error { return l.Down(t.Context()) })
	timed("destroy", func() error { return l.Destroy(t.Context(), DestroyOptions{}) })
	if _, err := os.Lstat(l.cache); !os.IsNotExist(err) {
		t.Errorf("the cache is still there: %v", err)
	}
}

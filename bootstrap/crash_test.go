package bootstrap_test

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/internal/sshtest"
	"github.com/kuryrctl/kuryrctl/internal/wait"
)

// cut makes the connection of every host end at every command: first before the command did anything, then, where it changes the host,
// after all that it does.
func (l *lab) cut() {
	var mu sync.Mutex
	times := map[string]int{}
	for name := range l.keys {
		l.hosts.Host(name).On("*", func(e *sshtest.Exec) int {
			stdin, _ := io.ReadAll(e.Stdin)
			e.Stdin = bytes.NewReader(stdin)
			line := e.Line
			if title, _, _ := strings.Cut(line, "\n"); strings.HasPrefix(title, "# check what came of") {
				line = title // the rest has a name that is never the same
			}
			key := name + line + members(stdin) // what is written has other times in it, and other tokens
			mu.Lock()
			times[key]++
			time := times[key]
			mu.Unlock()
			switch looks := strings.HasPrefix(line, "# look") || strings.HasPrefix(line, "# check") || strings.HasPrefix(line, "# read"); {
			case time == 1:
				return sshtest.Drop(e)
			case time == 2 && !looks:
				return sshtest.DropAfter(e)
			}
			return e.Run()
		})
	}
}

func members(archive []byte) (names string) {
	for t := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := t.Next()
		if err != nil {
			return names
		}
		names += " " + h.Name
	}
}

func TestARunThatIsCutAfterAnyCommandIsGoneOnWith(t *testing.T) {
	for name, x := range map[string]struct{ masters, workers int }{"a master and a worker": {1, 1}, "etcd and a master": {2, 0}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			plain, l := newLab(t, sshtest.Debian12, x.masters, x.workers), newLab(t, sshtest.Debian12, x.masters, x.workers)
			plain.up()
			l.cut()
			runs := 1
			for r := l.run(t.Context()); r.err != nil; r = l.run(t.Context()) {
				if runs++; runs > 150 {
					t.Fatal(r.err)
				}
			}
			t.Logf("%d runs", runs)
			for name := range l.keys {
				if got, want := l.ended(name), plain.ended(name); got != want {
					t.Errorf("kubeadm on %s: %s; without a cut: %s", name, got, want)
				}
				got, want := l.files(name), plain.files(name)
				for _, m := range []map[string]string{got, want} {
					for file := range m { // keys of its own
						if strings.HasSuffix(file, ".key") || strings.HasSuffix(file, "ca.crt") || strings.HasSuffix(file, "encryption.yaml") || strings.HasPrefix(file, "etc/kubernetes/") && strings.HasSuffix(file, ".conf") {
							m[file] = m[file][:10]
						}
					}
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s is not as without a cut:\n%s", name, diff)
				}
			}
			for _, s := range l.api.Secrets() { // a token may be left, as nobody may be there to take it away; its time is short
				if end, err := time.Parse(time.RFC3339, string(s.Data["expiration"])); err != nil || time.Until(end) > 15*time.Minute {
					t.Errorf("a bootstrap token is good until %v: %v", end, err)
				}
			}
		})
	}
}

// fifo is a file of a host from which a script reads a line that comes when the test says so.
func (l *lab) fifo(host, name string) (release func()) {
	l.t.Helper()
	path := l.path(host, name)
	l.must(syscall.Mkfifo(path, 0o600))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	l.must(err)
	l.t.Cleanup(func() { f.Close() })
	return func() {
		_, err := f.WriteString("go\n")
		l.must(err)
	}
}

func (l *lab) eventually(what string, done func() bool) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), 30*time.Second)
	defer cancel()
	l.must(wait.For(ctx, what, 5*time.Millisecond, func(context.Context) (string, bool, error) { return "not", done(), nil }))
}

func TestKubeadmGoesOnWhenTheConnectionIsLostAndIsWaitedFor(t *testing.T) {
	for host, x := range map[string]struct {
		phase string
		key   graph.Key
		want  string
	}{
		"master-0": {"certs", "control-plane.master-0", "init begun, init complete"},
		"worker-0": {"discovery", "node.worker-0", "join begun, join complete"},
	} {
		t.Run(host, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, sshtest.Rocky9, 1, 1)
			goOn := l.fifo(host, "srv/go")
			l.write(host, "srv/kubeadm/"+x.phase, "note held; read -r _ </srv/go")
			ended := make(chan result)
			go func() { ended <- l.run(t.Context()) }()
			held := strings.Replace(x.want, ",", ", held,", 1)
			l.eventually("kubeadm on "+host, func() bool { return strings.Contains(l.ended(host), "held") })
			l.hosts.Host(host).Disconnect()
			r := <-ended
			if r.errs[x.key] == nil || !strings.Contains(r.errs[x.key].Error(), "connection lost") {
				t.Fatalf("got %v", r.err)
			}
			waiting := make(chan struct{})
			l.hosts.Host(host).On("# run kubeadm*", func(e *sshtest.Exec) int {
				close(waiting)
				return e.Run()
			})
			go func() { ended <- l.run(t.Context()) }()
			select {
			case <-waiting:
				goOn()
				r = <-ended
			case r = <-ended:
			}
			if r.err != nil {
				t.Fatal(r.err)
			}
			if !strings.Contains(r.found[x.key], "still going on") {
				t.Errorf("the second run found %q", r.found[x.key])
			}
			if got := l.ended(host); got != held {
				t.Errorf("kubeadm: %s", got)
			}
		})
	}
}

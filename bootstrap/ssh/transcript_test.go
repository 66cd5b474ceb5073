package ssh_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kuryrctl/kuryrctl/bootstrap/ssh"
	"github.com/kuryrctl/kuryrctl/internal/sshtest"
)

var times = regexp.MustCompile(`(?m)^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (.*) after [0-9.]+m?s$`)

func TestTheTranscriptKeepsWhatRan(t *testing.T) {
	hosts := sshtest.New(t, "master-0")
	h := shellHost(hosts, "master-0")
	h.On("#*", func(e *sshtest.Exec) int {
		in, err := io.ReadAll(e.Stdin)
		fmt.Fprintf(e.Stdout, "%d bytes\n\n2020-01-01 a record of its own\nlast", len(in))
		fmt.Fprintf(e.Stderr, "%v\n", err)
		return 0
	})
	h.On("cat admin.conf", func(e *sshtest.Exec) int {
		io.WriteString(e.Stdout, "s3cret\n")
		io.WriteString(e.Stderr, "half of it\n")
		return 3
	})
	h.On("tar*", sshtest.Text("archive"))
	h.On("reboot", sshtest.Drop)
	h.On("# look*", sshtest.Text("same\n"))
	var kept bytes.Buffer
	cfg := config(hosts, "master-0")
	cfg.Transcript = &kept
	c := dial(t, cfg)

	if _, err := c.Run(t.Context(), ssh.Command{Line: "# join the cluster\nset -eu\nkubeadm join", Stdin: strings.NewReader("t0ken"), Sudo: true}); err != nil {
		t.Fatal(err)
	}
	failed := (*ssh.RunError)(nil)
	out, err := c.Run(t.Context(), ssh.Command{Line: "cat admin.conf", Secret: true})
	if out.Stdout != "s3cret\n" || !errors.As(err, &failed) || failed.Output != "half of it" {
		t.Errorf("got %+v, %v", out, err)
	}
	var archive bytes.Buffer
	if out, err := c.Run(t.Context(), ssh.Command{Line: "tar -c /etc", Stdout: &archive}); out.Stdout != "" || archive.String() != "archive" || err != nil {
		t.Errorf("got %q, %q, %v", out.Stdout, &archive, err)
	}
	u := upload("/tmp/bundle", []byte("x"))
	if _, err := c.Put(t.Context(), u); err != nil {
		t.Error(err)
	}
	if _, err := c.Run(t.Context(), ssh.Command{Line: "reboot"}); !errors.Is(err, ssh.ErrLost) {
		t.Errorf("got %v", err)
	}
	got := times.ReplaceAllString(kept.String(), "TIME $1 after TOOK")
	got = regexp.MustCompile(`connection lost: .* after`).ReplaceAllString(got, "connection lost after")
	if diff := cmp.Diff(`TIME master-0: ran "join the cluster" as root: exit status 0 after TOOK
$ # join the cluster
$ set -eu
$ kubeadm join
1 5 bytes
1 
1 2020-01-01 a record of its own
1 last
2 <nil>
TIME master-0: ran "cat admin.conf" as debian: exit status 3 after TOOK
$ cat admin.conf
1 (a secret)
2 half of it
TIME master-0: ran "tar -c /etc" as debian: exit status 0 after TOOK
$ tar -c /etc
1 (passed on)
TIME master-0: put /tmp/bundle, mode 0640, 1 bytes, sha256 `+u.SHA256+`: there already after TOOK
TIME master-0: ran "reboot" as debian: running "reboot" on master-0: connection lost after TOOK
$ reboot
`, got); diff != "" {
		t.Error(diff)
	}
}

// records is a transcript that would break, and be a race, if records came in parts or two at once.
type records struct {
	seen []string
	err  error
}

func (r *records) Write(p []byte) (int, error) {
	r.seen = append(r.seen, string(p))
	return len(p), r.err
}

func TestTheTranscriptGetsOneRecordAtATime(t *testing.T) {
	hosts := sshtest.New(t, "master-0")
	hosts.Host("master-0").On("*", sshtest.Text("1\n2\n"))
	kept := &records{err: errors.New("disk full")}
	var log bytes.Buffer
	cfg := config(hosts, "master-0")
	cfg.Transcript, cfg.Log = kept, slog.New(slog.NewTextHandler(&log, nil))
	c := dial(t, cfg)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := c.Run(t.Context(), ssh.Command{Line: "true"}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(kept.seen) != 20 {
		t.Fatalf("%d records", len(kept.seen))
	}
	for _, r := range kept.seen {
		if !times.MatchString(r) || !strings.HasSuffix(r, "\n$ true\n1 1\n1 2\n") {
			t.Errorf("got %q", r)
		}
	}
	if !strings.Contains(log.String(), "disk full") {
		t.Errorf("logged %q", &log)
	}
}

func TestStreamedOutput(t *testing.T) {
	hosts := sshtest.New(t, "master-0")
	h := hosts.Host("master-0")
	h.On("tar", func(e *sshtest.Exec) int {
		n, err := io.Copy(e.Stdout, io.LimitReader(zeros{}, 16<<20))
		if err != nil || n != 16<<20 {
			return 1
		}
		return 0
	})
	h.On("yes", func(e *sshtest.Exec) int {
		io.Copy(e.Stdout, zeros{}) // until the client has gone
		return 0
	})
	c := dial(t, config(hosts, "master-0"))
	var n counter
	if out, err := c.Run(t.Context(), ssh.Command{Line: "tar", Stdout: &n}); err != nil || n != 16<<20 || out.Stdout != "" {
		t.Fatalf("%d bytes, %v", n, err)
	}
	full := errors.New("disk full")
	if _, err := c.Run(t.Context(), ssh.Command{Line: "yes", Stdout: writer(func() error { return full })}); !errors.Is(err, full) || !strings.Contains(err.Error(), "yes") {
		t.Fatalf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := c.Run(ctx, ssh.Command{Line: "yes", Stdout: writer(func() error { cancel(); return nil })}); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
}

type counter int64

func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }

// writer does something when it is written to.
type writer func() error

func (w writer) Write(p []byte) (int, error) { return len(p), w() }

package ssh_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kuryrctl/kuryrctl/bootstrap/ssh"
	"github.com/kuryrctl/kuryrctl/internal/sshtest"
)

func TestRunReturnsWhatACommandPrints(t *testing.T) {
	hosts := sshtest.New(t, "master-0")
	h := hosts.Host("master-0")
	sudo := make(chan bool, 2)
	h.On("tee *", func(e *sshtest.Exec) int {
		sudo <- e.Sudo
		in, err := io.ReadAll(e.Stdin)
		fmt.Fprintf(e.Stdout, "%s|%s", e.Line, in)
		fmt.Fprintf(e.Stderr, "read: %v", err)
		return 0
	})
	c := dial(t, config(hosts, "master-0"))
	line := "tee 'a b'\nsecond \"line\" $HOME"
	for _, root := range []bool{false, true} {
		out, err := c.Run(t.Context(), ssh.Command{Line: line, Stdin: strings.NewReader("secret"), Sudo: root})
		if err != nil {
			t.Fatal(err)
		}
		if want := (ssh.Output{Stdout: line + "|secret", Stderr: "read: <nil>"}); out != want {
			t.Errorf("sudo %v: got %+v, want %+v", root, out, want)
		}
		if <-sudo != root {
			t.Errorf("sudo %v was not done", root)
		}
	}
}

func TestRunErrorKeepsTheLastLines(t *testing.T) {
	hosts := sshtest.New(t, "master-0")
	h := hosts.Host("master-0")
	h.On("kubeadm init*", func(e *sshtest.Exec) int {
		for i := range 5000 {
			fmt.Fprintf(e.Stdout, "line %d\n", i)
		}
		io.WriteString(e.Stderr, "no room\n\n")
		return 3
	})
	c := dial(t, config(hosts, "master-0"))
	out, err := c.Run(t.Context(), ssh.Command{Line: "kubeadm init \\\n  --config -"})
	failed := (*ssh.RunError)(nil)
	if !errors.As(err, &failed) {
		t.Fatalf("got %v", err)
	}
	if want := `running "kubeadm init \..." on master-0: exit status 3: no room`; err.Error() != want {
		t.Errorf("got %s, want %s", err, want)
	}
	if failed.Status != 3 || failed.Host != "master-0" || len(strings.Split(failed.Output, "\n")) != 21 || !strings.HasSuffix(failed.Output, "line 4999\nno room") {
		t.Errorf("got %+v", failed)
	}
	if !strings.HasPrefix(out.Stdout, "line 0\n") || out.Stderr != "no room\n\n" {
		t.Error("the output of a failed command is lost")
	}
}

func TestAScriptIsNamedByItsFirstLine(t *testing.T) {
	hosts := sshtest.New(t, "master-0")
	hosts.Host("master-0").On("*", sshtest.Fail(1, ""))
	c := dial(t, config(hosts, "master-0"))
	for line, want := range map[string]string{
		"# join the cluster\nset -eu\nkubeadm join": "join the cluster",
		"set -eu\nkubeadm join":                     "set -eu...",
		"kubeadm join":                              "kubeadm join",
		strings.Repeat("ä", 81):                     strings.Repeat("ä", 80) + "...",
	} {
		_, err := c.Run(t.Context(), ssh.Command{Line: line})
		if want := `running "` + want + `" on master-0: exit status 1`; err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestRunCountsSignalsAsShellsDo(t *testing.T) {
	hosts := sshtest.New(t, "master-0")
	hosts.Host("master-0").On("true", func(*sshtest.Exec) int { return -9 })
	c := dial(t, config(hosts, "master-0"))
	_, err := c.Run(t.Context(), ssh.Command{Line: "true"})
	if failed := (*ssh.RunError)(nil); !errors.As(err, &failed) || failed.Status != 137 {
		t.Fatalf("got %v", err)
	}
}

func TestCancellingKillsTheSession(t *testing.T) {
	hosts := sshtest.New(t, "master-0")
	h := hosts.Host("master-0")
	started, signals := make(chan struct{}), make(chan []string, 1)
	h.On("sleep 1d", func(e *sshtest.Exec) int {
		close(started)
		<-e.Done()
		signals <- e.Signals()
		return 0
	})
	h.On("hostname", sshtest.Text("master-0"))
	c := dial(t, config(hosts, "master-0"))
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	go func() { <-started; cancel(why) }()
	if _, err := c.Run(ctx, ssh.Command{Line: "sleep 1d"}); !errors.Is(err, why) {
		t.Fatalf("got %v", err)
	}
	if got := <-signals; len(got) != 1 || got[0] != "KILL" {
		t.Errorf("signals %v", got)
	}
	if out, err := c.Run(t.Context(), ssh.Command{Line: "hostname"}); err != nil || out.Stdout != "master-0" {
		t.Errorf("the connection did not survive: %v", err)
	}
}

func TestRunOnAFrozenHostEndsWithTheContext(t *testing.T) {
	hosts := sshtest.New(t, "master-0")
	c := dial(t, config(hosts, "master-0"))
	hosts.Host("master-0").Hang(sshtest.Everywhere)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Run(ctx, ssh.Command{Line: "true"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
}

func TestAConnectionThatEndsUnderACommandIsLost(t *testing.T) {
	hosts := sshtest.New(t, "master-0")
	h := hosts.Host("master-0")
	h.On("reboot", func(e *sshtest.Exec) int {
		io.WriteString(e.Stdout, "going down")
		return sshtest.Drop(e)
	})
	c := dial(t, config(hosts, "master-0"))
	_, err := c.Run(t.Context(), ssh.Command{Line: "reboot"})
	if failed := (*ssh.RunError)(nil); !errors.Is(err, ssh.ErrLost) || errors.As(err, &failed) {
		t.Fatalf("got %v", err)
	}
	if _, err = c.Run(t.Context(), ssh.Command{Line: "reboot"}); !errors.Is(err, ssh.ErrLost) {
		t.Fatalf("again: got %v", err)
	}
}

func TestManyCommandsShareAConnection(t *testing.T) {
	hosts := sshtest.New(t, "master-0")
	h := hosts.Host("master-0")
	h.On("echo *", func(e *sshtest.Exec) int { io.WriteString(e.Stdout, e.Line); return 0 })
	c := dial(t, config(hosts, "master-0"))
	var wg sync.WaitGroup
	for i := range 30 {
		wg.Go(func() {
			line := fmt.Sprintf("echo %d", i)
			if out, err := c.Run(t.Context(), ssh.Command{Line: line}); err != nil || out.Stdout != line {
				t.Errorf("got %q, %v", out.Stdout, err)
			}
		})
	}
	wg.Wait()
	if h.Logins() != 1 {
		t.Errorf("%d logins", h.Logins())
	}
}

func TestQuoteMakesOneWord(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.StringOf(rapid.RuneFrom([]rune("a '\"\\$`\n\t*;&|é"))).Draw(t, "word")
		out, err := exec.Command("sh", "-c", "printf %s. "+ssh.Quote(word)).Output()
		if err != nil || string(out) != word+"." {
			t.Fatalf("sh read %q for %q, %v", out, word, err)
		}
	})
}

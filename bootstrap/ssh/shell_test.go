package ssh_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/kuryrctl/kuryrctl/bootstrap/ssh"
	"github.com/kuryrctl/kuryrctl/internal/sshtest"
)

func TestShellGivesTheExitStatus(t *testing.T) {
	hosts := sshtest.New(t, "master-0")
	hosts.Host("master-0").On("grep x", func(e *sshtest.Exec) int {
		in, _ := io.ReadAll(e.Stdin)
		fmt.Fprintf(e.Stdout, "out %s", in)
		fmt.Fprint(e.Stderr, "err")
		return 7
	})
	c := dial(t, config(hosts, "master-0"))
	var stdout, stderr bytes.Buffer
	status, err := c.Shell(t.Context(), ssh.Session{Command: "grep x", Stdin: strings.NewReader("in"), Stdout: &stdout, Stderr: &stderr})
	if status != 7 || err != nil || stdout.String() != "out in" || stderr.String() != "err" {
		t.Fatalf("status %d, %v, %q, %q", status, err, &stdout, &stderr)
	}
}

func TestShellFollowsTheTerminal(t *testing.T) {
	hosts := sshtest.New(t, "master-0")
	h := hosts.Host("master-0")
	resize := make(chan ssh.Size)
	h.On("", func(e *sshtest.Exec) int {
		term, columns, rows := e.Terminal()
		fmt.Fprintf(e.Stdout, "%s %dx%d ", term, columns, rows)
		resize <- ssh.Size{Columns: 132, Rows: 50}
		eventually(t, "the new size", func() bool { _, columns, rows = e.Terminal(); return columns == 132 && rows == 50 })
		io.WriteString(e.Stdout, "resized")
		return 0
	})
	c := dial(t, config(hosts, "master-0"))
	person, keyboard := io.Pipe() // nobody ever types: the end of the session must not wait for a key
	defer keyboard.Close()
	var stdout bytes.Buffer
	status, err := c.Shell(t.Context(), ssh.Session{Stdin: person, Stdout: &stdout,
		Terminal: &ssh.Terminal{Type: "xterm", Size: ssh.Size{Columns: 80, Rows: 24}, Resize: resize}})
	if status != 0 || err != nil || stdout.String() != "xterm 80x24 resized" {
		t.Fatalf("status %d, %v, %q", status, err, &stdout)
	}
}

func TestShellEndsWithTheContextAndTheConnection(t *testing.T) {
	hosts := sshtest.New(t, "master-0")
	h := hosts.Host("master-0")
	h.On("", sshtest.Hang)
	h.On("reboot", sshtest.Drop)
	c := dial(t, config(hosts, "master-0"))
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		eventually(t, "the shell to start", func() bool { return len(h.Commands()) == 1 })
		cancel()
	}()
	if _, err := c.Shell(ctx, ssh.Session{}); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if _, err := c.Shell(t.Context(), ssh.Session{Command: "reboot"}); !errors.Is(err, ssh.ErrLost) {
		t.Fatalf("got %v", err)
	}
}

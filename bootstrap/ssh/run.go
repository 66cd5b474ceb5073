package ssh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	cryptossh "golang.org/x/crypto/ssh"
)

// Command is one command line for the login shell of a host.
type Command struct {
	// Line is seen by everybody on the host and in logs: secrets go through Stdin. Of a script, the first line names it in
	// errors; it may be a comment: "# install containerd".
	Line  string
	Stdin io.Reader // nil is empty; Run reads it to its end, or until the command or the context ends
	Sudo  bool      // run as root with "sudo -n", which fails where a password would be asked for

	// Stdout, if set, gets standard output as it comes, in the place of [Output]. A Write that fails ends the command as the
	// end of the context does, and Run gives its error. There is no Write after Run has returned: one that blocks holds it.
	Stdout io.Writer

	// Secret says that standard output is a secret: neither the transcript nor an error has it. Standard error stays in both.
	Secret bool
}

// Output is what a command printed.
type Output struct {
	Stdout, Stderr string
}

// RunError says that a command ran and did not succeed.
type RunError struct {
	Host    string
	Command string
	Status  int    // exit status; 128 plus the number of the signal that ended it, as shells count; -1 if the host did not say
	Output  string // last lines of standard output, then of standard error: SSH does not keep the order between them
}

// errorLines is how many lines of each of a failed command's outputs an error carries.
const errorLines = 20

func (e *RunError) Error() string {
	msg := fmt.Sprintf("running %s on %s: exit status %d", brief(e.Command), e.Host, e.Status)
	if last := lastLines(e.Output, 1); last != "" {
		msg += ": " + last
	}
	return msg
}

// Run runs a command and returns what it printed. A command that fails gives a [RunError], a connection that ends under it
// [ErrLost]. When the context ends, the session's processes are killed and Run returns at once. OpenSSH kills with the rights
// of the user and not at all for root: what runs as root may go on, so a step that must not run twice at once takes a lock on
// the host.
func (c *Client) Run(ctx context.Context, cmd Command) (Output, error) {
	begin := time.Now()
	out, err := c.run(ctx, cmd)
	c.recordRun(begin, cmd, out, err)
	return out, err
}

// run is Run without a record.
func (c *Client) run(ctx context.Context, cmd Command) (Output, error) {
	line := cmd.Line
	if cmd.Sudo && c.cfg.User != "root" { // root may live on a host without sudo
		line = "sudo -n -- sh -c " + Quote(line)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stdout, stderr := &output{to: cmd.Stdout, broken: cancel}, &output{}
	begin := time.Now()
	err := c.inSession(ctx, func(s *cryptossh.Session) error {
		s.Stdin, s.Stdout, s.Stderr = cmd.Stdin, stdout, stderr
		return s.Run(line)
	})
	result := Output{Stdout: stdout.end(), Stderr: stderr.end()}
	status, ended := exitStatus(err)
	c.log.Debug("ran", "command", brief(cmd.Line), "status", status, "took", time.Since(begin), "err", err)
	switch {
	case ended && status == 0:
		return result, nil
	case ended:
		shown := lastLines(result.Stdout, errorLines)
		if cmd.Secret {
			shown = ""
		}
		last := strings.TrimSpace(shown + "\n" + lastLines(result.Stderr, errorLines))
		return result, &RunError{Host: c.cfg.Node, Command: cmd.Line, Status: status, Output: last}
	}
	return result, fmt.Errorf("running %s on %s: %w", brief(cmd.Line), c.cfg.Node, err)
}

// inSession opens a session, gives it to use, and closes it. It returns when use does or the context ends, whichever is first:
// a host that is gone must not hold the caller, and then the goroutine ends with the connection.
func (c *Client) inSession(ctx context.Context, use func(*cryptossh.Session) error) error {
	done := make(chan error, 1)
	err := c.spawn(func() {
		s, err := c.conn.NewSession()
		if err != nil {
			done <- c.orLost(fmt.Errorf("opening session: %w", err))
			return
		}
		defer s.Close()
		stop := context.AfterFunc(ctx, func() {
			s.Signal(cryptossh.SIGKILL)
			s.Close()
		})
		defer stop()
		err = use(s)
		if _, ended := exitStatus(err); !ended {
			err = c.orLost(err)
		}
		done <- err
	})
	if err != nil {
		return err
	}
	select {
	case err = <-done:
	case <-ctx.Done():
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// exitStatus reads the end of a session from its error: the status, and whether the command ended at all as far as the host
// says.
func exitStatus(err error) (status int, ended bool) {
	if err == nil {
		return 0, true
	}
	if e := (*cryptossh.ExitError)(nil); errors.As(err, &e) {
		return e.ExitStatus(), true // x/crypto counts signals as shells do
	}
	return -1, false
}

// output collects what a command prints, or hands it on. A session that was given up may still write, and is not heard.
type output struct {
	to     io.Writer // nil to collect
	broken func(error)

	mu  sync.Mutex
	buf bytes.Buffer
	off bool
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.off:
		return len(p), nil // an error would leave the rest unread, and the command waiting
	case o.to == nil:
		return o.buf.Write(p)
	}
	n, err := o.to.Write(p)
	if err != nil {
		o.off = true
		o.broken(fmt.Errorf("passing its output on: %w", err))
	}
	return n, err
}

// end returns what was collected and takes no more.
func (o *output) end() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.off = true
	return o.buf.String()
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\r\n\t "), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// brief is a command as named in one line of an error or log: its first line, or what a script says of itself there.
func brief(line string) string {
	const limit = 80
	first, _, more := strings.Cut(strings.TrimSpace(line), "\n")
	if title, ok := strings.CutPrefix(first, "# "); ok {
		first, more = title, false
	}
	if r := []rune(first); len(r) > limit {
		first, more = string(r[:limit]), true
	}
	if more {
		first += "..."
	}
	return `"` + first + `"`
}

// Quote makes s one word for a POSIX shell.
func Quote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

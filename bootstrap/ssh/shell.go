package ssh

import (
	"context"
	"fmt"
	"io"

	cryptossh "golang.org/x/crypto/ssh"
)

// Session is one interactive or piped session, as "ssh host [command]" has it.
type Session struct {
	Command        string // empty is the login shell
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Terminal       *Terminal // nil asks the host for no terminal
}

// Terminal is what a host needs to know of the terminal at our end.
type Terminal struct {
	Type   string // as in TERM
	Size   Size
	Resize <-chan Size // sizes as they change; nil if they do not
}

// Size is that of a terminal, in characters.
type Size struct {
	Columns, Rows int
}

// Shell runs a session and returns its exit status; a status other than zero is no error. It does not wait for Stdin to end: a
// Read that is blocked when the session ends keeps one goroutine until it returns, and then takes what it read with it.
func (c *Client) Shell(ctx context.Context, sess Session) (int, error) {
	err := c.inSession(ctx, func(s *cryptossh.Session) error {
		s.Stdout, s.Stderr = sess.Stdout, sess.Stderr
		stdin, err := s.StdinPipe() // not s.Stdin: Wait would wait for the person's next key
		if err != nil {
			return err
		}
		if t := sess.Terminal; t != nil {
			modes := cryptossh.TerminalModes{cryptossh.ECHO: 1, cryptossh.TTY_OP_ISPEED: 38400, cryptossh.TTY_OP_OSPEED: 38400}
			if err := s.RequestPty(t.Type, t.Size.Rows, t.Size.Columns, modes); err != nil {
				return fmt.Errorf("asking for a terminal: %w", err)
			}
		}
		if sess.Command == "" {
			err = s.Shell()
		} else {
			err = s.Start(sess.Command)
		}
		if err != nil {
			return fmt.Errorf("starting session: %w", err)
		}
		over := make(chan struct{})
		defer close(over)
		if sess.Stdin == nil {
			stdin.Close()
		} else {
			go func() { // not waited for, see above
				io.Copy(stdin, sess.Stdin)
				stdin.Close()
			}()
		}
		if sess.Terminal != nil && sess.Terminal.Resize != nil {
			if err := c.spawn(func() { follow(s, sess.Terminal.Resize, over) }); err != nil {
				return err
			}
		}
		return s.Wait()
	})
	if status, ended := exitStatus(err); ended {
		return status, nil
	}
	return -1, fmt.Errorf("session on %s: %w", c.cfg.Node, err)
}

func follow(s *cryptossh.Session, sizes <-chan Size, over <-chan struct{}) {
	for {
		select {
		case size, ok := <-sizes:
			if !ok {
				return
			}
			if err := s.WindowChange(size.Rows, size.Columns); err != nil {
				return // the session has ended
			}
		case <-over:
			return
		}
	}
}

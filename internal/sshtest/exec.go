package sshtest

import (
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
)

// Exec is one command that runs on a host.
type Exec struct {
	Host           *Host
	Line           string // without sudo; empty for a login shell
	Sudo           bool
	Stdin          io.Reader
	Stdout, Stderr io.Writer

	conn    *connection
	channel ssh.Channel
	started bool
	done    chan struct{}
	mu      sync.Mutex
	term    string
	columns int
	rows    int
	signals []string
}

// Done is closed when the client has closed the session or is gone: a reply that waits must return then.
func (e *Exec) Done() <-chan struct{} { return e.done }

// Terminal is the type and size of the terminal the client asked for; the type is empty if it did not. The size follows the
// client's.
func (e *Exec) Terminal() (termType string, columns, rows int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.term, e.columns, e.rows
}

// Signals lists the signals the client sent, such as "KILL".
func (e *Exec) Signals() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string(nil), e.signals...)
}

func (e *Exec) signal(payload []byte) bool {
	var sig struct{ Name string }
	if ssh.Unmarshal(payload, &sig) != nil {
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.signals = append(e.signals, sig.Name)
	return true
}

func (e *Exec) setTerminal(payload []byte) bool {
	var req struct {
		Term                         string
		Columns, Rows, Width, Height uint32
		Modes                        string
	}
	if ssh.Unmarshal(payload, &req) != nil {
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.term, e.columns, e.rows = req.Term, int(req.Columns), int(req.Rows)
	return true
}

func (e *Exec) setSize(payload []byte) bool {
	var req struct{ Columns, Rows, Width, Height uint32 }
	if ssh.Unmarshal(payload, &req) != nil {
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.columns, e.rows = int(req.Columns), int(req.Rows)
	return true
}

// Reply is what a host does for a command; it returns the exit status. A negative status is a signal of that number.
type Reply func(*Exec) int

// Text replies with that on standard output and success.
func Text(stdout string) Reply {
	return func(e *Exec) int {
		io.WriteString(e.Stdout, stdout)
		return 0
	}
}

// Fail replies with that on standard error and a status.
func Fail(status int, stderr string) Reply {
	return func(e *Exec) int {
		io.WriteString(e.Stderr, stderr)
		return status
	}
}

// Hang replies nothing until the client gives up.
func Hang(e *Exec) int {
	<-e.Done()
	return 0
}

// Drop cuts the connection in the middle of the command.
func Drop(e *Exec) int {
	e.conn.conn.Close()
	<-e.Done()
	return 0
}

type scripted struct {
	pattern *regexp.Regexp
	reply   Reply
}

// On scripts the reply to command lines that match a pattern, in which "*" stands for any text, line ends too. The line is
// matched as a whole and without sudo. What is scripted later comes first.
func (h *Host) On(pattern string, reply Reply) {
	parts := strings.Split(pattern, "*")
	for i, p := range parts {
		parts[i] = regexp.QuoteMeta(p)
	}
	re := regexp.MustCompile(`(?s)\A` + strings.Join(parts, ".*") + `\z`)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.replies = append(h.replies, scripted{re, reply})
}

func (h *Host) run(e *Exec, line string) {
	e.Line, e.Sudo = unsudo(line)
	h.mu.Lock()
	h.ran = append(h.ran, e.Line)
	var reply Reply
	for _, s := range h.replies {
		if s.pattern.MatchString(e.Line) {
			reply = s.reply
		}
	}
	shell, noSudo := h.system != "", h.noSudo
	h.mu.Unlock()
	switch {
	case e.Sudo && noSudo:
		reply = Fail(1, "sudo: a password is required\n")
	case reply == nil && shell:
		reply = (*Exec).Run
	case reply == nil:
		h.net.t.Errorf("sshtest: nothing is scripted on %s for %q", h.Name, e.Line)
		reply = Fail(127, fmt.Sprintf("sh: %s: not found\n", e.Line))
	}
	e.exit(reply(e))
}

func (e *Exec) exit(status int) {
	if status < 0 {
		names := map[int]string{1: "HUP", 2: "INT", 9: "KILL", 15: "TERM"}
		e.channel.SendRequest("exit-signal", false, ssh.Marshal(struct {
			Name    string
			Core    bool
			Message string
			Lang    string
		}{Name: names[-status]}))
		return
	}
	e.channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{uint32(status)}))
}

// unsudo takes "sudo -n -- sh -c WORD" apart, where WORD is in single quotes. Any other use of sudo is a plain command line.
func unsudo(line string) (string, bool) {
	word, ok := strings.CutPrefix(line, "sudo -n -- sh -c '")
	if ok {
		word, ok = strings.CutSuffix(word, "'")
	}
	word = strings.ReplaceAll(word, `'\''`, "\x00")
	if !ok || strings.Contains(word, "'") {
		return line, false
	}
	return strings.ReplaceAll(word, "\x00", "'"), true
}

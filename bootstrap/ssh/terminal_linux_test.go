package ssh_test

import (
	"fmt"
	"os"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/kuryrctl/kuryrctl/bootstrap/ssh"
)

// pseudoTerminal is a terminal of 80 x 24 whose other end is in this process too.
func pseudoTerminal(t *testing.T) *os.File {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	resizeTo(t, slave, 80, 24)
	return slave
}

func resizeTo(t *testing.T, tty *os.File, columns, rows uint16) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows}); err != nil {
		t.Fatal(err)
	}
}

func termios(t *testing.T, tty *os.File) *unix.Termios {
	t.Helper()
	state, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return state
}

func TestRawTerminalPutsEverythingBack(t *testing.T) {
	t.Setenv("TERM", "xterm")
	tty := pseudoTerminal(t)
	before := termios(t, tty)
	terminal, restore, err := ssh.RawTerminal(t.Context(), tty)
	if err != nil {
		t.Fatal(err)
	}
	defer restore()
	if terminal.Type != "xterm" || terminal.Size != (ssh.Size{Columns: 80, Rows: 24}) {
		t.Errorf("got %+v", terminal)
	}
	if raw := termios(t, tty); raw.Lflag&(unix.ISIG|unix.ICANON|unix.ECHO) != 0 {
		t.Errorf("not raw: %+v", raw)
	}
	resizeTo(t, tty, 132, 50)
	if err := syscall.Kill(os.Getpid(), syscall.SIGWINCH); err != nil {
		t.Fatal(err)
	}
	if size := <-terminal.Resize; size != (ssh.Size{Columns: 132, Rows: 50}) {
		t.Errorf("resized to %+v", size)
	}
	restore()
	if diff := cmp.Diff(before, termios(t, tty)); diff != "" {
		t.Error(diff)
	}
}

func TestAPipeIsNoTerminal(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	terminal, restore, err := ssh.RawTerminal(t.Context(), r)
	if terminal != nil || err != nil {
		t.Errorf("got %+v, %v", terminal, err)
	}
	restore()
}

package cloud

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// lock keeps Up, Down and Destroy apart, between processes too. The kernel gives it up with its holder.
func (l *Lab) lock(verb string) (unlock func(), err error) {
	if err := os.MkdirAll(l.state, 0o700); err != nil {
		return nil, err
	}
	path := filepath.Join(l.state, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("locking %s: %w", path, err)
		}
		holder, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("locking the lab: %w: %s", ErrBusy, strings.TrimSpace(string(holder)))
	}
	if err := f.Truncate(0); err != nil {
		f.Close()
		return nil, err
	}
	if _, err := fmt.Fprintf(f, "cloud %s, process %d\n", verb, os.Getpid()); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

// ErrBusy says that another process is starting, stopping or destroying the lab.
var ErrBusy = errors.New("another command holds it")

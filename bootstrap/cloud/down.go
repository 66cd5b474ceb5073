package cloud

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const stopTimeout = 30 * time.Second

func (l *Lab) reportFile() string { return filepath.Join(l.state, "report", "report.json") }

// begin starts the lab's first process. It outlives the caller.
func (l *Lab) begin(order start) (process, error) {
	order.Process = l.processFile()
	if err := os.Remove(l.reportFile()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return process{}, err
	}
	orders := filepath.Join(l.state, "start.json")
	if err := writeJSON(orders, order, 0o600); err != nil {
		return process{}, err
	}
	log, err := os.Create(filepath.Join(l.Logs(), "supervisor.log"))
	if err != nil {
		return process{}, err
	}
	defer log.Close()
	started := make(chan error, 1)
	var pid int
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends in the lab's network
		started <- l.inNamespace(func() error {
			cmd := exec.Command("/proc/self/exe", "cloud", "supervise", orders)
			cmd.Env = []string{"PATH=" + searchPath, "HOME=/root", "LANG=C.UTF-8"}
			cmd.Dir = "/"
			cmd.Stdout, cmd.Stderr = log, log
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC}
			if err := cmd.Start(); err != nil {
				return err
			}
			pid = cmd.Process.Pid
			return cmd.Process.Release()
		})
	}()
	if err := <-started; err != nil {
		return process{}, fmt.Errorf("starting the lab's first process: %w", err)
	}
	for range 100 {
		if p, ok := l.running(); ok && p.PID == pid {
			return p, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return process{}, fmt.Errorf("starting the lab's first process: it ended at once, see %s", log.Name())
}

// inNamespace moves the calling thread for good.
func (l *Lab) inNamespace(f func() error) error {
	target, err := os.Open(l.namespacePath())
	if err != nil {
		return err
	}
	defer target.Close()
	if err := unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); err != nil {
		return err
	}
	return f()
}

// end stops the lab's first process, and with it all others: politely first, so that the databases are written.
func (l *Lab) end(ctx context.Context, p process) error {
	if err := syscall.Kill(p.PID, syscall.SIGTERM); err != nil && err != syscall.ESRCH {
		return fmt.Errorf("stopping the lab: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for p.alive() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return l.kill(p)
		}
	}
	return nil
}

// kill ends it without asking. The kernel returns from it with nothing left in the PID namespace.
func (l *Lab) kill(p process) error {
	if !p.alive() {
		return nil
	}
	if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
		return fmt.Errorf("killing the lab: %w", err)
	}
	for range 500 {
		if !p.alive() {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("killing the lab: process %d is still there", p.PID)
}

// Down stops every process of the lab and frees its memory. What was made in the cloud stays on disk for the next Up, where
// servers are started again. A lab that does not run is no error.
func (l *Lab) Down(ctx context.Context) error {
	unlock, err := l.lock("down")
	if err != nil {
		return err
	}
	defer unlock()
	return l.down(ctx)
}

func (l *Lab) down(ctx context.Context) error {
	if p, ok := l.running(); ok {
		if err := l.end(ctx, p); err != nil {
			return err
		}
	}
	return l.removeNamespace()
}

// forget removes what belongs to this one cloud and keeps logs and layers.
func (l *Lab) forget() error {
	for _, name := range []string{"overlay", "base.json", "secrets.json", "clouds.yaml", "start.json", "supervisor.json", "report"} {
		if err := os.RemoveAll(filepath.Join(l.state, name)); err != nil {
			return err
		}
	}
	return nil
}

// Destroy stops the lab and removes all of it: processes, namespace, state, logs and, unless keepCache, the built layers.
func (l *Lab) Destroy(ctx context.Context, keepCache bool) error {
	unlock, err := l.lock("destroy")
	if err != nil {
		return err
	}
	defer unlock()
	if err := l.down(ctx); err != nil {
		return err
	}
	dirs := []string{l.state}
	if !keepCache {
		dirs = append(dirs, l.cache)
	}
	for _, dir := range dirs {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("removing the lab: %w", err)
		}
		// The directory above is kuryrctl's; it stays while anything else is in it.
		if err := os.Remove(filepath.Dir(dir)); err != nil && !errors.Is(err, syscall.ENOTEMPTY) && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("removing the lab: %w", err)
		}
	}
	return nil
}

// makeNamespace makes the lab's network namespace, which nothing else may be using.
func (l *Lab) makeNamespace() error {
	path := l.namespacePath()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	// Whatever is there under this name is empty or in the way; an empty one is not trusted to be clean.
	if users, err := l.namespaceUsers(); err != nil {
		return err
	} else if len(users) > 0 {
		return fmt.Errorf("making network namespace %s: %w by process %s", l.namespace, ErrNamespaceInUse, strings.Join(users, ", "))
	}
	if err := l.removeNamespace(); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return err
	}
	f.Close()
	made := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends, the mount keeps its namespace
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
		}
		made <- err
	}()
	if err := <-made; err != nil {
		return fmt.Errorf("making network namespace %s: %w", l.namespace, errors.Join(err, os.Remove(path)))
	}
	return nil
}

// ErrNamespaceInUse says that processes which are not the lab's live in a namespace of its name.
var ErrNamespaceInUse = errors.New("it is in use")

func (l *Lab) removeNamespace() error {
	path := l.namespacePath()
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && err != unix.ENOENT && err != unix.EINVAL {
		return fmt.Errorf("removing network namespace %s: %w", l.namespace, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing network namespace %s: %w", l.namespace, err)
	}
	return nil
}

// namespaceUsers lists the processes in the lab's network namespace.
func (l *Lab) namespaceUsers() ([]string, error) {
	var want unix.Stat_t
	if err := unix.Stat(l.namespacePath(), &want); err != nil {
		return nil, nil //nolint:nilerr // no namespace, no users
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var users []string
	for _, e := range entries {
		var st unix.Stat_t
		if e.Name()[0] < '0' || e.Name()[0] > '9' || unix.Stat("/proc/"+e.Name()+"/ns/net", &st) != nil {
			continue
		}
		if st.Ino == want.Ino && st.Dev == want.Dev {
			users = append(users, e.Name())
		}
	}
	return users, nil
}

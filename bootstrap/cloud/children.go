package cloud

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// command is a program to start inside the lab's root.
type command struct {
	argv []string
	env  []string // in addition to a fixed minimum; nothing is inherited
	user string   // of the root's /etc/passwd; empty means root
	log  string   // file that stdout and stderr are appended to
	in   string   // text for stdin
}

// children starts programs for a first process and reaps for all of its namespace. It replaces os/exec there: orphans arrive
// from everywhere, and a wait for any child would steal the results that os/exec waits for.
type children struct {
	mu      sync.Mutex
	waiting map[int]chan syscall.WaitStatus
}

func newChildren() *children { return &children{waiting: map[int]chan syscall.WaitStatus{}} }

// reap collects ended processes until ctx ends.
func (c *children) reap(ctx context.Context) {
	died := make(chan os.Signal, 1)
	signal.Notify(died, syscall.SIGCHLD)
	defer signal.Stop(died)
	for {
		c.collect()
		select {
		case <-died:
		case <-ctx.Done():
			return
		}
	}
}

func (c *children) collect() {
	// The lock is held over fork and registration, so that no child can be collected before it is known.
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if exited, ok := c.waiting[pid]; ok {
			exited <- status
			delete(c.waiting, pid)
		}
	}
}

// start runs cmd in a session of its own. The channel gets its status when it ends.
func (c *children) start(cmd command) (pid int, exited <-chan syscall.WaitStatus, err error) {
	path, err := lookPath(cmd.argv[0])
	if err != nil {
		return 0, nil, err
	}
	in, err := stdinFile(cmd.in)
	if err != nil {
		return 0, nil, err
	}
	defer in.Close()
	out, err := os.OpenFile(cmd.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return 0, nil, err
	}
	defer out.Close()
	attr := &syscall.ProcAttr{
		Dir:   "/",
		Env:   append([]string{"PATH=" + searchPath, "HOME=/root", "LANG=C.UTF-8"}, cmd.env...),
		Files: []uintptr{in.Fd(), out.Fd(), out.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	}
	if cmd.user != "" {
		if attr.Sys.Credential, err = credential(cmd.user); err != nil {
			return 0, nil, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	pid, err = syscall.ForkExec(path, cmd.argv, attr)
	if err != nil {
		return 0, nil, fmt.Errorf("starting %s: %w", path, err)
	}
	done := make(chan syscall.WaitStatus, 1)
	c.waiting[pid] = done
	return pid, done, nil
}

// run starts cmd and waits for it; it is killed when ctx ends.
func (c *children) run(ctx context.Context, cmd command) error {
	pid, exited, err := c.start(cmd)
	if err != nil {
		return err
	}
	var status syscall.WaitStatus
	select {
	case status = <-exited:
	case <-ctx.Done():
		syscall.Kill(-pid, syscall.SIGKILL)
		<-exited
		return ctx.Err()
	}
	if status.ExitStatus() != 0 {
		return fmt.Errorf("running %s: %s, see %s", filepath.Base(cmd.argv[0]), describe(status), cmd.log)
	}
	return nil
}

// watch starts cmd and waits until seen is true; the process is killed then, and also when ctx ends.
func (c *children) watch(ctx context.Context, cmd command, seen func() bool) error {
	pid, exited, err := c.start(cmd)
	if err != nil {
		return err
	}
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case status := <-exited:
			if seen() {
				return nil
			}
			return fmt.Errorf("%s, see %s", describe(status), cmd.log)
		case <-look.C:
			if !seen() {
				continue
			}
			syscall.Kill(-pid, syscall.SIGKILL)
			<-exited
			return nil
		case <-ctx.Done():
			syscall.Kill(-pid, syscall.SIGKILL)
			<-exited
			return fmt.Errorf("nothing on the console after %w", context.Cause(ctx))
		}
	}
}

func describe(s syscall.WaitStatus) string {
	if s.Signaled() {
		return "ended by " + s.Signal().String()
	}
	return "exit code " + strconv.Itoa(s.ExitStatus())
}

const searchPath = "/usr/sbin:/usr/bin:/sbin:/bin"

// lookPath finds a program as the lab's root would, whatever PATH the caller came with.
func lookPath(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	for dir := range strings.SplitSeq(searchPath, ":") {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("finding %s: not in %s", name, searchPath)
}

// stdinFile returns a file that reads text, without a goroutine to feed it.
func stdinFile(text string) (*os.File, error) {
	if text == "" {
		return os.Open(os.DevNull)
	}
	f, err := os.CreateTemp("/run", "stdin-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	if _, err := f.WriteString(text); err != nil {
		f.Close()
		return nil, err
	}
	if _, err := f.Seek(0, 0); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func credential(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

package cloud

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

func (l *Lab) namespacePath() string { return filepath.Join("/run/netns", l.namespace) }

// DialContext connects from inside the lab's network namespace, so that no route of the host has to lead there. It has the
// signature of net.Dialer.DialContext; addr must hold a literal IP address, because resolving a name would leave the namespace.
func (l *Lab) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	if _, err := netip.ParseAddrPort(addr); err != nil {
		return nil, fmt.Errorf("dialing %s in the lab: the address must be IP:PORT: %w", addr, err)
	}
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	// A network namespace belongs to a thread. A goroutine of its own makes it possible to throw the thread away: the
	// runtime ends a thread whose goroutine returns without unlocking it.
	go func() {
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			runtime.UnlockOSThread()
			done <- result{nil, err}
			return
		}
		defer home.Close()
		conn, err := dialFrom(ctx, l.namespacePath(), network, addr)
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- result{conn, err}
	}()
	r := <-done // the dialer honours ctx
	if r.err != nil {
		return nil, fmt.Errorf("dialing %s in the lab: %w", addr, r.err)
	}
	return r.conn, nil
}

// dialFrom moves the calling thread into the namespace; its caller moves it back.
func dialFrom(ctx context.Context, namespace, network, addr string) (net.Conn, error) {
	target, err := os.Open(namespace)
	if err != nil {
		return nil, err
	}
	defer target.Close()
	if err := unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("entering %s: %w", namespace, err)
	}
	var d net.Dialer
	return d.DialContext(ctx, network, addr)
}

// onOwnThread runs f on a thread that ends with it, so that f may move it to other namespaces for good. The main thread cannot
// end, and would drag the process's view of itself (/proc/self) along: it is kept busy while another one does the work.
func onOwnThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			onOwnThread(f)
			runtime.UnlockOSThread()
			return
		}
		f()
	}()
	<-done
}

// Exec runs a command inside the lab, in its root and all its namespaces, and returns the command's exit code; err is for
// commands that could not be run at all. OS_CLOUD, TERM and nothing else of the caller's environment go along: a stray PYTHON
// variable from outside makes every OpenStack program slow or wrong.
func (l *Lab) Exec(ctx context.Context, argv []string, stdin io.Reader, stdout, stderr io.Writer) (exitCode int, err error) {
	if len(argv) == 0 {
		return 0, fmt.Errorf("running a command in the lab: no command given")
	}
	p, ok := l.running()
	if !ok {
		return 0, fmt.Errorf("running %s in the lab: it is not running", argv[0])
	}
	type result struct {
		code int
		err  error
	}
	done := make(chan result, 1)
	onOwnThread(func() {
		if err := enter(p.PID); err != nil {
			done <- result{0, err}
			return
		}
		path, err := lookPath(argv[0]) // of the lab's root, in which this thread is now
		if err != nil {
			done <- result{0, err}
			return
		}
		cmd := exec.CommandContext(ctx, path, argv[1:]...)
		cmd.Args[0] = argv[0]
		cmd.Dir = "/root"
		cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
		cmd.Env = commandEnvironment(os.Getenv)
		cmd.WaitDelay = time.Second // for a stdin that never ends
		err = cmd.Run()
		if exit, ok := err.(*exec.ExitError); ok && ctx.Err() == nil {
			done <- result{exit.ExitCode(), nil}
			return
		}
		done <- result{0, err}
	})
	r := <-done
	if r.err != nil {
		return 0, fmt.Errorf("running %s in the lab: %w", argv[0], r.err)
	}
	return r.code, nil
}

func commandEnvironment(getenv func(string) string) []string {
	env := []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "OS_CLIENT_CONFIG_FILE=/etc/openstack/clouds.yaml"}
	for _, v := range []struct{ name, fallback string }{{"OS_CLOUD", "lab"}, {"TERM", "dumb"}} {
		value := getenv(v.name)
		if value == "" {
			value = v.fallback
		}
		env = append(env, v.name+"="+value)
	}
	return env
}

// enter moves the calling thread into all namespaces of a process. The PID namespace counts for the thread's children only.
func enter(pid int) error {
	// The kernel refuses a mount namespace to a thread that shares its root and working directory with others.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("leaving the shared working directory: %w", err)
	}
	kinds := []struct {
		name string
		flag int
	}{{"ipc", unix.CLONE_NEWIPC}, {"uts", unix.CLONE_NEWUTS}, {"net", unix.CLONE_NEWNET}, {"pid", unix.CLONE_NEWPID}, {"mnt", unix.CLONE_NEWNS}}
	files := make([]*os.File, len(kinds))
	for i, k := range kinds { // all are opened first: afterwards /proc is another one
		f, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, k.name))
		if err != nil {
			return err
		}
		defer f.Close()
		files[i] = f
	}
	for i, k := range kinds {
		if err := unix.Setns(int(files[i].Fd()), k.flag); err != nil {
			return fmt.Errorf("entering the %s namespace of process %d: %w", k.name, pid, err)
		}
	}
	return nil
}

package cloud

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const stopTimeout = 30 * time.Second

func (l *Lab) reportFile() string { return filepath.Join(l.state, "report", "report.json") }

// begin makes the lab's network namespace and starts its first process, which outlives the caller.
func (l *Lab) begin(order start) (process, error) {
	if err := l.makeNamespace(); err != nil {
		return process{}, err
	}
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
	onOwnThread(func() {
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
	})
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

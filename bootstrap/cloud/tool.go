package cloud

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
)

// tool runs a program of the host to build something. It and everything it starts or mounts live in PID and mount namespaces of
// their own, so that they end, and leave no mount, with this process however that ends.
func (l *Lab) tool(ctx context.Context, log string, argv ...string) error {
	// The death signal is sent when the thread that forked ends, not when the process does.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := os.MkdirAll(l.Logs(), 0o755); err != nil {
		return err
	}
	path := filepath.Join(l.Logs(), log+".log")
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	fmt.Fprintf(out, "# %q\n", argv)
	cmd := exec.CommandContext(ctx, "unshare", append([]string{"--pid", "--fork", "--kill-child", "--mount-proc"}, argv...)...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("running %s: %w; see %s, mend the cause and run the same command again", filepath.Base(argv[0]), err, path)
	}
	return nil
}

// mirror is the Debian archive that the host's own apt uses, or "" if it uses none (another distribution): mmdebstrap knows a
// default then.
func mirror(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)", "Created-By: Packages").Output()
	if err != nil {
		return "", fmt.Errorf("asking apt for its archive: %w", err)
	}
	return debianArchive(string(out)), nil
}

package sshtest

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
)

// Shell gives the host a system with a real shell: command lines that no pattern of On matches are run by sh in Dir as root
// directory, in namespaces of their own that end with the session. POSIX tools are this machine's; what would reach further
// (systemctl, modprobe, sysctl, apt-get or dnf, ...) is a stub that records the call for Calls and keeps its state in files:
// see the directory stubs and Stub. Nothing else exists, so a forgotten dependency gives 127.
//
// /proc and /sys are ordinary files too: what modprobe loaded is in /proc/modules, and sysctl works on /proc/sys. Without sudo
// only /tmp, /var/tmp, the home of the user and what chown gave to the user can be written. Background processes end with the
// command; what systemd-run began is the host's, and goes on until the test ends.
//
// It needs user namespaces, mount(8) and unshare(1), and no rights.
func (h *Host) Shell(system OS) {
	h.net.t.Helper()
	release := system.release()
	if release == "" {
		h.net.t.Fatalf("sshtest: no system %q; there are %v", system, AllOS())
	}
	h.mu.Lock()
	h.system, h.view, h.tables = system, h.net.t.TempDir(), h.net.t.TempDir()
	h.mu.Unlock()
	if err := h.furnish(system, release); err != nil {
		h.net.t.Fatalf("sshtest: making a root directory for %s: %v", h.Name, err)
	}
	if err := h.takeJobs(); err != nil {
		h.net.t.Fatalf("sshtest: waiting for the jobs of %s: %v", h.Name, err)
	}
	said := new(strings.Builder)
	probe := &Exec{Host: h, Line: "true", Sudo: true, Stdin: strings.NewReader(""), Stdout: said, Stderr: said, done: make(chan struct{})}
	if status, err := probe.shell(); err != nil || status != 0 {
		h.net.t.Fatalf("sshtest: a host with a shell needs user namespaces and mounts in them, which this machine does not give: "+
			"%v, status %d, %q; look at /proc/sys/user/max_user_namespaces, at kernel.apparmor_restrict_unprivileged_userns, "+
			"and in a container at its seccomp profile", err, status, said)
	}
}

// NoSudo makes sudo ask for a password.
func (h *Host) NoSudo() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.noSudo = true
}

// setup runs as the first process of the namespaces: mount what a root directory needs, run the line, and on a full disk run it
// on a copy of the size of its content and what is free. It stays, because a first process is deaf to signals of its own.
const setup = `dir=$1 root=$2 free=$3 line=$4 table=$5 owned=$6 path=$PATH PATH=/usr/sbin:/usr/bin:/sbin:/bin
die() { echo "sshtest: $1" >&2; exit 125; }
if [ -n "$free" ]; then
	size=$(find "$dir" -type f -printf '%s\n' | awk -v page="$(getconf PAGESIZE)" '
		{ n += int(($1 + page - 1) / page) }
		END { printf "%.0f", n * page }')
	mount -t tmpfs -o "size=$((size + free))" tmpfs "$root" && cp -a "$dir/." "$root/" || die 'no copy for a full disk'
fi
for own in $owned; do mount --bind "$root$own" "$root$own" 2>/dev/null; done # it may be gone meanwhile
out=$(mount -a -T "$table" 2>&1) || die "$out"
chroot=$(command -v chroot)
PATH=$path "$chroot" "$root" /bin/sh -c 'cd "$0" && exec /bin/sh ${1:+-c "$1"}' /home/` + User + ` "$line"
status=$?
if [ -n "$free" ]; then
	umount "$root/var/lib/sshtest" && rm -r "$root/var/lib/sshtest" || die 'no way back from a full disk'
	cd "$dir"
	all='etc home opt proc root run srv sys tmp usr var'
	find $all -path var/lib/sshtest -prune -o -print | while read -r f; do
		[ -e "$root/$f" ] || [ -L "$root/$f" ] || rm -rf "$f"
	done
	for f in $all; do cp -a "$root/$f" . || die 'no way back from a full disk'; done
fi
exit $status
`

// owned are the directories that were given to the user.
func (h *Host) owned() []string {
	text, err := os.ReadFile(h.path("var/lib/sshtest/owned"))
	if err != nil {
		return nil // no shell, and no chown
	}
	return strings.Fields(string(text))
}

// takeJobs runs what systemd-run hands over, each job until it ends or the test does.
func (h *Host) takeJobs() error {
	name := h.path("var/lib/sshtest/jobs/begun")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		return err
	}
	begun, err := os.OpenFile(name, os.O_RDWR, 0) // also for writing, so that it has no end
	if err != nil {
		return err
	}
	over := make(chan struct{})
	h.net.t.Cleanup(func() {
		close(over)
		begun.Close()
	})
	h.wg.Go(func() {
		for units := bufio.NewScanner(begun); units.Scan(); {
			unit := units.Text()
			h.wg.Go(func() {
				job := &Exec{Host: h, Line: ". /var/lib/sshtest/jobs/" + unit, Sudo: true, Stdin: strings.NewReader(""), Stdout: io.Discard,
					Stderr: io.Discard, done: over}
				end := "inactive\n"
				if status, err := job.shell(); err != nil || status != 0 {
					end = "failed\n"
				}
				if err := h.write("var/lib/sshtest/active/"+unit, end, 0o644); err != nil {
					h.net.t.Errorf("sshtest: ending %s on %s: %v", unit, h.Name, err)
				}
			})
		}
	})
	return nil
}

// shell runs the line for real and returns its exit status.
func (e *Exec) shell() (int, error) {
	h := e.Host
	h.mu.Lock()
	system, root, free := h.system, h.Dir, ""
	if h.full {
		root, free = h.view, fmt.Sprint(max(0, h.free))
	}
	h.mu.Unlock()
	path, home, name, owned := "/usr/local/bin:/usr/bin:/bin", "/home/"+User, User, ""
	if e.Sudo {
		path, home, name = system.sudoPath(), "/root", "root"
	} else {
		owned = strings.Join(h.owned(), " ")
	}
	runtime.LockOSThread() // it is the death of the thread that Pdeathsig tells
	defer runtime.UnlockOSThread()
	// Namespaces are unshare's work: with those of users Go would copy this process to begin another, and it is a large one.
	cmd := exec.Command("unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child", "/bin/sh", "-c", setup, "sh", h.Dir, root, free, e.Line, h.table(root, e.Sudo), owned)
	cmd.Env = []string{"PATH=" + path, "HOME=" + home, "USER=" + name, "LOGNAME=" + name, "SHELL=/bin/bash", "LANG=C.UTF-8"}
	if e.Sudo {
		cmd.Env = append(cmd.Env, "SUDO_USER="+User)
	}
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = e.Stdout, e.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL,
		Setsid:    true,
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	go func() { // ends with the channel
		io.Copy(stdin, e.Stdin)
		stdin.Close()
	}()
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-e.done:
			cmd.Process.Kill() // the first process takes all of its namespace with it
		case <-ended:
		}
	}()
	if err := cmd.Wait(); cmd.ProcessState == nil {
		return 0, err
	}
	// Another error is that of a client that is gone, and of no interest to the host.
	if status := cmd.ProcessState.ExitCode(); status >= 0 {
		return status, nil
	}
	return -int(syscall.SIGKILL), nil
}

// Run runs the command line in the host's shell, as if nothing were scripted for it, and returns the exit status. A reply may
// do this and more.
func (e *Exec) Run() int {
	if !e.Host.hasShell() {
		e.Host.net.t.Errorf("sshtest: %s has no shell to run %q", e.Host.Name, e.Line)
		return 127
	}
	status, err := e.shell()
	if err != nil {
		e.Host.net.t.Errorf("sshtest: running %q on %s: %v", e.Line, e.Host.Name, err)
		return 127
	}
	return status
}

func (h *Host) hasShell() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.system != ""
}

// DropAfter runs the command to its end in the host's shell and cuts the connection before anything of it is heard.
func DropAfter(e *Exec) int {
	e.Stdout, e.Stderr = io.Discard, io.Discard
	e.Run()
	return Drop(e)
}

package sshtest

import (
	"bufio"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// OS is the system a host with a shell has.
type OS string

// The systems that nodes may have.
const (
	Debian12   OS = "debian-12"
	Debian13   OS = "debian-13"
	Ubuntu2204 OS = "ubuntu-22.04"
	Ubuntu2404 OS = "ubuntu-24.04"
	Rocky9     OS = "rocky-9"
	Rocky10    OS = "rocky-10"
	CentOS9    OS = "centos-9"
	CentOS10   OS = "centos-10"
)

// AllOS lists the systems.
func AllOS() []OS {
	return []OS{Debian12, Debian13, Ubuntu2204, Ubuntu2404, Rocky9, Rocky10, CentOS9, CentOS10}
}

func (o OS) debian() bool {
	return strings.HasPrefix(string(o), "debian") || strings.HasPrefix(string(o), "ubuntu")
}

// release is the system's os-release, which tells systems apart; empty if there is no such system.
func (o OS) release() string {
	id, version, _ := strings.Cut(string(o), "-")
	name, like, more := "", "", "PLATFORM_ID=\"platform:el"+version+"\"\n"
	switch o {
	case Debian12, Debian13:
		name, more = "Debian GNU/Linux", "VERSION_CODENAME="+map[OS]string{Debian12: "bookworm", Debian13: "trixie"}[o]+"\n"
	case Ubuntu2204, Ubuntu2404:
		name, like, more = "Ubuntu", "debian", "VERSION_CODENAME="+map[OS]string{Ubuntu2204: "jammy", Ubuntu2404: "noble"}[o]+"\n"
	case Rocky9, Rocky10:
		name, like, version = "Rocky Linux", "rhel centos fedora", map[OS]string{Rocky9: "9.6", Rocky10: "10.0"}[o]
	case CentOS9, CentOS10:
		name, like = "CentOS Stream", "rhel fedora"
	default:
		return ""
	}
	quote := strconv.Quote
	if o.debian() {
		quote = func(s string) string { return s } // as they write it, and scripts may search for it
	}
	if like != "" {
		more += "ID_LIKE=" + quote(like) + "\n"
	}
	return fmt.Sprintf("PRETTY_NAME=\"%s %s\"\nNAME=%q\nID=%s\nVERSION_ID=%q\n%s", name, version, name, quote(id), version, more)
}

// sudoPath is where sudo looks for commands: on the EL 9 family not in /usr/local.
func (o OS) sudoPath() string {
	if o == Rocky9 || o == CentOS9 {
		return "/sbin:/bin:/usr/sbin:/usr/bin"
	}
	return "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
}

//go:embed stubs
var stubs embed.FS

// tools are the commands of this machine that a host has too, if they are here. All else gives 127 unless it is a stub.
const tools = `[ awk b2sum base64 basename bash cat chgrp chmod chown cksum cmp comm cp cut date dd df diff dirname du echo env expr false
find flock fold getconf getent grep egrep fgrep gunzip gzip head install join kill ln logname ls md5sum mkdir mkfifo mktemp mv nice nl
nohup nproc numfmt od openssl paste printf pwd python3 readlink realpath rm rmdir sed seq setsid sha1sum sha256sum sha512sum shuf sleep
sort split ssh-keygen stat stty sync tac tail tar tee test timeout touch tr true truncate tsort tty uname uniq unlink wc which xargs xz
yes zcat zstd`

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

// furnish fills the root directory.
func (h *Host) furnish(system OS, release string) error {
	var errs []error
	check := func(err error) { errs = append(errs, err) }
	for dir := range strings.FieldsSeq(`.host/usr .host/proc dev etc/sysctl.d etc/modules-load.d etc/systemd/system opt proc/sys root run srv
		sys/fs/cgroup sys/module tmp usr/bin usr/sbin usr/lib/sshtest usr/lib/systemd/system usr/lib/sysctl.d usr/lib/modules usr/lib/modules-load.d
		usr/lib/modprobe.d usr/libexec usr/share
		usr/local/bin usr/local/sbin var/lib/sshtest/active var/lib/sshtest/enabled var/lib/sshtest/masked var/lib/sshtest/start var/lib/sshtest/jobs
		var/lib/sshtest/no-module var/lib/sshtest/no-package var/lib/sshtest/package var/log var/tmp`) {
		check(os.MkdirAll(h.path(dir), 0o755))
	}
	for link, to := range map[string]string{"bin": "usr/bin", "sbin": "usr/sbin", "var/run": "../run",
		"dev/fd": "/proc/self/fd", "dev/stdin": "/proc/self/fd/0", "dev/stdout": "/proc/self/fd/1", "dev/stderr": "/proc/self/fd/2",
		"proc/self": "/.host/proc/self", "proc/mounts": "/.host/proc/self/mounts"} {
		check(os.Symlink(to, h.path(link)))
	}
	files := map[string]string{
		"etc/os-release":     release,
		"usr/lib/os-release": release,
		"etc/hostname":       strings.ReplaceAll(h.Name, "/", "-") + "\n",
		"etc/hosts":          "127.0.0.1 localhost\n",
		"etc/nsswitch.conf":  "hosts: files\n",
		"etc/passwd":         "root:x:0:0:root:/root:/bin/bash\n" + User + ":x:1000:1000::/home/" + User + ":/bin/bash\n",
		"etc/group":          "root:x:0:\n" + User + ":x:1000:\n",
		"etc/fstab":          "/dev/vda1 / ext4 defaults 0 1\n",
		"etc/machine-id":     strings.Repeat("0123456789abcdef", 2) + "\n",

		"proc/modules":     "ext4 1069056 1 - Live 0x0000000000000000\n",
		"proc/swaps":       "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n",
		"proc/meminfo":     "MemTotal:        8145516 kB\nMemFree:         7145516 kB\nMemAvailable:    7545516 kB\n",
		"proc/cpuinfo":     "processor\t: 0\n\nprocessor\t: 1\n",
		"proc/cmdline":     "BOOT_IMAGE=/boot/vmlinuz root=/dev/vda1 ro\n",
		"proc/filesystems": "nodev\tproc\nnodev\toverlay\n\text4\n",
		"proc/uptime":      "100.00 180.00\n",
		"proc/loadavg":     "0.10 0.10 0.10 1/100 1000\n",
		"proc/1/comm":      "systemd\n",

		"proc/sys/net/ipv4/ip_forward":                    "0\n",
		"proc/sys/net/ipv6/conf/all/forwarding":           "0\n",
		"proc/sys/net/ipv4/conf/all/rp_filter":            "2\n",
		"proc/sys/net/netfilter/nf_conntrack_max":         "65536\n",
		"proc/sys/vm/overcommit_memory":                   "0\n",
		"proc/sys/vm/panic_on_oom":                        "0\n",
		"proc/sys/vm/swappiness":                          "60\n",
		"proc/sys/vm/max_map_count":                       "65530\n",
		"proc/sys/kernel/panic":                           "0\n",
		"proc/sys/kernel/panic_on_oops":                   "0\n",
		"proc/sys/kernel/hostname":                        h.Name + "\n",
		"proc/sys/kernel/keys/root_maxkeys":               "1000000\n",
		"proc/sys/kernel/keys/root_maxbytes":              "25000000\n",
		"proc/sys/fs/inotify/max_user_instances":          "128\n",
		"proc/sys/fs/inotify/max_user_watches":            "65536\n",
		"sys/fs/cgroup/cgroup.controllers":                "cpuset cpu io memory hugetlb pids rdma\n",
		"usr/lib/systemd/system/systemd-journald.service": "[Service]\nExecStart=/bin/true\n",
		"usr/lib/systemd/system/chrony.service":           "[Service]\nExecStart=/bin/true\n",
		"var/lib/sshtest/calls":                           "",
		"var/lib/sshtest/owned":                           "",
		"var/lib/sshtest/packages":                        "",
	}
	ssh := "sshd"
	if system.debian() {
		ssh = "ssh"
		files["etc/debian_version"] = "12\n"
	} else {
		files["etc/redhat-release"] = "EL\n"
		files["usr/lib/systemd/system/firewalld.service"] = "[Service]\nExecStart=/bin/true\n"
	}
	files["usr/lib/systemd/system/"+ssh+".service"] = "[Service]\nExecStart=/bin/true\n"
	files["var/lib/sshtest/active/"+ssh+".service"] = "active\n"
	files["var/lib/sshtest/enabled/"+ssh+".service"] = ""
	for _, dev := range devices {
		files["dev/"+dev] = ""
	}
	for name, text := range files {
		check(h.write(name, text, 0o644))
	}
	check(os.Chmod(h.path("tmp"), 0o777|fs.ModeSticky))

	// The machine's libraries are where its programs look for them.
	for _, lib := range libraries {
		if info, err := os.Stat("/usr/" + lib); err == nil && info.IsDir() {
			check(os.MkdirAll(h.path("usr", lib), 0o755))
			entries, err := os.ReadDir("/usr/" + lib)
			check(err)
			for _, e := range entries {
				err := os.Symlink("/.host/usr/"+lib+"/"+e.Name(), h.path("usr", lib, e.Name()))
				if !errors.Is(err, fs.ErrExist) {
					check(err)
				}
			}
		}
		if to, err := os.Readlink("/" + lib); err == nil {
			check(os.Symlink(strings.TrimPrefix(to, "/"), h.path(lib)))
		} else if _, err := os.Stat("/" + lib); err == nil {
			check(os.MkdirAll(h.path(".host", lib), 0o755))
			check(os.Symlink(".host/"+lib, h.path(lib)))
		}
	}
	if cache, err := os.ReadFile("/etc/ld.so.cache"); err == nil {
		check(h.write("etc/ld.so.cache", string(cache), 0o644))
	}
	for _, tool := range strings.Fields(tools) {
		if real := machinePath(tool); real != "" {
			check(os.Symlink(real, h.path("usr/bin", tool)))
		}
	}
	shell := "sh"
	if !system.debian() && machinePath("bash") != "" {
		shell = "bash"
	}
	check(os.Symlink(machinePath(shell), h.path("usr/bin/sh")))

	record, err := stubs.ReadFile("stubs/record")
	check(err)
	check(h.write("usr/lib/sshtest/record", string(record), 0o644))
	entries, err := stubs.ReadDir("stubs")
	check(err)
	others := []string{"record", "apt-get", "apt-mark", "dpkg-query", "update-ca-certificates"}
	if system.debian() {
		others = []string{"record", "rpm", "restorecon", "getenforce", "setenforce", "update-ca-trust"}
	}
	for _, e := range entries {
		if slices.Contains(others, e.Name()) {
			continue
		}
		script, err := stubs.ReadFile("stubs/" + e.Name())
		check(err)
		check(h.stub(e.Name(), string(script)))
	}
	if !system.debian() {
		script, err := stubs.ReadFile("stubs/apt-get")
		check(err)
		check(h.stub("dnf", string(script)))
	}
	for _, root := range []string{h.Dir, h.view} {
		for _, sudo := range []bool{false, true} {
			check(os.WriteFile(h.table(root, sudo), []byte(h.mounts(root, sudo)), 0o600))
		}
	}
	return errors.Join(errs...)
}

// machinePath is where a host finds a command of this machine; only those of the system count.
func machinePath(tool string) string {
	for _, dir := range []string{"/usr/bin/", "/bin/", "/usr/sbin/", "/sbin/"} {
		if real, err := filepath.EvalSymlinks(dir + tool); err == nil && strings.HasPrefix(real, "/usr/") {
			return "/.host" + real
		}
	}
	return ""
}

func (h *Host) path(parts ...string) string {
	return filepath.Join(append([]string{h.Dir}, parts...)...)
}

func (h *Host) write(name, text string, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(h.path(name)), 0o755); err != nil {
		return err
	}
	return os.WriteFile(h.path(name), []byte(text), mode)
}

// inSbin lists the stubs that an ordinary user's path does not find.
const inSbin = "modprobe lsmod sysctl swapoff swapon ip conntrack depmod sshd restorecon getenforce setenforce"

// stub replaces a file and never writes through a link to a real one.
func (h *Host) stub(name, script string) error {
	file := "usr/bin/" + name
	if slices.Contains(strings.Fields(inSbin), name) {
		file = "usr/sbin/" + name
	}
	if err := os.Remove(h.path(file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return h.write(file, "#!/bin/sh\n. /usr/lib/sshtest/record\n"+script, 0o755)
}

// Stub makes a command, or replaces one: a script for sh, whose call is recorded before it begins.
func (h *Host) Stub(name, script string) {
	h.net.t.Helper()
	if err := h.stub(name, script); err != nil {
		h.net.t.Fatalf("sshtest: %v", err)
	}
}

// OnStart makes a script run whenever systemctl starts a unit, such as "kubelet.service"; if the script fails, so does the unit.
func (h *Host) OnStart(unit, script string) { h.hook("start/"+unit, script) }

// OnInstall makes a script be what apt-get or dnf does to install a package, in the place of a command of its name.
func (h *Host) OnInstall(name, script string) { h.hook("package/"+name, script) }

// NoPackage makes apt-get or dnf not find a package.
func (h *Host) NoPackage(name string) { h.hook("no-package/"+name, "") }

// NoModule makes modprobe not find a module.
func (h *Host) NoModule(name string) { h.hook("no-module/"+name, "") }

func (h *Host) hook(file, script string) {
	h.net.t.Helper()
	if err := h.write("var/lib/sshtest/"+file, "#!/bin/sh\n"+script, 0o755); err != nil {
		h.net.t.Fatalf("sshtest: %v", err)
	}
}

// Calls lists the calls of stubs, in order: name and arguments, with spaces between.
func (h *Host) Calls() []string {
	h.net.t.Helper()
	text, err := os.ReadFile(h.path("var/lib/sshtest/calls"))
	if err != nil {
		h.net.t.Fatalf("sshtest: %v", err)
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")[:strings.Count(string(text), "\n")]
}

// NoSudo makes sudo ask for a password.
func (h *Host) NoSudo() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.noSudo = true
}

var libraries = []string{"lib", "lib32", "lib64", "libx32"}

var devices = []string{"null", "zero", "full", "random", "urandom"}

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

// mounts is the table of what is mounted to make a root directory, for mount(8).
func (h *Host) mounts(root string, sudo bool) string {
	var table strings.Builder
	add := func(what, where, options string) {
		escape := strings.NewReplacer(`\`, `\134`, " ", `\040`, "\t", `\011`, "#", `\043`)
		fmt.Fprintf(&table, "%s %s none %s 0 0\n", escape.Replace(what), escape.Replace(where), options)
	}
	add(h.path("var/lib/sshtest"), root+"/var/lib/sshtest", "bind")
	if !sudo {
		for _, dir := range []string{"/tmp", "/var/tmp", "/home/" + User} {
			add(root+dir, root+dir, "bind")
		}
	}
	add("/usr", root+"/.host/usr", "bind,ro")
	add("/proc", root+"/.host/proc", "rbind")
	for _, dev := range devices {
		add("/dev/"+dev, root+"/dev/"+dev, "bind")
	}
	for _, lib := range libraries {
		if info, err := os.Lstat("/" + lib); err == nil && info.IsDir() {
			add("/"+lib, root+"/.host/"+lib, "bind,ro")
		}
	}
	if !sudo {
		add(root, root, "rbind,ro") // of the directory itself; what is mounted in it keeps its rights
	}
	return table.String()
}

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

// table is the file with mounts.
func (h *Host) table(root string, sudo bool) string {
	return filepath.Join(h.tables, fmt.Sprintf("%v-%v", root == h.view, sudo))
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
	path, home, name := "/usr/local/bin:/usr/bin:/bin", "/home/"+User, User
	owned := ""
	if !e.Sudo {
		owned = strings.Join(h.owned(), " ")
	}
	if e.Sudo {
		path, home, name = system.sudoPath(), "/root", "root"
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

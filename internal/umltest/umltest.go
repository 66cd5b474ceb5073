// Package umltest runs a test binary as the first process of a kernel of its own: the user-mode Linux that the lab's servers run on. It is
// for tests of what this machine's kernel may lack, 802.1Q above all, and of what would disturb it. What in turn that kernel lacks, NAT
// above all, is tested in this machine's kernel, in a network of its own: that is Network.
//
// It owns the boot and the exit code. It refuses to fetch anything: kernel, modules and what the tests find in /usr are those in the
// lab's cache, and without them the tests fail. It leaves nothing behind, not even when it is killed.
package umltest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	stage    = "umltest"             // in the environment: "mount" between this machine and the guest, "guest" in the guest
	verdict  = "umltest: exit code " // the guest's last word
	longest  = 5 * time.Minute
	memoryMB = 384
	programs = "/usr/sbin:/usr/bin"
)

// Machine is what tests find beside themselves. Everywhere there are the lab's programs in /usr, and memory in /run.
type Machine struct {
	Modules  []string  // of the guest's kernel
	Programs []Program // in /run/guest/bin
}

// Bin is where the programs of a Machine are.
const Bin = "/run/guest/bin"

// Program is a Go program, built for the tests and called after its package.
type Program struct {
	Dir     string // of a module that has the package, relative to that of the test
	Package string
}

// Network is what TestMain does: m's tests run in this machine's kernel, in namespaces of their own for network and mounts. The binary
// must be static. Network does not return.
func Network(m *testing.M, machine Machine) {
	if os.Getenv(stage) != "network" {
		start(machine, "network", syscall.CLONE_NEWNET|syscall.CLONE_NEWNS|syscall.CLONE_NEWPID)
	}
	if err := mount(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Println("umltest:", err)
		os.Exit(1)
	}
	os.Args = append(os.Args[:1], os.Args[4:]...)
	err := os.Setenv("PATH", programs)
	if err == nil {
		err = os.Unsetenv(stage)
	}
	if err != nil {
		fmt.Println("umltest:", err)
		os.Exit(1)
	}
	fmt.Printf("\n%s%d\n", verdict, m.Run())
	os.Exit(0)
}

// Main is what TestMain does: m's tests run in a guest. The binary must be static. Main does not return.
func Main(m *testing.M, machine Machine) {
	switch os.Getenv(stage) {
	case "guest":
		code, err := guest(m)
		if err != nil {
			fmt.Println("umltest:", err)
			code = 1
		}
		fmt.Printf("\n%s%d\n", verdict, code)
		unix.Sync()
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF) // there is nobody left to tell
	case "mount":
		err := mount(os.Args[1], os.Args[2], os.Args[3])
		if err == nil {
			err = boot(os.Args[4:])
		}
		fmt.Println("umltest:", err)
	default:
		start(machine, "mount", syscall.CLONE_NEWNS|syscall.CLONE_NEWPID)
	}
	os.Exit(1)
}

// start runs this binary's next stage in new namespaces, and exits as the tests do.
func start(machine Machine, next string, namespaces uintptr) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	code, err := run(ctx, machine, next, namespaces, os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "umltest:", err)
		code = 1
	}
	os.Exit(code)
}

// run returns the exit code of the tests in the next stage.
func run(ctx context.Context, machine Machine, next string, namespaces uintptr, args []string) (int, error) {
	if os.Geteuid() != 0 {
		return 0, errors.New("a kernel of its own needs root here, for mounts that nobody else sees")
	}
	kernel, err := cached("kernel-*", "linux.uml")
	if err != nil {
		return 0, err
	}
	root, err := cached("root-*", "usr/lib/x86_64-linux-gnu/libc.so.6")
	if err != nil {
		return 0, err
	}
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "umltest-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if err := furnish(dir, self, kernel, machine.Modules); err != nil {
		return 0, fmt.Errorf("making the guest's root: %w", err)
	}
	for _, p := range machine.Programs {
		build := exec.CommandContext(ctx, "go", "build", "-C", p.Dir, "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(dir, "bin")+"/", p.Package)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("building %s: %w: %s", p.Package, err, out)
		}
	}
	args = slices.DeleteFunc(slices.Clone(args), func(a string) bool {
		return strings.HasPrefix(a, "-test.testlogfile") || strings.HasPrefix(a, "-test.outputdir") // files of this machine
	})
	if i := slices.IndexFunc(args, func(a string) bool { return strings.ContainsAny(a, " \"") }); i >= 0 {
		return 0, fmt.Errorf("passing %q to the tests: a kernel's command line has no quotes", args[i])
	}
	cmd := exec.CommandContext(ctx, self, append([]string{kernel, root, dir}, args...)...)
	cmd.Env = append(os.Environ(), stage+"="+next)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces, Pdeathsig: syscall.SIGKILL} // its end is everybody's
	cmd.Stderr = os.Stderr
	console, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("starting the guest: %w", err)
	}
	code, said := 0, false
	for lines := bufio.NewScanner(console); lines.Scan(); {
		line := strings.TrimRight(lines.Text(), "\r")
		if text, ok := strings.CutPrefix(line, verdict); ok {
			code, err = strconv.Atoi(text)
			said = err == nil
			continue
		}
		fmt.Println(line)
	}
	err = cmd.Wait()
	if ctx.Err() != nil {
		return 0, fmt.Errorf("running the guest: %w", context.Cause(ctx))
	}
	if !said {
		return 0, fmt.Errorf("running the guest: it ended without a verdict: %v", err)
	}
	return code, nil
}

// cached finds the newest layer of this kind in the lab's cache.
func cached(pattern, holds string) (dir string, err error) {
	cache := os.Getenv("XDG_CACHE_HOME")
	if !filepath.IsAbs(cache) {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		cache = filepath.Join(home, ".cache")
	}
	cache = filepath.Join(cache, "kuryrctl", "cloud")
	found, err := filepath.Glob(filepath.Join(cache, pattern, holds))
	if err != nil {
		return "", err
	}
	var newest time.Time
	for _, path := range found {
		layer := strings.TrimSuffix(path, "/"+holds)
		if info, err := os.Stat(layer); err == nil && !strings.HasSuffix(layer, ".partial") && info.ModTime().After(newest) {
			dir, newest = layer, info.ModTime()
		}
	}
	if dir == "" {
		return "", fmt.Errorf("the lab's %s is not in %s: run `kuryrctl cloud up` first", strings.TrimSuffix(pattern, "-*"), cache)
	}
	return dir, nil
}

// furnish makes the guest's root directory: this binary, the modules and what they need in the order to load them, and mount points.
func furnish(dir, self, kernel string, modules []string) error {
	for _, d := range []string{"modules", "bin", "proc", "sys", "dev", "tmp", "run", "var", "root", "usr", "etc"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	for _, l := range []string{"lib", "lib64", "sbin"} {
		if err := os.Symlink("usr/"+l, filepath.Join(dir, l)); err != nil {
			return err
		}
	}
	if err := copyFile(filepath.Join(dir, "test"), self); err != nil {
		return err
	}
	found, err := filepath.Glob(filepath.Join(kernel, "modules", "*", "modules.dep"))
	if err != nil || len(found) == 0 {
		return fmt.Errorf("there is no modules.dep in %s", kernel)
	}
	text, err := os.ReadFile(found[0])
	if err != nil {
		return err
	}
	n := 0
	for _, m := range modules {
		var files []string
		for line := range strings.Lines(string(text)) {
			if file, needs, ok := strings.Cut(strings.TrimSpace(line), ":"); ok && filepath.Base(file) == m+".ko" {
				files = append([]string{file}, strings.Fields(needs)...) // what is needed by something comes after it
			}
		}
		if len(files) == 0 {
			return fmt.Errorf("there is no module %s in %s", m, filepath.Dir(found[0]))
		}
		for _, file := range slices.Backward(files) {
			if err := copyFile(filepath.Join(dir, "modules", fmt.Sprintf("%03d.ko", n)), filepath.Join(filepath.Dir(found[0]), file)); err != nil {
				return err
			}
			n++
		}
	}
	return nil
}

func copyFile(to, from string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	return err
}

// mount goes where the lab's programs are and the C library that the kernel was built for. Nobody else sees the mounts.
func mount(kernel, root, dir string) error {
	const at = "/mnt"
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("keeping mounts to itself: %w", err)
	}
	for _, m := range []struct {
		from, to, kind string
		flags          uintptr
	}{
		{root, at, "", unix.MS_BIND},
		{"", at, "", unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY},
		{"proc", at + "/proc", "proc", 0},
		{"tmpfs", at + "/run", "tmpfs", 0}, // the guest's memory too, so it must be executable
		{kernel, at + "/run/kernel", "", unix.MS_BIND},
		{dir, at + "/run/guest", "", unix.MS_BIND},
	} {
		if err := os.MkdirAll(m.to, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.from, m.to, m.kind, m.flags, ""); err != nil {
			return fmt.Errorf("mounting %s: %w", m.to, err)
		}
	}
	if err := unix.Chroot(at); err != nil {
		return fmt.Errorf("entering the lab's root: %w", err)
	}
	return os.Chdir("/")
}

// boot becomes the kernel.
func boot(args []string) error {
	argv := []string{"linux.uml", fmt.Sprintf("mem=%dM", memoryMB), "uml_dir=/run/uml", "rootfstype=hostfs", "rootflags=/run/guest", "rw", "init=/test",
		"con=null", "con0=null,fd:1", "seccomp=on", "random.trust_cpu=on", "panic=-1", "quiet", stage + "=guest", "--"}
	if err := os.Mkdir("/run/uml", 0o700); err != nil {
		return err
	}
	return fmt.Errorf("starting the kernel: %w", unix.Exec("/run/kernel/linux.uml", append(argv, args...), []string{"TMPDIR=/run", "HOME=/root"}))
}

// guest makes the little that a test may expect of a machine and the kernel has not, and runs the tests.
func guest(m *testing.M) (int, error) {
	for to, kind := range map[string]string{"/proc": "proc", "/sys": "sysfs", "/tmp": "tmpfs", "/run": "tmpfs", "/var": "tmpfs"} {
		if err := unix.Mount(kind, to, kind, 0, ""); err != nil {
			return 0, fmt.Errorf("mounting %s: %w", to, err)
		}
	}
	if err := os.MkdirAll(Bin, 0o755); err != nil {
		return 0, err
	}
	if err := unix.Mount("/bin", Bin, "", unix.MS_BIND, ""); err != nil {
		return 0, fmt.Errorf("mounting %s: %w", Bin, err)
	}
	for _, dir := range []string{"/usr", "/etc"} { // of where the kernel's own process is
		if err := unix.Mount("lab", dir, "hostfs", unix.MS_RDONLY, dir); err != nil {
			return 0, fmt.Errorf("mounting %s: %w", dir, err)
		}
	}
	modules, err := filepath.Glob("/modules/*.ko")
	if err != nil {
		return 0, err
	}
	for _, path := range modules { // sorted
		f, err := os.Open(path)
		if err != nil {
			return 0, err
		}
		if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
			return 0, fmt.Errorf("loading module %s: %w", path, err)
		}
		f.Close()
	}
	if err := os.Setenv("PATH", programs); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

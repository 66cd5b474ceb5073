package cloud

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// filesystem is what the first process sees as its root.
type filesystem struct {
	Lower []string          `json:"lower"` // read-only layers, topmost first
	Upper string            `json:"upper"` // takes all changes
	Work  string            `json:"work"`  // overlayfs's own, beside Upper
	Root  string            `json:"root"`  // empty directory to mount on
	Binds map[string]string `json:"binds"` // directories of the host by their place inside
	Fixed []string          `json:"fixed"` // the places among Binds that are read-only
}

// enterRoot makes fs the root of the calling process's own mount namespace and lets go of the host's.
func (fs filesystem) enterRoot() error {
	// Nothing of this may travel to the host, and the host's later mounts are no business of the lab.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("separating the mounts: %w", err)
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s,index=off,metacopy=off", strings.Join(fs.Lower, ":"), fs.Upper, fs.Work)
	if err := unix.Mount("overlay", fs.Root, "overlay", 0, options); err != nil {
		return fmt.Errorf("mounting the overlay of %s: %w", fs.Upper, err)
	}
	if err := fs.mountKernelFilesystems(); err != nil {
		return err
	}
	for place, dir := range fs.Binds {
		if err := bind(dir, filepath.Join(fs.Root, place)); err != nil {
			return err
		}
	}
	for _, place := range fs.Fixed {
		target := filepath.Join(fs.Root, place)
		if err := unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			return fmt.Errorf("making %s read-only: %w", target, err)
		}
	}
	if err := os.Chdir(fs.Root); err != nil {
		return err
	}
	// pivot_root(2): with both arguments ".", the old root ends up on top of the new one and is taken off.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("changing the root to %s: %w", fs.Root, err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("letting go of the host's root: %w", err)
	}
	return os.Chdir("/")
}

func (fs filesystem) mountKernelFilesystems() error {
	mounts := []struct {
		place, kind, options string
		flags                uintptr
	}{
		{"proc", "proc", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"sys", "sysfs", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"run", "tmpfs", "mode=755,size=64m", unix.MS_NOSUID | unix.MS_NODEV},
		{"dev", "tmpfs", "mode=755,size=1m", unix.MS_NOSUID},
		{"dev/pts", "devpts", "newinstance,ptmxmode=0666,mode=620", unix.MS_NOSUID | unix.MS_NOEXEC},
		// The memory of user-mode Linux guests is files in here, which they execute. Only what is used counts.
		{"dev/shm", "tmpfs", "mode=1777,size=90%", unix.MS_NOSUID | unix.MS_NODEV},
	}
	for _, m := range mounts {
		target := filepath.Join(fs.Root, m.place)
		if err := os.MkdirAll(target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, target, m.kind, m.flags, m.options); err != nil {
			return fmt.Errorf("mounting %s: %w", target, err)
		}
	}
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty", "net/tun", "kvm"} {
		if _, err := os.Stat("/dev/" + name); err != nil {
			continue // no KVM on this host, or no tun: what needs it says so
		}
		target := filepath.Join(fs.Root, "dev", name)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(target, nil, 0o644); err != nil {
			return err
		}
		if err := unix.Mount("/dev/"+name, target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("binding /dev/%s: %w", name, err)
		}
	}
	for name, target := range map[string]string{"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"} {
		if err := os.Symlink(target, filepath.Join(fs.Root, "dev", name)); err != nil {
			return err
		}
	}
	return nil
}

func bind(dir, target string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(dir, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("binding %s: %w", dir, err)
	}
	return nil
}

package cloud

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const gib = 1 << 30

// What a lab needs, in bytes. The services take 3.3 GiB and a Kubernetes of three small servers 2; the layers take 4.5 GiB,
// and twice the largest while they are built.
const (
	needMemory    = 6 * gib
	needDiskBuild = 8 * gib
	needDiskStart = 2 * gib
)

// host is what Up asks of the machine. Tests bring their own.
type host struct {
	uid       func() int
	find      func(program string) error
	available func() (uint64, error)           // memory, in bytes
	free      func(dir string) (uint64, error) // disk, in bytes
}

func thisHost() host {
	return host{
		uid:       os.Geteuid,
		find:      func(program string) error { _, err := exec.LookPath(program); return err },
		available: availableMemory,
		free:      freeDisk,
	}
}

// MissingError lists programs that the host lacks and the Debian packages that have them.
type MissingError struct{ Programs, Packages []string }

func (e *MissingError) Error() string {
	return fmt.Sprintf("looking for %s: not installed; run: %s", strings.Join(e.Programs, ", "), strings.Join(e.Command(), " "))
}

// Command installs what is missing.
func (e *MissingError) Command() []string {
	return append([]string{"apt-get", "install", "--yes", "--no-install-recommends"}, e.Packages...)
}

// ErrNotRoot says that namespaces, mounts and Debian roots cannot be made.
var ErrNotRoot = errors.New("only root may make namespaces and mounts; run it with sudo")

// demand is what a start is going to do.
type demand struct {
	building bool // the layers are not in the cache
	running  bool // there is a cloud already, whose memory comes back
}

// check finds what would make a start fail later and less clearly.
func (h host) check(l *Lab, d demand) error {
	if h.uid() != 0 {
		return fmt.Errorf("starting the lab: %w", ErrNotRoot)
	}
	if err := h.checkPrograms(d); err != nil {
		return err
	}
	memory, err := h.available()
	if err != nil {
		return err
	}
	if !d.running && memory < needMemory {
		return fmt.Errorf("starting the lab: %s of memory available, %s needed; stop something, or use a larger machine", size(memory), size(needMemory))
	}
	for _, dir := range []struct {
		path, variable string
		need           uint64
	}{{l.state, "XDG_STATE_HOME", needDiskStart}, {l.cache, "XDG_CACHE_HOME", needDiskBuild}} {
		if !d.building && dir.path == l.cache {
			continue
		}
		free, err := h.free(existing(dir.path))
		if err != nil {
			return fmt.Errorf("asking for the space below %s: %w", dir.path, err)
		}
		if free < dir.need {
			return fmt.Errorf("starting the lab: %s free below %s, %s needed; free some, or set %s to a larger disk", size(free), dir.path, size(dir.need), dir.variable)
		}
	}
	return nil
}

func (h host) checkPrograms(d demand) error {
	needed := []struct{ program, pkg string }{{"unshare", "util-linux"}}
	if d.building {
		needed = append(needed, []struct{ program, pkg string }{
			{"mmdebstrap", "mmdebstrap"}, {"apt-get", "apt"}, {"dpkg-deb", "dpkg"}, {"mkfs.ext4", "e2fsprogs"}, {"chroot", "coreutils"},
		}...)
	}
	var missing MissingError
	for _, n := range needed {
		if h.find(n.program) != nil {
			missing.Programs = append(missing.Programs, n.program)
			missing.Packages = append(missing.Packages, n.pkg)
		}
	}
	if missing.Programs != nil {
		return &missing
	}
	return nil
}

func size(bytes uint64) string { return fmt.Sprintf("%.1f GiB", float64(bytes)/gib) }

// existing is the nearest directory above path that is there.
func existing(path string) string {
	for {
		if _, err := os.Stat(path); err == nil || path == "/" {
			return path
		}
		path = filepath.Dir(path)
	}
}

func availableMemory() (uint64, error) {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	_, rest, _ := bytes.Cut(data, []byte("MemAvailable:"))
	field, _, _ := bytes.Cut(rest, []byte("kB"))
	kib, err := strconv.ParseUint(string(bytes.TrimSpace(field)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("reading MemAvailable of /proc/meminfo: %w", err)
	}
	return kib << 10, nil
}

func freeDisk(dir string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return st.Bavail * uint64(st.Bsize), nil
}

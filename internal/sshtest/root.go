package sshtest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// tools are the commands of this machine that a host has too, if they are here. All else gives 127 unless it is a stub.
const tools = `[ awk b2sum base64 basename bash cat chgrp chmod chown cksum cmp comm cp cut date dd df diff dirname du echo env expr false
find flock fold getconf getent grep egrep fgrep gunzip gzip head install join kill ln logname ls md5sum mkdir mkfifo mktemp mv nice nl
nohup nproc numfmt od openssl paste printf pwd python3 readlink realpath rm rmdir sed seq setsid sha1sum sha256sum sha512sum shuf sleep
sort split ssh-keygen stat stty sync tac tail tar tee test timeout touch tr true truncate tsort tty uname uniq unlink wc which xargs xz
yes zcat zstd`

var libraries = []string{"lib", "lib32", "lib64", "libx32"}

var devices = []string{"null", "zero", "full", "random", "urandom"}

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
	check(h.lend(system))
	check(h.furnishStubs(system))
	for _, root := range []string{h.Dir, h.view} {
		for _, sudo := range []bool{false, true} {
			check(os.WriteFile(h.table(root, sudo), []byte(h.mounts(root, sudo)), 0o600))
		}
	}
	return errors.Join(errs...)
}

// lend gives the root directory what a host has of this machine: libraries, where its programs look for them, and tools.
func (h *Host) lend(system OS) error {
	var errs []error
	check := func(err error) { errs = append(errs, err) }
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

// table is the file with mounts.
func (h *Host) table(root string, sudo bool) string {
	return filepath.Join(h.tables, fmt.Sprintf("%v-%v", root == h.view, sudo))
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

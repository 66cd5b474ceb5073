package sshtest

import (
	"embed"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
)

//go:embed stubs
var stubs embed.FS

// inSbin lists the stubs that an ordinary user's path does not find.
const inSbin = "modprobe lsmod sysctl swapoff swapon ip conntrack depmod sshd restorecon getenforce setenforce"

// furnishStubs puts those of a system into the root directory.
func (h *Host) furnishStubs(system OS) error {
	var errs []error
	check := func(err error) { errs = append(errs, err) }
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
	return errors.Join(errs...)
}

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

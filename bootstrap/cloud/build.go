package cloud

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/kuryrctl/kuryrctl/templates/lab"
)

// debianArchive picks the main archive from lines of ORIGIN|LABEL|URI.
func debianArchive(targets string) string {
	for line := range strings.Lines(targets) {
		if uri, ok := strings.CutPrefix(strings.TrimSpace(line), "Debian|Debian|"); ok {
			return uri
		}
	}
	return ""
}

// bootstrap makes a Debian root with mmdebstrap. Hooks are mmdebstrap's own words or one line of shell.
func (l *Lab) bootstrap(ctx context.Context, log, target string, packages, hooks []string) error {
	archive, err := mirror(ctx)
	if err != nil {
		return err
	}
	argv := []string{"mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory",
		`--aptopt=APT::Install-Recommends "false"`, `--aptopt=Acquire::Languages "none"`, "--dpkgopt=force-unsafe-io",
		"--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
		"--include=" + strings.Join(packages, ",")}
	for _, hook := range hooks {
		argv = append(argv, "--essential-hook="+hook)
	}
	argv = append(argv, suite, target)
	if archive != "" {
		argv = append(argv, archive)
	}
	return l.tool(ctx, log, argv...)
}

// buildRoot makes the root with all of OpenStack's packages, not configured and never started.
func (l *Lab) buildRoot(ctx context.Context, to layer) error {
	if err := to.begin(); err != nil {
		return err
	}
	// Compiling 500 Python packages takes longer than installing them; baking compiles what is used.
	err := l.bootstrap(ctx, "root", to.partial(), rootPackages(), []string{
		`chroot "$1" dpkg-divert --quiet --local --no-rename --divert /usr/bin/py3compile.distrib --add /usr/bin/py3compile`,
		`ln -sf /bin/true "$1/usr/bin/py3compile"`,
	})
	if err != nil {
		return err
	}
	const qemu = "/usr/bin/qemu-system-x86_64"
	err = l.tool(ctx, "root", "chroot", to.partial(), "dpkg-divert", "--local", "--rename", "--divert", qemu+".real", "--add", qemu)
	if err != nil {
		return err
	}
	if err := putStatic(to.partial(), "qemu-wrapper", qemu, 0o755); err != nil {
		return err
	}
	for _, dir := range []string{guestPlace, umlPlace, logPlace} {
		if err := os.MkdirAll(filepath.Join(to.partial(), dir), 0o755); err != nil {
			return err
		}
	}
	return to.complete()
}

// errNoKernel says that servers cannot be user-mode Linux processes; the lab falls back to emulation.
var errNoKernel = errors.New("the user-mode Linux kernel cannot be had")

// fetchKernel gets Debian's user-mode Linux with apt, whose signatures it passes, and holds it against our own pin.
func (l *Lab) fetchKernel(ctx context.Context, to layer) error {
	if err := to.begin(); err != nil {
		return err
	}
	archive, err := mirror(ctx)
	if err != nil {
		return err
	}
	if archive == "" {
		return fmt.Errorf("%w: apt on this host knows no Debian archive", errNoKernel)
	}
	dir := filepath.Join(to.partial(), "apt")
	for _, sub := range []string{"lists/partial", "archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	source := fmt.Sprintf("deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n", archive, kernelSuite)
	for name, text := range map[string]string{"sources.list": source, "status": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	// An apt of its own: the host's lists and sources stay as they are.
	private := []string{"-q", "-o", "Dir::Etc::SourceList=" + dir + "/sources.list", "-o", "Dir::Etc::SourceParts=/dev/null", "-o", "Dir::State=" + dir,
		"-o", "Dir::State::status=" + dir + "/status", "-o", "Dir::Cache=" + dir, "-o", "APT::Sandbox::User=root", "-o", "Acquire::Languages=none"}
	if err := l.tool(ctx, "kernel", append(append([]string{"apt-get"}, private...), "update")...); err != nil {
		return fmt.Errorf("%w: %w", errNoKernel, err)
	}
	get := append(append([]string{"env", "--chdir=" + to.partial(), "apt-get"}, private...), "download", kernelPackage+"="+kernelVersion)
	if err := l.tool(ctx, "kernel", get...); err != nil {
		return fmt.Errorf("%w: %w", errNoKernel, err)
	}
	deb := filepath.Join(to.partial(), fmt.Sprintf("%s_%s_amd64.deb", kernelPackage, kernelVersion))
	if err := checkDigest(deb, kernelDigest); err != nil {
		return fmt.Errorf("%w: %w", errNoKernel, err)
	}
	if err := l.tool(ctx, "kernel", "dpkg-deb", "-x", deb, to.partial()+"/x"); err != nil {
		return err
	}
	for from, name := range map[string]string{"x/usr/bin/linux.uml": "linux.uml", "x/usr/lib/uml/modules": "modules"} {
		if err := os.Rename(filepath.Join(to.partial(), from), filepath.Join(to.partial(), name)); err != nil {
			return err
		}
	}
	for _, rest := range []string{dir, deb, filepath.Join(to.partial(), "x")} {
		if err := os.RemoveAll(rest); err != nil {
			return err
		}
	}
	return to.complete()
}

func checkDigest(path, want string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		return fmt.Errorf("checking %s: its sha256 is %s, not %s", filepath.Base(path), got, want)
	}
	return nil
}

// putStatic writes an embedded file below a root.
func putStatic(root, name, place string, mode os.FileMode) error {
	data, err := lab.Static(name)
	if err != nil {
		return err
	}
	path := filepath.Join(root, place)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return writeFile(path, data, mode)
}

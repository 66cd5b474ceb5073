package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/kuryrctl/kuryrctl/bootstrap/bundle"
)

// suite is the Debian whose runc is taken: runc needs a C compiler and libseccomp, for which there is no module.
const suite = "trixie"

const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// fetchRunc gets Debian's runc with an apt of its own, which checks signatures; the host's lists and sources stay as they are.
func (m *maker) fetchRunc(ctx context.Context) error {
	archive, err := archive(ctx)
	if err != nil {
		return err
	}
	if _, err := os.Stat(keyring); err != nil {
		return fmt.Errorf("looking for Debian's keys: %w; the package debian-archive-keyring has them", err)
	}
	dir := filepath.Join(m.scratch, "apt")
	for _, sub := range []string{"lists/partial", "archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	source := fmt.Sprintf("deb [arch=%s signed-by=%s] %s %s main\n", m.arch, keyring, archive, suite)
	for name, text := range map[string]string{"sources.list": source, "status": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	private := []string{"-q", "-o", "Dir::Etc::SourceList=" + dir + "/sources.list", "-o", "Dir::Etc::SourceParts=/dev/null", "-o", "Dir::State=" + dir,
		"-o", "Dir::State::status=" + dir + "/status", "-o", "Dir::Cache=" + dir, "-o", "APT::Architecture=" + m.arch,
		"-o", "APT::Architectures::=" + m.arch, "-o", "APT::Sandbox::User=" + user(), "-o", "Acquire::Languages=none"}
	for _, verb := range [][]string{{"update"}, {"download", "runc"}} {
		apt := exec.CommandContext(ctx, "apt-get", append(private, verb...)...)
		apt.Dir = dir
		if err := m.logged(ctx, apt); err != nil {
			return err
		}
	}
	deb, err := m.runcPackage()
	if err != nil {
		return err
	}
	return m.logged(ctx, exec.CommandContext(ctx, "dpkg-deb", "-x", deb, filepath.Join(m.scratch, "debian")))
}

// user runs apt's downloads as whoever runs this: its own user may not write here.
func user() string {
	if os.Geteuid() == 0 {
		return "root"
	}
	return ""
}

// archive is the Debian archive that the host's own apt uses, or the public one.
func archive(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)", "Created-By: Packages").Output()
	if err != nil {
		return "", fmt.Errorf("asking apt for its archive: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		if uri, ok := strings.CutPrefix(strings.TrimSpace(line), "Debian|Debian|"); ok {
			return uri, nil
		}
	}
	return "http://deb.debian.org/debian", nil
}

func (m *maker) runcPackage() (string, error) {
	debs, err := filepath.Glob(filepath.Join(m.scratch, "apt", "runc_*.deb"))
	if err == nil && len(debs) != 1 {
		err = errors.New("apt has left no package, or more than one")
	}
	if err != nil {
		return "", fmt.Errorf("looking for Debian's runc: %w; see %s", err, m.log)
	}
	return debs[0], nil
}

// noteRunc puts the package into the bill.
func (m *maker) noteRunc(ctx context.Context, b *bundle.Builder) error {
	deb, err := m.runcPackage()
	if err != nil {
		return err
	}
	version, err := exec.CommandContext(ctx, "dpkg-deb", "--field", deb, "Version").Output()
	if err != nil {
		return fmt.Errorf("asking dpkg-deb for the version of runc: %w", err)
	}
	b.NotePackage("debian", "runc", strings.TrimSpace(string(version)), m.arch)
	return nil
}

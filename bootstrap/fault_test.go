package bootstrap_test

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kuryrctl/kuryrctl/bootstrap/ssh"
	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/internal/sshtest"
)

// damage changes a byte of the bundle, some way behind the first place of a text.
func (l *lab) damage(text string, behind int) {
	l.t.Helper()
	all, err := os.ReadFile(l.bundle)
	l.must(err)
	i := bytes.Index(all, []byte(text))
	if i < 0 {
		l.t.Fatalf("no %q in the bundle", text)
	}
	all[i+behind] ^= 1
	l.must(os.WriteFile(l.bundle, all, 0o600))
}

// skew makes the clock of a host go wrong by what is in a file.
func (l *lab) skew(host, by string) {
	l.write(host, "srv/skew", by+"\n")
	l.hosts.Host(host).Stub("date", `read -r skew </srv/skew; exec /.host/usr/bin/date -d "$skew seconds" "$@"`)
}

// Each of these is one node's fault or the bundle's; the error says whose, in which step, and what to do.
func TestFaultsAreToldClearly(t *testing.T) {
	for name, x := range map[string]struct {
		fault func(l *lab, h *sshtest.Host)
		key   graph.Key
		words []string
	}{
		"disk full": {func(l *lab, h *sshtest.Host) {
			l.limit = 1 // each command works on a copy of the disk
			h.FillDisk(1 << 10)
		}, "software.master-0",
			[]string{"no space left on the host", "bytes are free in /var/lib/kuryrctl/store", "remove something there"}},
		"damaged archive": {func(l *lab, _ *sshtest.Host) { l.damage("\x1f\x8b", 40) }, "software.master-0",
			[]string{"blob sha256:", "is damaged"}},
		"damaged manifest": {func(l *lab, _ *sshtest.Host) { l.damage(`"config":{"mediaType":"application/vnd.kuryrctl.files`, 3) }, "software.master-0",
			[]string{"blob sha256:", "is damaged"}},
		"password for sudo": {func(_ *lab, h *sshtest.Host) { h.NoSudo() }, "system.master-0", []string{"sudo: a password is required"}},
		"clock": {func(l *lab, _ *sshtest.Host) {
			l.limits.Clock = 3 * time.Second // one look at least
			l.skew("master-0", "+40")
		}, "system.master-0", []string{"waiting for the clock of master-0: still ", " off this machine's", "set the clocks of this machine and of the node by NTP"}},
		"hostname": {func(l *lab, h *sshtest.Host) {
			l.write("master-0", "etc/hostname", "localhost\n")
			h.Stub("hostnamectl", "echo 'Could not set static hostname: Access denied' >&2; exit 1")
		}, "system.master-0", []string{"prepare the system", "Could not set static hostname: Access denied"}},
		"system": {func(l *lab, _ *sshtest.Host) { l.write("master-0", "etc/os-release", "ID=arch\nVERSION_ID=2026\n") }, "system.master-0",
			[]string{"its system arch 2026 is none that can be a node", "known are: debian 12, debian 13, ubuntu 22.04, "}},
		"architecture": {func(_ *lab, h *sshtest.Host) {
			h.Stub("uname", `case $1 in -m) echo riscv64 ;; *) cat /etc/hostname ;; esac`)
		}, "software.master-0", []string{"its architecture riscv64 is neither x86_64 nor aarch64"}},
		"cloud-init": {func(l *lab, _ *sshtest.Host) {
			l.write("master-0", "run/cloud-init/result.json", `{"v1": {"datasource": "OpenStack", "errors": ["('scripts_user', RuntimeError())"]}}`)
		}, "system.master-0", []string{"cloud-init ended with an error", "/var/log/cloud-init.log"}},
		"packages": {func(_ *lab, h *sshtest.Host) { h.NoPackage("socat") }, "system.master-0",
			[]string{"cannot install ethtool iptables socat tc: give the node a way to its distribution's packages, or use an image that has them"}},
		"version": {func(l *lab, _ *sshtest.Host) { l.version = "v1.36" }, "software.master-0",
			[]string{"looking for Kubernetes v1.36 for amd64 in bundle ", "there is v1.37.1 for amd64"}},
		"bundle of another architecture": {func(l *lab, _ *sshtest.Host) { l.bundle = l.pack(release, "arm64") }, "software.master-0",
			[]string{"looking for Kubernetes v1.37.1 for amd64 in bundle ", "there is v1.37.1 for arm64"}},
		"broken kubelet": {func(l *lab, h *sshtest.Host) {
			h.OnStart("kubelet.service", "exit 1")
		}, "control-plane.master-0", []string{"run kubeadm", "Job for kubelet.service failed"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, sshtest.Debian13, 1, 0)
			x.fault(l, l.hosts.Host("master-0"))
			l.fails(x.key, x.words...)
		})
	}
}

func TestAClockThatNTPMendsIsWaitedFor(t *testing.T) {
	t.Parallel()
	l := newLab(t, sshtest.Debian13, 1, 0)
	l.skew("master-0", "-40")
	l.hosts.Host("master-0").Stub("timedatectl", "case $1 in show) echo yes ;; set-ntp) echo +0 >/srv/skew ;; esac")
	if r := l.up(); !strings.Contains(r.found["system.master-0"], "its clock is -") {
		t.Errorf("found %q", r.found["system.master-0"])
	}
}

func TestNothingIsDoneOnAHostWithAWrongKey(t *testing.T) {
	t.Parallel()
	l := newLab(t, sshtest.Debian13, 1, 1)
	l.hosts.Host("worker-0").SetHostKey(nil)
	r := l.run(t.Context())
	if wrong := (*ssh.HostKeyError)(nil); !errors.As(r.errs["host.worker-0"], &wrong) || r.events["node.worker-0"] != graph.Skipped {
		t.Errorf("got %v, and the node is %s", r.err, r.events["node.worker-0"])
	}
	if ran := l.hosts.Host("worker-0").Commands(); len(ran) > 0 {
		t.Errorf("it ran %q", ran)
	}
	if r.events["kubeconfig"] != graph.Done {
		t.Errorf("the kubeconfig is %s", r.events["kubeconfig"])
	}
}

func TestANodeThatRegistersUnderAnotherNameIsNotWaitedForForEver(t *testing.T) {
	t.Parallel()
	l := newLab(t, sshtest.Debian13, 1, 1)
	l.limits.Register = 3 * time.Second
	started := l.read("worker-0", "var/lib/sshtest/start/kubelet.service")
	l.hosts.Host("worker-0").OnStart("kubelet.service", strings.ReplaceAll(started, "cat /etc/hostname", "echo worker-0.novalocal"))
	l.fails("node.worker-0", "waiting for node worker-0 to register: still not known to the cluster", "read `journalctl -u kubelet` there")

	// Its node may also have been deleted while it ran: a kubelet registers when it starts.
	l.hosts.Host("worker-0").OnStart("kubelet.service", started)
	l.limits.Register = 0
	if r := l.up(); !strings.Contains(r.found["node.worker-0"], "the cluster knows no node of that name") {
		t.Errorf("found %q", r.found["node.worker-0"])
	}
	if got := l.ended("worker-0"); got != "join begun, join complete" {
		t.Errorf("kubeadm: %s", got)
	}
}

func TestAClusterOfAnotherVersionIsLeftAlone(t *testing.T) {
	t.Parallel()
	l := newLab(t, sshtest.Debian13, 1, 1)
	l.up()
	l.version, l.bundle = "", l.pack("v1.38.0", "amd64")
	before := l.files("worker-0")
	for _, key := range []graph.Key{"software.master-0", "software.worker-0"} {
		l.fails(key, "the cluster runs Kubernetes v1.37.1, and the bundle's choice is v1.38.0", "declare kubernetes.version v1.37.1")
	}
	if diff := cmp.Diff(before, l.files("worker-0")); diff != "" {
		t.Error(diff)
	}
}

func TestANodeThatDiesWhileItJoins(t *testing.T) {
	t.Parallel()
	l := newLab(t, sshtest.Debian13, 1, 1)
	goOn := l.fifo("worker-0", "srv/go")
	l.write("worker-0", "srv/kubeadm/discovery", "note held; read -r _ </srv/go")
	l.keepalive = time.Second
	h := l.hosts.Host("worker-0")
	h.On("# run kubeadm*", func(e *sshtest.Exec) int {
		go func() {
			l.eventually("kubeadm", func() bool { return strings.Contains(l.ended("worker-0"), "held") })
			h.Hang(sshtest.Everywhere)
		}()
		return e.Run()
	})
	l.fails("node.worker-0", "connection lost: no answer to keepalives")
	h.Hang(sshtest.Nowhere)
	h.On("# run kubeadm*", func(e *sshtest.Exec) int { return e.Run() })
	goOn()
	l.up()
	if got := l.ended("worker-0"); got != "join begun, held, join complete" {
		t.Errorf("kubeadm: %s", got)
	}
}

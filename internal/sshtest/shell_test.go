package sshtest_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/kuryrctl/kuryrctl/internal/sshtest"
)

func shellHost(t testing.TB, system sshtest.OS) (*sshtest.Net, *sshtest.Host) {
	hosts := sshtest.New(t, "master-0")
	h := hosts.Host("master-0")
	h.Shell(system)
	return hosts, h
}

// root runs a line as root as the project's own client does, and wants success.
func root(t *testing.T, c *ssh.Client, line string) string {
	t.Helper()
	out, err := run(t, c, sudo(line))
	if err != nil {
		t.Fatalf("%s: %v: %s", line, err, out)
	}
	return out
}

func sudo(line string) string {
	return "sudo -n -- sh -c '" + strings.ReplaceAll(line, "'", `'\''`) + "'"
}

// fails runs a line that must end with a status, and returns what it printed.
func fails(t *testing.T, c *ssh.Client, status int, line string) string {
	t.Helper()
	out, err := run(t, c, line)
	if e := (*ssh.ExitError)(nil); !errors.As(err, &e) || e.ExitStatus() != status {
		t.Errorf("%s: %v, not status %d: %s", line, err, status, out)
	}
	return out
}

func TestEverySystemIsTold(t *testing.T) {
	for _, system := range sshtest.AllOS() {
		hosts, _ := shellHost(t, system)
		c := dial(t, hosts, "master-0")
		got := root(t, c, `. /etc/os-release
			for tool in apt-get dnf systemctl; do if command -v $tool >/dev/null; then printf '%s ' $tool; fi; done
			cmp /etc/os-release /usr/lib/os-release && sshd -t && echo $ID-$VERSION_ID $PATH`)
		package_, path := "dnf", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
		if strings.HasPrefix(string(system), "debian") || strings.HasPrefix(string(system), "ubuntu") {
			package_ = "apt-get"
		}
		if strings.HasSuffix(string(system), "-9") {
			path = "/sbin:/bin:/usr/sbin:/usr/bin"
		}
		if !strings.HasPrefix(got, package_+" systemctl "+string(system)) || !strings.HasSuffix(got, " "+path+"\n") {
			t.Errorf("%s: got %q", system, got)
		}
	}
}

func TestTheShellIsRealAndItsOwn(t *testing.T) {
	hosts, h := shellHost(t, sshtest.Debian13)
	c := dial(t, hosts, "master-0")
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("of this machine"), 0o644); err != nil {
		t.Fatal(err)
	}
	fails(t, c, 1, sudo("cat "+secret))
	fails(t, c, 127, sudo("kubeadm version"))
	fails(t, c, 127, sudo("git version"))
	fails(t, c, 3, "exit 3")
	fails(t, c, 143, "kill -TERM $$")
	if out := root(t, c, `set -eu
		mkdir -p /etc/kubernetes/pki
		printf 'a\0b' >/etc/kubernetes/pki/x
		tar -C /etc -czf /var/tmp/x.tgz kubernetes
		mkdir /opt/out
		tar -C /opt/out -xzf /var/tmp/x.tgz
		sha256sum </opt/out/kubernetes/pki/x
		find /opt/out -type f | sed 's/pki/PKI/' | grep -c PKI
		awk 'BEGIN { print 1 + 1 }'
		cat </dev/null >/dev/stdout
		echo "$(id -u) $(whoami) $HOME $(pwd)"`); out != "59b271ae1bbcb1d31d41929817f4b16fb439eb4f31520b5ad1d5ce98920a7138  -\n1\n2\n0 root /root /home/debian\n" {
		t.Errorf("got %q", out)
	}
	if got, err := os.ReadFile(filepath.Join(h.Dir, "etc/kubernetes/pki/x")); err != nil || string(got) != "a\x00b" {
		t.Errorf("got %q, %v", got, err)
	}
	// Standard output and error are streams of their own: what is said to one may come before what was said to the other earlier.
	if out := fails(t, c, 2, "touch ~/mine /tmp/mine && id -u && echo x >/etc/motd"); !slices.Contains(strings.Split(out, "\n"), "1000") {
		t.Errorf("got %q", out)
	}
	fails(t, c, 127, "modprobe overlay") // sbin is not in the path of a user
	fails(t, c, 1, "/usr/sbin/modprobe overlay")
	fails(t, c, 1, "systemctl restart ssh")
	fails(t, c, 1, sudo("touch /.host/usr/bin/x"))

	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	s.Stdin = strings.NewReader("from here")
	if out, err := s.Output("tr a-z A-Z"); string(out) != "FROM HERE" || err != nil {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestStubs(t *testing.T) {
	hosts, h := shellHost(t, sshtest.Debian13)
	c := dial(t, hosts, "master-0")
	root(t, c, `set -eu
		grep -q ^overlay /proc/modules || modprobe overlay
		grep -q ^overlay /proc/modules || modprobe overlay
		modprobe -a br_netfilter nf-conntrack
		lsmod | grep -q nf_conntrack
		echo net.ipv4.ip_forward = 1 >/etc/sysctl.d/99-x.conf
		sysctl --system
		test "$(sysctl -n net.ipv4.ip_forward)" = 1
		sysctl -w net.bridge.bridge-nf-call-iptables=1
		test "$(sysctl net.bridge.bridge-nf-call-iptables)" = "net.bridge.bridge-nf-call-iptables = 1"
		test "$(cat /proc/sys/net/bridge/bridge-nf-call-iptables)" = 1
		printf '/swapfile file 1 0 -2\n' >>/proc/swaps
		test -n "$(swapon --show)"
		swapoff -a
		test -z "$(swapon --show)"
		hostnamectl set-hostname worker-7
		test "$(hostname)" = worker-7
		cloud-init status --wait`)
	fails(t, c, 255, sudo("sysctl -w net.no.such=1"))
	h.NoModule("openvswitch")
	fails(t, c, 1, sudo("modprobe openvswitch"))
	calls := h.Calls()
	if n := strings.Count(strings.Join(calls, "\n")+"\n", "modprobe overlay\n"); n != 1 {
		t.Errorf("not one modprobe overlay in %q", calls)
	}

	h.Stub("kubeadm", "echo \"joined $1\"; exit 4")
	if out := fails(t, c, 4, sudo("kubeadm join x")); out != "joined join\n" {
		t.Errorf("got %q", out)
	}
	if calls := h.Calls(); calls[len(calls)-1] != "kubeadm join x" {
		t.Errorf("got %q", calls)
	}

	h.NoPackage("typo")
	h.OnInstall("containerd", "printf '[Service]\n' >/usr/lib/systemd/system/containerd.service")
	root(t, c, "apt-get update && apt-get install -y socat containerd=1.7 && socat -V && systemctl start containerd && dpkg-query -W containerd")
	fails(t, c, 100, sudo("apt-get install -y typo"))
}

func TestUnits(t *testing.T) {
	hosts, h := shellHost(t, sshtest.Rocky9)
	c := dial(t, hosts, "master-0")
	fails(t, c, 5, sudo("systemctl start kubelet"))
	fails(t, c, 1, sudo("systemctl enable kubelet"))
	root(t, c, "echo '[Service]' >/etc/systemd/system/kubelet.service; systemctl daemon-reload")
	h.OnStart("kubelet.service", "test -e /etc/kubernetes/config")
	if out := fails(t, c, 1, sudo("systemctl enable --now kubelet")); !strings.Contains(out, "Job for kubelet.service failed") {
		t.Errorf("got %q", out)
	}
	if out := fails(t, c, 3, "systemctl is-active kubelet"); out != "failed\n" {
		t.Errorf("got %q", out)
	}
	root(t, c, `mkdir /etc/kubernetes && : >/etc/kubernetes/config && systemctl restart kubelet &&
		systemctl is-active -q kubelet && systemctl is-enabled kubelet.service`)
	root(t, c, "systemctl stop kubelet && systemctl disable kubelet && systemctl mask --now kubelet")
	if out := fails(t, c, 1, sudo("systemctl start kubelet")); !strings.Contains(out, "masked") {
		t.Errorf("got %q", out)
	}
	if out := fails(t, c, 1, "systemctl is-enabled kubelet"); out != "masked\n" {
		t.Errorf("got %q", out)
	}
	root(t, c, "systemctl is-active sshd")
	fails(t, c, 1, sudo("systemctl isolate rescue.target"))
}

func TestSudoMayAskForAPassword(t *testing.T) {
	hosts, h := shellHost(t, sshtest.Debian13)
	c := dial(t, hosts, "master-0")
	root(t, c, "true")
	h.NoSudo()
	if out := fails(t, c, 1, sudo("true")); out != "sudo: a password is required\n" {
		t.Errorf("got %q", out)
	}
	if out, err := run(t, c, "echo hello"); out != "hello\n" || err != nil {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestScriptedRepliesComeFirst(t *testing.T) {
	hosts, h := shellHost(t, sshtest.Debian13)
	h.On("*step 2*", sshtest.DropAfter)
	h.On("*step 3*", func(e *sshtest.Exec) int { return e.Run() + 40 })
	root(t, dial(t, hosts, "master-0"), "# step 1\necho 1 >/etc/steps")
	out, err := run(t, dial(t, hosts, "master-0"), sudo("# step 2\necho heard; echo 2 >>/etc/steps"))
	if e := (*ssh.ExitError)(nil); err == nil || errors.As(err, &e) || out != "" {
		t.Errorf("got %q, %v", out, err)
	}
	fails(t, dial(t, hosts, "master-0"), 42, sudo("# step 3\necho 3 >>/etc/steps; exit 2"))
	if got, err := os.ReadFile(filepath.Join(h.Dir, "etc/steps")); string(got) != "1\n2\n3\n" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestAClosedSessionEndsItsProcesses(t *testing.T) {
	hosts, _ := shellHost(t, sshtest.Debian13)
	c := dial(t, hosts, "master-0")
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	// Both hold the lock until they end; the one in the background has left the session.
	if err := s.Start("exec 9>/tmp/lock; flock 9; trap '' TERM HUP; setsid sleep 1000 & echo started; sleep 1000; sleep 1000"); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	fails(t, c, 1, "flock -n /tmp/lock true")
	s.Close()
	if out, err := run(t, c, "flock -w 20 /tmp/lock echo free"); out != "free\n" || err != nil {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestAJobOutlivesItsSession(t *testing.T) {
	hosts, h := shellHost(t, sshtest.Debian13)
	c := dial(t, hosts, "master-0")
	root(t, c, `mkfifo /srv/go && systemd-run --quiet --unit=long.service --setenv="WORD=it's" --property=StandardOutput=append:/var/log/long \
		/bin/sh -c 'read -r word </srv/go; echo "$WORD $word"' && systemctl is-active long.service`)
	fails(t, c, 1, sudo("systemd-run --unit=long.service /bin/true")) // it is there
	c.Close()
	c = dial(t, hosts, "master-0")
	root(t, c, "systemctl is-active long.service && echo over >/srv/go && while systemctl is-active -q long.service; do sleep 0.02; done")
	if got, err := os.ReadFile(filepath.Join(h.Dir, "var/log/long")); string(got) != "it's over\n" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	root(t, c, "systemd-run --quiet --unit=bad.service /bin/false && while systemctl is-active -q bad.service; do sleep 0.02; done; systemctl is-failed bad.service")
	fails(t, c, 1, sudo("systemd-run --unit=bad.service /bin/true"))
	root(t, c, "systemctl reset-failed bad.service && systemd-run --unit=bad.service /bin/true")
}

func TestWhatIsGivenToTheUserCanBeWritten(t *testing.T) {
	hosts, _ := shellHost(t, sshtest.Debian13)
	c := dial(t, hosts, "master-0")
	fails(t, c, 2, "mkdir /var/lib/mine 2>/dev/null; echo x >/var/lib/mine/x")
	root(t, c, `mkdir /var/lib/mine && chown "$SUDO_USER" /var/lib/mine && test "$(uname -n)" = master-0`)
	if out, err := run(t, c, "echo x >/var/lib/mine/x && cat /var/lib/mine/x"); out != "x\n" || err != nil {
		t.Errorf("got %q, %v", out, err)
	}
	root(t, c, "chown root:root /var/lib/mine")
	fails(t, c, 2, "echo x >/var/lib/mine/x")
}

func TestAFullDisk(t *testing.T) {
	hosts, h := shellHost(t, sshtest.Debian13)
	c := dial(t, hosts, "master-0")
	root(t, c, "echo old >/etc/old; echo gone >/etc/gone")
	h.FillDisk(64 << 10)
	line := "rm /etc/gone; echo new >/etc/old; echo small >/opt/small; head -c 1000000 /dev/zero >/opt/big || exit 7"
	if out := fails(t, c, 7, sudo(line)); !strings.Contains(out, "No space left on device") {
		t.Errorf("got %q", out)
	}
	for file, want := range map[string]string{"etc/old": "new\n", "opt/small": "small\n"} {
		if got, err := os.ReadFile(filepath.Join(h.Dir, file)); string(got) != want || err != nil {
			t.Errorf("%s: got %q, %v", file, got, err)
		}
	}
	if _, err := os.Stat(filepath.Join(h.Dir, "etc/gone")); err == nil {
		t.Error("a removed file is back")
	}
	if info, err := os.Stat(filepath.Join(h.Dir, "opt/big")); err != nil || info.Size() > 1<<17 {
		t.Errorf("got %v, %v", info, err)
	}
	root(t, c, "systemctl is-active ssh")
	fails(t, c, 1, "head -c 1000000 /dev/zero >/tmp/big")
}

func BenchmarkShell(b *testing.B) {
	hosts, h := shellHost(b, sshtest.Debian13)
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(h.HostKey()))
	if err != nil {
		b.Fatal(err)
	}
	c, err := ssh.Dial("tcp", h.Addr.String(), &ssh.ClientConfig{User: sshtest.User, Auth: []ssh.AuthMethod{ssh.PublicKeys(hosts.UserKey)},
		HostKeyCallback: ssh.FixedHostKey(key)})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	for b.Loop() {
		s, err := c.NewSession()
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Run(sudo("true")); err != nil {
			b.Fatal(err)
		}
	}
}

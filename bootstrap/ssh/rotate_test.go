package ssh_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	cryptossh "golang.org/x/crypto/ssh"

	"github.com/kuryrctl/kuryrctl/bootstrap/ssh"
	"github.com/kuryrctl/kuryrctl/internal/sshtest"
)

// server is a host whose commands are run by the shell of this machine, with the host's directory in the place of the root and
// only the tools that a host may be expected to have.
type server struct {
	t        *testing.T
	hosts    *sshtest.Net
	h        *sshtest.Host
	injected ssh.KeyPair
	pinsPath string

	bin      string
	killAt   int  // the n-th use of a tool kills the shell that wants it; 0 is never
	dropAt   int  // the n-th command loses its connection; 0 is never
	late     bool // after it had its effect, not before
	commands int
}

// tools are replaced by wrappers that count their uses.
var tools = []string{"cat", "chmod", "cp", "find", "grep", "mkdir", "mv", "rm", "ssh-keygen", "sync"}

const wrapper = `#!/bin/sh
PATH=/usr/bin:/bin
n=$(($(cat "$0.d/../uses") + 1))
echo $n >"$0.d/../uses"
if [ $n = "$(cat "$0.d/../kill")" ]; then kill -9 $PPID; exit 1; fi
`

func newServer(t *testing.T) *server {
	t.Helper()
	injected, err := ssh.NewHostKey()
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, hosts: sshtest.New(t, "worker-0"), injected: injected, bin: t.TempDir()}
	s.h = s.hosts.Host("worker-0")
	s.h.On("*", s.run)
	s.h.SetHostKey(injected.Private)
	s.pinsPath = filepath.Join(t.TempDir(), "pins.json")
	if err := s.pins().Set("worker-0", ssh.Pin{PortID: "port", ServerID: "server", Keys: []string{injected.Public}}); err != nil {
		t.Fatal(err)
	}
	userData := "#cloud-config\nssh_keys:\n  ed25519_private: |\n    " + strings.ReplaceAll(string(injected.Private), "\n", "\n    ") +
		"\n  ed25519_public: " + injected.Public + "\n"
	for name, content := range map[string]string{
		"etc/ssh/ssh_host_ed25519_key":                 string(injected.Private),
		"etc/ssh/ssh_host_ed25519_key.pub":             injected.Public + "\n",
		"etc/ssh/sshd_config":                          "UseDNS no\n",
		"var/lib/cloud/instances/i-1/user-data.txt":    userData,
		"var/lib/cloud/instances/i-1/user-data.txt.i":  "packed beyond recognition",
		"var/lib/cloud/instances/i-1/cloud-config.txt": userData,
		"var/lib/cloud/instances/i-1/obj.pkl":          "\x80\x04" + userData,
		"var/lib/cloud/instances/i-1/boot-finished":    "done",
		"var/lib/cloud/data/instance-id":               "i-1",
		"run/cloud-init/combined-cloud-config.json":    fmt.Sprintf("{%q: %q}", "ssh_keys", userData),
	} {
		s.write(filepath.Join(s.h.Dir, name), content, 0o600)
	}
	if err := os.Symlink("instances/i-1", filepath.Join(s.h.Dir, "var/lib/cloud/instance")); err != nil {
		t.Fatal(err)
	}
	for _, tool := range tools {
		path, err := exec.LookPath(tool)
		if err != nil {
			t.Fatal(err)
		}
		s.tool(tool, `PATH="${0%/*}" exec `+path+` "$@"`)
	}
	s.tool("sshd", "exit 0")
	s.tool("cloud-init", "exit 2") // "done, with recoverable errors"
	s.systemd("ssh.service")
	return s
}

func (s *server) write(path, content string, mode os.FileMode) {
	s.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) tool(name, body string) {
	s.t.Helper()
	s.write(filepath.Join(s.bin, name), strings.ReplaceAll(wrapper, "$0.d/../", s.bin+"/.")+body+"\n", 0o755)
}

// systemd gives the host a systemctl that knows one running unit.
func (s *server) systemd(unit string) {
	s.t.Helper()
	s.tool("systemctl", `case "$*" in
"is-active --quiet `+unit+`") exit 0 ;;
"restart `+unit+`") echo >"`+s.bin+`/.restarted" ;;
*) exit 3 ;;
esac`)
}

func (s *server) pins() *ssh.Pins { return loadPins(s.t, s.pinsPath) }

func (s *server) file(name string) []byte {
	s.t.Helper()
	data, err := os.ReadFile(filepath.Join(s.h.Dir, name))
	if err != nil {
		s.t.Fatal(err)
	}
	return data
}

func (s *server) run(e *sshtest.Exec) int {
	if !e.Sudo {
		s.t.Errorf("without root: %s", e.Line)
	}
	s.commands++
	drop := s.commands == s.dropAt
	if drop && !s.late {
		return sshtest.Drop(e)
	}
	s.write(filepath.Join(s.bin, ".kill"), strconv.Itoa(s.killAt), 0o600)
	if _, err := os.Stat(filepath.Join(s.bin, ".uses")); err != nil {
		s.write(filepath.Join(s.bin, ".uses"), "0", 0o600)
	}
	line := e.Line
	for _, dir := range []string{"/etc/", "/var/lib/cloud", "/run/"} {
		line = strings.ReplaceAll(line, dir, s.h.Dir+dir)
	}
	cmd := exec.CommandContext(s.t.Context(), "/bin/sh", "-c", line)
	cmd.Env = []string{"PATH=" + s.bin}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = e.Stdin, e.Stdout, e.Stderr
	cmd.Stdin = nil
	err := cmd.Run()
	if os.Remove(filepath.Join(s.bin, ".restarted")) == nil {
		s.reboot()
	}
	if drop {
		return sshtest.Drop(e)
	}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return exit.ExitCode() // -1 for a signal: SIGHUP to the client, a failure either way
	}
	return 0
}

// reboot makes the host serve the key that is on its disk.
func (s *server) reboot() { s.h.SetHostKey(s.file("etc/ssh/ssh_host_ed25519_key")) }

// rotate does what a new process does: it reads the pins, connects with them and rotates.
func (s *server) rotate() error {
	s.t.Helper()
	pins := s.pins()
	pin, _ := pins.Node("worker-0")
	cfg := config(s.hosts, "worker-0")
	cfg.HostKeys = pin.Keys
	c, err := ssh.Dial(s.t.Context(), cfg)
	if err != nil {
		s.t.Fatalf("locked out: %v", err)
	}
	defer c.Close()
	return ssh.Rotate(s.t.Context(), c, pins)
}

// check finds what is not as it must be after a rotation.
func (s *server) check() {
	t := s.t
	t.Helper()
	pin, _ := s.pins().Node("worker-0")
	if len(pin.Keys) != 1 || !pin.Rotated || pin.Keys[0] == s.injected.Public || pin.PortID != "port" || pin.ServerID != "server" {
		t.Fatalf("pinned: %+v", pin)
	}
	if s.h.HostKey() != pin.Keys[0] {
		t.Error("the host serves another key than is pinned")
	}
	signer, err := cryptossh.ParsePrivateKey(s.file("etc/ssh/ssh_host_ed25519_key"))
	if err != nil {
		t.Fatal(err)
	}
	if line := strings.TrimSpace(string(cryptossh.MarshalAuthorizedKey(signer.PublicKey()))); line != pin.Keys[0] {
		t.Errorf("private key on disk is of %s", line)
	}
	if public := strings.TrimSpace(string(s.file("etc/ssh/ssh_host_ed25519_key.pub"))); public != pin.Keys[0] {
		t.Errorf("public key on disk is %s", public)
	}
	old := []byte(strings.Fields(s.injected.Public)[1])
	var names []string
	err = filepath.WalkDir(s.h.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		names = append(names, strings.TrimPrefix(path, s.h.Dir))
		data, err := os.ReadFile(path)
		if bytes.Contains(data, old) {
			t.Errorf("the injected key is still in %s", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := "/etc/cloud/cloud.cfg.d/99-kuryrctl-host-key.cfg /etc/ssh/ssh_host_ed25519_key /etc/ssh/ssh_host_ed25519_key.pub /etc/ssh/sshd_config " +
		"/var/lib/cloud/data/instance-id /var/lib/cloud/instances/i-1/boot-finished"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("files:\n got %s\nwant %s", got, want)
	}
	for name, want := range map[string]os.FileMode{"": 0o600, ".pub": 0o644} {
		if info, err := os.Stat(filepath.Join(s.h.Dir, "etc/ssh/ssh_host_ed25519_key"+name)); err != nil || info.Mode().Perm() != want {
			t.Errorf("key%s: %v, %v", name, info.Mode(), err)
		}
	}
}

func TestRotateReplacesTheInjectedKey(t *testing.T) {
	for _, unit := range []string{"ssh.service", "sshd.service"} {
		s := newServer(t)
		s.systemd(unit)
		if err := s.rotate(); err != nil {
			t.Fatal(err)
		}
		s.check()
		before := len(s.h.Commands())
		if err := s.rotate(); err != nil || len(s.h.Commands()) != before {
			t.Errorf("rotated once more: %v", err)
		}
	}
}

func TestRotateFinishesAfterALostConnection(t *testing.T) {
	for n := 1; n <= 3; n++ {
		for _, late := range []bool{false, true} {
			for _, reboot := range []bool{false, true} {
				t.Run(fmt.Sprintf("command %d late %v reboot %v", n, late, reboot), func(t *testing.T) {
					s := newServer(t)
					s.dropAt, s.late = n, late
					if err := s.rotate(); !errors.Is(err, ssh.ErrLost) {
						t.Fatalf("got %v", err)
					}
					if reboot {
						s.reboot()
					}
					if err := s.rotate(); err != nil {
						t.Fatal(err)
					}
					s.check()
				})
			}
		}
	}
}

func TestRotateFinishesAfterACrashAtAnyUseOfATool(t *testing.T) {
	for n := 1; ; n++ {
		s := newServer(t)
		s.killAt = n
		err := s.rotate()
		if err == nil {
			if n < 20 {
				t.Fatalf("only %d uses of tools were seen", n-1)
			}
			s.check()
			return
		}
		if failed := (*ssh.RunError)(nil); !errors.As(err, &failed) {
			t.Fatalf("crash %d: %v", n, err)
		}
		if n%2 == 0 {
			s.reboot()
		}
		s.killAt = 0
		if err := s.rotate(); err != nil {
			t.Fatalf("after crash %d: %v", n, err)
		}
		s.check()
	}
}

func TestRotateReplacesASuccessorThatIsDamaged(t *testing.T) {
	s := newServer(t)
	s.write(filepath.Join(s.h.Dir, "etc/ssh/kuryrctl_next_host_key"), string(s.injected.Private[:90]), 0o600)
	if err := s.rotate(); err != nil {
		t.Fatal(err)
	}
	s.check()
}

func TestRotateDoesNotRestartAnSSHDThatWouldNotStart(t *testing.T) {
	s := newServer(t)
	s.tool("sshd", "echo bad configuration >&2; exit 255")
	err := s.rotate()
	if err == nil || !strings.Contains(err.Error(), "bad configuration") {
		t.Fatalf("got %v", err)
	}
	if s.h.HostKey() != s.injected.Public {
		t.Fatal("restarted")
	}
	s.tool("sshd", "exit 0")
	if err := s.rotate(); err != nil {
		t.Fatal(err)
	}
	s.check()
}

func TestRotateWithoutSystemd(t *testing.T) {
	s := newServer(t)
	if err := os.Remove(filepath.Join(s.bin, "systemctl")); err != nil {
		t.Fatal(err)
	}
	sshd := exec.CommandContext(t.Context(), "env", "--default-signal=HUP", "sleep", "1000") // nohup has it ignored otherwise
	if err := sshd.Start(); err != nil {
		t.Fatal(err)
	}
	s.write(filepath.Join(s.h.Dir, "run/sshd.pid"), strconv.Itoa(sshd.Process.Pid)+"\n", 0o644)
	done := make(chan struct{})
	go func() { // the listener reads its key when it is told to
		sshd.Wait()
		s.reboot()
		close(done)
	}()
	if err := s.rotate(); err != nil {
		t.Fatal(err)
	}
	<-done
	if got := sshd.ProcessState.String(); got != "signal: hangup" {
		t.Fatalf("sshd: %s", got)
	}
	if pin, _ := s.pins().Node("worker-0"); !pin.Rotated || pin.Keys[0] != s.h.HostKey() {
		t.Fatalf("pinned: %+v", pin)
	}
}

func TestRotateRefusesAKeyThatIsNotPinned(t *testing.T) {
	s := newServer(t)
	c := dial(t, config(s.hosts, "worker-0"))
	pins := loadPins(t, filepath.Join(t.TempDir(), "pins.json"))
	if err := ssh.Rotate(t.Context(), c, pins); err == nil {
		t.Error("rotated with no pin")
	}
	if err := pins.Set("worker-0", ssh.Pin{Keys: []string{hostKey(t)}}); err != nil {
		t.Fatal(err)
	}
	if err := ssh.Rotate(t.Context(), c, pins); err == nil {
		t.Error("rotated with another pin")
	}
	if n := len(s.h.Commands()); n != 0 {
		t.Errorf("%d commands ran", n)
	}
}

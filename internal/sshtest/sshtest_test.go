package sshtest_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"github.com/kuryrctl/kuryrctl/internal/sshtest"
)

// recorder is a test whose failures are what is tested.
type recorder struct {
	testing.TB
	errors []string
}

func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}

func connect(t *testing.T, hosts *sshtest.Net, name, user string) (*ssh.Client, error) {
	t.Helper()
	h := hosts.Host(name)
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(h.HostKey()))
	if err != nil {
		t.Fatal(err)
	}
	c, err := ssh.Dial("tcp", h.Addr.String(), &ssh.ClientConfig{User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(hosts.UserKey)}, HostKeyCallback: ssh.FixedHostKey(key)})
	if err == nil {
		t.Cleanup(func() { c.Close() })
	}
	return c, err
}

func dial(t *testing.T, hosts *sshtest.Net, name string) *ssh.Client {
	t.Helper()
	c, err := connect(t, hosts, name, sshtest.User)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func run(t *testing.T, c *ssh.Client, line string) (string, error) {
	t.Helper()
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	out, err := s.CombinedOutput(line)
	return string(out), err
}

func TestPatterns(t *testing.T) {
	hosts := sshtest.New(t, "a")
	h := hosts.Host("a")
	h.On("*", sshtest.Text("any"))
	h.On("kubeadm*", sshtest.Text("kubeadm"))
	h.On("kubeadm join * --token *", sshtest.Text("join"))
	h.On("echo [a].", sshtest.Text("literal"))
	h.On("false", sshtest.Fail(3, "no"))
	c := dial(t, hosts, "a")
	for line, want := range map[string]string{
		"hostname":                      "any",
		"kubeadm":                       "kubeadm",
		"kubeadm join x\n--token":       "kubeadm",
		"kubeadm join /a b/c --token d": "join",
		"kubeadm join \n --token \n":    "join",
		"echo [a].":                     "literal",
		"echo a.":                       "any",
		"sudo -n -- sh -c 'kubeadm'":    "kubeadm",
		"sudo kubeadm":                  "any",
	} {
		if out, err := run(t, c, line); out != want || err != nil {
			t.Errorf("%q: got %q, %v; want %q", line, out, err, want)
		}
	}
	out, err := run(t, c, "false")
	if e := (*ssh.ExitError)(nil); out != "no" || !errors.As(err, &e) || e.ExitStatus() != 3 {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestAnUnknownCommandFailsTheTest(t *testing.T) {
	r := &recorder{TB: t}
	hosts := sshtest.New(r, "a")
	c := dial(t, hosts, "a")
	_, err := run(t, c, "rm -rf /")
	if e := (*ssh.ExitError)(nil); !errors.As(err, &e) || e.ExitStatus() != 127 {
		t.Errorf("got %v", err)
	}
	if len(r.errors) != 1 || !strings.Contains(r.errors[0], "rm -rf /") {
		t.Errorf("the test was told %q", r.errors)
	}
}

func TestOnlyTheUserMayLogIn(t *testing.T) {
	hosts := sshtest.New(t, "a")
	if _, err := connect(t, hosts, "a", "root"); err == nil {
		t.Error("root got in")
	}
	hosts.Host("a").RefuseAuth(1)
	if _, err := connect(t, hosts, "a", sshtest.User); err == nil {
		t.Error("a refused login got in")
	}
	dial(t, hosts, "a")
	if n := hosts.Host("a").Logins(); n != 1 {
		t.Errorf("%d logins", n)
	}
}

func TestInsideIsReachedThroughAHostOnly(t *testing.T) {
	hosts := sshtest.New(t, "jump", "a")
	jump := dial(t, hosts, "jump")
	conn, err := jump.Dial("tcp", hosts.Host("a").Inside.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	banner := make([]byte, 8)
	if _, err := io.ReadFull(conn, banner); err != nil || string(banner) != "SSH-2.0-" {
		t.Errorf("got %q, %v", banner, err)
	}
	if _, err := jump.Dial("tcp", "203.0.113.1:22"); err == nil {
		t.Error("the hosts reach the world")
	}
}

func TestDownAndUp(t *testing.T) {
	hosts := sshtest.New(t, "a")
	h := hosts.Host("a")
	h.On("sleep", sshtest.Hang)
	c := dial(t, hosts, "a")
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	h.Down()
	<-ended
	if _, err := connect(t, hosts, "a", sshtest.User); err == nil {
		t.Error("a host that is down answers")
	}
	h.Up()
	dial(t, hosts, "a")
}

func TestFiles(t *testing.T) {
	hosts := sshtest.New(t, "a")
	h := hosts.Host("a")
	if err := os.WriteFile(filepath.Join(h.Dir, "etc/os-release"), []byte("ID=debian\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc", filepath.Join(h.Dir, "tmp/outside")); err != nil {
		t.Fatal(err)
	}
	c, err := sftp.NewClient(dial(t, hosts, "a"), sftp.UseConcurrentWrites(true))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()

	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	f, err := c.OpenFile("/tmp/bundle.tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.ReadFrom(bytes.NewReader(content))
	if err := errors.Join(err, f.Chmod(0o755), f.Close(), c.PosixRename("/tmp/bundle.tmp", "/tmp/bundle")); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(h.Dir, "tmp/bundle")); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes arrived, %v", len(got), err)
	}
	if info, err := c.Stat("/tmp/bundle"); err != nil || info.Mode().Perm() != 0o755 || info.Size() != int64(len(content)) {
		t.Errorf("got %v, %v", info, err)
	}
	if entries, err := c.ReadDir("/etc"); err != nil || len(entries) != 1 || entries[0].Name() != "os-release" {
		t.Errorf("got %v, %v", entries, err)
	}
	if f, err := c.Open("/etc/os-release"); err != nil {
		t.Error(err)
	} else if got, err := io.ReadAll(f); err != nil || string(got) != "ID=debian\n" {
		t.Errorf("got %q, %v", got, err)
	}

	for what, err := range map[string]error{
		"write to /etc":       errOf(c.Create("/etc/passwd")),
		"climb out of /tmp":   errOf(c.Create("/tmp/../etc/passwd")),
		"rename into /etc":    c.PosixRename("/tmp/bundle", "/etc/bundle"),
		"remove from /etc":    c.Remove("/etc/os-release"),
		"follow a link out":   errOf(c.Open("/tmp/outside/hostname")),
		"rename over a file":  c.Rename("/tmp/bundle", "/tmp/bundle"),
		"read what is absent": errOf(c.Open("/etc/shadow")),
	} {
		if err == nil {
			t.Errorf("it was allowed to %s", what)
		}
	}
	if err := errOf(c.Create("/etc/passwd")); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("got %v", err)
	}
	if err := errOf(c.Open("/etc/shadow")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func errOf(_ *sftp.File, err error) error { return err }

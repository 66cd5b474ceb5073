package bootstrap_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/kuryrctl/kuryrctl/internal/sshtest"
)

func TestNoSecretIsSeen(t *testing.T) {
	t.Parallel()
	l := newLab(t, sshtest.Rocky10, 3, 1)
	// One that fails on the way has more to tell than one that does not.
	l.write("master-1", "srv/kubeadm/kubelet-start", strings.ReplaceAll(failOnce, "$1", "kubelet-start"))
	step := l.fails("control-plane.master-1")
	l.up()

	secrets := map[string]string{}
	for _, name := range []string{"pki/ca.key", "pki/sa.key", "pki/front-proxy-ca.key", "pki/etcd/ca.key"} {
		secrets[name] = strings.TrimSpace(l.read("master-0", "etc/kubernetes/"+name))
	}
	for name, in := range map[string]string{"the key for encryption": l.read("master-0", "etc/kubernetes/kuryrctl/encryption.yaml"),
		"the administrator's key": l.read("master-0", "etc/kubernetes/admin.conf")} {
		if found := regexp.MustCompile(`(?:secret|client-key-data): (\S+)`).FindStringSubmatch(in); found != nil {
			secrets[name] = found[1]
		}
	}
	for name := range l.keys {
		for i, token := range strings.Fields(l.read(name, "srv/cluster/tokens")) {
			secrets["token "+strings.Repeat("'", i)+" of "+name] = token
		}
	}
	if len(secrets) != 4+2+4 { // master-1 joined twice
		t.Fatalf("not all secrets were found: %v", secrets)
	}
	nowhere := func(where, text string) {
		t.Helper()
		for name, secret := range secrets {
			if len(secret) < 16 || strings.Contains(text, secret) {
				t.Errorf("%s %q is in %s", name, secret, where)
			}
		}
	}
	nowhere("an error", step.Error())
	for name := range l.keys {
		h := l.hosts.Host(name)
		nowhere("the command lines of "+name, strings.Join(h.Commands(), "\n"))
		nowhere("the calls of "+name, strings.Join(h.Calls(), "\n"))
		log, err := os.ReadFile(l.log(name))
		if err != nil {
			t.Fatal(err)
		}
		nowhere("the log of "+name, string(log))
		l.must(filepath.WalkDir(h.Dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			file, _ := filepath.Rel(h.Dir, path)
			if file == "srv/cluster" || file == "usr/bin" {
				return fs.SkipDir
			}
			info, err := d.Info()
			if err != nil || !info.Mode().IsRegular() {
				return err
			}
			if strings.HasSuffix(file, "kuryrctl/init.yaml") || strings.HasSuffix(file, "kuryrctl/join.yaml") {
				t.Errorf("%s has %s still", name, file)
			}
			if info.Mode().Perm()&0o077 != 0 {
				text, err := os.ReadFile(path)
				nowhere("/"+file+" of "+name, string(text))
				return err
			}
			return nil
		}))
	}
	if info, err := os.Stat(filepath.Join(l.dir, "kubeconfig")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the kubeconfig here: %v, %v", info.Mode(), err)
	}
}

func TestAKubeconfigThatOthersCanReadIsRefused(t *testing.T) {
	t.Parallel()
	l := newLab(t, sshtest.Debian13, 1, 0)
	l.up()
	path := filepath.Join(l.dir, "kubeconfig")
	l.must(os.Chmod(path, 0o640))
	if r := l.run(t.Context()); r.err == nil || !strings.Contains(r.err.Error(), "mode 0640 lets others read it; run chmod 600 "+path) {
		t.Errorf("got %v", r.err)
	}
	l.must(os.Chmod(path, 0o600))
	l.up()
}

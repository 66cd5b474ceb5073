package stack_test

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kuryrctl/kuryrctl/internal/labtest"
	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/internal/sshtest"
	"github.com/kuryrctl/kuryrctl/stack"
)

// dump dumps the stack demo and returns what is in the archive by name, without the directory.
func dump(t *testing.T, ctx context.Context, lab *labtest.Lab, c stack.Config, timeout time.Duration) (map[string]string, error) {
	t.Helper()
	login := func(ctx context.Context) (*openstack.Cloud, error) {
		return openstack.Connect(ctx, openstack.Options{Cloud: "fake", File: lab.CloudsYAML(), Backoff: time.Millisecond})
	}
	path := filepath.Join(t.TempDir(), "demo.tar.gz")
	_, err := stack.Dump(ctx, "demo", c, login, stack.DumpOptions{
		Options: stack.Options{Dial: lab.Dial, State: lab.State, Poll: time.Millisecond}, Path: path, Timeout: timeout, About: map[string]string{"version": "v0.0.1"},
	})
	if entries, e := os.ReadDir(filepath.Dir(path)); e != nil || err != nil && len(entries) > 0 || len(entries) > 1 {
		t.Errorf("beside the archive: %v, %v", entries, e)
	}
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	zip, err := gzip.NewReader(f)
	must(t, err)
	files := map[string]string{}
	for r := tar.NewReader(zip); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		must(t, err)
		text, err := io.ReadAll(r)
		must(t, err)
		files[strings.TrimPrefix(h.Name, "kuryrctl-dump-demo/")] = string(text)
	}
}

const canary = "c4narYc4narYc4narY"

func TestADumpHasEverythingButSecrets(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	api := kubernetes(t, lab)
	dir := filepath.Join(lab.State, "stacks", lab.ProjectID(), "demo")

	must(t, os.WriteFile(filepath.Join(dir, "application-credential.json"), []byte(`{"id": "1", "secret": "`+canary+`app"}`), 0o600))
	logs := filepath.Join(dir, "logs")
	must(t, os.MkdirAll(logs, 0o700))
	must(t, os.WriteFile(filepath.Join(logs, "old-9.log"), []byte("the secret by itself: "+canary+"app\nkubeadm join --token "+canary+"\nabcdef.0123456789abcdef\n"), 0o600))
	must(t, os.WriteFile(filepath.Join(logs, "old-8.log"), []byte(strings.Repeat("early\n", 1<<20)+"the end\n"), 0o600))
	for _, name := range []string{"master-0", "worker-0", "worker-1"} {
		h := lab.Host("demo/" + name)
		h.On("# collect what*", (*sshtest.Exec).Run)
		h.Stub("journalctl", "echo journal of "+name+": $*")
		put(t, h, "etc/kubernetes/manifests/x.yaml", "kind: Pod\n- name: y\n  password: "+canary+"\n")
		put(t, h, "var/log/kuryrctl/init.log", "-----BEGIN EC PRIVATE KEY-----\n"+canary+"\n-----END EC PRIVATE KEY-----\n")
		put(t, h, "var/log/pods/kube-system_etcd_1/etcd/0.log", "Authorization: Bearer "+canary+"\n")
	}
	p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}}
	p.Spec.Containers = []corev1.Container{{Name: "web", Env: []corev1.EnvVar{{Name: "DB_PASSWORD", Value: canary}}}}
	api.AddPod(p)

	files, err := dump(t, t.Context(), lab, stack.Defaults(), time.Minute)
	must(t, err)
	for name, want := range map[string]string{
		"version.json":                                   "v0.0.1",
		"declaration.yaml":                               "image: debian-13",
		"doctor.json":                                    `"check": "node-system"`,
		"show.json":                                      `"name": "worker-0"`,
		"plan.json":                                      "network.vm",
		"local/old-9.log":                                "[redacted]",
		"local/old-8.log":                                "the end\n",
		"openstack/servers.json":                         "demo/worker-0",
		"openstack/security-groups.json":                 "security_group_rules",
		"openstack/trunks.json":                          "demo/worker-1",
		"openstack/ports.json":                           "demo/master-0",
		"openstack/quotas.json":                          "security_group_rule",
		"nodes/worker-0/console.log":                     "",
		"nodes/worker-0/journal-kernel.log":              "journal of worker-0: --no-pager -n 5000 -k",
		"nodes/worker-1/journal-kubelet.log":             "-u kubelet",
		"nodes/master-0/etc/kubernetes/manifests/x.yaml": "[redacted]",
		"nodes/master-0/var/log/pods/kube-system_etcd_1/etcd/0.log": "Bearer [redacted]",
		"nodes/master-0/var/log/kuryrctl/init.log":                  "[redacted]",
		"kubernetes/readyz.txt":                                     "[+]ping ok",
		"kubernetes/nodes.json":                                     "KubeletNotReady",
		"kubernetes/pods.json":                                      "kube-apiserver-master-0",
		"kubernetes/events.json":                                    "EventList",
	} {
		if text, ok := files[name]; !ok || !strings.Contains(text, want) {
			t.Errorf("%s (%t) lacks %q: %.300q", name, ok, want, text)
		}
	}
	if n := len(files["local/old-8.log"]); n > 5<<20+100 || n < 4<<20 {
		t.Errorf("a large log has %d bytes", n)
	}
	key, err := os.ReadFile(filepath.Join(dir, "id_ed25519"))
	must(t, err)
	for name, text := range files {
		for _, secret := range []string{canary, "0123456789abcdef\n", "PRIVATE KEY", strings.Split(string(key), "\n")[2]} {
			if strings.Contains(text, secret) {
				t.Errorf("%s has %q", name, secret)
			}
		}
	}
	if missing, any := files["errors.txt"]; any {
		t.Errorf("missing:\n%s", missing)
	}
}

func TestADumpSaysWhatCouldNotBeHad(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	mustUp(t, lab, "demo", servers())
	for _, name := range []string{"master-0", "worker-0", "worker-1"} {
		lab.Host("demo/" + name).Down()
	}
	lab.Fail("GET /v2.0/lbaas/loadbalancers/", -1, http.StatusForbidden, "{}", nil)
	files, err := dump(t, t.Context(), lab, servers(), time.Minute)
	must(t, err)
	for _, name := range []string{"show.json", "openstack/ports.json", "nodes/worker-0/console.log", "local/worker-0.log", "doctor.json"} {
		if _, ok := files[name]; !ok {
			t.Errorf("%s is not there", name)
		}
	}
	for _, line := range []string{"nodes/master-0: ", "nodes/worker-1: ", "kubernetes: reading the stack's kubeconfig"} {
		if !strings.Contains(files["errors.txt"], line) {
			t.Errorf("errors.txt lacks %q:\n%s", line, files["errors.txt"])
		}
	}
	lab.Heal()

	// Without a cloud there is what this machine knows.
	lab.Fail("POST /v3/auth/tokens", -1, http.StatusUnauthorized, "{}", nil)
	if files, err = dump(t, t.Context(), lab, servers(), time.Minute); err != nil || !strings.Contains(files["errors.txt"], "cloud: ") || files["doctor.json"] == "" {
		t.Errorf("%v: %v", err, files["errors.txt"])
	}
}

func TestADumpEndsInTimeAndWithAnInterrupt(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	mustUp(t, lab, "demo", servers())
	lab.Host("demo/master-0").Hang(sshtest.BeforeBanner)
	files, err := dump(t, t.Context(), lab, servers(), 300*time.Millisecond)
	if err != nil || !strings.Contains(files["errors.txt"], "nodes/master-0: ") && !strings.Contains(files["errors.txt"], "show.json") {
		t.Errorf("%v: %v", err, files["errors.txt"])
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("stopped"))
	if _, err := dump(t, ctx, lab, servers(), time.Minute); err == nil || err.Error() != "stopped" {
		t.Errorf("got %v", err)
	}
}

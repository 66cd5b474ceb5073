package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
	"pgregory.net/rapid"

	"github.com/kuryrctl/kuryrctl/bootstrap/cluster"
	"github.com/kuryrctl/kuryrctl/internal/clustertest"
)

// mergeEnv makes the test binary a process that merges into the file it names and ends.
const mergeEnv = "KURYRCTL_TEST_MERGE_INTO"

func TestMain(m *testing.M) {
	path := os.Getenv(mergeEnv)
	if path == "" {
		os.Exit(m.Run())
	}
	for _, name := range os.Args[2:] {
		admin, err := os.ReadFile(os.Args[1])
		if err == nil {
			admin, err = cluster.Rename(admin, name, "https://172.24.4.2:6443")
		}
		if err == nil {
			_, err = cluster.Merge(context.Background(), path, admin, cluster.MergeOptions{})
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

const serverURL = "https://172.24.4.2:6443"

// ours is the kubeconfig of a cluster named demo.
func ours(t *testing.T) []byte {
	t.Helper()
	text, err := cluster.Rename(clustertest.New(t).Kubeconfig(), "demo", serverURL)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

const others = `apiVersion: v1
kind: Config
current-context: work
clusters:
- name: work
  cluster:
    server: https://work.example.com
    certificate-authority: certs/ca.crt
    extensions:
    - name: client.authentication.k8s.io/exec
      extension: {audience: "1"}
contexts:
- name: work
  context: {cluster: work, user: me, namespace: web}
users:
- name: me
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1
      command: login
      args: [--now]
      interactiveMode: Never
`

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func load(t *testing.T, text []byte) *api.Config {
	t.Helper()
	c, err := clientcmd.Load(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func wantMode(t *testing.T, path string, want fs.FileMode) {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != want {
		t.Errorf("mode of %s is %s, want %s", path, info.Mode(), want)
	}
}

// wantFiles says what is in a directory, so that nothing else is: no lock, no temporary file.
func wantFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func TestMergeMakesAFileWhereThereIsNone(t *testing.T) {
	mine := ours(t)
	dir := filepath.Join(t.TempDir(), ".kube")
	path := filepath.Join(dir, "config")
	got, err := cluster.Merge(t.Context(), path, mine, cluster.MergeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(cluster.MergeResult{Name: "demo", Changed: true, Current: "demo"}, got); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(load(t, mine), load(t, []byte(read(t, path)))); diff != "" {
		t.Errorf("file (-want +got):\n%s", diff)
	}
	wantMode(t, path, 0o600)
	wantMode(t, dir, fs.ModeDir|0o700)
	got, err = cluster.Merge(t.Context(), path, mine, cluster.MergeOptions{})
	if err != nil || got.Changed || got.Backup != "" {
		t.Errorf("again: %+v, %v", got, err)
	}
	wantFiles(t, dir, "config")
}

func TestMergeLeavesWhatBelongsToOthers(t *testing.T) {
	mine := ours(t)
	root := t.TempDir()
	target, link := filepath.Join(root, "store", "kube", "config"), filepath.Join(root, "home", "config")
	write(t, target, others)
	write(t, filepath.Join(root, "home", "x"), "")
	write(t, filepath.Join(root, "store", "other", "x"), "")
	if err := os.Symlink("../dotfiles/here/../kube/config", link); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(root, "dotfiles", "x"), "")
	if err := os.Symlink("../store/other", filepath.Join(root, "dotfiles", "here")); err != nil { // whose .. is store
		t.Fatal(err)
	}
	got, err := cluster.Merge(t.Context(), link, mine, cluster.MergeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(cluster.MergeResult{Name: "demo", Changed: true, Current: "work", Backup: link + ".kuryrctl-backup"}, got); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
	want, my := load(t, []byte(others)), load(t, mine)
	want.Clusters["demo"], want.AuthInfos["demo"], want.Contexts["demo"] = my.Clusters["demo"], my.AuthInfos["demo"], my.Contexts["demo"]
	if diff := cmp.Diff(want, load(t, []byte(read(t, target)))); diff != "" {
		t.Errorf("file (-want +got):\n%s", diff)
	}
	if to, err := os.Readlink(link); err != nil || to != "../dotfiles/here/../kube/config" {
		t.Errorf("the link is %q, %v", to, err)
	}
	wantMode(t, target, 0o600)
	wantMode(t, got.Backup, 0o600)
	if read(t, got.Backup) != others {
		t.Error("the backup is not what the file was")
	}
	got, err = cluster.Merge(t.Context(), link, mine, cluster.MergeOptions{Switch: true})
	if err != nil || got.Current != "demo" || load(t, []byte(read(t, target))).CurrentContext != "demo" {
		t.Errorf("switching: %+v, %v", got, err)
	}
	wantFiles(t, filepath.Dir(target), "config")
	wantFiles(t, filepath.Dir(link), "config", "config.kuryrctl-backup", "x")

	if removed, err := cluster.Unmerge(t.Context(), link, mine); err != nil || !removed {
		t.Fatalf("removed %v, %v", removed, err)
	}
	want = load(t, []byte(others))
	want.CurrentContext = "" // it was ours
	if diff := cmp.Diff(want, load(t, []byte(read(t, target)))); diff != "" {
		t.Errorf("file after Unmerge (-want +got):\n%s", diff)
	}
	if removed, err := cluster.Unmerge(t.Context(), link, mine); err != nil || removed {
		t.Fatalf("again: removed %v, %v", removed, err)
	}
}

func TestMergeRenewsOursAndKeepsWhatTheUserMadeOfIt(t *testing.T) {
	mine := ours(t)
	path := filepath.Join(t.TempDir(), "config")
	c := load(t, mine)
	c.Contexts["demo"].Namespace = "web"
	c.AuthInfos["demo"].ClientKeyData = []byte("former")
	text, err := clientcmd.Write(*c)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, string(text))
	if got, err := cluster.Merge(t.Context(), path, mine, cluster.MergeOptions{}); err != nil || !got.Changed {
		t.Fatalf("%+v, %v", got, err)
	}
	want := load(t, mine)
	want.Contexts["demo"].Namespace = "web"
	if diff := cmp.Diff(want, load(t, []byte(read(t, path)))); diff != "" {
		t.Errorf("file (-want +got):\n%s", diff)
	}
}

func TestMergeRefusesANameThatIsTakenUnlessForced(t *testing.T) {
	mine := ours(t)
	for name, c := range map[string]struct {
		change func(*api.Config)
		want   string
	}{
		"another server":       {func(c *api.Config) { c.Clusters["demo"].Server = "https://other:6443" }, "a cluster demo"},
		"another CA":           {func(c *api.Config) { c.Clusters["demo"].CertificateAuthorityData = []byte("x") }, "a cluster demo"},
		"a context of another": {func(c *api.Config) { c.Contexts["demo"].AuthInfo = "me" }, "a context demo"},
		"only a context":       {func(c *api.Config) { delete(c.Clusters, "demo") }, "a context demo"},
		"only a user":          {func(c *api.Config) { delete(c.Clusters, "demo"); delete(c.Contexts, "demo") }, "a user demo"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config")
			foreign := load(t, mine)
			c.change(foreign)
			text, err := clientcmd.Write(*foreign)
			if err != nil {
				t.Fatal(err)
			}
			write(t, path, string(text))
			_, err = cluster.Merge(t.Context(), path, mine, cluster.MergeOptions{})
			wantError(t, err, "adding demo to kubeconfig "+path, c.want, "force")
			if read(t, path) != string(text) {
				t.Error("the file was changed")
			}
			wantFiles(t, filepath.Dir(path), "config")
			if _, err := cluster.Merge(t.Context(), path, mine, cluster.MergeOptions{Force: true}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(load(t, mine), load(t, []byte(read(t, path)))); diff != "" {
				t.Errorf("forced (-want +got):\n%s", diff)
			}
		})
	}
}

func TestABrokenFileIsRefusedAndLeft(t *testing.T) {
	mine := ours(t)
	for name, text := range map[string]string{
		"not YAML":       "clusters: [",
		"another kind":   "apiVersion: v1\nkind: Pod\n",
		"a name twice":   "clusters:\n- {name: a, cluster: {server: https://a}}\n- {name: a, cluster: {server: https://b}}\n",
		"another schema": "clusters: {}\n",
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config")
			write(t, path, text)
			_, err := cluster.Merge(t.Context(), path, mine, cluster.MergeOptions{Force: true, Switch: true})
			wantError(t, err, path, "it is left as it is", "KUBECONFIG")
			_, err = cluster.Unmerge(t.Context(), path, mine)
			wantError(t, err, path, "it is left as it is")
			if read(t, path) != text {
				t.Error("the file was changed")
			}
			wantFiles(t, filepath.Dir(path), "config")
		})
	}
}

func TestUnmergeTakesOutOnlyWhatIsOurs(t *testing.T) {
	mine := ours(t)
	dir := t.TempDir()
	if removed, err := cluster.Unmerge(t.Context(), filepath.Join(dir, "none", "config"), mine); err != nil || removed {
		t.Fatalf("no file: removed %v, %v", removed, err)
	}
	wantFiles(t, dir)
	path := filepath.Join(dir, "config")
	write(t, path, string(ours(t))) // of the same name and server, and another CA
	before := read(t, path)
	if removed, err := cluster.Unmerge(t.Context(), path, mine); err != nil || removed || read(t, path) != before {
		t.Fatalf("another's: removed %v, %v", removed, err)
	}
}

func TestALockIsWaitedForAndAForgottenOneIsNamed(t *testing.T) {
	mine := ours(t)
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "config")
		write(t, path+".lock", "")
		if err := os.Chtimes(path+".lock", time.Time{}, time.Now().Add(-3*time.Hour)); err != nil {
			t.Fatal(err)
		}
		_, err := cluster.Merge(t.Context(), path, mine, cluster.MergeOptions{})
		wantError(t, err, path+".lock", "still held for 3h0m10s after 10s", "remove it")

		ctx, cancel := context.WithCancelCause(t.Context())
		enough := errors.New("enough")
		_, err = cluster.Merge(each(ctx, func(string) { cancel(enough) }), path, mine, cluster.MergeOptions{})
		if !errors.Is(err, enough) {
			t.Errorf("canceled: %v", err)
		}
		wantFiles(t, filepath.Dir(path), "config.lock")

		looks := 0
		_, err = cluster.Merge(each(t.Context(), func(string) {
			if looks++; looks == 3 {
				os.Remove(path + ".lock")
			}
		}), path, mine, cluster.MergeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		wantFiles(t, filepath.Dir(path), "config")
	})
}

func TestProcessesThatMergeAtOnceLoseNothing(t *testing.T) {
	dir := t.TempDir()
	path, admin := filepath.Join(dir, "config"), filepath.Join(dir, "admin.conf")
	write(t, path, others)
	write(t, admin, string(clustertest.New(t).Kubeconfig()))
	want := []string{"work"}
	var running []*exec.Cmd
	for process := range 2 {
		args := []string{admin}
		for i := range 5 {
			args = append(args, fmt.Sprintf("demo-%d-%d", process, i))
		}
		want = append(want, args[1:]...)
		cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
		cmd.Env, cmd.Stderr = append(os.Environ(), mergeEnv+"="+path), &strings.Builder{}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		running = append(running, cmd)
	}
	for _, cmd := range running {
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %s", err, cmd.Stderr)
		}
	}
	got := slices.Sorted(maps.Keys(load(t, []byte(read(t, path))).Contexts))
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("contexts (-want +got):\n%s", diff)
	}
}

// anyConfig draws somebody's kubeconfig, with names that may be ours and references that may lead nowhere.
func anyConfig(t *rapid.T) *api.Config {
	name := rapid.SampledFrom([]string{"demo", "work", "a b", "kubernetes-admin@kubernetes", "ü"})
	some := rapid.SampledFrom([]string{"", "x", "relative/path", "/absolute", "y: [z"})
	c := api.NewConfig()
	for range rapid.IntRange(0, 3).Draw(t, "entries") {
		n := name.Draw(t, "name")
		c.Clusters[n] = &api.Cluster{Server: some.Draw(t, "server"), CertificateAuthority: some.Draw(t, "ca"),
			InsecureSkipTLSVerify: rapid.Bool().Draw(t, "insecure"), ProxyURL: some.Draw(t, "proxy")}
		c.AuthInfos[name.Draw(t, "user")] = &api.AuthInfo{Token: some.Draw(t, "token"), ClientKey: some.Draw(t, "key"), Username: some.Draw(t, "username")}
		c.Contexts[name.Draw(t, "context")] = &api.Context{Cluster: name.Draw(t, "its cluster"), AuthInfo: name.Draw(t, "its user"), Namespace: some.Draw(t, "namespace")}
	}
	c.CurrentContext = rapid.OneOf(name, rapid.Just("")).Draw(t, "current")
	return c
}

func TestMergeThenUnmergeGivesTheSameFile(t *testing.T) {
	mine, dir := ours(t), t.TempDir()
	rapid.Check(t, func(r *rapid.T) {
		path := filepath.Join(dir, "config")
		c := anyConfig(r)
		text, err := clientcmd.Write(*c)
		if err != nil {
			r.Fatal(err)
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			r.Fatal(err)
		}
		o := cluster.MergeOptions{Switch: rapid.Bool().Draw(r, "switch")}
		_, taken := c.Clusters["demo"]
		_, takenUser := c.AuthInfos["demo"]
		_, takenContext := c.Contexts["demo"]
		taken = taken || takenUser || takenContext
		if _, err = cluster.Merge(t.Context(), path, mine, o); taken != (err != nil) {
			r.Fatalf("the name is taken: %v, err %v", taken, err)
		}
		if removed, err := cluster.Unmerge(t.Context(), path, mine); err != nil || removed == taken {
			r.Fatalf("removed %v, %v", removed, err)
		}
		want := load(t, text)
		if !taken && (o.Switch || want.CurrentContext == "demo") {
			want.CurrentContext = "" // what it was before is in the backup only
		}
		if diff := cmp.Diff(want, load(t, []byte(read(t, path)))); diff != "" {
			r.Fatalf("file (-want +got):\n%s", diff)
		}
	})
}

func TestUserFileIsWhereKubectlWrites(t *testing.T) {
	t.Setenv("HOME", "/home/me")
	for env, want := range map[string]string{"": "/home/me/.kube/config", "/a:/b": "/a", ":/b": "/b"} {
		t.Setenv("KUBECONFIG", env)
		if got, err := cluster.UserFile(); err != nil || got != want {
			t.Errorf("KUBECONFIG=%q: %q, %v; want %q", env, got, err, want)
		}
	}
}

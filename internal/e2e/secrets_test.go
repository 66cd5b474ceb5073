//go:build e2e

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// search lists, for the word on its standard input, the files that have it, the processes that were started with it, and the journal. The word is in a
// file of its own meanwhile, which has to be among them.
const search = `umask 077; cat >/run/word; cd /
grep -rlFf /run/word etc home opt root run srv tmp var --exclude-dir=io.containerd.snapshotter.v1.overlayfs --exclude-dir=io.containerd.content.v1.content 2>/dev/null
for f in proc/[0-9]*/cmdline proc/[0-9]*/environ; do grep -qFf /run/word $f 2>/dev/null && echo $f; done
journalctl --no-pager -o cat | grep -qFf /run/word && echo journal
rm /run/word`

// secretsStay expects the secret of the controller's credential in its one file on the master, and nowhere else: not in what Kubernetes stores, what the
// nodes log and were booted with, nor in what kuryrctl wrote here but for the credential itself.
func secretsStay(t *testing.T, stack string, api *operator) {
	t.Helper()
	const path = "/etc/kuryr/clouds.yaml"
	clouds, _ := run(t, 0, "--cloud", "lab", "ssh", stack, "master-0", "--", "sudo cat "+path)
	found := regexp.MustCompile(`application_credential_secret: "([^"]{20,})"`).FindStringSubmatch(clouds)
	if found == nil {
		t.Fatal("there is no credential in " + path)
	}
	secret := found[1]
	for _, node := range show(t, stack).Nodes {
		cmd := exec.CommandContext(t.Context(), kuryrctl(t), "--cloud", "lab", "ssh", stack, node.Name, "--", "sudo sh -c "+quote(search))
		cmd.Stdin = strings.NewReader(secret)
		out, err := cmd.Output()
		at, want := strings.Fields(string(out)), []string{"run/word"}
		if node.Role == "master" {
			want = []string{strings.TrimPrefix(path, "/"), "run/word"}
		}
		if slices.Sort(at); err != nil || !slices.Equal(at, want) {
			t.Errorf("%s has the secret in %v, %v; want %v", node.Name, at, err, want)
		}
	}

	all, err := api.CoreV1().Secrets("").List(t.Context(), metav1.ListOptions{}) // what etcd has is encrypted
	if err != nil || len(all.Items) == 0 {
		t.Errorf("the cluster has %d Secrets, %v", len(all.Items), err)
	}
	for _, s := range all.Items {
		for key, value := range s.Data {
			if strings.Contains(string(value), secret) {
				t.Errorf("the Secret %s/%s has it in %s", s.Namespace, s.Name, key)
			}
		}
	}

	home := os.Getenv("XDG_STATE_HOME")
	if home == "" {
		home = filepath.Join(os.Getenv("HOME"), ".local", "state")
	}
	here, err := exec.CommandContext(t.Context(), "grep", "-rlF", secret, filepath.Join(home, "kuryrctl", "stacks")).Output()
	if at := strings.Fields(string(here)); err != nil || len(at) != 1 || filepath.Base(at[0]) != "application-credential.json" {
		t.Errorf("this machine has the secret in %v, %v", at, err)
	}
}

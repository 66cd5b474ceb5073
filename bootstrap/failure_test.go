package bootstrap_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kuryrctl/kuryrctl/bootstrap/ssh"
	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/internal/sshtest"
)

// failOnce makes kubeadm fail when a phase ends, the first time.
const failOnce = `rm "/srv/kubeadm/$1"
for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo "[$1] line $i"; done
echo "error execution phase $1: timed out waiting for the condition" >&2
exit 1
`

func TestKubeadmThatFailsIsClearedAndBegunAgain(t *testing.T) {
	for name, x := range map[string]struct {
		masters     int
		host, phase string
		key         graph.Key
		want        string
	}{
		"init, early":           {1, "master-0", "preflight", "control-plane.master-0", "init begun, init begun, init complete"},
		"init, certificates":    {1, "master-0", "certs", "control-plane.master-0", "init begun, reset, init begun, init complete"},
		"init, late":            {1, "master-0", "wait-control-plane", "control-plane.master-0", "init begun, reset, init begun, init complete"},
		"init, etcd elsewhere":  {2, "master-1", "manifests", "control-plane.master-1", "init begun, reset, init begun, init complete"},
		"join of a worker":      {1, "worker-0", "discovery", "node.worker-0", "join begun, reset, join begun, join complete"},
		"join, kubelet":         {1, "worker-0", "kubelet-start", "node.worker-0", "join begun, reset, join begun, join complete"},
		"join of etcd":          {2, "master-0", "discovery", "node.master-0", "join begun, join begun, join complete"},
		"join of etcd, kubelet": {2, "master-0", "kubelet-start", "node.master-0", "join begun, join begun, join complete"},
		"etcd":                  {2, "master-0", "etcd", "etcd.master-0", "join begun, join complete"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			workers := 0
			if strings.HasPrefix(x.host, "worker") {
				workers = 1
			}
			l := newLab(t, sshtest.Ubuntu2404, x.masters, workers)
			l.write(x.host, "srv/kubeadm/"+x.phase, strings.ReplaceAll(failOnce, "$1", x.phase))
			step := l.fails(x.key, `running "run kubeadm`, "exit status 1", "error execution phase "+x.phase+": timed out")
			var run *ssh.RunError
			if !errors.As(step, &run) || !strings.Contains(run.Output, "["+x.phase+"] line 3\n") {
				t.Errorf("what kubeadm said is not in the error: %+v", run)
			}
			if log, err := os.ReadFile(step.Log); err != nil || !strings.Contains(string(log), "["+x.phase+"] line 1\n") {
				t.Errorf("what kubeadm said is not in the log: %v", err)
			}
			if len(l.api.Secrets()) != 0 {
				t.Error("the token was left")
			}
			l.up()
			if got := l.ended(x.host); got != x.want {
				t.Errorf("kubeadm: %s", got)
			}
			for name := range l.keys {
				if _, known := l.api.Node(name); !known && name != "master-0" && !strings.HasPrefix(string(x.key), "control") {
					t.Errorf("%s is no node", name)
				}
			}
		})
	}
}

func TestThreeMastersJoinOneAfterTheOther(t *testing.T) {
	t.Parallel()
	l := newLab(t, sshtest.CentOS10, 3, 0)
	for _, name := range []string{"master-1", "master-2"} {
		l.write(name, "srv/kubeadm/discovery", "date +%s%N >/srv/begun")
		l.write(name, "srv/kubeadm/kubelet-start", "date +%s%N >/srv/ended")
	}
	l.up()
	if first, second := l.read("master-1", "srv/ended"), l.read("master-2", "srv/begun"); first == "" || second < first {
		t.Errorf("master-1 had joined at %s, master-2 began at %s", first, second)
	}
	for _, file := range []string{"pki/ca.crt", "pki/ca.key", "pki/sa.key", "pki/sa.pub", "pki/front-proxy-ca.key", "pki/etcd/ca.key", "kuryrctl/encryption.yaml",
		"kuryrctl/admission.yaml", "kuryrctl/audit-policy.yaml"} {
		want := l.read("master-0", "etc/kubernetes/"+file)
		for _, name := range []string{"master-1", "master-2"} {
			if got := l.read(name, "etc/kubernetes/"+file); got == "" || got != want {
				t.Errorf("%s of %s is %q, that of the first is %q", file, name, got, want)
			}
			if info, err := os.Stat(l.path(name, "etc/kubernetes/"+file)); err != nil || info.Mode().Perm()&0o077 != 0 && !strings.HasSuffix(file, "ca.crt") && !strings.HasSuffix(file, ".pub") {
				t.Errorf("%s of %s: %v, %v", file, name, info.Mode(), err)
			}
		}
	}

	// One that fails half-way is cleared like any other, and the first one never is.
	l = newLab(t, sshtest.Debian13, 3, 0)
	l.write("master-1", "srv/kubeadm/kubelet-start", strings.ReplaceAll(failOnce, "$1", "kubelet-start"))
	l.fails("control-plane.master-1", "error execution phase kubelet-start")
	l.up()
	for name, want := range map[string]string{"master-0": "init begun, init complete", "master-1": "join begun, reset, join begun, join complete", "master-2": "join begun, join complete"} {
		if got := l.ended(name); got != want {
			t.Errorf("kubeadm on %s: %s", name, got)
		}
	}
}

func TestANodeOfAnotherMachineOfThatNameIsReplaced(t *testing.T) {
	t.Parallel()
	l := newLab(t, sshtest.Debian13, 1, 1)
	old := metav1.NewTime(time.Now().Add(-time.Hour))
	l.api.AddNode(corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "worker-0", CreationTimestamp: old}})
	l.up()
	if n, ok := l.api.Node("worker-0"); !ok || n.CreationTimestamp.Equal(&old) {
		t.Errorf("node %v of %v", ok, n.CreationTimestamp)
	}
}

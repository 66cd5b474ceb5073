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
	type failure struct {
		host, phase string
		key         graph.Key
	}
	for name, x := range map[string]struct {
		masters, workers int
		failures         []failure // in this order, one in each run
		want             map[string]string
	}{
		"a master and a worker": {1, 1, []failure{
			{"master-0", "preflight", "control-plane.master-0"},
			{"master-0", "certs", "control-plane.master-0"},
			{"master-0", "wait-control-plane", "control-plane.master-0"},
			{"worker-0", "discovery", "node.worker-0"},
			{"worker-0", "kubelet-start", "node.worker-0"},
		}, map[string]string{
			"master-0": "init begun, init begun, reset, init begun, reset, init begun, init complete",
			"worker-0": "join begun, reset, join begun, reset, join begun, join complete",
		}},
		"etcd is never reset": {2, 0, []failure{
			{"master-0", "etcd", "etcd.master-0"},
			{"master-1", "manifests", "control-plane.master-1"},
			{"master-0", "discovery", "node.master-0"},
			{"master-0", "kubelet-start", "node.master-0"},
		}, map[string]string{
			"master-0": "join begun, join begun, join begun, join complete",
			"master-1": "init begun, reset, init begun, init complete",
		}},
		"of three masters the second": {3, 0, []failure{
			{"master-1", "kubelet-start", "control-plane.master-1"},
		}, map[string]string{
			"master-0": "init begun, init complete",
			"master-1": "join begun, reset, join begun, join complete",
			"master-2": "join begun, join complete",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, sshtest.Ubuntu2404, x.masters, x.workers)
			for _, f := range x.failures {
				l.write(f.host, "srv/kubeadm/"+f.phase, strings.ReplaceAll(failOnce, "$1", f.phase))
			}
			for _, f := range x.failures {
				step := l.fails(f.key, `running "run kubeadm`, "exit status 1", "error execution phase "+f.phase+": timed out")
				var run *ssh.RunError
				if !errors.As(step, &run) || !strings.Contains(run.Output, "["+f.phase+"] line 3\n") {
					t.Errorf("what kubeadm said is not in the error: %+v", run)
				}
				if log, err := os.ReadFile(step.Log); err != nil || !strings.Contains(string(log), "["+f.phase+"] line 1\n") {
					t.Errorf("what kubeadm said is not in the log: %v", err)
				}
				if len(l.api.Secrets()) != 0 {
					t.Errorf("the token of %s was left", f.key)
				}
			}
			l.up()
			for host, want := range x.want {
				if got := l.ended(host); got != want {
					t.Errorf("kubeadm on %s: %s", host, got)
				}
				if _, known := l.api.Node(host); !known {
					t.Errorf("%s is no node", host)
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

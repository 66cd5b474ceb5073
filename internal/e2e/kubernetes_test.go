//go:build e2e

package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kuryrctl/kuryrctl/bootstrap/cloud"
	"github.com/kuryrctl/kuryrctl/bootstrap/cluster"
)

const minimal = "../../examples/minimal.yaml"

// bundleOf is the nodes' software, as `make bundle` leaves it.
func bundleOf(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../../bin/bundle.tar")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("the bundle is not made (make bundle): %v", err)
	}
	return path
}

// operator is a cluster as its operator reaches it: by the kubeconfig, at the floating IP, with kuryrctl's own client and the stock one.
type operator struct {
	*cluster.Cluster
	kubernetes.Interface
}

func operate(t *testing.T, stack string) *operator {
	t.Helper()
	config, _ := run(t, 0, "--cloud", "lab", "kubeconfig", stack)
	lab, err := cloud.Default()
	if err != nil {
		t.Fatal(err)
	}
	c, err := cluster.New([]byte(config), lab.DialContext)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	rest, err := clientcmd.RESTConfigFromKubeConfig([]byte(config))
	if err != nil {
		t.Fatal(err)
	}
	rest.Dial, rest.QPS = lab.DialContext, -1
	stock, err := kubernetes.NewForConfig(rest)
	if err != nil {
		t.Fatal(err)
	}
	return &operator{c, stock}
}

// nodes are the names of a cluster's nodes, each of which must be ready.
func nodes(t *testing.T, c *operator) (names []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	all, err := c.Nodes(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range all {
		if !n.Ready {
			t.Errorf("node %s is not ready: %s: %s", n.Name, n.Reason, n.Message)
		}
		names = append(names, n.Name)
	}
	slices.Sort(names)
	return names
}

func expectNodes(t *testing.T, c *operator, want ...string) {
	t.Helper()
	if got := nodes(t, c); !slices.Equal(got, want) {
		t.Errorf("the cluster has the nodes %v, want %v", got, want)
	}
}

// started lists the resources that a run did not find as declared.
func started(talk string) (all []string) {
	for line := range strings.Lines(talk) {
		if fields := strings.Fields(line); len(fields) > 2 && fields[1] == "started" {
			all = append(all, fields[2])
		}
	}
	return all
}

// A cluster is made on a real OpenStack by runs that are killed in the middle of kubeadm's work, grows, shrinks and goes.
func TestAClusterLivesOnARealCloud(t *testing.T) {
	const stack, domain = "e2e-k8s", "e2e-k8s.lab.kuryr.test"
	lab := func(args ...string) []string { return append([]string{"--cloud", "lab"}, args...) }
	t.Cleanup(func() { exec.Command(kuryrctl(t), lab("unstack", stack, "--yes")...).Run() })
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "config"))
	file := named(t, minimal, domain)
	up := lab("stack", stack, "-f", file, "--bundle", bundleOf(t), "--progress", "plain", "--timings")

	killAt(t, "started    control-plane.master-0", 3*time.Second, up...)
	killAt(t, "started    node.worker-0", 2*time.Second, up...)
	_, talk := run(t, 0, up...)
	t.Logf("after two kills:\n%s", talk)
	// Init went on without us and was waited for: had it been begun anew, what it left would have been reset before.
	log, _ := run(t, 0, lab("logs", stack, "master-0", "--local", "--lines", "0")...)
	if !strings.Contains(log, "initialized successfully") || strings.Contains(log, "[reset]") {
		t.Errorf("kubeadm init was not run once to its end:\n%s", log)
	}
	if left, _ := run(t, 0, lab("ssh", stack, "master-0", "--", "sudo ls -A /etc/kubernetes/kuryrctl")...); strings.Contains(left, "init.yaml") {
		t.Errorf("the configuration of init, with its token, is still there: %s", left)
	}
	api := operate(t, stack)
	expectNodes(t, api, "master-0", "worker-0", "worker-1")

	// Nothing to do, and the bundle is remembered.
	_, talk = run(t, 0, lab("stack", stack, "-f", file, "--progress", "plain", "--timings")...)
	if writes, _ := requests(t, talk); writes != 0 || len(started(talk)) > 0 {
		t.Errorf("an idle run made %d writes and worked on %v", writes, started(talk))
	}
	run(t, 0, lab("plan", stack, "-f", file)...)

	// Secrets are not readable in what etcd keeps.
	const kubectl = "sudo kubectl --kubeconfig /etc/kubernetes/admin.conf "
	run(t, 0, lab("ssh", stack, "master-0", "--", kubectl+"create secret generic e2e --from-literal=word=Zaphod-Beeblebrox-42")...)
	out, _ := run(t, 0, lab("ssh", stack, "master-0", "--", "sudo grep -rlc Zaphod-Beeblebrox-42 /var/lib/etcd; sudo grep -rlc registry/secrets/default/e2e /var/lib/etcd | head -n 1")...)
	if strings.Count(out, "/var/lib/etcd/") != 1 {
		t.Errorf("a secret is readable below /var/lib/etcd, or its key was not found there: %q", out)
	}

	podsLive(t, stack, file, api)
	servicesLive(t, stack, api)
	addonsLive(t, stack, api)
	exampleLives(t, stack, domain)
	doctorFindsNothing(t, ofThePast, stack)
	secretsStay(t, stack, api)

	// The user's own kubeconfig.
	run(t, 0, lab("kubeconfig", stack, "--merge")...)
	own, err := os.ReadFile(os.Getenv("KUBECONFIG"))
	if err != nil || !strings.Contains(string(own), "name: "+stack) {
		t.Errorf("the user's kubeconfig is %q, %v", own, err)
	}

	run(t, 0, lab("scale", stack, "--workers", "3")...)
	expectNodes(t, api, "master-0", "worker-0", "worker-1", "worker-2")
	run(t, 0, lab("scale", stack, "--workers", "1", "--yes")...)
	expectNodes(t, api, "master-0", "worker-0")
	if v := show(t, stack); len(v.Nodes) != 2 {
		t.Errorf("after scaling to 1 worker there are %+v", v.Nodes)
	}

	// A host that has lost its state is put right: what drifts is repaired.
	run(t, 0, lab("ssh", stack, "worker-0", "--", "sudo systemctl stop kubelet containerd; sudo rm /usr/local/bin/kubelet /etc/sysctl.d/99-kuryrctl.conf")...)
	run(t, 0, lab("scale", stack, "--workers", "1")...)
	run(t, 0, lab("ssh", stack, "worker-0", "--", "systemctl is-active kubelet containerd && test -x /usr/local/bin/kubelet")...)

	run(t, 0, lab("unstack", stack, "--yes")...)
	if left := openstackNames(t, stack); len(left) > 0 {
		t.Errorf("left in the cloud:\n%s", strings.Join(left, "\n"))
	}
	if at := dig(t, "demo.apps."+domain); at != "" {
		t.Errorf("unstack left the applications' names at %s", at)
	}
	own, err = os.ReadFile(os.Getenv("KUBECONFIG"))
	if err != nil || strings.Contains(string(own), stack) {
		t.Errorf("unstack left the user's kubeconfig as %q, %v", own, err)
	}
}

//go:build e2e && e2e_full

package e2e

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/kuryrctl/kuryrctl/internal/wait"
)

// The 2017 write-up's topology: etcd on the first master, the API on the second; and on it all that the write-up put there.
func TestTwoMastersPartTheirWork(t *testing.T) {
	const stack, domain = twoMasters, twoMasters + ".lab.kuryr.test"
	lab := func(args ...string) []string { return append([]string{"--cloud", "lab"}, args...) }
	t.Cleanup(func() { exec.Command(kuryrctl(t), lab("unstack", stack, "--yes")...).Run() })
	file := named(t, "../../examples/superfluidity.yaml", domain)

	_, talk := run(t, 0, lab("stack", stack, "-f", file, "--bundle", bundleOf(t), "--progress", "plain", "--timings")...)
	t.Log(talk)
	api := operate(t, stack)
	expectNodes(t, api, "master-0", "master-1", "worker-0", "worker-1")
	for node, want := range map[string]string{"master-0": "etcd.yaml\n", "master-1": "kube-apiserver.yaml\nkube-controller-manager.yaml\nkube-scheduler.yaml\n"} {
		if out, _ := run(t, 0, lab("ssh", stack, node, "--", "sudo ls /etc/kubernetes/manifests")...); out != want {
			t.Errorf("the static pods of %s are %q, want %q", node, out, want)
		}
	}
	_, talk = run(t, 0, lab("stack", stack, "-f", file, "--progress", "plain", "--timings")...)
	if writes, _ := requests(t, talk); writes != 0 || len(started(talk)) > 0 {
		t.Errorf("an idle run made %d writes and worked on %v", writes, started(talk))
	}
	addonsLive(t, stack, api)
	exampleLives(t, stack, domain)
	doctorFindsNothing(t, ofThePast, stack)
	run(t, 0, lab("unstack", stack, "--yes")...)
	if left := openstackNames(t, stack); len(left) > 0 {
		t.Errorf("left in the cloud:\n%s", strings.Join(left, "\n"))
	}
	if at := dig(t, "demo.apps."+domain); at != "" {
		t.Errorf("unstack left the applications' names at %s", at)
	}
}

// Of three masters one may die: the API goes on answering at the same address.
func TestThreeMastersOutliveOne(t *testing.T) {
	const stack = "e2e-ha"
	lab := func(args ...string) []string { return append([]string{"--cloud", "lab"}, args...) }
	t.Cleanup(func() { exec.Command(kuryrctl(t), lab("unstack", stack, "--yes")...).Run() })

	_, talk := run(t, 0, lab("stack", stack, "-f", "../../examples/ha.yaml", "--bundle", bundleOf(t), "--progress", "plain", "--timings")...)
	t.Log(talk)
	api := operate(t, stack)
	expectNodes(t, api, "master-0", "master-1", "master-2", "worker-0")

	// The jump host and first member of etcd is the worst to lose.
	run(t, 0, "cloud", "exec", "--", "openstack", "server", "stop", stack+"/master-0")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	err := wait.For(ctx, "master-0 to be missed by the others", 2*time.Second, func(ctx context.Context) (string, bool, error) {
		node, ok, err := api.Node(ctx, "master-0")
		if err != nil {
			return err.Error(), false, nil // the connection to the master that stopped
		}
		return node.Reason, ok && node.Reason == "NodeStatusUnknown", nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// Writes need a quorum of etcd; every try may meet another API server.
	for range 6 {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		token, err := api.NewToken(ctx, time.Minute, "written with one master down")
		if err == nil {
			err = api.DeleteToken(ctx, token)
		}
		cancel()
		if err != nil {
			t.Errorf("with one master down: %v", err)
		}
	}
	run(t, 0, lab("unstack", stack, "--yes")...)
	if left := openstackNames(t, stack); len(left) > 0 {
		t.Errorf("left in the cloud:\n%s", strings.Join(left, "\n"))
	}
}

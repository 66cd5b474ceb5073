//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kuryrctl/kuryrctl/internal/wait"
)

// kubectl runs kubectl on the first master.
func kubectl(t *testing.T, stack, args string) string {
	t.Helper()
	out, _ := run(t, 0, "--cloud", "lab", "ssh", stack, "master-0", "--", "sudo kubectl --kubeconfig /etc/kubernetes/admin.conf "+args)
	return out
}

type pod struct{ name, node, address string }

// running waits until a deployment has that many pods that run, all with an address of their own.
func running(t *testing.T, stack string, want int) (pods []pod) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	err := wait.For(ctx, "the pods to run", 2*time.Second, func(context.Context) (string, bool, error) {
		pods = nil
		text := kubectl(t, stack, "get pods -l app=web -o 'jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName} {.status.phase} {.status.podIP}{\"\\n\"}{end}'")
		for line := range strings.Lines(text) {
			if f := strings.Fields(line); len(f) == 4 && f[2] == "Running" {
				pods = append(pods, pod{f[0], f[1], f[3]})
			}
		}
		return text, len(pods) == want && strings.Count(text, "\n") == want, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	addresses := map[string]bool{}
	for _, p := range pods {
		addresses[p.address] = true
		if !netip.MustParsePrefix("10.10.0.0/16").Contains(netip.MustParseAddr(p.address)) {
			t.Errorf("pod %+v has no address of the pod network", p)
		}
	}
	if len(addresses) != len(pods) {
		t.Errorf("two pods share an address: %+v", pods)
	}
	return pods
}

// pingFrom pings addresses from inside one of a node's pods, found by its own address.
const pingFrom = `
for pid in $(pgrep -x pause); do
	nsenter -t $pid -n ip -4 -o address show 2>/dev/null | grep -qF "$0/" && break
done
for address in "$@"; do
	nsenter -t $pid -n ping -c 3 -W 2 -q $address >/dev/null || echo "no answer from $address"
done
echo looked`

func expectPings(t *testing.T, stack string, from pod, to []string) {
	t.Helper()
	command := "sudo sh -c " + quote(pingFrom) + " " + from.address + " " + strings.Join(to, " ")
	if out, _ := run(t, 0, "--cloud", "lab", "ssh", stack, from.node, "--", command); out != "looked\n" {
		t.Errorf("from %+v: %s", from, out)
	}
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// portNames asks Neutron itself.
func portNames(t *testing.T) map[string]bool {
	t.Helper()
	out, _ := run(t, 0, "cloud", "exec", "--", "openstack", "port", "list", "-f", "json")
	var rows []struct{ Name string }
	if err := json.Unmarshal([]byte(out), &rows); err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, r := range rows {
		names[r.Name] = true
	}
	return names
}

// podsLive proves pods on Neutron in a cluster of two workers: addresses, reach in all directions, names in Neutron, daemons and controllers that
// die, and an upgrade of kuryr-node under running pods.
func podsLive(t *testing.T, stack string) {
	t.Helper()
	manifest := `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"},"spec":{"replicas":6,"selector":{"matchLabels":{"app":"web"}},
		"template":{"metadata":{"labels":{"app":"web"}},"spec":{"terminationGracePeriodSeconds":1,"containers":[{"name":"c","image":"registry.k8s.io/pause:3.10.2","imagePullPolicy":"Never"}],
		"topologySpreadConstraints":[{"maxSkew":1,"topologyKey":"kubernetes.io/hostname","whenUnsatisfiable":"DoNotSchedule","nodeTaintsPolicy":"Honor","labelSelector":{"matchLabels":{"app":"web"}}}]}}}}`
	kubectl(t, stack, "apply -f - <<'END'\n"+manifest+"\nEND")
	pods := running(t, stack, 6)
	var to []string
	for _, p := range pods {
		to = append(to, p.address)
	}
	v := show(t, stack)
	for _, n := range v.Nodes {
		to = append(to, n.Address)
	}
	to = append(to, "10.10.0.1", "172.24.4.1") // the gateway, and outside of the cloud's networks
	seen := map[string]bool{}
	for _, p := range pods {
		if !seen[p.node] {
			seen[p.node] = true
			expectPings(t, stack, p, to)
		}
	}
	if len(seen) != 2 {
		t.Errorf("the pods are on %v, want both workers", seen)
	}
	// From a VM without a trunk to every pod.
	out, _ := run(t, 0, "--cloud", "lab", "ssh", stack, "master-0", "--", "for a in "+strings.Join(to[:len(pods)], " ")+"; do sudo ping -c 3 -W 2 -q $a >/dev/null || echo no answer from $a; done; echo looked")
	if out != "looked\n" {
		t.Errorf("from master-0: %s", out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := wait.For(ctx, "ports to be named for their pods", 2*time.Second, func(context.Context) (string, bool, error) {
		names := portNames(t)
		for _, p := range pods {
			if !names["default/"+p.name] {
				return "no port default/" + p.name, false, nil
			}
		}
		return "", true, nil
	})
	if err != nil {
		t.Error(err)
	}

	// Whatever dies, pods that run go on, and new ones come from the pool.
	for _, node := range []string{"worker-0", "worker-1"} {
		run(t, 0, "--cloud", "lab", "ssh", stack, node, "--", "sudo systemctl kill --signal=KILL kuryr-daemon")
	}
	run(t, 0, "--cloud", "lab", "ssh", stack, "master-0", "--", "sudo systemctl stop kuryr-controller")
	kubectl(t, stack, "scale deployment web --replicas=8")
	after := running(t, stack, 8)
	run(t, 0, "--cloud", "lab", "ssh", stack, "master-0", "--", "sudo systemctl start kuryr-controller")
	for _, p := range pods {
		found := false
		for _, q := range after {
			found = found || p == q
		}
		if !found {
			t.Errorf("pod %+v did not outlive daemon and controller: now there are %+v", p, after)
		}
	}
	expectPings(t, stack, after[0], to[:len(pods)])

	kubectl(t, stack, "delete deployment web --wait")
	ctx, cancel = context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	err = wait.For(ctx, "ports to lose the names of their pods", 2*time.Second, func(context.Context) (string, bool, error) {
		for name := range portNames(t) {
			if strings.HasPrefix(name, "default/web-") {
				return name, false, nil
			}
		}
		return "", true, nil
	})
	if err != nil {
		t.Error(err)
	}
}

// kuryrctl carries the programs of nodes of both architectures.
func TestThePayloadIsBuilt(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		path, err := filepath.Abs("../../bootstrap/payload/dist/kuryr-linux-" + arch + ".tar.gz")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(path); err != nil {
			t.Errorf("make build left no %s", path)
		}
		if out, err := exec.Command("tar", "-tzf", path).Output(); err != nil || string(out) != "usr/local/bin/kuryr-node\nopt/cni/bin/kuryr-cni\n" {
			t.Errorf("%s holds %q, %v", path, out, err)
		}
	}
}

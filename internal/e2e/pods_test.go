//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kuryrctl/kuryrctl/internal/wait"
)

// kubectl runs kubectl on a master that has the API: of two the first has etcd alone.
func kubectl(t *testing.T, stack, args string) string {
	t.Helper()
	master := "master-0"
	if stack == twoMasters {
		master = "master-1"
	}
	out, _ := run(t, 0, "--cloud", "lab", "ssh", stack, master, "--", "sudo kubectl --kubeconfig /etc/kubernetes/admin.conf "+args)
	return out
}

// twoMasters is the stack of the 2017 write-up's topology.
const twoMasters = "e2e-two"

type pod struct{ name, node, address string }

// running waits until the deployment has that many pods that are ready, all with an address of their own, and no others.
func running(t *testing.T, api *operator, want int) (pods []pod) {
	t.Helper()
	eventually(t, "the pods to run", 5*time.Minute, func() string {
		pods = nil
		list, err := api.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{LabelSelector: "app=web"})
		if err != nil {
			return err.Error()
		}
		for _, p := range list.Items {
			ready := slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue })
			if ready && p.DeletionTimestamp == nil {
				pods = append(pods, pod{p.Name, p.Spec.NodeName, p.Status.PodIP})
			}
		}
		if len(pods) == want && len(list.Items) == want {
			return ""
		}
		return fmt.Sprintf("of %d pods %d are ready", len(list.Items), len(pods))
	})
	distinct := map[string]bool{}
	for _, p := range pods {
		distinct[p.address] = true
		if !netip.MustParsePrefix("10.10.0.0/16").Contains(netip.MustParseAddr(p.address)) {
			t.Errorf("pod %+v has no address of the pod network", p)
		}
	}
	if len(distinct) != len(pods) {
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
	nsenter -t $pid -n ping -c 3 -i 0.3 -W 2 -q $address >/dev/null || echo "no answer from $address"
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
// die during a burst, an upgrade of kuryr-node under running pods, a worker that loses its power, and that in the end Neutron has what the
// pools say and nothing else.
func podsLive(t *testing.T, stack, file string, api *operator) {
	t.Helper()
	lab := func(args ...string) []string { return append([]string{"--cloud", "lab"}, args...) }
	manifest := `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"},"spec":{"replicas":20,"selector":{"matchLabels":{"app":"web"}},
		"template":{"metadata":{"labels":{"app":"web"}},"spec":{"terminationGracePeriodSeconds":1,"containers":[{"name":"c","image":"registry.k8s.io/pause:3.10.2","imagePullPolicy":"Never"}],
		"topologySpreadConstraints":[{"maxSkew":1,"topologyKey":"kubernetes.io/hostname","whenUnsatisfiable":"DoNotSchedule","nodeTaintsPolicy":"Honor","labelSelector":{"matchLabels":{"app":"web"}}}]}}}}`
	kubectl(t, stack, "apply -f - <<'END'\n"+manifest+"\nEND")
	pods := running(t, api, 20)
	to := addresses(pods)
	for _, n := range show(t, stack).Nodes {
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
	out, _ := run(t, 0, lab("ssh", stack, "master-0", "--", "for a in "+strings.Join(addresses(pods), " ")+"; do sudo ping -c 3 -i 0.3 -W 2 -q $a >/dev/null || echo no answer from $a; done; echo looked")...)
	if out != "looked\n" {
		t.Errorf("from master-0: %s", out)
	}
	eventually(t, "ports to be named for their pods", time.Minute, func() string {
		names := portNames(t)
		for _, p := range pods {
			if !names["default/"+p.name] {
				return "no port default/" + p.name
			}
		}
		return ""
	})

	// With the controller stopped and the daemons killed, new pods come from the pool.
	const daemons, controllers = "sudo systemctl kill --signal=KILL kuryr-daemon", "sudo systemctl kill --signal=KILL kuryr-controller"
	run(t, 0, lab("ssh", stack, "master-0", "--", "sudo systemctl stop kuryr-controller")...)
	for _, node := range []string{"worker-0", "worker-1"} {
		run(t, 0, lab("ssh", stack, node, "--", daemons)...)
	}
	kubectl(t, stack, "scale deployment web --replicas=22")
	expectOutlived(t, pods, running(t, api, 22))
	run(t, 0, lab("ssh", stack, "master-0", "--", "sudo systemctl start kuryr-controller")...)

	// In a burst that is more than any pool holds, both die at their work.
	kubectl(t, stack, "scale deployment web --replicas=40")
	for range 2 {
		for _, node := range []string{"worker-0", "worker-1"} {
			run(t, 0, lab("ssh", stack, node, "--", daemons)...)
		}
		run(t, 0, lab("ssh", stack, "master-0", "--", controllers)...)
	}
	burst := running(t, api, 40)
	expectOutlived(t, pods, burst)
	expectPings(t, stack, burst[0], addresses(burst))
	kubectl(t, stack, "scale deployment web --replicas=12")
	pods = running(t, api, 12)

	// Another kuryr-node replaces the one that runs, and no pod notices.
	for _, node := range []string{"worker-0", "worker-1"} {
		run(t, 0, lab("ssh", stack, node, "--", "sudo sh -c "+quote(`set -e
			cp /usr/local/bin/kuryr-node /tmp/older && echo older >>/tmp/older && mv /tmp/older /usr/local/bin/kuryr-node
			unit=/etc/systemd/system/kuryr-daemon.service
			digest=$(grep -Eo "[0-9a-f]{64}" $unit)
			rm /var/lib/kuryrctl/$digest.list
			sed -i s/$digest/older/ $unit
			systemctl daemon-reload
			systemctl restart kuryr-daemon`))...)
	}
	_, talk := run(t, 0, lab("stack", stack, "-f", file, "--progress", "plain")...)
	t.Logf("over an older kuryr-node:\n%s", talk)
	for _, node := range []string{"worker-0", "worker-1"} {
		if out, _ := run(t, 0, lab("ssh", stack, node, "--", "tail -c 6 /usr/local/bin/kuryr-node | grep -ac older || systemctl is-active kuryr-daemon")...); out != "0\nactive\n" {
			t.Errorf("the program of %s was not replaced, or does not run: %q", node, out)
		}
	}
	expectOutlived(t, pods, running(t, api, 12))
	list, err := api.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{LabelSelector: "app=web"})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range list.Items {
		if n := p.Status.ContainerStatuses[0].RestartCount; n > 0 {
			t.Errorf("the container of %s was started anew %d times", p.Name, n)
		}
	}
	expectPings(t, stack, pods[0], addresses(pods))

	// A worker loses its power: its pods come back, with addresses that are theirs alone.
	bootID := func() (string, error) {
		n, err := api.CoreV1().Nodes().Get(t.Context(), "worker-0", metav1.GetOptions{})
		if err != nil {
			return "", err
		}
		return n.Status.NodeInfo.BootID, nil
	}
	before, err := bootID()
	if err != nil {
		t.Fatal(err)
	}
	run(t, 0, "cloud", "exec", "--", "openstack", "server", "reboot", "--hard", "--wait", stack+"/worker-0")
	eventually(t, "worker-0 and its pods to start anew", 3*time.Minute, func() string {
		if now, err := bootID(); err != nil || now == before {
			return fmt.Sprintf("boot %s, %v", now, err)
		}
		list, err := api.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{LabelSelector: "app=web", FieldSelector: "spec.nodeName=worker-0"})
		if err != nil {
			return err.Error()
		}
		for _, p := range list.Items {
			if p.Status.ContainerStatuses[0].RestartCount == 0 {
				return p.Name + " is as it was"
			}
		}
		return ""
	})
	pods = running(t, api, 12)
	for _, p := range pods {
		if p.node == "worker-0" {
			expectPings(t, stack, p, addresses(pods))
			break
		}
	}
	expectPoolsInNeutron(t, stack, api, 12)

	kubectl(t, stack, "delete deployment web --wait")
	eventually(t, "ports to lose the names of their pods", 2*time.Minute, func() string {
		for name := range portNames(t) {
			if strings.HasPrefix(name, "default/web-") {
				return name
			}
		}
		return ""
	})
	expectPoolsInNeutron(t, stack, api, 0)
}

// eventually waits until lacks returns "".
func eventually(t *testing.T, what string, limit time.Duration, lacks func() string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	err := wait.For(ctx, what, 2*time.Second, func(context.Context) (string, bool, error) {
		text := lacks()
		return text, text == "", nil
	})
	if err != nil {
		t.Error(err)
	}
}

func addresses(pods []pod) (all []string) {
	for _, p := range pods {
		all = append(all, p.address)
	}
	return all
}

// expectOutlived tells of pods that are not among those there are now, or no longer at their address.
func expectOutlived(t *testing.T, pods, now []pod) {
	t.Helper()
	for _, p := range pods {
		if !slices.Contains(now, p) {
			t.Errorf("pod %+v did not live on: now there are %+v", p, now)
		}
	}
}

// expectPoolsInNeutron holds what the pools publish against Neutron's trunks and ports, and counts the subports that pods have.
func expectPoolsInNeutron(t *testing.T, stack string, api *operator, used int) {
	t.Helper()
	openstack := func(out any, args ...string) {
		text, _ := run(t, 0, append([]string{"cloud", "exec", "--", "openstack"}, append(args, "-f", "json")...)...)
		if err := json.Unmarshal([]byte(text), out); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "Neutron to have what the pools say", 2*time.Minute, func() string {
		pools, err := api.Pools(t.Context())
		if err != nil {
			return err.Error()
		}
		published, onTrunks, allocated := map[string]int{}, map[string]int{}, 0
		for _, p := range pools {
			for _, a := range p.Status.Allocations {
				if a.Namespace == "default" { // the cluster's DNS has some too
					allocated++
				}
			}
			for _, s := range p.Spec.Subports {
				published[s.Port] = s.VLAN
			}
			var subports []struct {
				Port string `json:"Port"`
				VLAN int    `json:"Segmentation ID"`
			}
			openstack(&subports, "network", "subport", "list", "--trunk", stack+"/"+p.Name)
			for _, s := range subports {
				onTrunks[s.Port] = s.VLAN
			}
		}
		ports := map[string]int{}
		for _, owner := range []string{"trunk:subport", ""} {
			var rows []struct {
				ID    string `json:"ID"`
				Owner string `json:"device_owner"`
			}
			openstack(&rows, "port", "list", "--network", stack+"/pod_net", "--device-owner", owner, "-c", "ID", "-c", "device_owner")
			for _, r := range rows {
				ports[r.ID] = onTrunks[r.ID]
			}
		}
		switch {
		case len(pools) != 2:
			return fmt.Sprintf("there are %d pools", len(pools))
		case allocated != used:
			return fmt.Sprintf("%d subports are allocated, want %d", allocated, used)
		case !maps.Equal(published, onTrunks):
			return fmt.Sprintf("published %v, on trunks %v", published, onTrunks)
		case !maps.Equal(published, ports):
			return fmt.Sprintf("published %v, ports %v", published, ports)
		}
		return ""
	})
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
		if out, err := exec.Command("gzip", "-dc", "../../bootstrap/payload/dist/kuryr-demo-linux-"+arch+".gz").Output(); err != nil || len(out) == 0 {
			t.Errorf("the demo for %s: %d bytes, %v", arch, len(out), err)
		}
	}
}

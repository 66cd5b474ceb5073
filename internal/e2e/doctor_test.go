//go:build e2e

package e2e

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
)

// finding is what `doctor -o json` promises.
type finding struct{ Check, Verdict, Whose, Answer, Do string }

// doctor runs doctor with -o json, by check.
func doctor(t *testing.T, want int, args ...string) map[string]finding {
	t.Helper()
	out, _ := run(t, want, append([]string{"--cloud", "lab", "doctor", "-o", "json"}, args...)...)
	var all []finding
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	found := map[string]finding{}
	for _, f := range all {
		found[f.Check] = f
	}
	return found
}

// doctorFindsNothing expects no problem, and no warning but of checks that may have one.
func doctorFindsNothing(t *testing.T, mayWarn []string, args ...string) {
	t.Helper()
	for check, f := range doctor(t, 0, args...) {
		if f.Verdict == "warning" && !slices.Contains(mayWarn, check) {
			t.Errorf("%+v", f)
		}
	}
}

// ofSpeed are the checks that warn when the machine of the lab is busy.
var ofSpeed = []string{"endpoints"}

// ofThePast are the checks that for a while warn of what has passed: kills, refusals, the first pods of a node.
var ofThePast = []string{"endpoints", "control-plane", "node-runtime", "pod-cloud", "pod-latency", "pod-starts"}

// client runs the stock client.
func client(t *testing.T, args ...string) string {
	t.Helper()
	out, _ := run(t, 0, append([]string{"cloud", "exec", "--", "openstack"}, args...)...)
	return strings.TrimSpace(out)
}

// doctorFindsFaults plants faults on a stack without Kubernetes by the stock client and expects doctor to name each, and a stack that was mended
// as doctor says to be well again. The stack keeps its shape.
func doctorFindsFaults(t *testing.T, stack string, declared ...string) {
	t.Helper()
	named := func(args ...string) []string { return append(append([]string{stack}, args...), declared...) }
	doctorFindsNothing(t, ofSpeed, named()...)

	if f := doctor(t, 3, "--image", "nope")["image"]; f.Verdict != "problem" || f.Whose != "you" || !strings.Contains(f.Answer, `"nope"`) {
		t.Errorf("a wrong image: %+v", f)
	}
	doctorFindsACutQuota(t)

	master, worker := stack+"/master-0", stack+"/worker-0"
	mtu := client(t, "network", "show", stack+"/vm_net", "-f", "value", "-c", "mtu")
	address := show(t, stack).FloatingIPs[0].Address
	client(t, "server", "stop", master)
	client(t, "floating", "ip", "unset", "--port", address)
	client(t, "port", "set", "--no-security-group", "--disable-port-security", worker)
	client(t, "network", "trunk", "set", "--disable", worker)
	client(t, "network", "set", "--mtu", "1300", stack+"/vm_net")
	client(t, "loadbalancer", "member", "delete", "--wait", stack+"/api-lb", master)
	twin := client(t, "network", "create", stack+"/pod_net", "-f", "value", "-c", "id")
	leaked := client(t, "port", "create", "--network", stack+"/vm_net", "--description", openstack.Mark(stack), stack+"/leaked", "-f", "value", "-c", "id")
	foreign := client(t, "port", "create", "--network", stack+"/vm_net", "somebody", "-f", "value", "-c", "id")
	t.Cleanup(func() { // what unstack would leave, or be stopped by
		exec.Command(kuryrctl(t), "cloud", "exec", "--", "openstack", "network", "delete", twin).Run()
		exec.Command(kuryrctl(t), "cloud", "exec", "--", "openstack", "port", "delete", leaked, foreign).Run()
	})

	var found map[string]finding
	eventually(t, "master-0 to be off", time.Minute, func() string {
		if found = doctor(t, 3, named()...); !strings.Contains(found["servers"].Answer, "SHUTOFF") {
			return found["servers"].Answer
		}
		return ""
	})
	for what, x := range map[string]struct{ check, verdict, whose, answer string }{
		"a server that was stopped":      {"servers", "problem", "you", "master-0: its server is SHUTOFF"},
		"a floating IP that leads away":  {"objects", "problem", "you", "fip.master-0 is absent"},
		"that floating IP itself":        {"leaks", "warning", "you", "fip " + address},
		"groups taken off a port":        {"objects", "problem", "you", "port.worker-0 is drifted lacks security group " + stack + "/nodes"},
		"port security that is off":      {"ports", "problem", "you", "port security is off"},
		"a trunk that is off":            {"ports", "problem", "you", "is switched off and takes no subports"},
		"a small MTU":                    {"networks", "problem", "the cloud", "does not fit into the 1300 of vm_net"},
		"a load balancer's member":       {"objects", "problem", "you", "loadbalancer.api-lb is drifted members are"},
		"a second network of one name":   {"names", "problem", "you", "network " + stack + "/pod_net is the name of 2, 1 of them the stack's"},
		"a port that was left behind":    {"leaks", "warning", "you", "port " + stack + "/leaked"},
		"somebody's port":                {"leaks", "warning", "you", "port somebody"},
		"a way in that is gone":          {"ssh", "problem", "you", "master-0: "},
		"what is not wrong: the login":   {"roles", "ok", "", "member"},
		"what is not wrong: the quotas":  {"quota", "ok", "", "enough"},
		"what is not wrong: the flavors": {"flavors", "ok", "", "m1."},
	} {
		if f := found[x.check]; f.Verdict != x.verdict || f.Whose != x.whose || !strings.Contains(f.Answer, x.answer) || f.Verdict != "ok" && f.Do == "" {
			t.Errorf("%s: got %+v, want %+v", what, f, x)
		}
	}

	client(t, "floating", "ip", "delete", address)
	client(t, "port", "set", "--enable-port-security", worker)
	client(t, "network", "trunk", "set", "--enable", worker)
	client(t, "network", "set", "--mtu", mtu, stack+"/vm_net")
	client(t, "network", "delete", twin)
	client(t, "port", "delete", leaked, foreign)
	run(t, 0, append([]string{"--cloud", "lab", "stack"}, named()...)...)
	doctorFindsNothing(t, ofSpeed, named()...)
}

// doctorFindsACutQuota takes away the room for one more router, and gives it back by the command that doctor says.
func doctorFindsACutQuota(t *testing.T) {
	t.Helper()
	const before = "10"
	admin := func(args ...string) { client(t, append([]string{"--os-cloud", "lab-admin"}, args...)...) }
	t.Cleanup(func() {
		exec.Command(kuryrctl(t), "cloud", "exec", "--", "openstack", "--os-cloud", "lab-admin", "quota", "set", "--routers", before, "demo").Run()
	})
	used := len(strings.Fields(client(t, "router", "list", "-f", "value", "-c", "ID")))
	admin("quota", "set", "--routers", strconv.Itoa(used), "demo") // Neutron takes nothing less
	f := doctor(t, 3)["quota"]
	_, mend, ok := strings.Cut(f.Do, "openstack ")
	if !ok || f.Verdict != "problem" || f.Whose != "your quota" || !strings.Contains(f.Answer, "router: 1 more are needed and 0 are free (limit ") {
		t.Fatalf("a cut quota: %+v", f)
	}
	admin(strings.Fields(mend)...)
	if f := doctor(t, 0)["quota"]; f.Verdict != "ok" {
		t.Errorf("after openstack %s: %+v", mend, f)
	}
}

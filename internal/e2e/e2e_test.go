//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kuryrctl/kuryrctl/bootstrap/cloud"
)

// kuryrctl is the binary under test, as `make build` leaves it.
func kuryrctl(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../../bin/kuryrctl")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("the binary is not built (make build): %v", err)
	}
	return path
}

// run runs kuryrctl on the lab cloud, and fails the test when the exit code is not want.
func run(t *testing.T, want int, args ...string) (stdout, stderr string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), kuryrctl(t), args...)
	var out, talk bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &talk
	begin := time.Now()
	err := cmd.Run()
	t.Logf("kuryrctl %s: exit code %d after %v", strings.Join(args, " "), cmd.ProcessState.ExitCode(), time.Since(begin).Round(100*time.Millisecond))
	if cmd.ProcessState.ExitCode() != want {
		t.Fatalf("%v, want exit code %d\n%s\n%s", err, want, out.String(), talk.String())
	}
	return out.String(), talk.String()
}

var calls = regexp.MustCompile(`API calls: (\d+) writes, (\d+) reads`)

// requests reads the number of API calls off the report of --timings.
func requests(t *testing.T, stderr string) (writes, reads int) {
	t.Helper()
	m := calls.FindStringSubmatch(stderr)
	if m == nil {
		t.Fatalf("no API calls in:\n%s", stderr)
	}
	writes, _ = strconv.Atoi(m[1])
	reads, _ = strconv.Atoi(m[2])
	return writes, reads
}

// openstackNames asks the stock client for everything of ours that it can list.
func openstackNames(t *testing.T, stack string) []string {
	t.Helper()
	var ours []string
	for _, list := range []string{
		"network list", "subnet list", "router list", "port list", "network trunk list", "security group list",
		"floating ip list --long", "server list", "loadbalancer list", "keypair list", "application credential list",
	} {
		out, _ := run(t, 0, append([]string{"cloud", "exec", "--", "openstack"}, append(strings.Fields(list), "-f", "json")...)...)
		var rows []map[string]any
		if err := json.Unmarshal([]byte(out), &rows); err != nil {
			t.Fatalf("openstack %s: %v\n%s", list, err, out)
		}
		for _, row := range rows {
			name, _ := row["Name"].(string)
			if name == "" {
				name, _ = row["name"].(string)
			}
			description, _ := row["Description"].(string)
			if strings.HasPrefix(name, stack+"/") || strings.HasPrefix(name, "kuryrctl-"+stack+"-") || strings.HasPrefix(description+" ", "kuryrctl stack="+stack+" ") {
				ours = append(ours, list+": "+name+description)
			}
		}
	}
	return ours
}

// view is what `show -o json` promises.
type view struct {
	Name, UUID string
	Nodes      []struct {
		Name, Role, Address string
		FloatingIP          string `json:"floating_ip"`
		ServerID            string `json:"server_id"`
		PortID              string `json:"port_id"`
		TrunkID             string `json:"trunk_id"`
	}
	Networks      []struct{ Name, ID, CIDR string }
	LoadBalancers []struct {
		VIP    string
		Status string `json:"provisioning_status"`
	} `json:"load_balancers"`
	FloatingIPs []struct{ Address string } `json:"floating_ips"`
}

func show(t *testing.T, stack string) (v view) {
	t.Helper()
	out, _ := run(t, 0, "--cloud", "lab", "show", stack, "-o", "json")
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// The life of a stack on a real OpenStack: built, idle, entered, removed, and nothing left.
func TestAStackLivesOnARealCloud(t *testing.T) {
	const stack = "e2e"
	lab := func(args ...string) []string { return append([]string{"--cloud", "lab"}, args...) }
	t.Cleanup(func() { exec.Command(kuryrctl(t), lab("unstack", stack, "--yes")...).Run() })

	run(t, 3, lab("plan", stack, "-f", "../../examples/minimal.yaml", "--kubernetes=false")...)
	_, talk := run(t, 0, lab("stack", stack, "-f", "../../examples/minimal.yaml", "--kubernetes=false", "--timings")...)
	writes, reads := requests(t, talk)
	if writes > 25 { // two for the lock, and one for each minute
		t.Errorf("building took %d writes; the budget is 25", writes)
	}
	t.Logf("building took %d writes and %d reads", writes, reads)

	v := show(t, stack)
	if len(v.Nodes) != 3 || len(v.Networks) != 3 || v.UUID == "" || len(v.LoadBalancers) != 1 || v.LoadBalancers[0].VIP != "172.30.0.1" || v.LoadBalancers[0].Status != "ACTIVE" || len(v.FloatingIPs) != 1 {
		t.Fatalf("show: %+v", v)
	}
	for _, n := range v.Nodes {
		if n.ServerID == "" || n.PortID == "" || (n.Role == "worker") != (n.TrunkID != "") {
			t.Errorf("node %+v", n)
		}
		out, _ := run(t, 0, lab("ssh", stack, n.Name, "--", "hostname; ip -4 -o address; sudo grep -rl OPENSSH.PRIVATE /var/lib/cloud; echo grep says $?")...)
		if !strings.HasPrefix(out, n.Name+"\n") || !strings.Contains(out, n.Address+"/") {
			t.Errorf("ssh %s: %q", n.Name, out)
		}
		if !strings.Contains(out, "grep says 1\n") { // it looked everywhere and found nothing
			t.Errorf("the host key that came in by user data is still on %s: %s", n.Name, out)
		}
	}
	run(t, 7, lab("ssh", stack, "worker-0", "--", "exit 7")...)

	_, talk = run(t, 0, lab("stack", stack, "-f", "../../examples/minimal.yaml", "--kubernetes=false", "--timings")...)
	if writes, reads := requests(t, talk); writes != 0 || reads > 12 {
		t.Errorf("an idle run made %d writes and %d reads", writes, reads)
	}
	run(t, 0, lab("plan", stack, "-f", "../../examples/minimal.yaml", "--kubernetes=false")...)
	doctorFindsFaults(t, stack, "-f", "../../examples/minimal.yaml", "--kubernetes=false")
	if ours := openstackNames(t, stack); len(ours) < 15 {
		t.Errorf("the stock client sees only %v", ours)
	}

	_, talk = run(t, 0, lab("unstack", stack, "--yes", "--timings")...)
	writes, reads = requests(t, talk)
	t.Logf("removing took %d writes and %d reads", writes, reads)
	if left := openstackNames(t, stack); len(left) > 0 {
		t.Errorf("left in the cloud:\n%s", strings.Join(left, "\n"))
	}
}

// A run that is killed at any moment leaves nothing that the next run does not find, and nothing twice.
func TestAKilledRunIsResumed(t *testing.T) {
	const stack = "e2e-killed"
	lab := func(args ...string) []string { return append([]string{"--cloud", "lab"}, args...) }
	t.Cleanup(func() { exec.Command(kuryrctl(t), lab("unstack", stack, "--yes")...).Run() })
	args := lab("stack", stack, "--workers", "1", "--kubernetes=false", "--progress", "json")

	for _, at := range []string{`"network.pod"`, `"trunk.worker-0"`, `"loadbalancer.api-lb"`} {
		killAt(t, at, 0, args...)
	}
	// The lock that the last of them left keeps everybody else out; here it is known that its holder is dead.
	other := exec.CommandContext(t.Context(), kuryrctl(t), lab("unstack", stack, "--yes")...)
	other.Env = append(os.Environ(), "XDG_STATE_HOME="+elsewhere(t))
	if out, _ := other.CombinedOutput(); other.ProcessState.ExitCode() != 6 || !strings.Contains(string(out), stack+" is being changed by ") {
		t.Errorf("somebody else's unstack ended with %d: %s", other.ProcessState.ExitCode(), out)
	}
	run(t, 0, args...)
	v := show(t, stack)
	if len(v.Nodes) != 2 || len(v.Networks) != 3 || len(v.LoadBalancers) != 1 || len(v.FloatingIPs) != 1 {
		t.Errorf("after three kills: %+v", v)
	}
	run(t, 0, lab("plan", stack, "--workers", "1", "--kubernetes=false")...)
	run(t, 0, lab("unstack", stack, "--yes")...)
	if left := openstackNames(t, stack); len(left) > 0 {
		t.Errorf("left in the cloud:\n%s", strings.Join(left, "\n"))
	}
}

// elsewhere is the state of another operator, who knows no stack, and the same lab cloud.
func elsewhere(t *testing.T) string {
	t.Helper()
	lab, err := cloud.Default()
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	if err := os.Mkdir(filepath.Join(home, "kuryrctl"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Dir(lab.CloudsYAML()), filepath.Join(home, "kuryrctl", "cloud")); err != nil {
		t.Fatal(err)
	}
	return home
}

// killAt runs kuryrctl until its standard error has a text and some time has gone by since, and kills it.
func killAt(t *testing.T, at string, after time.Duration, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), kuryrctl(t), args...)
	talk := &watcher{until: at, found: make(chan struct{})}
	cmd.Stderr = talk
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-talk.found:
	case err := <-ended:
		t.Fatalf("ended before %s: %v\n%s", at, err, talk.text.String())
	}
	select {
	case <-time.After(after):
	case err := <-ended:
		t.Fatalf("ended within %v of %s: %v\n%s", after, at, err, talk.text.String())
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-ended
	t.Logf("killed %v after %s", after, at)
}

// watcher closes found when the text has gone by that it waits for.
type watcher struct {
	until string
	found chan struct{}
	text  bytes.Buffer
	seen  bool
}

func (w *watcher) Write(p []byte) (int, error) {
	w.text.Write(p)
	if !w.seen && strings.Contains(w.text.String(), w.until) {
		w.seen = true
		close(w.found)
	}
	return len(p), nil
}

//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// A cloud whose Neutron and Octavia are killed while a stack is made, and while it is removed, is no reason to stop: they come back.
func TestServicesAreKilledDuringAStackAndDuringUnstack(t *testing.T) {
	const stack = "e2e-trouble"
	lab := func(args ...string) []string { return append([]string{"--cloud", "lab"}, args...) }
	t.Cleanup(func() { exec.Command(kuryrctl(t), lab("unstack", stack, "--yes")...).Run() })
	declared := []string{stack, "--workers", "1", "--kubernetes=false"}
	kill := func(name string) func(*exec.Cmd) {
		return func(*exec.Cmd) {
			if !killService(t, name) {
				t.Errorf("%s was not killed", name)
			}
		}
	}
	// Octavia loses what it is doing when it is killed, and only its operator can end that. So it dies when it does nothing, and kuryrctl finds it away.
	meanwhile := func(hook func(*exec.Cmd)) func(*exec.Cmd) {
		return func(cmd *exec.Cmd) {
			_ = cmd.Process.Signal(syscall.SIGSTOP)
			hook(cmd)
			_ = cmd.Process.Signal(syscall.SIGCONT)
		}
	}

	during(t, 0, map[string]func(*exec.Cmd){
		`"network.pod"`:       kill("neutron"),
		`"interface.service"`: meanwhile(kill("octavia")),
	}, lab(append([]string{"stack", "--progress", "json"}, declared...)...)...)
	run(t, 0, lab(append([]string{"plan"}, declared...)...)...)
	if v := show(t, stack); len(v.Nodes) != 2 || len(v.Networks) != 3 || len(v.LoadBalancers) != 1 || len(v.FloatingIPs) != 1 {
		t.Errorf("made under trouble: %+v", v)
	}
	seen := map[string]bool{}
	for _, name := range openstackNames(t, stack) {
		if seen[name] && !strings.HasPrefix(name, "port list: ") { // a port of a virtual address has the same name as none
			t.Errorf("twice: %s", name)
		}
		seen[name] = true
	}

	during(t, 0, map[string]func(*exec.Cmd){
		"fip ":   meanwhile(kill("octavia")), // the first to go
		"trunk ": kill("neutron"),
	}, lab("unstack", stack, "--yes", "--progress", "json")...)
	if left := openstackNames(t, stack); len(left) > 0 {
		t.Errorf("left in the cloud:\n%s", strings.Join(left, "\n"))
	}
}

// killService kills a service of the cloud with all its processes, and reports whether there was one.
func killService(t *testing.T, name string) bool {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), kuryrctl(t), "cloud", "status", "-o", "json").Output()
	if err != nil {
		t.Errorf("looking for %s: %v", name, err)
		return false
	}
	var status struct {
		Services []struct {
			Name string
			PID  int
		}
	}
	if err := json.Unmarshal(out, &status); err != nil {
		t.Errorf("looking for %s: %v", name, err)
		return false
	}
	for _, u := range status.Services {
		if u.Name != name || u.PID == 0 {
			continue
		}
		err := exec.CommandContext(t.Context(), kuryrctl(t), "cloud", "exec", "--", "sh", "-c", fmt.Sprintf("kill -9 -%d", u.PID)).Run()
		return err == nil
	}
	return false
}

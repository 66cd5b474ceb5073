//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A quota that is cut after kuryrctl found it large enough is told as one that is too small, and what was made until then is gone on from.
func TestAQuotaIsCutInTheMiddle(t *testing.T) {
	const stack = "e2e-quota"
	lab := func(args ...string) []string { return append([]string{"--cloud", "lab"}, args...) }
	t.Cleanup(func() { exec.Command(kuryrctl(t), lab("unstack", stack, "--yes")...).Run() })
	var quotas []struct {
		Resource string
		Limit    int
	}
	out := client(t, "--os-cloud", "lab-admin", "quota", "show", "--compute", "demo", "-f", "json")
	if err := json.Unmarshal([]byte(out), &quotas); err != nil {
		t.Fatal(err)
	}
	limit := ""
	for _, q := range quotas {
		if q.Resource == "instances" {
			limit = strconv.Itoa(q.Limit)
		}
	}
	instances := func(n string) error {
		return exec.Command(kuryrctl(t), "cloud", "exec", "--", "openstack", "--os-cloud", "lab-admin", "quota", "set", "--instances", n, "demo").Run()
	}
	t.Cleanup(func() { _ = instances(limit) })
	servers := len(strings.Fields(client(t, "server", "list", "-f", "value", "-c", "ID")))
	declared := lab("stack", stack, "--workers", "1", "--kubernetes=false", "--progress", "json")

	talk := during(t, 5, map[string]func(*exec.Cmd){
		`"network.pod"`: func(cmd *exec.Cmd) {
			_ = cmd.Process.Signal(syscall.SIGSTOP) // it waits meanwhile
			if err := instances(fmt.Sprint(servers + 1)); err != nil {
				t.Errorf("cutting the quota: %v", err)
			}
			_ = cmd.Process.Signal(syscall.SIGCONT)
		},
	}, declared...)
	if !strings.Contains(talk, "instances") || !strings.Contains(strings.ToLower(talk), "quota") {
		t.Errorf("a cut quota is told as\n%s", talk)
	}
	// Nova refused the second server at once, and its room is missed before the first write; or it took it, counted once more, and refuses its replacement.
	_, talk = run(t, 5, declared...)
	if !strings.Contains(talk, "openstack quota set --instances") && !strings.Contains(talk, "ask for more (`openstack quota show`") {
		t.Errorf("the next run is refused with\n%s", talk)
	}
	if err := instances(limit); err != nil {
		t.Fatal(err)
	}
	run(t, 0, declared...)
	if v := show(t, stack); len(v.Nodes) != 2 || len(v.Networks) != 3 || len(v.LoadBalancers) != 1 || len(v.FloatingIPs) != 1 {
		t.Errorf("after the quota was raised: %+v", v)
	}
	run(t, 0, lab("unstack", stack, "--yes")...)
	if left := openstackNames(t, stack); len(left) > 0 {
		t.Errorf("left in the cloud:\n%s", strings.Join(left, "\n"))
	}
}

// during runs kuryrctl and calls each hook once, when its text has gone by on standard error, which it returns.
func during(t *testing.T, want int, hooks map[string]func(*exec.Cmd), args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), kuryrctl(t), args...)
	w := &hooked{cmd: cmd, hooks: hooks}
	cmd.Stderr = w
	begin := time.Now()
	err := cmd.Run()
	w.running.Wait()
	t.Logf("kuryrctl %s: exit code %d after %v", strings.Join(args, " "), cmd.ProcessState.ExitCode(), time.Since(begin).Round(100*time.Millisecond))
	if cmd.ProcessState.ExitCode() != want {
		t.Fatalf("%v, want exit code %d\n%s", err, want, w.text.String())
	}
	for text := range hooks {
		t.Errorf("%s never went by in\n%s", text, w.text.String())
	}
	return w.text.String()
}

// hooked is where a command's standard error goes. A hook runs beside the command.
type hooked struct {
	cmd     *exec.Cmd
	hooks   map[string]func(*exec.Cmd)
	running sync.WaitGroup
	text    bytes.Buffer
}

func (w *hooked) Write(p []byte) (int, error) {
	w.text.Write(p)
	for text, hook := range w.hooks {
		if bytes.Contains(w.text.Bytes(), []byte(text)) {
			delete(w.hooks, text)
			w.running.Go(func() { hook(w.cmd) })
		}
	}
	return len(p), nil
}

//go:build e2e

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	sdk "github.com/kuryrctl/kuryrctl/stack"
)

// named is a lab file with its names in a domain of the lab's name server.
func named(t *testing.T, file, domain string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "lab.yaml")
	text = append(regexp.MustCompile(`(?m)^dns_domain:.*$`).ReplaceAll(text, nil), "\ndns_domain: "+domain+"\ndns: {update: {server: 172.24.4.2, key_file: ~/.local/state/kuryrctl/cloud/names.key}}\n"...)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// dig asks the lab's name server, with the stock program.
func dig(t *testing.T, name string) string {
	t.Helper()
	out, _ := run(t, 0, "cloud", "exec", "--", "dig", "+short", "@172.24.4.2", name, "A")
	return strings.TrimSpace(out)
}

// exampleLives runs the deployment example, whose names must lead to the router.
func exampleLives(t *testing.T, stack, domain string) {
	t.Helper()
	out, _ := run(t, 0, "--cloud", "lab", "demo", stack, "-o", "json")
	var steps []sdk.DemoStep
	if err := json.Unmarshal([]byte(out), &steps); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, step := range steps {
		t.Logf("%-22s %5.1f s  %s", step.Step, step.Seconds, step.Saw)
		if step.Step == "route by name" && !strings.Contains(step.Saw, dig(t, "demo.apps."+domain)+" by ") {
			t.Errorf("dig finds %q, the example %q", dig(t, "demo.apps."+domain), step.Saw)
		}
	}
	if len(steps) != 10 {
		t.Errorf("the example had %d steps", len(steps))
	}
}

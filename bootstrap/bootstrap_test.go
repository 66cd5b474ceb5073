package bootstrap_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/internal/sshtest"
)

func TestFromNothingToAClusterOnEverySystem(t *testing.T) {
	for _, system := range sshtest.AllOS() {
		t.Run(string(system), func(t *testing.T) {
			t.Parallel()
			l := newLab(t, system, 1, 1)
			l.up()
			for name, want := range map[string]string{"master-0": "init begun, init complete", "worker-0": "join begun, join complete"} {
				if got := l.ended(name); got != want {
					t.Errorf("kubeadm on %s: %s", name, got)
				}
			}
			if _, ok := l.api.Node("worker-0"); !ok {
				t.Error("worker-0 is no node")
			}

			// Once more there is nothing to do.
			before, calls := l.files("worker-0"), len(l.hosts.Host("worker-0").Calls())
			r := l.up()
			for key, kind := range r.events {
				if kind != graph.Unchanged {
					t.Errorf("%s is %s again: %s", key, kind, r.found[key])
				}
			}
			if diff := cmp.Diff(before, l.files("worker-0")); diff != "" {
				t.Error(diff)
			}
			for _, call := range l.hosts.Host("worker-0").Calls()[calls:] {
				if words := strings.Fields(call); !slices.Contains([]string{"uname", "systemctl", "ctr", "systemd-detect-virt"}, words[0]) ||
					words[0] == "systemctl" && !strings.HasPrefix(words[1], "is-") {
					t.Errorf("the second run calls %s", call)
				}
			}
		})
	}
}

package bootstrap_test

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kuryrctl/kuryrctl/internal/clustertest"
	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/internal/sshtest"
)

func TestDriftIsFoundAndRepaired(t *testing.T) {
	t.Parallel()
	l := newLab(t, sshtest.Debian13, 1, 0)
	l.up()
	const host = "master-0"
	whole := l.files(host)
	add := func(name, text string) func() { return func() { l.write(host, name, l.read(host, name)+text) } }
	set := func(name, text string) func() { return func() { l.write(host, name, text) } }
	remove := func(name string) func() { return func() { l.must(os.Remove(l.path(host, name))) } }
	for _, x := range []struct {
		name  string
		drift func()
		key   graph.Key
		found string
		after func() bool
	}{
		{"a deleted binary", remove("usr/local/bin/kubelet"), "software.master-0", "/usr/local/bin/kubelet is missing", nil},
		{"an empty binary", set("usr/local/bin/runc", ""), "software.master-0", "/usr/local/bin/runc is missing", nil},
		{"a changed file", add("etc/sysctl.d/99-kuryrctl.conf", "vm.swappiness = 1\n"), "system.master-0", "/etc/sysctl.d/99-kuryrctl.conf: FAILED", nil},
		{"a changed mode", func() { l.must(os.Chmod(l.path(host, "etc/modules-load.d/kuryrctl.conf"), 0o777)) }, "system.master-0", "other modes", nil},
		{"a changed setting", set("proc/sys/net/ipv4/ip_forward", "0\n"), "system.master-0", "/proc/sys/net/ipv4/ip_forward is not 1",
			func() bool { return l.read(host, "proc/sys/net/ipv4/ip_forward") == "1\n" }},
		{"swap", add("proc/swaps", "/swapfile file 1048572 0 -2\n"), "system.master-0", "it swaps to /swapfile",
			func() bool { return !strings.Contains(l.read(host, "proc/swaps"), "/swapfile") }},
		{"a stopped containerd", set("var/lib/sshtest/active/containerd.service", "inactive\n"), "runtime.master-0", "containerd does not run",
			func() bool { return l.read(host, "var/lib/sshtest/active/containerd.service") == "active\n" }},
		{"a disabled kubelet", remove("var/lib/sshtest/enabled/kubelet.service"), "runtime.master-0", "would not start at boot",
			func() bool { return l.has(host, "var/lib/sshtest/enabled/kubelet.service") }},
		{"an overwritten config", set("etc/containerd/config.toml", "version = 2\n"), "runtime.master-0", "/etc/containerd/config.toml: FAILED", nil},
		{"a removed image", func() {
			list := "var/lib/containerd/images"
			lines := strings.SplitAfter(l.read(host, list), "\n")
			l.write(host, list, strings.Join(lines[1:], ""))
		}, "images.master-0", "is not there", nil},
		{"a stopped kubelet", set("var/lib/sshtest/active/kubelet.service", "failed\n"), "control-plane.master-0", "kubelet does not run",
			func() bool { return l.read(host, "var/lib/sshtest/active/kubelet.service") == "active\n" }},
		{"a lost kubeconfig", func() { l.must(os.Remove(l.dir + "/kubeconfig")) }, "kubeconfig", "not fetched", nil},
		{"another cluster's kubeconfig", func() { l.must(os.WriteFile(l.dir+"/kubeconfig", clustertest.New(t).Kubeconfig(), 0o600)) }, "kubeconfig", "certificate", nil},
	} {
		x.drift()
		r := l.up()
		for key, kind := range r.events {
			want := graph.Unchanged
			if key == x.key {
				want = graph.Done
			}
			if kind != want {
				t.Errorf("%s: %s is %s, want %s", x.name, key, kind, want)
			}
		}
		if !strings.Contains(r.found[x.key], x.found) {
			t.Errorf("%s: found %q, want %q", x.name, r.found[x.key], x.found)
		}
		if x.after != nil && !x.after() {
			t.Errorf("%s: it is not repaired", x.name)
		}
		if diff := cmp.Diff(whole, l.files(host)); diff != "" {
			t.Errorf("%s: %s", x.name, diff)
		}
	}
	if got := l.ended(host); got != "init begun, init complete" {
		t.Errorf("kubeadm: %s", got)
	}
}

//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A cloud that has more than the plainest one: a zone, an image known by what it is, a second external network, the operator's own security group,
// metadata on a disk, and servers to be kept apart, for which it has too few hypervisors.
func TestACloudAsItIs(t *testing.T) {
	const stack, extra = "e2e-placed", "e2e-zone"
	lab := func(args ...string) []string { return append([]string{"--cloud", "lab"}, args...) }
	admin := func(args ...string) string { return client(t, append([]string{"--os-cloud", "lab-admin"}, args...)...) }
	undo := func(args ...string) { // in the end, and now, if a test that was killed has left it
		again := append([]string{"cloud", "exec", "--", "openstack"}, args...)
		_ = exec.Command(kuryrctl(t), again...).Run()
		t.Cleanup(func() {
			if out, err := exec.Command(kuryrctl(t), again...).CombinedOutput(); err != nil {
				t.Errorf("cleaning up, %v: %v: %s", args, err, out)
			}
		})
	}
	zone := "nova" // where every host is; Nova puts none into another that has servers
	if admin("server", "list", "--all-projects", "-f", "value") == "" {
		zone = extra
		host := admin("compute", "service", "list", "--service", "nova-compute", "-f", "value", "-c", "Host")
		undo("--os-cloud", "lab-admin", "aggregate", "delete", zone)
		undo("--os-cloud", "lab-admin", "aggregate", "remove", "host", zone, host)
		_ = exec.Command(kuryrctl(t), "cloud", "exec", "--", "openstack", "--os-cloud", "lab-admin", "aggregate", "delete", zone).Run()
		admin("aggregate", "create", "--zone", zone, zone)
		admin("aggregate", "add", "host", zone, host)
	}
	undo("--os-cloud", "lab-admin", "network", "delete", extra)
	admin("network", "create", "--external", extra)
	undo("--os-cloud", "lab-admin", "image", "unset", "--property", "e2e_purpose", "debian-13")
	admin("image", "set", "--property", "e2e_purpose=nodes", "debian-13")
	undo("security", "group", "delete", extra)
	client(t, "security", "group", "create", extra)
	t.Cleanup(func() { exec.Command(kuryrctl(t), lab("unstack", stack, "--yes")...).Run() })

	declared := func(zone, policy, workers string) []string {
		path := filepath.Join(t.TempDir(), "lab.yaml")
		if err := os.WriteFile(path, fmt.Appendf(nil, `
image: e2e_purpose=nodes
config_drive: true
masters: {count: 1, flavor: m1.medium, availability_zones: [%[1]s]}
workers: {count: 2, flavor: m1.small, availability_zones: [%[1]s], server_group_policy: %[2]s, security_groups: [e2e-zone]%[3]s}
`, zone, policy, workers), 0o600); err != nil {
			t.Fatal(err)
		}
		return []string{stack, "-f", path, "--kubernetes=false"}
	}
	for _, refused := range []struct{ zone, workers, says string }{
		{"nowhere", "", "nowhere"},
		{zone, ", root_volume: {size: 20}", "the cloud has no Cinder"},
	} {
		out, talk := run(t, 1, lab(append([]string{"stack"}, declared(refused.zone, "soft-anti-affinity", refused.workers)...)...)...)
		if !strings.Contains(out+talk, refused.says) {
			t.Errorf("what this cloud does not have is refused without a word of %q:\n%s%s", refused.says, out, talk)
		}
		if made := openstackNames(t, stack); len(made) > 0 {
			t.Fatalf("made before it was refused: %v", made)
		}
	}

	// Nova has one hypervisor: who must not share one finds none.
	_, talk := run(t, 1, lab(append([]string{"stack"}, declared(zone, "anti-affinity", "")...)...)...)
	if !strings.Contains(talk, "No valid host") {
		t.Errorf("servers that must be kept apart, on one hypervisor:\n%s", talk)
	}
	run(t, 0, lab("unstack", stack, "--yes")...)

	soft := declared(zone, "soft-anti-affinity", "")
	run(t, 0, lab(append([]string{"stack"}, soft...)...)...)
	run(t, 0, lab(append([]string{"plan"}, soft...)...)...)
	for _, node := range show(t, stack).Nodes {
		server := fields(t, "server", "show", node.ServerID)
		if server["OS-EXT-AZ:availability_zone"] != zone || server["config_drive"] != "True" || !strings.Contains(fmt.Sprint(server["image"]), "debian-13") {
			t.Errorf("%s: %v", node.Name, server)
		}
		groups := fmt.Sprint(fields(t, "port", "show", node.PortID)["security_group_ids"])
		own := fmt.Sprint(fields(t, "security", "group", "show", extra)["id"])
		if strings.Contains(groups, own) != (node.Role == "worker") {
			t.Errorf("%s has the security groups %s; the operator's is %s", node.Name, groups, own)
		}
		if out, _ := run(t, 0, lab("ssh", stack, node.Name, "--", "sudo blkid -L config-2; cloud-init query platform")...); !strings.Contains(out, "/dev/") {
			t.Errorf("%s has no disk with metadata: %q", node.Name, out)
		}
	}
	group := fields(t, "server", "group", "show", "kuryrctl-"+stack+"-worker")
	if members, _ := group["members"].([]any); len(members) != 2 || group["policy"] != "soft-anti-affinity" {
		t.Errorf("the server group is %v", group)
	}
	if f := doctor(t, 0, soft...)["placement"]; f.Verdict != "warning" || !strings.Contains(f.Answer, "one hypervisor") {
		t.Errorf("doctor says %+v of two servers on one hypervisor", f)
	}

	run(t, 0, lab("unstack", stack, "--yes")...)
	if left := openstackNames(t, stack); len(left) > 0 {
		t.Errorf("left in the cloud:\n%s", strings.Join(left, "\n"))
	}
	if groups := client(t, "server", "group", "list", "-f", "value", "-c", "Name"); slices.Contains(strings.Fields(groups), "kuryrctl-"+stack+"-worker") {
		t.Errorf("left in the cloud: %s", groups)
	}
	fields(t, "security", "group", "show", extra) // it is not the stack's to remove
}

// fields is what the stock client shows of one object.
func fields(t *testing.T, show ...string) (all map[string]any) {
	t.Helper()
	out := client(t, append(show, "-f", "json")...)
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatalf("%v: %v\n%s", show, err, out)
	}
	return all
}

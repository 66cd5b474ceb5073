//go:build e2e

package cloud

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/attachinterfaces"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"

	"github.com/kuryrctl/kuryrctl/internal/wait"
)

// started is the last word of a guest that has started: cloud-init ends with it.
const started = "finished at"

func TestServersLeaveNothing(t *testing.T) {
	n := newTenant(t, usersLab(t))
	for cycle := range 3 {
		a, b := n.boot("e2e-a"), n.boot("e2e-b")
		n.await(a, "ACTIVE")
		n.await(b, "ACTIVE")
		if n.traces(a) == "" {
			t.Fatalf("cycle %d: a running server has no traces: the test looks in the wrong places", cycle)
		}
		switch cycle {
		case 0: // deleted while they boot
		case 1:
			n.stopAndStart(a)
			if err := servers.Reboot(t.Context(), n.compute, b.id, servers.RebootOpts{Type: servers.HardReboot}).ExtractErr(); err != nil {
				t.Fatal(err)
			}
			n.await(b, "ACTIVE")
		case 2:
			n.crash(a)
			n.await(a, "SHUTOFF")
		}
		n.remove(a)
		n.remove(b)
	}
}

func (n *tenant) stopAndStart(g guest) {
	n.Helper()
	if err := servers.Stop(n.Context(), n.compute, g.id).ExtractErr(); err != nil {
		n.Fatal(err)
	}
	n.await(g, "SHUTOFF")
	if left := n.inside("sh", "-c", `ps -eo args | grep "umid=$0" | grep -v grep; true`, g.id); left != "" {
		n.Errorf("server %s is stopped and runs:\n%s", g.name, left)
	}
	if err := servers.Start(n.Context(), n.compute, g.id).ExtractErr(); err != nil {
		n.Fatal(err)
	}
	n.await(g, "ACTIVE")
}

// crash kills the outer process, as the kernel would for want of memory.
func (n *tenant) crash(g guest) {
	n.Helper()
	n.inside("sh", "-c", `kill -9 "$(cat "/var/lib/nova/instances/$0/pid")"`, g.id)
}

// TestGuestsRebootAndPowerOff settles what a guest does to itself: Nova must learn of it, and its tap must be free again.
func TestGuestsRebootAndPowerOff(t *testing.T) {
	n := newTenant(t, usersLab(t))
	g := n.boot("e2e-reboot")
	defer n.remove(g)
	n.await(g, "ACTIVE")
	n.console(g, started)
	before := n.bootPID(g)
	// Ctrl-Alt-Del is what a guest's own reboot comes to: systemd stops everything and asks the kernel to restart.
	n.inside("python3", "-c", `import socket,struct,sys
s=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM); s.bind(""); c=b"cad"
s.sendto(struct.pack("=III512s",0xcafebabe,2,len(c),c),"/run/uml/"+sys.argv[1]+"/mconsole"); s.recv(4096)`, g.id)
	await(t, "a new process", func() bool { pid := n.bootPID(g); return pid != "" && pid != before })
	n.console(g, started)
	n.await(g, "ACTIVE")

	if err := servers.Reboot(t.Context(), n.compute, g.id, servers.RebootOpts{Type: servers.SoftReboot}).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	n.await(g, "ACTIVE")
	n.console(g, started)
	if log := n.inside("cat", "/var/lib/nova/instances/"+g.id+"/console.log"); strings.Contains(log, "busy") {
		t.Errorf("a restart found its tap busy:\n%s", log)
	}
}

func (n *tenant) bootPID(g guest) string {
	n.Helper()
	return strings.TrimSpace(n.inside("sh", "-c", `p=$(cat "/var/lib/nova/instances/$0/pid"); grep -q "umid=$0" "/proc/$p/cmdline" && echo $p; true`, g.id))
}

func TestInterfacesComeAndGo(t *testing.T) {
	n := newTenant(t, usersLab(t))
	g := n.boot("e2e-nics")
	defer n.remove(g)
	n.await(g, "ACTIVE")
	n.console(g, started)
	extra := must(ports.Create(t.Context(), n.network, ports.CreateOpts{Name: "e2e-extra", NetworkID: n.networkID}).Extract())(t)
	must(attachinterfaces.Create(t.Context(), n.compute, g.id, attachinterfaces.CreateOpts{PortID: extra.ID}).Extract())(t)
	wired := func() bool {
		return strings.Contains(n.inside("ovs-vsctl", "--bare", "--columns=name", "find", "interface", "external_ids:iface-id="+extra.ID), "tap")
	}
	if !wired() {
		t.Fatal("the attached port is not on the bridge")
	}
	if err := attachinterfaces.Delete(t.Context(), n.compute, g.id, extra.ID).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	await(t, "the detached port to leave the bridge", func() bool { return !wired() })
	n.stopAndStart(g)
	if left := n.inside("sh", "-c", `ip -o link | grep "$(printf %.11s "$0")"; true`, extra.ID); left != "" {
		t.Errorf("a detached interface has left after a restart:\n%s", left)
	}
	if err := ports.Delete(t.Context(), n.network, extra.ID).ExtractErr(); err != nil {
		t.Fatal(err)
	}
}

// TestEmulation runs a server of the same image the slow way.
func TestEmulation(t *testing.T) {
	l := second(t)
	defer gone(t, l)
	if err := l.Up(t.Context(), UpOptions{Virt: QEMU}, nil); err != nil {
		t.Fatal(err)
	}
	t.Run("a server starts", func(t *testing.T) {
		n := newTenant(t, l)
		g := n.boot("e2e-qemu")
		defer n.remove(g)
		n.await(g, "ACTIVE")
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		err := wait.For(ctx, "cloud-init of "+g.name, 2*time.Second, func(ctx context.Context) (string, bool, error) {
			out, err := servers.ShowConsoleOutput(ctx, n.compute, g.id, servers.ShowConsoleOutputOpts{}).Extract()
			return fmt.Sprintf("%d bytes of console", len(out)), strings.Contains(out, started), err
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

//go:build e2e

package cloud

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/flavors"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/trunks"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/subnets"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/internal/wait"
)

// TestMain lets the test binary stand in for kuryrctl, which is what a lab's first process is started from.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "cloud" && os.Args[2] == "supervise" {
		os.Exit(superviseMain(os.Args[3]))
	}
	if dir := os.Getenv("KURYRCTL_E2E_UP"); dir != "" {
		os.Exit(upMain(dir))
	}
	os.Exit(m.Run())
}

// tenant is the user demo's view of the running lab, through the lab's own clouds.yaml and dialer.
type tenant struct {
	*testing.T
	lab                      *Lab
	compute, network, glance *gophercloud.ServiceClient
	networkID, flavor, image string
}

func newTenant(t *testing.T, lab *Lab) *tenant {
	t.Helper()
	status, err := lab.Status(t.Context())
	if err != nil || !status.Ready {
		t.Fatalf("these tests need a lab that is up (kuryrctl cloud up): %+v, %v", status, err)
	}
	cloud, err := openstack.Connect(t.Context(), openstack.Options{File: lab.CloudsYAML(), Cloud: "lab", Dial: lab.DialContext})
	if err != nil {
		t.Fatal(err)
	}
	n := &tenant{T: t, lab: lab}
	n.compute = must(cloud.Compute())(t)
	n.network = must(cloud.Network())(t)
	n.glance = must(cloud.Image())(t)
	for _, f := range must(flavors.ExtractFlavors(must(flavors.ListDetail(n.compute, nil).AllPages(t.Context()))(t)))(t) {
		if f.Name == "m1.small" {
			n.flavor = f.ID
		}
	}
	found := must(images.ExtractImages(must(images.List(n.glance, images.ListOpts{Name: imageName}).AllPages(t.Context()))(t)))(t)
	if len(found) != 1 || n.flavor == "" {
		t.Fatalf("want one image %s and flavor m1.small, got %d and %q", imageName, len(found), n.flavor)
	}
	n.image = found[0].ID
	net := must(networks.Create(t.Context(), n.network, networks.CreateOpts{Name: "e2e-driver"}).Extract())(t)
	n.networkID = net.ID
	t.Cleanup(func() {
		if err := networks.Delete(context.WithoutCancel(t.Context()), n.network, net.ID).ExtractErr(); err != nil {
			t.Errorf("deleting the test's network: %v", err)
		}
	})
	must(subnets.Create(t.Context(), n.network, subnets.CreateOpts{NetworkID: net.ID, IPVersion: gophercloud.IPv4, CIDR: "10.77.0.0/24"}).Extract())(t)
	return n
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// usersLab is the one that `kuryrctl cloud up` has started.
func usersLab(t *testing.T) *Lab {
	t.Helper()
	return must(Default())(t)
}

// guest is a server with its port, on a trunk.
type guest struct{ name, id, port, trunk string }

func (n *tenant) boot(name string) guest {
	n.Helper()
	ctx := n.Context()
	port := must(ports.Create(ctx, n.network, ports.CreateOpts{Name: name, NetworkID: n.networkID}).Extract())(n.T)
	trunk := must(trunks.Create(ctx, n.network, trunks.CreateOpts{Name: name, PortID: port.ID}).Extract())(n.T)
	s := must(servers.Create(ctx, n.compute, servers.CreateOpts{Name: name, FlavorRef: n.flavor, ImageRef: n.image,
		Networks: []servers.Network{{Port: port.ID}}}, nil).Extract())(n.T)
	return guest{name, s.ID, port.ID, trunk.ID}
}

func (n *tenant) await(g guest, want string) {
	n.Helper()
	ctx, cancel := context.WithTimeout(n.Context(), 3*time.Minute)
	defer cancel()
	err := wait.For(ctx, "server "+g.name+" to become "+want, 500*time.Millisecond, func(ctx context.Context) (string, bool, error) {
		s, err := servers.Get(ctx, n.compute, g.id).Extract()
		if want == "gone" && gophercloud.ResponseCodeIs(err, http.StatusNotFound) {
			return "", true, nil
		}
		if err != nil {
			return "", false, err
		}
		if s.Status == "ERROR" {
			return "", false, fmt.Errorf("ERROR: %s", s.Fault.Message)
		}
		return s.Status, s.Status == want, nil
	})
	if err != nil {
		n.Fatal(err)
	}
}

// console waits until the guest's console, since its last start, holds text.
func (n *tenant) console(g guest, text string) {
	n.Helper()
	ctx, cancel := context.WithTimeout(n.Context(), 2*time.Minute)
	defer cancel()
	err := wait.For(ctx, text+" on the console of "+g.name, time.Second, func(ctx context.Context) (string, bool, error) {
		out := n.inside("python3", "-c", `import json,sys
d="/var/lib/nova/instances/"+sys.argv[1]
f=open(d+"/console.log","rb"); f.seek(json.load(open(d+"/boot.json"))["console"]); sys.stdout.buffer.write(f.read())`, g.id)
		return fmt.Sprintf("%d bytes", len(out)), strings.Contains(out, text), nil
	})
	if err != nil {
		n.Fatal(err)
	}
}

// inside runs a command in the lab and returns what it prints.
func (n *tenant) inside(argv ...string) string {
	n.Helper()
	var out, errs bytes.Buffer
	code, err := n.lab.Exec(n.Context(), argv, nil, &out, &errs)
	if err != nil || code != 0 {
		n.Fatalf("%q: exit code %d, %v: %s", argv, code, err, errs.String())
	}
	return out.String()
}

// traces lists everything in the lab that belongs to a guest.
func (n *tenant) traces(g guest) string {
	n.Helper()
	return n.inside("sh", "-c", `
ps -eo pid,args | grep "umid=$0" | grep -v grep
ip -o link | grep -e "${1%%????????-????-*}" | grep -e "um[tv]\|tap" | grep -e "$(printf %.11s "$1")"
ovs-vsctl --bare --columns=name find interface "external_ids:vm-uuid=$0"
ls -d "/var/lib/nova/instances/$0" "/run/uml/$0" 2>/dev/null
true`, g.id, g.port)
}

func (n *tenant) remove(g guest) {
	n.Helper()
	ctx := n.Context()
	if err := servers.Delete(ctx, n.compute, g.id).ExtractErr(); err != nil && !gophercloud.ResponseCodeIs(err, http.StatusNotFound) {
		n.Fatal(err)
	}
	n.await(g, "gone")
	if err := trunks.Delete(ctx, n.network, g.trunk).ExtractErr(); err != nil {
		n.Fatal(err)
	}
	if err := ports.Delete(ctx, n.network, g.port).ExtractErr(); err != nil {
		n.Fatal(err)
	}
	if left := n.traces(g); left != "" {
		n.Errorf("server %s was deleted and has left:\n%s", g.name, left)
	}
}

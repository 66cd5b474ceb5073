package openstacktest_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/keypairs"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/quotasets"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"

	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
)

// novaRefused demands a status and a word of Nova's message.
func novaRefused(t testing.TB, err error, status int, word string) {
	t.Helper()
	if !gophercloud.ResponseCodeIs(err, status) || !strings.Contains(err.Error(), word) {
		t.Fatalf("got %v, want %d with %q", err, status, word)
	}
}

func TestServerRefusals(t *testing.T) {
	onEachCloud(t, func(t *testing.T, k *clients) {
		n := k.net("n")
		k.subnet(n.ID, "10.0.0.0/24")
		free, used, bare := k.port(n.ID, "free").ID, k.make("ports", "port", object{"network_id": n.ID, "device_id": k.name("d")}), k.make("ports", "port", object{"network_id": n.ID, "fixed_ips": []object{}})
		metadata := object{}
		for i := range 129 {
			metadata[fmt.Sprint(i)] = "x"
		}
		good := object{"name": k.name("b"), "imageRef": k.imageID(), "flavorRef": k.flavorID("m1.small"), "networks": []object{{"port": free}}}
		for _, tt := range []struct {
			name, field string
			value       any
			status      int
			word        string
		}{
			{"a flavor exists", "flavorRef", "zz", 400, "Flavor zz could not be found"},
			{"an image exists", "imageRef", nobody, 400, "Can not find requested image"},
			{"a key pair exists", "key_name", "zz", 400, "Invalid key_name"},
			{"a port exists", "networks", []object{{"port": nobody}}, 400, "could not be found"},
			{"a port has an address", "networks", []object{{"port": bare}}, 400, "requires a FixedIP"},
			{"a port is used once", "networks", []object{{"port": used}}, 409, "still in use"},
			{"a port is asked for once", "networks", []object{{"port": free}, {"port": free}}, 400, "specified twice"},
			{"a zone exists", "availability_zone", "zz", 400, "availability zone"},
			{"metadata is no longer than 255", "metadata", object{"a": strings.Repeat("x", 256)}, 400, "too long"},
			{"metadata is not of too many", "metadata", metadata, 403, "Maximum number of metadata items exceeds 128"},
			{"user data has a limit", "user_data", base64.StdEncoding.EncodeToString(make([]byte, 60000)), 400, "user_data"},
		} {
			t.Run(tt.name, func(t *testing.T) {
				body := object{}
				for key, v := range good {
					body[key] = v
				}
				body[tt.field] = tt.value
				novaRefused(t, k.do(k.compute, "POST", "servers", object{"server": body}, nil), tt.status, tt.word)
			})
		}
		k.misuses(1) // the user data
		unlimited := -1
		_, err := quotasets.Update(t.Context(), k.compute, k.project(), quotasets.UpdateOpts{Instances: &unlimited}).Extract()
		novaRefused(t, err, 403, "os-quota-sets:update")
	})
}

func TestMicroversionsBringFields(t *testing.T) {
	onEachCloud(t, func(t *testing.T, k *clients) {
		k.compute.Microversion = "2.51"
		n := k.net("n")
		k.subnet(n.ID, "10.0.0.0/24")
		body := object{"name": k.name("b"), "imageRef": k.imageID(), "flavorRef": k.flavorID("m1.small"), "networks": []object{{"port": k.port(n.ID, "p").ID}}, "tags": []string{"x"}}
		novaRefused(t, k.do(k.compute, "POST", "servers", object{"server": body}, nil), 400, "'tags' was unexpected")
		k.compute.Microversion = "2.52"
		must(t, k.do(k.compute, "POST", "servers", object{"server": body}, nil))
		k.compute.Microversion = "2.999"
		novaRefused(t, k.do(k.compute, "GET", "servers", nil, nil), 406, "not supported")
		k.misuses(2) // the field and the version
		k.compute.Microversion = "2.90"
	})
}

func TestServersAreCreatedAndDeletedInTheirOwnTime(t *testing.T) {
	c := openstacktest.New(t, openstacktest.Polls(3))
	k := connect(t, c, "fake")
	n := k.net("n")
	k.subnet(n.ID, "10.0.0.0/24")
	p := k.port(n.ID, "p").ID
	id := k.boot("demo/worker-0", p)
	for i, want := range []string{"BUILD", "BUILD", "ACTIVE", "ACTIVE"} {
		s, err := servers.Get(t.Context(), k.compute, id).Extract()
		must(t, err)
		if s.Status != want {
			t.Errorf("look %d shows %s, want %s", i+1, s.Status, want)
		}
	}
	must(t, servers.Delete(t.Context(), k.compute, id).ExtractErr())
	if !c.Has("server", "demo/worker-0") {
		t.Error("a deleted server is gone at once")
	}
	// It goes by itself when only lists of it are looked at.
	for range 3 {
		_, err := servers.List(k.compute, servers.ListOpts{Name: "^demo/worker-0$"}).AllPages(t.Context())
		must(t, err)
	}
	if c.Has("server", "demo/worker-0") || k.getPort(p).DeviceID != "" {
		t.Error("a deleted server does not go or keeps its port")
	}
}

func TestServerWhosePortWentIsInError(t *testing.T) {
	c := openstacktest.New(t)
	k := connect(t, c, "fake")
	n := k.net("n")
	k.subnet(n.ID, "10.0.0.0/24")
	id := k.boot("a", k.port(n.ID, "p").ID)
	c.Delete("port", "p")
	k.becomes(id, "ERROR")
	s, err := servers.Get(t.Context(), k.compute, id).Extract()
	must(t, err)
	if !strings.Contains(s.Fault.Message, "could not be found") {
		t.Errorf("the fault is %+v", s.Fault)
	}
}

func TestNameFilterOfServersIsARegularExpression(t *testing.T) {
	onEachCloud(t, func(t *testing.T, k *clients) {
		n := k.net("n")
		k.subnet(n.ID, "10.0.0.0/24")
		for _, name := range []string{"demo/worker-0", "demo/worker-01"} {
			k.boot(name, k.port(n.ID, name).ID)
		}
		for filter, want := range map[string]int{k.name("demo/worker-0"): 2, "^" + k.name("demo/worker-0$"): 1, k.run: 2, k.name("worker"): 0} {
			pages, err := servers.List(k.compute, servers.ListOpts{Name: filter, Limit: 1}).AllPages(t.Context())
			must(t, err)
			all, err := servers.ExtractServers(pages)
			must(t, err)
			got := map[string]bool{} // by id: one that is being scheduled may be on two pages
			for _, x := range all {
				got[x.ID] = true
			}
			if len(got) != want {
				t.Errorf("filter %q finds %d servers, want %d", filter, len(got), want)
			}
		}
	})
}

func TestComputeQuota(t *testing.T) {
	c := openstacktest.New(t, openstacktest.Quota("compute", "instances", 1))
	k, admin := connect(t, c, "fake"), connect(t, c, "fake-admin")
	n := k.net("n")
	k.subnet(n.ID, "10.0.0.0/24")
	k.boot("a", k.port(n.ID, "a").ID)
	body := object{"server": object{"name": "b", "imageRef": k.imageID(), "flavorRef": k.flavorID("m1.small"), "networks": []object{{"port": k.port(n.ID, "b").ID}}}}
	novaRefused(t, k.do(k.compute, "POST", "servers", body, nil), 403, "Quota exceeded for instances: Requested 1, but already used 1 of 1 instances")
	more := quotasets.UpdateOpts{Instances: gophercloud.IntToPointer(2)}
	_, err := quotasets.Update(t.Context(), admin.compute, c.ProjectID(), more).Extract()
	must(t, err)
	must(t, k.do(k.compute, "POST", "servers", body, nil))
	d, err := quotasets.GetDetail(t.Context(), k.compute, c.ProjectID()).Extract()
	must(t, err)
	if d.Instances.InUse != 2 || d.Cores.InUse != 2 || d.RAM.InUse != 4096 {
		t.Errorf("in use: %d instances, %d cores, %d MiB", d.Instances.InUse, d.Cores.InUse, d.RAM.InUse)
	}
}

func TestKeyPairsBelongToTheUser(t *testing.T) {
	onEachCloud(t, func(t *testing.T, k *clients) {
		admin := k.place.connect(t, "-admin")
		opts := keypairs.CreateOpts{Name: strings.TrimSuffix(k.run, "/"), PublicKey: publicKey}
		_, err := keypairs.Create(t.Context(), k.compute, opts).Extract()
		must(t, err)
		_, err = keypairs.Create(t.Context(), k.compute, opts).Extract()
		novaRefused(t, err, 409, "already exists")
		_, err = keypairs.Get(t.Context(), admin.compute, opts.Name, nil).Extract()
		novaRefused(t, err, 404, "not found")
		_, err = keypairs.Create(t.Context(), k.compute, keypairs.CreateOpts{Name: "demo/worker", PublicKey: publicKey}).Extract()
		novaRefused(t, err, 400, "An invalid 'name' value was provided")
		k.misuses(1)
	})
}

func TestConsoleAndUserData(t *testing.T) {
	c := openstacktest.New(t)
	k := connect(t, c, "fake")
	n := k.net("n")
	k.subnet(n.ID, "10.0.0.0/24")
	id := k.boot("a", k.port(n.ID, "p").ID)
	_, err := servers.ShowConsoleOutput(t.Context(), k.compute, id, servers.ShowConsoleOutputOpts{}).Extract()
	novaRefused(t, err, 409, "not ready")
	k.becomes(id, "ACTIVE")
	c.Set("server", "a", "console", "login:")
	out, err := servers.ShowConsoleOutput(t.Context(), k.compute, id, servers.ShowConsoleOutputOpts{Length: 5}).Extract()
	must(t, err)
	if out != "login:" {
		t.Errorf("console %q", out)
	}
	guests := c.Guests()
	if len(guests) != 1 || string(guests[0].UserData) != "#cloud-config\n" {
		t.Errorf("guests %+v", guests)
	}
}

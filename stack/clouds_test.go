package stack_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/kuryrctl/kuryrctl/internal/labtest"
	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
	"github.com/kuryrctl/kuryrctl/stack"
)

// aCloud is one as they are: with something missing, twice there, or there already.
type aCloud struct {
	options []openstacktest.Option
	plant   func(*labtest.Lab)
	declare func(*testing.T, *labtest.Lab, *stack.Config)
	refused []string                       // words of the refusal, before the first write; none: a stack is built, and removed without a trace
	look    func(*testing.T, *labtest.Lab) // at what was built
}

// build makes and removes a stack on each of the clouds, or expects to be refused.
func build(t *testing.T, clouds map[string]aCloud) {
	for name, x := range clouds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lab := labtest.New(t, []string{"demo"}, x.options...)
			if x.plant != nil {
				x.plant(lab)
			}
			c := servers()
			if x.declare != nil {
				x.declare(t, lab, &c)
			}
			_, err := up(t, lab, "demo", c)
			if len(x.refused) == 0 {
				if err != nil {
					t.Fatal(err)
				}
				if x.look != nil {
					x.look(t, lab)
				}
				if p, err := open(t, lab, "demo").Plan(t.Context(), c); err != nil || p.HasChanges() {
					t.Errorf("plan of what was just built: %+v, %v", p, err)
				}
				mustDown(t, lab, "demo")
				empty(t, lab)
				return
			}
			if err == nil || len(lab.Writes()) > 0 {
				t.Fatalf("%d writes, %v", len(lab.Writes()), err)
			}
			for _, word := range x.refused {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("%q is not in: %v", word, err)
				}
			}
		})
	}
}

func without(aliases ...string) []openstacktest.Option {
	return []openstacktest.Option{openstacktest.WithoutExtension(aliases...)}
}

func declared(declare func(*stack.Config)) func(*testing.T, *labtest.Lab, *stack.Config) {
	return func(_ *testing.T, _ *labtest.Lab, c *stack.Config) { declare(c) }
}

func TestACloudAsItIsIsUsedOrRefusedBeforeAnythingIsMade(t *testing.T) {
	t.Parallel()
	copyOf := func(kind, name, as string) func(*labtest.Lab) {
		return func(lab *labtest.Lab) { lab.Copy(kind, name, as) }
	}
	image := func(wanted string) func(*testing.T, *labtest.Lab, *stack.Config) {
		return declared(func(c *stack.Config) { c.Image = wanted })
	}
	build(t, map[string]aCloud{
		"two external networks, one called public": {plant: copyOf("network", "public", "uplink")},
		"two external networks": {plant: func(lab *labtest.Lab) {
			lab.Copy("network", "public", "uplink")
			lab.Set("network", "public", "name", "outside")
		}, refused: []string{"public_net", "2 external networks and none is named: name one of outside (", ", uplink ("}},
		"two external networks, one named": {plant: copyOf("network", "public", "uplink"),
			declare: declared(func(c *stack.Config) { c.PublicNet = "public" })},
		"two external networks of one name": {plant: copyOf("network", "public", "public"),
			declare: declared(func(c *stack.Config) { c.PublicNet = "public" }), refused: []string{`2 external networks are called "public"`, "by its id"}},
		"an external network by id": {plant: copyOf("network", "public", "public"),
			declare: func(t *testing.T, lab *labtest.Lab, c *stack.Config) { c.PublicNet = externalOf(t, lab) }},
		"no external network": {plant: func(lab *labtest.Lab) { lab.Set("network", "public", "router:external", false) },
			refused: []string{"sees no external network"}},

		"an image by id": {
			declare: func(_ *testing.T, lab *labtest.Lab, c *stack.Config) {
				c.Image = lab.Copy("image", "debian-13", "debian")
			}},
		"an image that is hidden, by id": {declare: func(_ *testing.T, lab *labtest.Lab, c *stack.Config) {
			c.Image = lab.Copy("image", "debian-13", "debian-13 of last month")
			lab.Set("image", c.Image, "os_hidden", true)
		}},
		"an image of the community, by id": {declare: func(_ *testing.T, lab *labtest.Lab, c *stack.Config) {
			c.Image = lab.Copy("image", "debian-13", "debian")
			lab.Set("image", c.Image, "visibility", "community")
		}},
		"an image that is not active, by id": {declare: func(_ *testing.T, lab *labtest.Lab, c *stack.Config) {
			c.Image = lab.Copy("image", "debian-13", "debian")
			lab.Set("image", c.Image, "status", "deactivated")
		}, refused: []string{"the project sees none of that name"}},
		"more images than on a page": {plant: func(lab *labtest.Lab) {
			for i := range 60 {
				lab.Copy("image", "debian-13", fmt.Sprint("image-", i))
			}
		}},
		"two images of one name": {plant: copyOf("image", "debian-13", "debian-13"),
			refused: []string{`2 images are called "debian-13": name the one you mean by its id`}},
		"an image by properties": {plant: func(lab *labtest.Lab) {
			lab.Set("image", lab.Copy("image", "debian-13", "debian-13 (old)"), "created_at", "2020-01-01T00:00:00Z")
			lab.Set("image", lab.Copy("image", "debian-13", "debian-12"), "os_version", "12")
		}, declare: image("os_distro=debian, os_version=13"), look: func(t *testing.T, lab *labtest.Lab) {
			for _, s := range serversOf(t, lab) {
				if s.Image["id"] != imageOf(t, lab, "debian-13") {
					t.Errorf("%s is from image %v", s.Name, s.Image["id"])
				}
			}
		}},
		"no image with the properties": {declare: image("os_distro=debian,os_version=14"),
			refused: []string{"finding an image with os_distro=debian,os_version=14", "debian-13 os_distro=debian os_version=13"}},
		"an image that is too large": {plant: func(lab *labtest.Lab) { lab.Set("image", "debian-13", "min_disk", 60) },
			refused: []string{"flavor m1.medium: its disk has 40 GB, and image debian-13 asks for 60"}},
		"an image that asks more memory": {plant: func(lab *labtest.Lab) { lab.Set("image", "debian-13", "min_ram", 6000) },
			refused: []string{"flavor m1.medium: it has 4096 MiB of memory, and image debian-13 asks for 6000"}},
		"an image without a login": {plant: func(lab *labtest.Lab) {
			lab.Set("image", lab.Copy("image", "debian-13", "golden"), "os_admin_user", "")
		},
			declare: image("golden"), refused: []string{"set ssh_user"}},

		"flavors by id":   {declare: declared(func(c *stack.Config) { c.Masters.Flavor, c.Workers.Flavor = "3", "4" })},
		"flavors by name": {declare: declared(func(c *stack.Config) { c.Masters.Flavor, c.Workers.Flavor = "m1.small", "m1.medium" })},
		"no such flavor":  {declare: declared(func(c *stack.Config) { c.Masters.Flavor = "m1.huge" }), refused: []string{`flavor "m1.huge"`, "m1.large, m1.medium, m1.small"}},

		"no Octavia": {options: []openstacktest.Option{openstacktest.WithoutOctavia()},
			refused: []string{"the cloud has no Octavia", "a stack that ends at servers has the API's too", "region_name"}},
		"no such provider": {declare: declared(func(c *stack.Config) { c.OctaviaProvider = "f5" }), refused: []string{`load balancer provider "f5"`, "there are: ovn"}},

		"no trunks":           {options: without("trunk"), refused: []string{`no extension "trunk"`, "service_plugins"}},
		"no descriptions":     {options: without("standard-attr-description"), refused: []string{`no extension "standard-attr-description"`, "whose an object is"}},
		"no security groups":  {options: without("security-group", "port-security"), refused: []string{`"security-group"`}},
		"no tags":             {options: without("standard-attr-tag", "tag-creation")},
		"no dns extension":    {options: without("dns-integration", "dns-integration-domain-keywords", "dns-domain-ports", "subnet-dns-publish-fixed-ip")},
		"no quotas, no times": {options: without("quota_details", "standard-attr-timestamp", "net-mtu", "network-ip-availability", "trunk-details")},

		"a security group of somebody's": {plant: func(lab *labtest.Lab) { lab.Copy("security_group", "default", "monitoring") },
			declare: declared(func(c *stack.Config) {
				c.Masters.SecurityGroups, c.Workers.SecurityGroups = []string{"monitoring"}, []string{"monitoring"}
			}),
			look: func(t *testing.T, lab *labtest.Lab) {
				var found struct {
					Groups []struct{ ID string } `json:"security_groups"`
					Ports  []struct {
						Groups []string `json:"security_groups"`
					}
				}
				get(t, lab, "security-groups?name=monitoring", &found)
				for _, name := range []string{"demo/master-0", "demo/worker-1"} {
					if get(t, lab, "ports?name="+name, &found); !slices.Contains(found.Ports[0].Groups, found.Groups[0].ID) {
						t.Errorf("port %s has groups %v", name, found.Ports[0].Groups)
					}
				}
			}},
		"no such security group": {declare: declared(func(c *stack.Config) { c.Masters.SecurityGroups = []string{"monitor"} }),
			refused: []string{`finding security group "monitor"`, "there are: default"}},

		"a config drive": {declare: declared(func(c *stack.Config) { c.ConfigDrive = true }), look: func(t *testing.T, lab *labtest.Lab) {
			for _, s := range serversOf(t, lab) {
				if s.ConfigDrive != "True" {
					t.Errorf("%s has config drive %q", s.Name, s.ConfigDrive)
				}
			}
		}},
	})
}

func TestServersArePlacedAsDeclaredOrNothingIsMade(t *testing.T) {
	t.Parallel()
	hosts, zones := openstacktest.Hosts, openstacktest.ComputeZones
	masters := func(policy string, zones ...string) func(*testing.T, *labtest.Lab, *stack.Config) {
		return declared(func(c *stack.Config) {
			c.Masters.Count, c.Masters.ServerGroupPolicy, c.Masters.AvailabilityZones = 3, policy, zones
		})
	}
	apart := func(want int) func(*testing.T, *labtest.Lab) {
		return func(t *testing.T, lab *labtest.Lab) {
			on := map[string]bool{}
			for _, s := range serversOf(t, lab) {
				if strings.HasPrefix(s.Name, "demo/master-") {
					on[s.HostID] = true
				}
			}
			if len(on) != want {
				t.Errorf("the masters are on %d hypervisors, want %d", len(on), want)
			}
			if !lab.Has("server_group", "kuryrctl-demo-master") {
				t.Errorf("no server group: %v", left(lab))
			}
		}
	}
	quota := openstacktest.Quota
	build(t, map[string]aCloud{
		"apart": {options: []openstacktest.Option{hosts(3)}, declare: masters("anti-affinity"), look: apart(3)},
		"a group whose birth nobody heard of": {options: []openstacktest.Option{hosts(3)}, declare: masters("anti-affinity"), look: apart(3),
			plant: func(lab *labtest.Lab) { lab.Drop("POST /v2.1/os-server-groups", 1, openstacktest.AfterWrite) }},
		"apart if possible": {options: []openstacktest.Option{hosts(2)}, declare: masters("soft-anti-affinity"), look: apart(2)},
		"workers apart":     {options: []openstacktest.Option{hosts(2)}, declare: declared(func(c *stack.Config) { c.Workers.ServerGroupPolicy = "anti-affinity" })},
		"zones in turn": {options: []openstacktest.Option{zones("a", "b")}, declare: masters("", "a", "b"), look: func(t *testing.T, lab *labtest.Lab) {
			for _, s := range serversOf(t, lab) {
				want := map[string]string{"demo/master-0": "a", "demo/master-1": "b", "demo/master-2": "a"}[s.Name]
				if want != "" && s.Zone != want {
					t.Errorf("%s is in zone %s, want %s", s.Name, s.Zone, want)
				}
			}
		}},
		"no such zone": {options: []openstacktest.Option{zones("a", "b")}, declare: masters("", "a", "c"),
			refused: []string{`masters.availability_zones: Nova has no zone "c" that takes servers (there are: a, b)`}},
		"no more groups": {options: []openstacktest.Option{quota("compute", "server_groups", 0)}, declare: masters("anti-affinity"),
			refused: []string{"server_groups: 1 more are needed and 0 are free", "openstack quota set --server-groups 1 demo"}},
		"a group too small": {options: []openstacktest.Option{quota("compute", "server_group_members", 2)}, declare: masters("anti-affinity"),
			refused: []string{"server_group_members: 3 more are needed and 2 are free"}},
		"another policy": {declare: masters("affinity"), refused: []string{`masters.server_group_policy "affinity": it is anti-affinity or soft-anti-affinity`}},
	})
}

func TestServersBootFromVolumesOrNothingIsMade(t *testing.T) {
	t.Parallel()
	types := openstacktest.VolumeTypes("ssd", "hdd")
	cinder := []openstacktest.Option{types}
	volumes := func(size int, kind string) func(*testing.T, *labtest.Lab, *stack.Config) {
		return declared(func(c *stack.Config) {
			c.Masters.RootVolume, c.Workers.RootVolume = stack.RootVolume{Size: size, Type: kind}, stack.RootVolume{Size: size, Type: kind}
		})
	}
	noDisk := func(lab *labtest.Lab) {
		lab.Set("flavor", "m1.medium", "disk", 0)
		lab.Set("flavor", "m1.large", "disk", 0)
	}
	fromVolumes := func(t *testing.T, lab *labtest.Lab) {
		n := 0
		for _, x := range left(lab) {
			if x == "volume ID" {
				n++
			}
		}
		if n != 3 {
			t.Errorf("%d volumes, want one for each server: %v", n, left(lab))
		}
	}
	build(t, map[string]aCloud{
		"flavors without a disk":            {options: cinder, plant: noDisk, declare: volumes(20, "hdd"), look: fromVolumes},
		"the default type":                  {options: cinder, declare: volumes(20, ""), look: fromVolumes},
		"flavors without a disk or volumes": {options: cinder, plant: noDisk, refused: []string{"flavor m1.medium: it has no disk: declare a root_volume"}},
		"no Cinder":                         {declare: volumes(20, ""), refused: []string{"root_volume: the cloud has no Cinder"}},
		"no such type":                      {options: cinder, declare: volumes(20, "nvme"), refused: []string{`root_volume: finding volume type "nvme"`, "hdd, ssd"}},
		"an image that is too large": {options: cinder, plant: func(lab *labtest.Lab) { lab.Set("image", "debian-13", "min_disk", 60) }, declare: volumes(20, ""),
			refused: []string{"the root volume has 20 GB, and image debian-13 asks for 60: raise root_volume.size"}},
		"no more volumes": {options: []openstacktest.Option{types, openstacktest.Quota("block-storage", "gigabytes", 50)}, declare: volumes(20, ""),
			refused: []string{"gigabytes: 60 more are needed and 50 are free", "openstack quota set --gigabytes 60 demo"}},
		"a type without a size": {options: cinder, declare: volumes(0, "ssd"), refused: []string{"masters.root_volume.size is 0"}},
	})
}

func TestServersThatAreNotWhereTheyWereDeclaredAreFound(t *testing.T) {
	t.Parallel()
	together := func(_ *testing.T, lab *labtest.Lab) {
		for _, name := range []string{"demo/master-0", "demo/master-1"} {
			lab.Set("server", name, "hostId", "f00d")
		}
	}
	two := func(policy string) func(*stack.Config) {
		return func(c *stack.Config) { c.Masters.Count, c.Masters.ServerGroupPolicy = 2, policy }
	}
	found(t, map[string]faultOf{
		"masters on one hypervisor": {check: "placement", verdict: stack.Bad, whose: stack.TheCloud, text: "master-0, master-1: they are on one hypervisor, declared anti-affinity",
			do: "openstack server migrate", made: two("anti-affinity"), up: true, plant: together},
		"masters on one hypervisor that may be": {check: "placement", verdict: stack.Warning, whose: stack.TheCloud, text: "declared soft-anti-affinity",
			made: two("soft-anti-affinity"), up: true, plant: together},
		"a master made before": {check: "placement", verdict: stack.Warning, whose: stack.You, text: "master-0: it is in no server group",
			up: true, declare: func(c *stack.Config) { c.Masters.ServerGroupPolicy = "anti-affinity" }},
		"a master in another zone": {check: "placement", verdict: stack.Warning, whose: stack.TheCloud, text: "master-0: it is in zone b, declared a",
			options: []openstacktest.Option{openstacktest.ComputeZones("a", "b")}, made: func(c *stack.Config) { c.Masters.AvailabilityZones = []string{"a"} }, up: true,
			plant: func(_ *testing.T, lab *labtest.Lab) {
				lab.Set("server", "demo/master-0", "OS-EXT-AZ:availability_zone", "b")
			}},
		"no such security group": {check: "security-groups", verdict: stack.Bad, whose: stack.You, text: `finding security group "monitor"`, do: "security_groups",
			declare: func(c *stack.Config) { c.Workers.SecurityGroups = []string{"monitor"} }},
		"no such zone": {check: "zones", verdict: stack.Bad, whose: stack.You, text: `Nova has no zone "c"`, do: "availability_zones",
			declare: func(c *stack.Config) { c.Workers.AvailabilityZones = []string{"c"} }},
	})
}

// bootedServer is what Nova tells of a server.
type bootedServer struct {
	Name        string
	Image       map[string]any
	ConfigDrive string `json:"config_drive"`
	HostID      string `json:"hostId"`
	Zone        string `json:"OS-EXT-AZ:availability_zone"`
}

func serversOf(t *testing.T, lab *labtest.Lab) []bootedServer {
	t.Helper()
	client, err := connect(t, lab).Compute()
	must(t, err)
	var body struct{ Servers []bootedServer }
	_, err = client.Get(t.Context(), client.ServiceURL("servers", "detail"), &body, nil)
	must(t, err)
	if len(body.Servers) == 0 {
		t.Fatal("there are no servers")
	}
	return body.Servers
}

func imageOf(t *testing.T, lab *labtest.Lab, name string) string {
	t.Helper()
	client, err := connect(t, lab).Image()
	must(t, err)
	var body struct{ Images []struct{ ID string } }
	_, err = client.Get(t.Context(), client.ServiceURL("images")+"?name="+name, &body, nil)
	must(t, err)
	if len(body.Images) != 1 {
		t.Fatalf("%d images are called %s", len(body.Images), name)
	}
	return body.Images[0].ID
}

// externalOf is the id of the external network that has addresses.
func externalOf(t *testing.T, lab *labtest.Lab) string {
	t.Helper()
	var found struct {
		Networks []struct {
			ID      string
			Subnets []string
		}
	}
	get(t, lab, "networks", &found)
	for _, n := range found.Networks {
		if len(n.Subnets) > 0 {
			return n.ID
		}
	}
	t.Fatal("no network has addresses")
	return ""
}

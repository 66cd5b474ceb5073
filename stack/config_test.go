package stack_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/kuryrctl/kuryrctl/bootstrap"
	"github.com/kuryrctl/kuryrctl/stack"
)

func decode(t *testing.T, text string) (stack.Config, error) {
	t.Helper()
	c := stack.Defaults()
	return c, c.Decode(strings.NewReader(text), "lab.yaml")
}

func TestDecodeReportsEveryProblemWithItsLine(t *testing.T) {
	_, err := decode(t, `image: debian-13
publicnet: public
masters:
  count: two
  flavour: m1.medium
networks:
  vm: {cidr: 10.11.0.0}
  pod:
    cidr: 10.10.0.0/16
    gatway: 10.10.0.1
  service:
    gateway: over there
frobnicate: 7
`)
	want := `reading lab.yaml: 7 problems
  line 2: unknown key "publicnet"; did you mean "public_net"?
  line 4: this is no str ` + "`two`" + `: a whole number is wanted
  line 5: unknown key "flavour"; did you mean "flavor"?
  line 7: "10.11.0.0" is not a CIDR such as 10.11.0.0/24
  line 10: unknown key "gatway"; did you mean "gateway"?
  line 12: "over there" is not an IP address
  line 13: unknown key "frobnicate"; known here: image, ssh_user, public_net, dns_domain, dns_servers, config_drive, octavia_provider, admin_cloud, masters, workers, networks, kubernetes, dns, registry, router`
	if err == nil || err.Error() != want {
		t.Fatalf("got:\n%v\nwant:\n%s", err, want)
	}
}

func TestDecodeKeepsDefaultsForWhatIsLeftOut(t *testing.T) {
	for _, text := range []string{"", "workers: {count: 2}\n"} {
		c, err := decode(t, text)
		if err != nil || c.Image != "debian-13" || c.Workers.Flavor != "m1.large" || c.Networks.VM.CIDR.String() != "10.11.0.0/24" {
			t.Fatalf("%q: %+v, %v", text, c, err)
		}
	}
}

func TestDecodeRefusesASecondDocumentAndBrokenYAML(t *testing.T) {
	for text, want := range map[string]string{
		"image: a\n---\nimage: b\n": "one document",
		"image: [a\n":               "reading lab.yaml: line",
		"image: a\nimage: b\n":      "line 2",
	} {
		if _, err := decode(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}

func TestValidateRefusesWhatCannotWork(t *testing.T) {
	for name, x := range map[string]struct{ text, want string }{
		"overlap":                 {"networks: {pod: {cidr: 10.11.0.0/16}}", "networks.pod.cidr 10.11.0.0/16 overlaps networks.vm.cidr 10.11.0.0/24"},
		"host bits":               {"networks: {vm: {cidr: 10.11.0.7/24}}", "10.11.0.0/24 is meant"},
		"IPv6":                    {"networks: {vm: {cidr: 'fd00::/64'}}", "is not IPv4"},
		"too small":               {"networks: {service: {cidr: 172.30.0.0/27}}", "its prefix length must be /8 to /26"},
		"gateway of ClusterIPs":   {"networks: {service: {gateway: 172.30.0.254}}", "inside 172.30.0.0/17, which Kubernetes hands out as ClusterIPs: use 172.30.255.254"},
		"gateway in the pool":     {"networks: {service: {gateway: 172.30.200.1}}", "must be the last usable address"},
		"VIP outside":             {"networks: {service: {api_vip: 172.30.200.1}}", "not a usable address of 172.30.0.0/17"},
		"vm gateway":              {"networks: {vm: {gateway: 10.11.1.1}}", "networks.vm.gateway 10.11.1.1 is not a usable address of 10.11.0.0/24"},
		"broadcast":               {"networks: {vm: {gateway: 10.11.0.255}}", "not a usable address"},
		"four masters":            {"masters: {count: 4}", "masters.count is 4"},
		"no workers":              {"workers: {count: 0}", "workers.count is 0"},
		"too many nodes":          {"networks: {vm: {cidr: 10.11.0.0/28}}\nworkers: {count: 20}", "has 12 addresses for servers; 21 nodes"},
		"domain":                  {"dns_domain: 'no domain'", "not a domain name"},
		"no image":                {"image: ''", "image is empty"},
		"applications apart":      {"dns: {apps_domain: apps.example.org}", `dns.apps_domain "apps.example.org" is not dns_domain "kuryr.internal" or a domain below it`},
		"a router somewhere":      {"dns: {apps_address: here}", `dns.apps_address "here" is not an IPv4 address`},
		"two places of names":     {"dns: {designate: true, update: {server: 192.0.2.1}}", "dns.update and dns.designate are declared"},
		"no name server":          {"dns: {update: {server: 'ns.example.org:port'}}", "dns.update.server"},
		"a key somewhere":         {"dns: {update: {server: ns.example.org, key_file: dns.key}}", `dns.update.key_file "dns.key": give an absolute path`},
		"a zone somewhere":        {"dns: {zone: {directory: zones, nameserver: ns.example.org}}", `dns.zone.directory "zones" is not an absolute path`},
		"a zone of nobody":        {"dns: {zone: {directory: /zones}}", "dns.zone.nameserver is missing"},
		"a zone's host":           {"dns: {zone: {directory: /zones, host: ns.example.org}}", "neither USER@HOST"},
		"a host unproven":         {"dns: {zone: {directory: /zones, host: root@ns.example.org}}", "needs dns.zone.host_key"},
		"no claim's name":         {"registry: {claim: 'No Claim'}", "registry.claim \"No Claim\" is no name"},
		"VIP of the DNS":          {"networks: {service: {api_vip: 172.30.0.10}}", "api_vip 172.30.0.10 is the address of the cluster's DNS"},
		"VIP of the registry":     {"networks: {service: {api_vip: 172.30.0.20}}", "api_vip 172.30.0.20 is the registry's address"},
		"no routers":              {"router: {replicas: 0}", "router.replicas is 0: it must be 1 to 20, or router.enabled false"},
		"more routers than ports": {"workers: {count: 1}\nrouter: {replicas: 2, host_network: true}", "router.replicas is 2"},
		"a setting of a registry": {"registry: {enable: true}", "unknown key \"enable\"; did you mean \"enabled\"?"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := decode(t, x.text)
			if err == nil {
				err = c.Validate()
			}
			if err == nil || !strings.Contains(err.Error(), x.want) {
				t.Fatalf("got %v, want %q", err, x.want)
			}
		})
	}
}

func TestValidateReportsAllProblemsAtOnce(t *testing.T) {
	c, err := decode(t, "image: ''\nmasters: {count: 0}\nnetworks: {pod: {cidr: 10.11.0.0/24}}\n")
	if err != nil {
		t.Fatal(err)
	}
	var problems *stack.Problems
	if err := c.Validate(); !errors.As(err, &problems) || len(problems.Errors) != 3 {
		t.Fatalf("got %v", err)
	}
}

func TestTheServiceNetworkIsDividedAsDocumented(t *testing.T) {
	c := stack.Defaults()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	s := c.Networks.Service
	got := []string{s.ClusterIPs().String(), s.Pool()[0].String(), s.Pool()[1].String(), s.Gateway.String(), s.APIVIP.String()}
	want := []string{"172.30.0.0/17", "172.30.128.1", "172.30.255.253", "172.30.255.254", "172.30.0.1"}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %v, want %v", got, want)
		}
	}
}

// Whatever the service range: no address belongs to two of ClusterIPs, pool, gateway.
func TestServiceAddressesNeverMeet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bits := rapid.IntRange(8, 26).Draw(t, "bits")
		a := netip.AddrFrom4([4]byte{192, byte(rapid.IntRange(0, 255).Draw(t, "b")), byte(rapid.IntRange(0, 255).Draw(t, "c")), 0})
		c := stack.Defaults()
		c.Networks.Service.CIDR = stack.Prefix{Prefix: netip.PrefixFrom(a, bits).Masked()}
		if err := c.Validate(); err != nil {
			t.Fatal(err)
		}
		s := c.Networks.Service
		pool, cluster := s.Pool(), s.ClusterIPs()
		if cluster.Contains(pool[0]) || cluster.Contains(s.Gateway.Addr) || !cluster.Contains(s.APIVIP.Addr) ||
			pool[1].Next() != s.Gateway.Addr || !pool[0].Less(pool[1]) || !s.CIDR.Contains(pool[0]) || !s.CIDR.Contains(s.Gateway.Addr) {
			t.Fatalf("%s: ClusterIPs %s, pool %v, gateway %s", s.CIDR, cluster, pool, s.Gateway)
		}
	})
}

func TestStackNamesFitEverywhereTheyGo(t *testing.T) {
	for _, good := range []string{"demo", "a", "demo-2", strings.Repeat("a", 32)} {
		if err := stack.CheckName(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "Demo", "2demo", "demo-", "de/mo", "de mo", "démo", strings.Repeat("a", 33)} {
		if stack.CheckName(bad) == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("image: x\nnetworks: {vm: {cidr: 10.0.0.0/8}}")
	f.Add("masters: [1]")
	f.Fuzz(func(t *testing.T, text string) {
		c := stack.Defaults()
		if c.Decode(strings.NewReader(text), "lab.yaml") == nil {
			_ = c.Validate() // whatever it says, it does not panic
		}
	})
}

// FuzzNetworks: of networks that are accepted, no two hand out the same address, and everything is where it is said to be.
func FuzzNetworks(f *testing.F) {
	f.Add(uint32(0x0a0b0000), 24, uint32(0x0a0a0000), 16, uint32(0xac1e0000), 16, uint32(0), uint32(0))
	f.Add(uint32(0x0a000000), 28, uint32(0x0b000000), 26, uint32(0xac1e0000), 26, uint32(0), uint32(0xac1e0001))
	f.Add(uint32(0x0a000000), 8, uint32(0x0b000000), 8, uint32(0xff000000), 8, uint32(0xfffffffe), uint32(0xff000001))
	f.Add(uint32(0), 8, uint32(0x0b000000), 8, uint32(0x0c000000), 26, uint32(0), uint32(0x0c00000a))
	f.Fuzz(func(t *testing.T, vm uint32, vmBits int, pod uint32, podBits int, service uint32, serviceBits int, gateway, vip uint32) {
		at := func(a uint32) netip.Addr {
			return netip.AddrFrom4([4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)})
		}
		number := func(a netip.Addr) uint64 {
			b := a.As4()
			return uint64(b[0])<<24 | uint64(b[1])<<16 | uint64(b[2])<<8 | uint64(b[3])
		}
		c := stack.Defaults()
		n := &c.Networks
		n.VM.CIDR.Prefix, n.Pod.CIDR.Prefix, n.Service.CIDR.Prefix = netip.PrefixFrom(at(vm), vmBits), netip.PrefixFrom(at(pod), podBits), netip.PrefixFrom(at(service), serviceBits)
		if gateway != 0 {
			n.Service.Gateway.Addr = at(gateway)
		}
		if vip != 0 {
			n.Service.APIVIP.Addr = at(vip)
		}
		if c.Validate() != nil {
			return
		}
		s, pool, ips := n.Service, n.Service.Pool(), n.Service.ClusterIPs()
		first := number(s.CIDR.Addr())
		half := uint64(1) << (31 - s.CIDR.Bits())
		if number(ips.Addr()) != first || uint64(1)<<(32-ips.Bits()) != half {
			t.Errorf("%s has ClusterIPs %s", s.CIDR, ips)
		}
		if number(pool[0]) <= first+half || number(pool[1]) < number(pool[0]) || number(pool[1])+1 != number(s.Gateway.Addr) || number(s.Gateway.Addr) != first+2*half-2 {
			t.Errorf("%s has pool %v and gateway %s", s.CIDR, pool, s.Gateway)
		}
		if v := number(s.APIVIP.Addr); v <= first || v >= first+half-1 {
			t.Errorf("%s has VIP %s", s.CIDR, s.APIVIP)
		}
		all := []netip.Prefix{n.VM.CIDR.Prefix, n.Pod.CIDR.Prefix, s.CIDR.Prefix}
		for i, x := range all {
			for _, y := range all[:i] {
				if x.Overlaps(y) {
					t.Errorf("%s overlaps %s", x, y)
				}
			}
		}
		for _, x := range []stack.Network{n.VM, n.Pod} {
			if g := number(x.Gateway.Addr); !x.CIDR.Contains(x.Gateway.Addr) || g == number(x.CIDR.Addr()) || g == number(x.CIDR.Addr())+1<<(32-x.CIDR.Bits())-1 {
				t.Errorf("%s has gateway %s", x.CIDR, x.Gateway)
			}
		}
		for _, taken := range []netip.Addr{bootstrap.RegistryAddress(ips), bootstrap.DNSAddress(ips)} {
			if !ips.Contains(taken) || taken == s.APIVIP.Addr {
				t.Errorf("%s is taken, of %s with VIP %s", taken, ips, s.APIVIP)
			}
		}
	})
}

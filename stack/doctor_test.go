package stack_test

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kuryrctl/kuryrctl/internal/labtest"
	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
	"github.com/kuryrctl/kuryrctl/stack"
)

func diagnose(t *testing.T, lab *labtest.Lab, name string, c stack.Config) map[string]stack.Finding {
	t.Helper()
	return diagnoseAs(t, lab, "fake", name, c)
}

func diagnoseAs(t *testing.T, lab *labtest.Lab, cloud, name string, c stack.Config) map[string]stack.Finding {
	t.Helper()
	login := func(ctx context.Context) (*openstack.Cloud, error) {
		return openstack.Connect(ctx, openstack.Options{Cloud: cloud, File: lab.CloudsYAML(), Backoff: time.Millisecond})
	}
	o := stack.DiagnoseOptions{Options: stack.Options{Dial: lab.Dial, State: lab.State, Poll: time.Millisecond}}
	all, err := stack.Diagnose(t.Context(), name, c, login, o)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]stack.Finding{}
	for _, f := range all {
		found[f.Check] = f
	}
	return found
}

func TestAHealthyLabYieldsNoFinding(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	for _, f := range diagnose(t, lab, "", servers()) {
		if f.Verdict != stack.Good {
			t.Errorf("before: %+v", f)
		}
	}
	mustUp(t, lab, "demo", servers())
	lab.ResetLog()
	found := diagnose(t, lab, "demo", servers())
	for _, f := range found {
		// Kubernetes is not declared.
		if f.Verdict != stack.Good && !slices.Contains(slices.Concat(ofNodes, ofAddons, ofPods), f.Check) {
			t.Errorf("after: %+v", f)
		}
	}
	// One makes something, and was not asked to.
	if len(found) != len(stack.Checks())-1 || len(lab.Writes()) != 0 {
		t.Errorf("%d of %d checks ran and wrote %v", len(found), len(stack.Checks())-1, lab.Writes())
	}
}

// faultOf is one thing that is wrong, and how doctor is to name it.
type faultOf struct {
	check   string
	verdict stack.Verdict
	whose   stack.Whose
	text    string // in the answer
	do      string // in what to do
	options []openstacktest.Option
	made    func(*stack.Config) // what was declared when the stack was made
	declare func(*stack.Config)
	up      bool // on a stack that exists
	plant   func(*testing.T, *labtest.Lab)
}

func TestFaultsOfTheLoginAndTheCloudAreFoundAndNamed(t *testing.T) {
	t.Parallel()
	const bad, odd = stack.Bad, stack.Warning
	const you, cloud, quota = stack.You, stack.TheCloud, stack.YourQuota
	fail := func(match string, status int, body string) func(*testing.T, *labtest.Lab) {
		return func(_ *testing.T, l *labtest.Lab) { l.Fail(match, -1, status, body, nil) }
	}
	vm := func(cidr string) func(*stack.Config) {
		return func(c *stack.Config) { c.Networks.VM.CIDR.Prefix = netip.MustParsePrefix(cidr) }
	}
	found(t, map[string]faultOf{
		"overlapping ranges": {check: "declaration", verdict: bad, whose: you, text: "overlaps",
			declare: func(c *stack.Config) { c.Networks.Pod.CIDR = c.Networks.VM.CIDR }},
		"a gateway among ClusterIPs": {check: "declaration", verdict: bad, whose: you, text: "which Kubernetes hands out as ClusterIPs",
			declare: func(c *stack.Config) { c.Networks.Service.Gateway.Addr = netip.MustParseAddr("172.30.0.9") }},
		"Keystone down": {check: "cloud", verdict: bad, whose: cloud, text: "logging in", do: "auth_url",
			plant: func(_ *testing.T, l *labtest.Lab) { l.Drop("POST /v3/auth/tokens", -1, openstacktest.BeforeWrite) }},
		"a wrong password": {check: "cloud", verdict: bad, whose: you, text: "401",
			do: "clouds.yaml", plant: fail("POST /v3/auth/tokens", 401, "{}")},
		"a clouds.yaml for all": {check: "secrets", verdict: odd, whose: you, text: "others on this machine can read the login",
			do:    "chmod go= ",
			plant: func(t *testing.T, l *labtest.Lab) { must(t, os.Chmod(l.CloudsYAML(), 0o644)) }},
		"a clock that is off": {check: "clock", verdict: odd, whose: you, text: "2m0s off",
			options: []openstacktest.Option{openstacktest.Clock(2 * time.Minute)}},
		"a login that ends": {check: "token", verdict: odd, whose: you, text: "it ends in 5m",
			options: []openstacktest.Option{openstacktest.TokenLifetime(5 * time.Minute)}},
		"a reader": {check: "roles", verdict: bad, whose: you, text: "may only read",
			do: "openstack role add --user ", options: []openstacktest.Option{openstacktest.Roles("reader", "load-balancer_observer")}},
		"no member": {check: "roles", verdict: odd, whose: you, text: "is called member",
			options: []openstacktest.Option{openstacktest.Roles("custom", "load-balancer_member")}},
		"no role of Octavia's": {check: "cloud", verdict: bad, whose: you, text: "Policy does not allow",
			do: "load-balancer_member", options: []openstacktest.Option{openstacktest.Roles("member"), openstacktest.BalancerRoles()}},
		"a certificate that ends": {check: "certificates", verdict: odd, whose: cloud, text: "the certificate of CN=fake cloud ends on",
			options: []openstacktest.Option{openstacktest.TLS(time.Now().Add(24 * time.Hour))}},
		"a certificate that ended": {check: "cloud", verdict: bad, whose: cloud, text: "expired",
			options: []openstacktest.Option{openstacktest.TLS(time.Now().Add(-time.Minute))}},
		"an unknown CA": {check: "cloud", verdict: bad, whose: you, text: `it shows 1 certificate(s); the last is signed by "CN=fake cloud"`,
			do:      "cacert",
			options: []openstacktest.Option{openstacktest.TLS(time.Now().Add(time.Hour))}, plant: unnameCA},
		"no Octavia": {check: "endpoints", verdict: bad, whose: cloud, text: "load-balancer",
			do: "region", options: []openstacktest.Option{openstacktest.WithoutOctavia()}},
		"no Designate": {check: "endpoints", verdict: bad, whose: cloud, text: "dns",
			declare: func(c *stack.Config) { c.DNS.Designate = true }},
		"Glance broken": {check: "endpoints", verdict: bad, whose: cloud, text: "asking service image",
			plant: fail("GET /v2/images", 503, "")},
		"no trunks": {check: "extensions", verdict: bad, whose: cloud, text: "trunk (pods are subports",
			do: "service_plugins", options: []openstacktest.Option{openstacktest.WithoutExtension("trunk")}},
		"no quota_details": {check: "extensions", verdict: odd, whose: cloud, text: "without quota_details",
			options: []openstacktest.Option{openstacktest.WithoutExtension("quota_details")}},
		"an unknown provider": {check: "octavia", verdict: bad, whose: you, text: `"f5"`,
			declare: func(c *stack.Config) { c.OctaviaProvider = "f5" }},
		"an old Octavia": {check: "octavia", verdict: odd, whose: cloud, text: "API 2.5",
			plant: fail("GET /load-balancer/", 200, `{"versions": [{"id": "v2.0"}, {"id": "v2.5"}]}`)},
		"no external network": {check: "external-network", verdict: bad, whose: you, text: "there are: public",
			declare: func(c *stack.Config) { c.PublicNet = "pubilc" }},
		"no floating addresses": {check: "external-network", verdict: bad, whose: cloud, text: "1 of its 253 addresses are free, and 2 more are needed",
			plant: fewAddresses},
		"no image": {check: "image", verdict: bad, whose: you, text: "there are: debian-13",
			declare: func(c *stack.Config) { c.Image = "centos7" }},
		"no flavor": {check: "flavors", verdict: bad, whose: you, text: "m1.small",
			declare: func(c *stack.Config) { c.Workers.Flavor = "m1.huge" }},
		"an image that asks more": {check: "flavors", verdict: bad, whose: you, text: "flavor m1.medium: it has 4096 MiB of memory, and image debian-13 asks for 6000",
			do: "another flavor or image", plant: func(_ *testing.T, l *labtest.Lab) { l.Set("image", "debian-13", "min_ram", 6000) }},
		"an image that is too large": {check: "flavors", verdict: bad, whose: you, text: "its disk has 40 GB, and image debian-13 asks for 60",
			plant: func(_ *testing.T, l *labtest.Lab) { l.Set("image", "debian-13", "min_disk", 60) }},
		"a full quota": {check: "quota", verdict: bad, whose: quota, text: "port: 11 more are needed and 3 are free",
			do:      "openstack quota set --ports 11 --cores 10 demo",
			options: []openstacktest.Option{openstacktest.Quota("network", "port", 3), openstacktest.Quota("compute", "cores", 4)}},
		"no load balancers": {check: "quota", verdict: bad, whose: quota, text: "load_balancer: 1 more are needed",
			do:      "openstack loadbalancer quota set --loadbalancer 1 --pool 1 demo",
			options: []openstacktest.Option{openstacktest.Quota("load-balancer", "load_balancer", 0), openstacktest.Quota("load-balancer", "pool", 0)}},
		"no room for pods": {check: "quota", verdict: odd, whose: quota, text: "with 10 ports for pods, 3 load balancers and 1 floating IPs of Services it has not: port: 24 more are needed",
			do:      "--ports 24",
			options: []openstacktest.Option{openstacktest.Quota("network", "port", 12)}, declare: func(c *stack.Config) { c.Kubernetes.Install = true }},
		"an external overlap": {check: "addresses", verdict: bad, whose: you, text: "172.24.4.0/24 hides 172.24.4.0/24 of external network public",
			declare: vm("172.24.4.0/24")},
		"an endpoint in a range": {check: "addresses", verdict: bad, whose: you, text: "127.0.0.0/24 hides OpenStack's endpoint 127.0.0.1",
			declare: vm("127.0.0.0/24")},
		"a resolver in a range": {check: "addresses", verdict: bad, whose: you, text: "10.10.0.0/16 hides resolver 10.10.0.2",
			declare: func(c *stack.Config) { c.DNSServers = []stack.Addr{{Addr: netip.MustParseAddr("10.10.0.2")}} }},
	})
}

// fewAddresses is what Neutron tells of the external network to who may know.
func fewAddresses(_ *testing.T, l *labtest.Lab) {
	l.Fail("GET /v2.0/network-ip-availabilities", -1, 200,
		`{"network_ip_availabilities": [{"network_id": "x", "subnet_ip_availability": [{"ip_version": 4, "used_ips": 252, "total_ips": 253}]}]}`, nil)
}

func TestFaultsOfAStackAreFoundAndNamed(t *testing.T) {
	t.Parallel()
	const bad, odd = stack.Bad, stack.Warning
	const you, cloud, ours = stack.You, stack.TheCloud, stack.Kuryrctl
	set := func(kind, name, field string, value any) func(*testing.T, *labtest.Lab) {
		return func(_ *testing.T, l *labtest.Lab) { l.Set(kind, name, field, value) }
	}
	remove := func(kind, name string) func(*testing.T, *labtest.Lab) {
		return func(_ *testing.T, l *labtest.Lab) { l.Delete(kind, name) }
	}
	all := map[string]faultOf{
		"a trunk gone": {check: "objects", verdict: bad, whose: you, text: "trunk.worker-1 is absent",
			do: "kuryrctl stack demo", plant: remove("trunk", "demo/worker-1")},
		"a group taken off": {check: "objects", verdict: bad, whose: you, text: "port.worker-0 is drifted lacks security group demo/nodes",
			plant: set("port", "demo/worker-0", "security_groups", []string{})},
		"a gateway taken off": {check: "objects", verdict: bad, whose: you, text: "has no external gateway",
			plant: set("router", "demo/router", "external_gateway_info", nil)},
		"a member removed": {check: "objects", verdict: bad, whose: you, text: "members are , declared 10.11.0.",
			plant: remove("member", "demo/master-0")},
		"a second network": {check: "names", verdict: bad, whose: you, text: "network demo/pod_net is the name of 2, 1 of them the stack's",
			plant: namesake},
		"a server in ERROR": {check: "servers", verdict: bad, whose: cloud, text: "worker-0: its server is in ERROR: No valid host was found.",
			do: "operator", plant: broken},
		"a server that is off": {check: "servers", verdict: bad, whose: you, text: "worker-1: its server is SHUTOFF",
			plant: set("server", "demo/worker-1", "status", "SHUTOFF")},
		"a port that is down": {check: "ports", verdict: bad, whose: cloud, text: "is DOWN while its server runs",
			do: "binding:vif_type", plant: set("port", "demo/worker-0", "status", "DOWN")},
		"a port that is off": {check: "ports", verdict: bad, whose: you, text: "is switched off",
			do: "openstack port set --enable ", plant: set("port", "demo/worker-0", "admin_state_up", false)},
		"a port taken away": {check: "ports", verdict: bad, whose: you, text: "is not on its server any more",
			plant: set("port", "demo/worker-0", "device_id", "")},
		"a port without filters": {check: "ports", verdict: bad, whose: you, text: "port security is off",
			do: "--enable-port-security", plant: set("port", "demo/worker-0", "port_security_enabled", false)},
		"a trunk that is off": {check: "ports", verdict: bad, whose: you, text: "switched off and takes no subports",
			plant: set("trunk", "demo/worker-1", "admin_state_up", false)},
		"a trunk in ERROR": {check: "ports", verdict: bad, whose: cloud, text: "is ERROR while",
			plant: set("trunk", "demo/worker-1", "status", "ERROR")},
		"pods that do not fit": {check: "networks", verdict: bad, whose: cloud, text: "its MTU 1442 does not fit into the 1400",
			do: "openstack network set --mtu 1400 demo/pod_net", plant: set("network", "demo/vm_net", "mtu", 1400)},
		"a pool among ClusterIPs": {check: "networks", verdict: bad, whose: cloud, text: "Neutron allocates 172.30.1.1-172.30.1.9",
			do:    "openstack subnet set",
			plant: set("subnet", "demo/service_subnet", "allocation_pools", []map[string]string{{"start": "172.30.1.1", "end": "172.30.1.9"}})},
		"a port among ClusterIPs": {check: "networks", verdict: bad, whose: you, text: "has 172.30.1.1, which Kubernetes may give to a Service",
			plant: amongClusterIPs},
		"a load balancer hung": {check: "load-balancers", verdict: bad, whose: cloud, text: "PENDING_UPDATE",
			plant: set("loadbalancer", "demo/api-lb", "provisioning_status", "PENDING_UPDATE")},
		"a member that is off": {check: "load-balancers", verdict: bad, whose: ours, text: "172.30.0.1:443 leads to nothing that answers: 10.11.0.",
			plant:   both(undeclare, set("member", "demo/master-0", "operating_status", "OFFLINE")),
			declare: func(c *stack.Config) { c.Kubernetes.Install = true }},
		"a port left behind": {check: "leaks", verdict: odd, whose: you, text: "port demo/worker-7: it carries the stack's mark",
			plant: leak},
		"a floating IP taken off": {check: "leaks", verdict: odd, whose: you, text: "fip 172.24.4.", plant: detach},
		"somebody's port":         {check: "leaks", verdict: odd, whose: you, text: "port mine", plant: foreign},
		"a stolen address": {check: "ssh", verdict: bad, whose: you, text: "SHA256:",
			plant: func(_ *testing.T, l *labtest.Lab) { l.Host("demo/worker-0").SetHostKey(nil) }},
		"a directory for all": {check: "secrets", verdict: bad, whose: you, text: "others on this machine get at the stack's key",
			do: "chmod go= ", plant: mode("", 0o755)},
		"a credential for all": {check: "secrets", verdict: bad, whose: you, text: "application-credential.json: its mode is 0644",
			plant: mode("application-credential.json", 0o644)},
		"a network that is full": {check: "subnets", verdict: bad, whose: you, text: "of 1 addresses are in use",
			plant: set("subnet", "demo/vm_subnet", "allocation_pools", []map[string]string{{"start": "10.11.0.2", "end": "10.11.0.2"}})},
		"a quota that has been cut": {check: "quota", verdict: odd, whose: stack.YourQuota, text: "port: 13 more are needed and 0 are free",
			plant: both(undeclare, cutQuota), declare: func(c *stack.Config) { c.Kubernetes.Install = true }},
	}
	for name, x := range all {
		x.up = true
		all[name] = x
	}
	found(t, all)
}

// found plants each fault alone and expects doctor to name it.
func found(t *testing.T, all map[string]faultOf) {
	for name, x := range all {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lab := labtest.New(t, []string{"demo"}, x.options...)
			c := servers()
			stackName := ""
			if x.made != nil {
				x.made(&c)
			}
			if x.up {
				mustUp(t, lab, "demo", c)
				lab.Settle()
				stackName = "demo"
			}
			if x.declare != nil {
				x.declare(&c)
			}
			if x.plant != nil {
				x.plant(t, lab)
			}
			f := diagnose(t, lab, stackName, c)[x.check]
			if f.Verdict != x.verdict || f.Whose != x.whose || !strings.Contains(f.Answer, x.text) {
				t.Fatalf("got %+v, want %s of %s with %q", f, x.verdict, x.whose, x.text)
			}
			if f.Do == "" || !strings.Contains(f.Do, x.do) {
				t.Errorf("what to do is %q, want %q in it", f.Do, x.do)
			}
			lab.Heal()
		})
	}
}

func namesake(t *testing.T, lab *labtest.Lab) {
	neutron(t, lab, "POST", "networks", map[string]any{"network": map[string]any{"name": "demo/pod_net"}}, nil)
}

func leak(t *testing.T, lab *labtest.Lab) {
	neutron(t, lab, "POST", "ports", map[string]any{"port": map[string]any{"name": "demo/worker-7", "network_id": id(t, lab, "networks", "demo/vm_net"), "description": openstack.Mark("demo")}}, nil)
}

func foreign(t *testing.T, lab *labtest.Lab) {
	neutron(t, lab, "POST", "ports", map[string]any{"port": map[string]any{"name": "mine", "network_id": id(t, lab, "networks", "demo/vm_net")}}, nil)
}

func amongClusterIPs(t *testing.T, lab *labtest.Lab) {
	neutron(t, lab, "POST", "ports", map[string]any{"port": map[string]any{"name": "vrrp", "network_id": id(t, lab, "networks", "demo/service_net"),
		"fixed_ips": []map[string]string{{"ip_address": "172.30.1.1"}}}}, nil)
}

func detach(t *testing.T, lab *labtest.Lab) {
	var found struct {
		FloatingIPs []struct{ ID string }
	}
	get(t, lab, "floatingips", &found)
	neutron(t, lab, "PUT", "floatingips/"+found.FloatingIPs[0].ID, map[string]any{"floatingip": map[string]any{"port_id": nil}}, nil)
}

func broken(_ *testing.T, lab *labtest.Lab) {
	lab.Set("server", "demo/worker-0", "fault", map[string]any{"code": 500, "created": "2026-01-01T00:00:00Z", "message": "No valid host was found."})
	lab.Set("server", "demo/worker-0", "status", "ERROR")
}

func mode(file string, mode os.FileMode) func(*testing.T, *labtest.Lab) {
	return func(t *testing.T, lab *labtest.Lab) {
		must(t, os.Chmod(filepath.Join(lab.State, "stacks", lab.ProjectID(), "demo", file), mode))
	}
}

func both(plants ...func(*testing.T, *labtest.Lab)) func(*testing.T, *labtest.Lab) {
	return func(t *testing.T, lab *labtest.Lab) {
		for _, plant := range plants {
			plant(t, lab)
		}
	}
}

// undeclare forgets that the stack ends at servers.
func undeclare(t *testing.T, lab *labtest.Lab) {
	must(t, os.Remove(filepath.Join(lab.State, "stacks", lab.ProjectID(), "demo", "lab.yaml")))
}

// unnameCA leaves the cloud's CA out of clouds.yaml.
func unnameCA(t *testing.T, lab *labtest.Lab) {
	text, err := os.ReadFile(lab.CloudsYAML())
	must(t, err)
	must(t, os.WriteFile(lab.CloudsYAML(), regexp.MustCompile(`(?m)^ *cacert: .*\n`).ReplaceAll(text, nil), 0o600))
}

// cutQuota leaves no more ports than there are.
func cutQuota(t *testing.T, lab *labtest.Lab) {
	var quota struct{ Quota map[string]struct{ Used int } }
	get(t, lab, "quotas/"+lab.ProjectID()+"/details", &quota)
	as(t, lab, "fake-admin", "PUT", "quotas/"+lab.ProjectID(), map[string]any{"quota": map[string]any{"port": quota.Quota["port"].Used}}, nil)
}

func TestARestrictedApplicationCredentialIsFound(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	cloud, err := openstack.Connect(t.Context(), openstack.Options{Cloud: "fake", File: lab.CloudsYAML()})
	must(t, err)
	keystone, err := cloud.Identity()
	must(t, err)
	var made struct {
		Credential struct{ ID, Secret string } `json:"application_credential"`
	}
	_, err = keystone.Post(t.Context(), keystone.ServiceURL("users", cloud.UserID(), "application_credentials"),
		map[string]any{"application_credential": map[string]any{"name": "mine"}}, &made, nil)
	must(t, err)
	f, err := os.OpenFile(lab.CloudsYAML(), os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	defer f.Close()
	_, err = fmt.Fprintf(f, "  restricted: {auth_type: v3applicationcredential, auth: {auth_url: %s, application_credential_id: %s, application_credential_secret: %s}}\n",
		lab.AuthURL(), made.Credential.ID, made.Credential.Secret)
	must(t, err)
	found := diagnoseAs(t, lab, "restricted", "", servers())
	if f := found["roles"]; f.Verdict != stack.Bad || f.Whose != stack.You || !strings.Contains(f.Answer, "restricted") || !strings.Contains(f.Do, "--unrestricted") {
		t.Errorf("%+v", f)
	}
	restricted, err := openstack.Connect(t.Context(), openstack.Options{Cloud: "restricted", File: lab.CloudsYAML()})
	must(t, err)
	lab.ResetLog()
	_, err = elsewhere(t, lab, restricted, stack.Options{}).Up(t.Context(), servers(), stack.UpOptions{Parallel: 8})
	if err == nil || !strings.Contains(err.Error(), "--unrestricted") || len(lab.Writes()) > 0 {
		t.Errorf("a stack by such a login: %v, after %v", err, lab.Writes())
	}
	mustUp(t, lab, "demo", servers()) // by the password; the stack has its credential now
	if f := diagnoseAs(t, lab, "restricted", "demo", servers())["roles"]; f.Verdict != stack.Good {
		t.Errorf("%+v", f)
	}
}

func TestACallThatFailedIsNamedByItsRequest(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	lab.Fail("GET /v2/images", -1, 500, "{}", http.Header{"X-Openstack-Request-Id": {"req-1234"}})
	if f := diagnose(t, lab, "", servers())["endpoints"]; f.Request != "req-1234" || !strings.Contains(f.Answer, "req-1234") {
		t.Errorf("%+v", f)
	}
}

func TestEveryFindingSaysWhoseItIs(t *testing.T) {
	t.Parallel()
	for _, c := range stack.Checks() {
		if c.Asked == "" || c.Looks == "" || c.Whose == "" || c.About == "" {
			t.Errorf("%+v", c)
		}
	}
}

func TestWhatABrokenCheckCarriesIsSkipped(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	lab.Fail("POST /v3/auth/tokens", -1, 401, "{}", nil)
	found := diagnose(t, lab, "demo", servers())
	if found["cloud"].Verdict != stack.Bad || found["image"].Verdict != stack.Skipped || found["ssh"].Verdict != stack.Skipped {
		t.Fatalf("%+v", found)
	}
}

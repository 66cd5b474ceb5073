package stack

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"github.com/hashicorp/go-multierror"
	"go.yaml.in/yaml/v3"

	"github.com/kuryrctl/kuryrctl/bootstrap"
	"github.com/kuryrctl/kuryrctl/provision"
)

// Addr is an IP address in a lab file.
type Addr struct{ netip.Addr }

// Prefix is an address range in a lab file.
type Prefix struct{ netip.Prefix }

// UnmarshalYAML implements [yaml.Unmarshaler].
func (a *Addr) UnmarshalYAML(n *yaml.Node) (err error) {
	if a.Addr, err = netip.ParseAddr(n.Value); err != nil {
		return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: %q is not an IP address", n.Line, n.Value)}}
	}
	return nil
}

// UnmarshalYAML implements [yaml.Unmarshaler].
func (p *Prefix) UnmarshalYAML(n *yaml.Node) (err error) {
	if p.Prefix, err = netip.ParsePrefix(n.Value); err != nil {
		return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: %q is not a CIDR such as 10.11.0.0/24", n.Line, n.Value)}}
	}
	return nil
}

// MarshalYAML implements [yaml.Marshaler].
func (a Addr) MarshalYAML() (any, error) { return a.String(), nil }

// MarshalYAML implements [yaml.Marshaler].
func (p Prefix) MarshalYAML() (any, error) { return p.String(), nil }

// Problems is a list of everything that is wrong with a declaration.
type Problems = multierror.Error

// Decode reads a lab file over what c holds already. It is strict: an unknown key, a key given twice or a value of the wrong
// form is a problem with its line, and all problems are reported at once.
func (c *Config) Decode(r io.Reader, name string) error {
	text, err := io.ReadAll(r)
	if err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	err = d.Decode(c)
	var more yaml.Node
	if err == nil && d.Decode(&more) == nil {
		err = &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: a lab file holds one document", more.Line)}}
	}
	var wrong *yaml.TypeError
	switch {
	case err == nil, errors.Is(err, io.EOF): // an empty file declares the defaults
		return nil
	case errors.As(err, &wrong):
		problems := &Problems{ErrorFormat: listed("reading " + name)}
		for _, text := range wrong.Errors {
			problems.Errors = append(problems.Errors, errors.New(explain(text)))
		}
		return problems
	}
	return fmt.Errorf("reading %s: %s", name, strings.TrimPrefix(err.Error(), "yaml: "))
}

// listed formats problems one a line under a title.
func listed(title string) multierror.ErrorFormatFunc {
	return func(all []error) string {
		if len(all) == 1 {
			return title + ": " + all[0].Error()
		}
		lines := []string{fmt.Sprintf("%s: %d problems", title, len(all))}
		for _, err := range all {
			lines = append(lines, "  "+err.Error())
		}
		return strings.Join(lines, "\n")
	}
}

var unknownField = regexp.MustCompile(`^(line \d+): field (\S+) not found in type stack\.(\w+)$`)

// explain rewrites the decoder's words, which speak of Go types, into those of the lab file.
func explain(text string) string {
	m := unknownField.FindStringSubmatch(text)
	if m == nil {
		return goWords.Replace(text)
	}
	known := keys(m[3])
	text = fmt.Sprintf("%s: unknown key %q", m[1], m[2])
	if near := nearest(m[2], known); near != "" {
		return text + fmt.Sprintf("; did you mean %q?", near)
	}
	return text + "; known here: " + strings.Join(known, ", ")
}

var goWords = strings.NewReplacer("cannot unmarshal !!", "this is no ", " into int", ": a whole number is wanted", " into bool", ": true or false is wanted",
	" into string", ": a text is wanted", " into stack.", ": not a ")

// keys lists the keys of the named type of this package, as a lab file spells them.
func keys(typeName string) (all []string) {
	for _, v := range []any{Config{}, Nodes{}, RootVolume{}, Networks{}, Network{}, ServiceNetwork{}, Kubernetes{}, DNS{}, DNSUpdate{}, DNSZone{}, Registry{}, Router{}} {
		t := reflect.TypeOf(v)
		for i := range t.NumField() {
			if t.Name() == typeName {
				all = append(all, t.Field(i).Tag.Get("yaml"))
			}
		}
	}
	return all
}

// nearest is the known word within two edits of word, or "".
func nearest(word string, known []string) string {
	best, at := 3, ""
	for _, k := range known {
		if d := edits(strings.ToLower(word), k); d < best {
			best, at = d, k
		}
	}
	return at
}

// edits is the Levenshtein distance.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substitute := diagonal
			if a[i] != b[j] {
				substitute++
			}
			diagonal = row[j+1]
			row[j+1] = min(substitute, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

var (
	nameForm   = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$`)
	domainForm = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$`)
)

// CheckName refuses a stack name that could not be part of every object's name.
func CheckName(name string) error {
	if !nameForm.MatchString(name) {
		return fmt.Errorf("the stack name %q is not usable: it starts with a small letter, then letters, digits and hyphens, at most 32, and does not end with a hyphen", name)
	}
	return nil
}

// Validate completes c and reports everything that cannot work, before anything is asked of a cloud.
func (c *Config) Validate() error {
	v := &validation{problems: &Problems{ErrorFormat: listed("the declaration cannot work")}}
	v.text("image", c.Image)
	v.text("masters.flavor", c.Masters.Flavor)
	v.text("workers.flavor", c.Workers.Flavor)
	if c.Masters.Count < 1 || c.Masters.Count > 3 {
		v.bad("masters.count is %d: one (all on one), two (etcd on the first, the API on the second) or three (highly available) can be built", c.Masters.Count)
	}
	if c.Workers.Count < 1 || c.Workers.Count > 200 {
		v.bad("workers.count is %d: it must be 1 to 200", c.Workers.Count)
	}
	if !domainForm.MatchString(c.DNSDomain) {
		v.bad("dns_domain %q is not a domain name", c.DNSDomain)
	}
	v.placement("masters", c.Masters)
	v.placement("workers", c.Workers)
	v.dns(c)
	v.networks(c)
	v.addons(c)
	return v.problems.ErrorOrNil()
}

func (v *validation) placement(key string, n Nodes) {
	switch n.ServerGroupPolicy {
	case "", provision.Apart, provision.ApartSoft:
	default:
		v.bad("%s.server_group_policy %q: it is %s or %s", key, n.ServerGroupPolicy, provision.Apart, provision.ApartSoft)
	}
	if n.RootVolume.Size < 0 || n.RootVolume.Size == 0 && n.RootVolume.Type != "" {
		v.bad("%s.root_volume.size is %d: it is the volume's size in GB", key, n.RootVolume.Size)
	}
	for i, zone := range n.AvailabilityZones {
		v.text(fmt.Sprintf("%s.availability_zones[%d]", key, i), zone)
	}
	for i, group := range n.SecurityGroups {
		v.text(fmt.Sprintf("%s.security_groups[%d]", key, i), group)
	}
}

// claimForm is that of names of Kubernetes' objects.
var claimForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)

func (v *validation) addons(c *Config) {
	if c.Registry.Claim != "" && !claimForm.MatchString(c.Registry.Claim) {
		v.bad("registry.claim %q is no name of a PersistentVolumeClaim", c.Registry.Claim)
	}
	if c.Router.Enabled && (c.Router.Replicas < 1 || c.Router.Replicas > 20) {
		v.bad("router.replicas is %d: it must be 1 to 20, or router.enabled false", c.Router.Replicas)
	}
	if c.Router.Enabled && c.Router.HostNetwork && c.Router.Replicas > c.Workers.Count {
		v.bad("router.replicas is %d: on the network of %d workers there is a port for each worker's one", c.Router.Replicas, c.Workers.Count)
	}
	services := c.Networks.Service
	if !services.CIDR.IsValid() || !services.APIVIP.IsValid() {
		return
	}
	switch ips := services.ClusterIPs(); {
	case c.Registry.Enabled && services.APIVIP.Addr == bootstrap.RegistryAddress(ips):
		v.bad("networks.service.api_vip %s is the registry's address: use another one", services.APIVIP)
	case c.Kubernetes.DNS && services.APIVIP.Addr == bootstrap.DNSAddress(ips):
		v.bad("networks.service.api_vip %s is the address of the cluster's DNS: use another one", services.APIVIP)
	}
}

// validation gathers problems.
type validation struct{ problems *Problems }

func (v *validation) bad(format string, args ...any) {
	v.problems = multierror.Append(v.problems, fmt.Errorf(format, args...))
}

func (v *validation) text(key, value string) {
	if strings.TrimSpace(value) == "" {
		v.bad("%s is empty", key)
	}
}

func (v *validation) networks(c *Config) {
	n := &c.Networks
	all := []struct {
		key     string
		cidr    netip.Prefix
		maxBits int
	}{{"networks.vm.cidr", n.VM.CIDR.Prefix, 28}, {"networks.pod.cidr", n.Pod.CIDR.Prefix, 26}, {"networks.service.cidr", n.Service.CIDR.Prefix, 26}}
	before := v.problems.Len()
	for i, x := range all {
		switch {
		case !x.cidr.IsValid():
			v.bad("%s is missing", x.key)
			continue
		case !x.cidr.Addr().Is4():
			v.bad("%s %s is not IPv4", x.key, x.cidr)
			continue
		case x.cidr != x.cidr.Masked():
			v.bad("%s %s has host bits set: %s is meant, or another range", x.key, x.cidr, x.cidr.Masked())
		case x.cidr.Bits() > x.maxBits || x.cidr.Bits() < 8:
			v.bad("%s %s: its prefix length must be /8 to /%d", x.key, x.cidr, x.maxBits)
		}
		for _, y := range all[:i] {
			if y.cidr.IsValid() && y.cidr.Overlaps(x.cidr) {
				v.bad("%s %s overlaps %s %s", x.key, x.cidr, y.key, y.cidr)
			}
		}
	}
	if v.problems.Len() > before {
		return
	}
	c.complete()
	v.gateways(n)
	if free := 1<<(32-n.VM.CIDR.Bits()) - 4; c.Masters.Count+c.Workers.Count > free {
		v.bad("networks.vm.cidr %s has %d addresses for servers; %d nodes are declared", n.VM.CIDR, free, c.Masters.Count+c.Workers.Count)
	}
}

func (v *validation) dns(c *Config) {
	d := c.DNS
	if apps := c.AppsDomain(); !domainForm.MatchString(apps) || apps != c.DNSDomain && !strings.HasSuffix(apps, "."+c.DNSDomain) {
		v.bad("dns.apps_domain %q is not dns_domain %q or a domain below it", apps, c.DNSDomain)
	}
	if a, err := netip.ParseAddr(d.AppsAddress); d.AppsAddress != "" && (err != nil || !a.Is4()) {
		v.bad("dns.apps_address %q is not an IPv4 address", d.AppsAddress)
	}
	path := func(key, value string) {
		if value != "" && !filepath.IsAbs(value) && !strings.HasPrefix(value, "~/") {
			v.bad("%s %q: give an absolute path or one that begins with ~/, since it is also needed when the stack is removed, from wherever that is", key, value)
		}
	}
	var ways []string
	if d.Update != (DNSUpdate{}) {
		ways = append(ways, "dns.update")
		path("dns.update.key_file", d.Update.KeyFile)
		if _, err := hostPort(d.Update.Server, dnsPort); err != nil {
			v.bad("dns.update.server %q is neither HOST nor HOST:PORT", d.Update.Server)
		}
	}
	if z := d.Zone; z != (DNSZone{}) {
		ways = append(ways, "dns.zone")
		path("dns.zone.key_file", z.KeyFile)
		if !filepath.IsAbs(z.Directory) {
			v.bad("dns.zone.directory %q is not an absolute path", z.Directory)
		}
		user, host, _ := strings.Cut(z.Host, "@")
		switch _, err := hostPort(host, sshPort); {
		case z.Host == "" && z.Nameserver == "":
			v.bad("dns.zone.nameserver is missing: the name or address of the server that will serve the zone")
		case z.Host != "" && (user == "" || err != nil):
			v.bad("dns.zone.host %q is neither USER@HOST nor USER@HOST:PORT", z.Host)
		case z.Host != "" && (z.HostKey == "" || z.KeyFile == ""):
			v.bad("dns.zone.host needs dns.zone.host_key, which `ssh-keyscan -t ed25519` on that host's own console shows, and dns.zone.key_file")
		}
	}
	if d.Designate {
		ways = append(ways, "dns.designate")
	}
	if len(ways) > 1 {
		v.bad("%s are declared: names are kept in one place", strings.Join(ways, " and "))
	}
}

// hostPort adds the port to a host that comes without.
func hostPort(text string, port int) (string, error) {
	host, given, err := net.SplitHostPort(text)
	if err != nil {
		host, given = text, strconv.Itoa(port)
	}
	if _, err := netip.ParseAddr(host); err != nil && !domainForm.MatchString(strings.ToLower(host)) {
		return "", fmt.Errorf("%q is no host", host)
	}
	if n, err := strconv.ParseUint(given, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("%q is no port", given)
	}
	return net.JoinHostPort(host, given), nil
}

func (v *validation) gateways(n *Networks) {
	for i, x := range []Network{n.VM, n.Pod} {
		if !usable(x.CIDR.Prefix, x.Gateway.Addr) {
			v.bad("networks.%s.gateway %s is not a usable address of %s", []string{"vm", "pod"}[i], x.Gateway, x.CIDR)
		}
	}
	s := n.Service
	switch wanted := last(s.CIDR.Prefix).Prev(); {
	case s.ClusterIPs().Contains(s.Gateway.Addr):
		v.bad("networks.service.gateway %s is inside %s, which Kubernetes hands out as ClusterIPs: use %s", s.Gateway, s.ClusterIPs(), wanted)
	case s.Gateway.Addr != wanted:
		v.bad("networks.service.gateway %s: it must be the last usable address of %s, %s, so that Neutron's pool ends before it", s.Gateway, s.CIDR, wanted)
	}
	if !usable(s.ClusterIPs(), s.APIVIP.Addr) {
		v.bad("networks.service.api_vip %s is not a usable address of %s, the ClusterIPs", s.APIVIP, s.ClusterIPs())
	}
}

func usable(p netip.Prefix, a netip.Addr) bool {
	return p.Contains(a) && a != p.Addr() && a != last(p)
}

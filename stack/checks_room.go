package stack

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/kuryrctl/kuryrctl/provision"
)

func checkQuota(ctx context.Context, d *diagnosis) answer {
	demand, err := d.stack.demand(ctx, d.lab)
	if err != nil {
		return failed(err, "see check objects")
	}
	quotas, err := d.stack.session.Quotas(ctx)
	if err != nil {
		return failed(err, "ask the operator of the cloud")
	}
	say := func(short []provision.Shortage) string {
		var all []string
		for _, x := range short {
			all = append(all, x.String())
		}
		return strings.Join(all, "; ")
	}
	expected, what := d.headroom()
	total := maps.Clone(demand)
	for resource, n := range expected {
		total[resource] += n
	}
	short := provision.Shortages(quotas, total)
	do := "declare less, or as administrator: " + provision.QuotaCommand(short, d.cloud().ProjectName())
	switch now := provision.Shortages(quotas, demand); {
	case len(demand) > 0 && len(now) > 0:
		return problem(say(now), do)
	case len(short) > 0:
		return warning("what is declared has room, and with "+what+" it has not: "+say(short), do)
	}
	return good("enough for what is missing, and for %s", what)
}

// What the cluster makes by itself once it is there.
const (
	poolMin = 3 // free ports of each worker; cmd/kuryr-node's default says so too
	dnsPods = 2
	// A Service takes a load balancer with two listeners, mostly, and a port of Neutron's.
	listenersOfService = 2
)

// headroom is what pods and Services will take of the quotas, beyond what they have: by resource, and in words.
func (d *diagnosis) headroom() (map[string]int, string) {
	pods, services, floating := d.options.Pods, d.options.Services, 0
	if d.bare() == "" {
		pods += poolMin * d.config.Workers.Count
		if d.config.Kubernetes.DNS {
			pods, services = pods+dnsPods, services+1
		}
		if d.config.Registry.Enabled {
			pods, services = pods+1, services+1
		}
		if r := d.config.Router; r.Enabled {
			services, floating = services+1, 1
			if !r.HostNetwork {
				pods += r.Replicas
			}
		}
	}
	what := fmt.Sprintf("%d ports for pods, %d load balancers and %d floating IPs of Services", pods, services, floating)
	for _, o := range d.stack.session.Owned() {
		switch {
		case o.ForPods() && o.Kind == "port":
			pods--
		case o.ForPods() && o.Kind == "loadbalancer":
			services--
		case o.ForPods() && o.Kind == "fip":
			floating--
		}
	}
	pods, services, floating = max(pods, 0), max(services, 0), max(floating, 0)
	all := map[string]int{"port": pods + services, "floatingip": floating,
		"load_balancer": services, "listener": listenersOfService * services, "pool": listenersOfService * services}
	maps.DeleteFunc(all, func(_ string, n int) bool { return n == 0 })
	return all, what
}

// checkAddresses looks for ranges that would hide something. The external network's subnets are seen only where the cloud shows
// them to its users.
func checkAddresses(ctx context.Context, d *diagnosis) answer {
	external, err := d.stack.session.ExternalNetwork(ctx, d.config.PublicNet)
	if err != nil {
		return failed(err, "set public_net")
	}
	ranges, err := d.stack.session.ExternalRanges(ctx, external.ID)
	if err != nil {
		return failed(err, "ask the operator of the cloud")
	}
	needed := map[string]netip.Prefix{}
	for _, x := range ranges {
		needed[fmt.Sprintf("%s of external network %s", x, external.Name)] = x
	}
	for _, a := range d.config.DNSServers {
		needed["resolver "+a.String()+" of dns_servers"] = netip.PrefixFrom(a.Addr, a.BitLen())
	}
	for name, a := range d.endpointAddresses(ctx) {
		needed["OpenStack's endpoint "+name] = netip.PrefixFrom(a, a.BitLen())
	}
	var r remarks
	declared := d.ranges()
	for _, c := range clashes(declared, needed) {
		r.problem(c.key, fmt.Sprintf("%s hides %s", declared[c.key], c.other), "declare another range")
	}
	if d.options.Dial != nil {
		return r.answer("no overlap; this machine's own routes do not count, since it reaches the cloud another way")
	}
	mine, err := ownRanges()
	if err != nil {
		return failed(err, "")
	}
	for _, c := range clashes(declared, mine) {
		if mine[c.other] == declared[c.key] && strings.HasPrefix(c.other, "route ") {
			continue // somebody's way to the stack
		}
		r.warning(c.key, fmt.Sprintf("%s overlaps %s of this machine", declared[c.key], c.other),
			"what lives there and the stack's nodes and pods do not reach each other: declare another range, or work from elsewhere")
	}
	return r.answer("no overlap")
}

// ranges are the declared ones, by their keys in a lab file.
func (d *diagnosis) ranges() map[string]netip.Prefix {
	n := d.config.Networks
	return map[string]netip.Prefix{
		"networks.vm.cidr": n.VM.CIDR.Prefix, "networks.pod.cidr": n.Pod.CIDR.Prefix, "networks.service.cidr": n.Service.CIDR.Prefix,
	}
}

type clash struct{ key, other string }

// clashes are the pairs that overlap, in order.
func clashes(declared, others map[string]netip.Prefix) (all []clash) {
	for _, key := range slices.Sorted(maps.Keys(declared)) {
		for _, other := range slices.Sorted(maps.Keys(others)) {
			if declared[key].Overlaps(others[other]) {
				all = append(all, clash{key, other})
			}
		}
	}
	return all
}

// endpointAddresses are those of the services, by their hosts; one that cannot be resolved from here has none.
func (d *diagnosis) endpointAddresses(ctx context.Context) map[string]netip.Addr {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	all := map[string]netip.Addr{}
	for _, e := range d.cloud().Endpoints() {
		u, err := url.Parse(e.URL)
		if err != nil || e.Interface != d.cloud().Interface() {
			continue
		}
		host := u.Hostname()
		if a, err := netip.ParseAddr(host); err == nil {
			all[host] = a
		} else if _, asked := all[host]; !asked && d.options.Dial == nil {
			if found, err := net.DefaultResolver.LookupNetIP(ctx, "ip4", host); err == nil {
				for _, a := range found {
					all[host] = a.Unmap()
				}
			}
		}
	}
	return all
}

// routesFile is where Linux shows its IPv4 routes (proc_net(5)); other systems tell their addresses alone.
const routesFile = "/proc/net/route"

// ownRanges are what this machine takes for reachable without its default route: its addresses' networks, and its routes.
func ownRanges() (map[string]netip.Prefix, error) {
	all := map[string]netip.Prefix{}
	mine, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("reading this machine's addresses: %w", err)
	}
	for _, a := range mine {
		if x, err := netip.ParsePrefix(a.String()); err == nil && !x.Addr().IsLoopback() {
			all["address "+a.String()] = x.Masked()
		}
	}
	if text, err := os.ReadFile(routesFile); err == nil {
		connected := slices.Collect(maps.Values(all))
		for name, p := range routes(string(text)) {
			if !slices.Contains(connected, p) {
				all[name] = p
			}
		}
	}
	return all, nil
}

// routes reads a table of routes as Linux has it, without the default one.
func routes(table string) map[string]netip.Prefix {
	all := map[string]netip.Prefix{}
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 8 {
			continue
		}
		var to, mask uint32 // in the byte order of the machine, which is little-endian wherever kuryrctl is built for
		if n, err := fmt.Sscanf(f[1]+" "+f[7], "%x %x", &to, &mask); n != 2 || err != nil || mask == 0 {
			continue
		}
		bits, _ := net.IPMask{byte(mask), byte(mask >> 8), byte(mask >> 16), byte(mask >> 24)}.Size()
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(to), byte(to >> 8), byte(to >> 16), byte(to >> 24)}), bits)
		all[fmt.Sprintf("route %s by %s", p, f[0])] = p
	}
	return all
}

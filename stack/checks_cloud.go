package stack

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
)

const (
	endpointLimit = 20 * time.Second // for a service to answer at all
	slowEndpoint  = 2 * time.Second
)

func checkEndpoints(ctx context.Context, d *diagnosis) answer {
	services := []string{"identity", "network", "compute", "image", "load-balancer"}
	if slices.ContainsFunc(d.config.kinds(), func(n Nodes) bool { return n.RootVolume.Size > 0 }) {
		services = append(services, "block-storage")
	}
	if d.config.DNS.Designate {
		services = append(services, "dns")
	}
	took, errs := make([]time.Duration, len(services)), make([]error, len(services))
	var wg sync.WaitGroup
	for i, service := range services {
		wg.Go(func() {
			ctx, cancel := context.WithTimeoutCause(ctx, endpointLimit, fmt.Errorf("it did not answer within %v", endpointLimit))
			defer cancel()
			begin := time.Now()
			errs[i] = d.stack.session.Ping(ctx, service)
			took[i] = time.Since(begin).Round(time.Millisecond)
		})
	}
	wg.Wait()
	var slow, all, broken, do []string
	var worst answer
	for i, service := range services {
		if err := errs[i]; err != nil {
			mend := d.mayRead(err)
			if openstack.IsNoService(err) {
				mend = "a cloud without it cannot hold a stack; check region and interface, or ask the operator"
			}
			worst = failed(err, "")
			broken, do = append(broken, err.Error()), append(do, mend)
			continue
		}
		all = append(all, fmt.Sprintf("%s %v", service, took[i]))
		if took[i] > slowEndpoint {
			slow = append(slow, service)
		}
	}
	switch {
	case len(broken) > 0:
		worst.text, worst.do = strings.Join(broken, "; "), strings.Join(slices.Compact(do), "; ")
		return worst
	case len(slow) > 0:
		return warning("slow: "+strings.Join(all, ", "), "expect every step to take longer")
	}
	return good("%s", strings.Join(all, ", "))
}

// Extension is one of Neutron's, and what it is for.
type Extension struct {
	Alias, Why string
	Needed     bool // else a stack does without it, and Why is what it loses
}

// Extensions are those that a stack asks of Neutron.
func Extensions() []Extension { return slices.Clone(extensions) }

var extensions = []Extension{
	{"trunk", "pods are subports of their node's trunk", true},
	{"router", "the networks meet in a router", true},
	{"security-group", "nodes and pods are protected by groups", true},
	{"standard-attr-description", "whose an object is stands in its description", true},
	{"port-security", "that somebody turned it off on a port is not seen", false},
	{"trunk-details", "a port does not show whose trunk it is on", false},
	{"standard-attr-timestamp", "what is new cannot be told from what was left behind", false},
	{"standard-attr-tag", "tags that others look for cannot be set", false},
	{"quota_details", "what is left of Neutron's quotas is not known before they are used up", false},
	{"net-mtu", "the MTUs of networks are not known and not compared", false},
	{"network-ip-availability", "addresses in use are counted by the ports that the login sees", false},
	{"dns-integration", "Neutron gives ports no names of their own", false},
}

const enableExtensions = "the operator enables them in neutron.conf (service_plugins) and ml2_conf.ini (extension_drivers)"

func checkExtensions(ctx context.Context, d *diagnosis) answer {
	have, err := d.cloud().Extensions(ctx)
	if err != nil {
		return failed(err, "ask the operator of the cloud")
	}
	var lacks, misses []string
	for _, x := range extensions {
		switch {
		case have.Has(x.Alias):
		case x.Needed:
			lacks = append(lacks, x.Alias+" ("+x.Why+")")
		default:
			misses = append(misses, x.Alias+" ("+x.Why+")")
		}
	}
	switch {
	case len(lacks) > 0:
		return problem("Neutron lacks "+strings.Join(lacks, ", "), enableExtensions)
	case len(misses) > 0:
		return warning("Neutron is without "+strings.Join(misses, ", "), "a stack does without; "+enableExtensions)
	}
	return good("all %d are there", len(extensions))
}

// listenerACL is the version of Octavia's API that has allowed_cidrs.
const listenerACL = 12

func checkProvider(ctx context.Context, d *diagnosis) answer {
	provider, err := d.stack.session.BalancerProvider(ctx, d.config.OctaviaProvider)
	if err != nil {
		a := failed(err, "set octavia_provider to one that there is")
		if d.config.OctaviaProvider != "" {
			a.whose = You
		}
		return a
	}
	switch version := d.stack.session.BalancerVersion(ctx); {
	case version == 0:
		return good("%s; Octavia does not tell its version", provider)
	case version < listenerACL:
		return warning(fmt.Sprintf("%s, API 2.%d: it has no allowed_cidrs, which loadBalancerSourceRanges of Services need", provider, version),
			"ask the operator for a newer Octavia")
	default:
		return good("%s, API 2.%d", provider, version)
	}
}

func checkExternal(ctx context.Context, d *diagnosis) answer {
	external, err := d.stack.session.ExternalNetwork(ctx, d.config.PublicNet)
	if err != nil {
		return failed(err, "set public_net")
	}
	room, err := d.stack.session.ExternalRoom(ctx, external.ID)
	if err != nil {
		return failed(err, "ask the operator of the cloud")
	}
	if room.Total == 0 {
		return good("%s, %s; Neutron does not tell this login how many addresses are free", external.Name, external.ID)
	}
	demand, err := d.stack.demand(ctx, d.lab)
	if err != nil {
		return failed(err, "see check objects")
	}
	expected, _ := d.headroom()
	free, wanted := room.Total-room.Used, demand["floatingip"]+demand["router"]+expected["floatingip"]
	if free < wanted {
		return problem(fmt.Sprintf("%d of its %d addresses are free, and %d more are needed: for the router and for floating IPs", free, room.Total,
			wanted),
			"release floating IPs that nobody needs (openstack floating ip list --status DOWN), or ask the operator for a larger range").of(TheCloud)
	}
	return good("%s, %s; %d of %d addresses are free", external.Name, external.ID, free, room.Total)
}

func checkImage(ctx context.Context, d *diagnosis) answer {
	image, err := d.stack.session.Image(ctx, d.config.Image)
	if err != nil {
		return failed(err, "set image")
	}
	login, err := d.config.login(image)
	if err != nil {
		return failed(err, "set ssh_user")
	}
	return good("%s, %s, %s, login %s", image.Name, image.ID, image.Visibility, login)
}

const (
	// leastRAM is what a node needs in MiB. kubeadm asks 1700 of a control plane (preflight check "Mem").
	leastRAM = 1700
	// leastDisk is what it should have in GB: system, images and room that kubelet does not evict in.
	leastDisk = 8
)

func checkFlavors(ctx context.Context, d *diagnosis) answer {
	image, _ := d.stack.session.Image(ctx, d.config.Image) // whose absence is another check's finding
	var r remarks
	var seen []string
	for _, kind := range d.config.kinds() {
		name := kind.Flavor
		f, err := d.stack.session.Flavor(ctx, name)
		if err != nil {
			return failed(err, "set masters.flavor and workers.flavor")
		}
		disk := cmp.Or(kind.RootVolume.Size, f.Disk)
		seen = append(seen, fmt.Sprintf("%s (%d vCPU, %d MiB, %d GB)", f.Name, f.VCPUs, f.RAM, disk))
		if what, do := kind.misfit(f, image); what != "" {
			r.problem("flavor "+name, what, do)
			continue
		}
		if err := d.stack.volumeMissing(ctx, kind); err != nil {
			r.problem("flavor "+name, err.Error(), "set root_volume, or ask the operator for what it needs")
		}
		if f.RAM < leastRAM {
			r.problem("flavor "+name, fmt.Sprintf("it has %d MiB of memory", f.RAM), fmt.Sprintf("choose one with at least %d MiB", leastRAM))
		}
		if disk < leastDisk {
			r.warning("flavor "+name, fmt.Sprintf("its disk has %d GB", disk), fmt.Sprintf("choose one with at least %d GB", leastDisk))
		}
	}
	return r.answer(strings.Join(seen, ", "))
}

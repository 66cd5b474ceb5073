package stack

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
)

func checkDeclaration(_ context.Context, d *diagnosis) answer {
	if err := d.config.Validate(); err != nil {
		return failed(err, "correct the lab file or the flags")
	}
	return good("masters: %d, workers: %d", d.config.Masters.Count, d.config.Workers.Count)
}

func checkCloud(ctx context.Context, d *diagnosis) answer {
	cloud, err := d.connect(ctx)
	if err != nil {
		do := "correct the credentials in clouds.yaml or OS_*"
		if openstack.IsNotConfigured(err) {
			do = "write a clouds.yaml, source an openrc file, or run `kuryrctl cloud up` for one on this machine"
		}
		return failed(err, do)
	}
	name := d.name
	if name == "" {
		name = "doctor"
	}
	if d.stack, err = Open(cloud, name, d.options); err != nil {
		return failed(err, "")
	}
	if _, err := d.stack.session.Discover(ctx); err != nil {
		return failed(err, "")
	}
	d.lab = d.stack.Design(d.config)
	d.view = d.stack.view()
	return good("%s as user %s in project %s (%s), roles %s", cloud.Name, cloud.UserName(), cloud.ProjectName(), cloud.ProjectID(), strings.Join(cloud.Roles(), ", "))
}

func (d *diagnosis) cloud() *openstack.Cloud { return d.stack.session.Cloud }

func checkClock(_ context.Context, d *diagnosis) answer {
	skew := d.cloud().ClockSkew().Round(time.Second)
	if skew.Abs() > time.Minute {
		return warning(fmt.Sprintf("this machine is %v off", skew), "set the clock: tokens and certificates are refused when it is wrong")
	}
	return good("within %v", max(skew.Abs(), time.Second))
}

func checkToken(_ context.Context, d *diagnosis) answer {
	left := time.Until(d.cloud().TokenExpires()).Round(time.Minute)
	if left < 10*time.Minute {
		return warning(fmt.Sprintf("it ends in %v", left), "kuryrctl logs in again by itself, unless the login is a token: then take a fresh one")
	}
	return good("%v left", left)
}

func checkEndpoints(ctx context.Context, d *diagnosis) answer {
	var slow, all []string
	for _, service := range []string{"network", "compute", "image", "load-balancer"} {
		begin := time.Now()
		err := d.stack.session.Ping(ctx, service)
		if openstack.IsNoService(err) {
			return failed(err, "a cloud without it cannot hold a stack; check region and interface, or ask the operator")
		}
		if err != nil {
			return failed(err, "ask the operator of the cloud")
		}
		took := time.Since(begin).Round(time.Millisecond)
		all = append(all, fmt.Sprintf("%s %v", service, took))
		if took > 2*time.Second {
			slow = append(slow, service)
		}
	}
	if len(slow) > 0 {
		return warning("slow: "+strings.Join(all, ", "), "expect every step to take longer")
	}
	return good("%s", strings.Join(all, ", "))
}

// extensions are what Neutron must have, and why.
var extensions = []struct{ alias, why string }{
	{"trunk", "pods are subports of their node's trunk"},
	{"router", "the networks meet in a router"},
	{"ext-gw-mode", "the router has a gateway"},
	{"security-group", "nodes and pods are protected by groups"},
	{"allowed-address-pairs", "virtual addresses"},
	{"port-security", "pods' ports are filtered"},
}

func checkExtensions(ctx context.Context, d *diagnosis) answer {
	have, err := d.cloud().Extensions(ctx)
	if err != nil {
		return failed(err, "")
	}
	var lacks []string
	for _, x := range extensions {
		if !have.Has(x.alias) {
			lacks = append(lacks, x.alias+" ("+x.why+")")
		}
	}
	if len(lacks) > 0 {
		return problem("Neutron lacks "+strings.Join(lacks, ", "), "the operator enables them in neutron.conf (service_plugins) and ml2_conf.ini (extension_drivers)")
	}
	return good("all %d are there", len(extensions))
}

func checkProvider(ctx context.Context, d *diagnosis) answer {
	provider, err := d.stack.session.BalancerProvider(ctx, d.config.OctaviaProvider)
	if err != nil {
		return failed(err, "set octavia_provider to one that there is")
	}
	return good("%s", provider)
}

func checkExternal(ctx context.Context, d *diagnosis) answer {
	id, err := d.stack.session.ExternalNetwork(ctx, d.config.PublicNet)
	if err != nil {
		return failed(err, "set public_net")
	}
	return good("%s, %s", d.config.PublicNet, id)
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
	return good("%s, %s, login %s", d.config.Image, image.ID, login)
}

// leastRAM is what a node needs in MiB. kubeadm asks 1700 of a control plane (preflight check "Mem").
const leastRAM = 1700

func checkFlavors(ctx context.Context, d *diagnosis) answer {
	all, err := d.stack.session.Flavors(ctx)
	if err != nil {
		return failed(err, "")
	}
	var seen []string
	for _, name := range d.config.flavors() {
		id, err := d.stack.session.Flavor(ctx, name)
		if err != nil {
			return failed(err, "set masters.flavor and workers.flavor")
		}
		for _, f := range all {
			if f.ID != id {
				continue
			}
			seen = append(seen, fmt.Sprintf("%s (%d vCPU, %d MiB, %d GB)", f.Name, f.VCPUs, f.RAM, f.Disk))
			if f.RAM < leastRAM {
				return problem(fmt.Sprintf("flavor %s has %d MiB of memory", name, f.RAM), fmt.Sprintf("choose one with at least %d", leastRAM))
			}
		}
	}
	return good("%s", strings.Join(seen, ", "))
}

func checkQuota(ctx context.Context, d *diagnosis) answer {
	short, err := d.stack.shortages(ctx, d.lab)
	if err != nil {
		return failed(err, "")
	}
	if len(short) == 0 {
		return good("enough for what is missing")
	}
	var what, do []string
	for _, x := range short {
		what = append(what, x.String())
		if command := x.Command(d.cloud().ProjectName()); command != "" {
			do = append(do, command)
		}
	}
	return problem(strings.Join(what, "; "), "as administrator: "+strings.Join(do, " && "))
}

// checkAddresses looks for ranges that would hide each other. The external network's subnets are seen only where the cloud shows
// them to its users.
func checkAddresses(ctx context.Context, d *diagnosis) answer {
	n := d.config.Networks
	declared := map[string]netip.Prefix{"networks.vm.cidr": n.VM.CIDR.Prefix, "networks.pod.cidr": n.Pod.CIDR.Prefix, "networks.service.cidr": n.Service.CIDR.Prefix}
	external, err := d.stack.session.ExternalRanges(ctx, d.config.PublicNet)
	if err != nil {
		return failed(err, "")
	}
	for key, p := range declared {
		for _, x := range external {
			if x.Overlaps(p) {
				return problem(fmt.Sprintf("%s %s overlaps %s of external network %s", key, p, x, d.config.PublicNet), "declare another range")
			}
		}
	}
	mine, err := net.InterfaceAddrs()
	if err != nil {
		return failed(fmt.Errorf("reading this machine's addresses: %w", err), "")
	}
	for key, p := range declared {
		for _, a := range mine {
			if x, err := netip.ParsePrefix(a.String()); err == nil && !x.Addr().IsLoopback() && x.Masked().Overlaps(p) {
				return warning(fmt.Sprintf("%s %s overlaps %s, where this machine is", key, p, x.Masked()), "nodes would not be able to answer this machine: declare another range, or work from elsewhere")
			}
		}
	}
	return good("no overlap")
}

func checkObjects(ctx context.Context, d *diagnosis) answer {
	if len(d.stack.session.Owned()) == 0 {
		return failed(d.stack.notThere(ctx), "kuryrctl stack "+d.name)
	}
	rows, err := d.stack.withoutHosts(d.lab).Observe(ctx)
	if err != nil {
		return failed(err, "")
	}
	var wrong []string
	for _, row := range rows {
		if action(row.State.Phase) != Keep {
			wrong = append(wrong, strings.TrimSpace(fmt.Sprintf("%s is %s %s", row.Key, row.State.Phase, row.State.Detail)))
		}
	}
	if len(wrong) > 0 {
		return problem(strings.Join(wrong, "; "), "kuryrctl stack "+d.name+" (with the lab file it was made from)")
	}
	return good("all %d", len(rows))
}

func checkServers(_ context.Context, d *diagnosis) answer {
	var wrong []string
	for _, n := range d.view.Nodes {
		if n.Status != "ACTIVE" {
			wrong = append(wrong, n.Name+" is "+orNone(n.Status)+d.stack.session.Fault(n.ServerID))
		}
	}
	if len(wrong) > 0 {
		return problem(strings.Join(wrong, "; "), "kuryrctl stack "+d.name+" starts what is stopped and replaces what is in ERROR")
	}
	return good("all %d are ACTIVE", len(d.view.Nodes))
}

func orNone(status string) string {
	if status == "" {
		return "without a server"
	}
	return status
}

func checkBalancers(_ context.Context, d *diagnosis) answer {
	var wrong []string
	for _, l := range d.view.LoadBalancers {
		if l.Status != "ACTIVE" {
			wrong = append(wrong, l.Name+" is "+l.Status)
		}
	}
	if len(wrong) > 0 {
		return problem(strings.Join(wrong, "; "), "wait while it is PENDING; kuryrctl stack "+d.name+" replaces what is in ERROR")
	}
	return good("all %d are ACTIVE", len(d.view.LoadBalancers))
}

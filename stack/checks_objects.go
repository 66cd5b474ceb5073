package stack

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/kuryrctl/kuryrctl/provision"
)

func checkNames(ctx context.Context, d *diagnosis) answer {
	all, err := d.stack.session.Namesakes(ctx)
	if err != nil {
		return failed(err, d.mayRead(err))
	}
	if len(all) > 0 {
		return problem(strings.Join(all, "; "),
			"rename or delete those that are not the stack's; of two that are, delete the one that nothing is attached to")
	}
	return good("each is")
}

// checkObjects leaves out what only needs something that could not be looked at.
func checkObjects(ctx context.Context, d *diagnosis) answer {
	if len(d.stack.session.Owned()) == 0 {
		return failed(d.stack.notThere(ctx), "kuryrctl stack "+d.name).of(You)
	}
	rows, err := d.stack.withoutHosts(d.lab).Observe(ctx)
	var wrong []string
	if err != nil {
		wrong = strings.Split(err.Error(), "\n")
	}
	for _, row := range rows {
		if row.Err == nil && action(row.State.Phase) != Keep {
			wrong = append(wrong, strings.TrimSpace(fmt.Sprintf("%s is %s %s", row.Key, row.State.Phase, row.State.Detail)))
		}
	}
	if len(wrong) == 0 {
		return good("all %d", len(rows))
	}
	a := problem("", "")
	if err != nil {
		a = failed(err, "")
	}
	a.text = strings.Join(wrong, "; ")
	a.do = "kuryrctl stack " + d.name + " (with the lab file it was made from); where two are called the same, see check names first"
	return a
}

func checkServers(ctx context.Context, d *diagnosis) answer {
	var r remarks
	for _, n := range d.view.Nodes {
		switch n.Status {
		case "ACTIVE":
		case "ERROR":
			r.problem(n.Name, "its server is in ERROR: "+orNone(d.stack.session.Fault(ctx, n.ServerID), "Nova gives no reason"),
				"what Nova says of "+n.Name+" is for the operator to mend; then kuryrctl stack "+d.name+" replaces the server")
		case "":
			r.problem(n.Name, "it is without a server", "kuryrctl stack "+d.name+" makes it")
			r.whose = You
		default:
			r.problem(n.Name, "its server is "+n.Status, "kuryrctl stack "+d.name+" starts what is stopped; what is on its way, wait for")
			r.whose = You
		}
	}
	return r.answer(fmt.Sprintf("all %d are ACTIVE", len(d.view.Nodes)))
}

// checkPorts looks at nodes whose server runs; what others have is down with them.
func checkPorts(ctx context.Context, d *diagnosis) answer {
	wirings, err := d.stack.session.Wirings(ctx)
	if err != nil {
		return failed(err, d.mayRead(err))
	}
	var r remarks
	for _, n := range d.view.Nodes {
		if n.Status == "ACTIVE" {
			d.judgeWiring(&r, n, wirings[n.PortID])
		}
	}
	return r.answer(fmt.Sprintf("those of %d nodes", len(d.view.Nodes)))
}

func (d *diagnosis) judgeWiring(r *remarks, n NodeView, w provision.Wiring) {
	byHand := func(what, do string) {
		r.problem(n.Name, what, do)
		r.whose = You
	}
	const wire = "OpenStack has not wired it: the operator looks at binding:vif_type of the port and at the hypervisor's ovn-controller or OVS agent"
	switch port := "its port " + n.PortID; {
	case w.Device != n.ServerID:
		byHand(port+" is not on its server any more", "openstack server add port "+n.ServerID+" "+n.PortID+", and start the server anew")
	case !w.Up:
		byHand(port+" is switched off", "openstack port set --enable "+n.PortID)
	case w.Status != "ACTIVE":
		r.problem(n.Name, port+" is "+w.Status+" while its server runs", wire)
	}
	if !w.Filtered {
		byHand("port security is off on its port, and no security group counts",
			"openstack port set --enable-port-security "+n.PortID+", then kuryrctl stack "+d.name)
	}
	if w.Trunk == nil {
		return // which is check objects' finding
	}
	switch trunk := "its trunk " + w.Trunk.ID; {
	case !w.Trunk.Up:
		byHand(trunk+" is switched off and takes no subports", "openstack network trunk set --enable "+w.Trunk.ID)
	case w.Trunk.Status == "DEGRADED", w.Trunk.Status == "BUILD":
		r.warning(n.Name, trunk+" is "+w.Trunk.Status, "wait; if it stays so: "+wire)
	case w.Trunk.Status != "ACTIVE":
		r.problem(n.Name, trunk+" is "+w.Trunk.Status+" while its server runs", wire)
	}
}

// checkNetworks is about what lives in the networks; what they are declared to be is the plan's to compare.
func checkNetworks(ctx context.Context, d *diagnosis) answer {
	var r remarks
	mtu := map[string]int{}
	for _, n := range d.view.Networks {
		role := strings.TrimPrefix(n.Name, d.name+"/")
		var err error
		if mtu[role], err = d.stack.session.MTU(ctx, n.ID); err != nil {
			return failed(err, d.mayRead(err))
		}
		if role == "service_net" {
			d.judgeServiceNetwork(&r, n.ID)
		}
	}
	if vm, pod := mtu["vm_net"], mtu["pod_net"]; vm > 0 && pod > vm {
		r.problem("pod_net", fmt.Sprintf("its MTU %d does not fit into the %d of vm_net, in which pods' packets leave their node", pod, vm),
			fmt.Sprintf("openstack network set --mtu %d %s", vm, d.stack.session.Name("pod_net")))
	}
	return r.answer("ranges, allocation pools and MTUs fit")
}

// judgeServiceNetwork looks for what Neutron has put, or may put, where Kubernetes hands out ClusterIPs. Only load balancers belong there,
// each at the address that was asked for it.
func (d *diagnosis) judgeServiceNetwork(r *remarks, network string) {
	found := d.stack.session.Inventory()
	clusterIPs := d.config.Networks.Service.ClusterIPs()
	inside := func(text string) bool {
		a, err := netip.ParseAddr(text)
		return err == nil && clusterIPs.Contains(a)
	}
	for _, sub := range found.Subnets {
		for _, pool := range sub.AllocationPools {
			if sub.NetworkID == network && inside(pool.Start) {
				r.problem("service_net",
					fmt.Sprintf("Neutron allocates %s-%s, and Kubernetes hands out %s as ClusterIPs", pool.Start, pool.End, clusterIPs),
					"openstack subnet set --no-allocation-pool --allocation-pool start=...,end=... "+sub.ID+", with the upper half of the range")
			}
		}
	}
	vips := map[string]bool{}
	for _, l := range found.LoadBalancers {
		vips[l.VipPortID] = true
	}
	for _, p := range found.Ports {
		for _, ip := range p.FixedIPs {
			if p.NetworkID == network && !vips[p.ID] && inside(ip.IPAddress) {
				r.problem("service_net",
					fmt.Sprintf("port %s has %s, which Kubernetes may give to a Service", strings.TrimSpace(p.ID+" "+p.Name), ip.IPAddress),
					"delete that port, or give it an address of the upper half")
				r.whose = You
			}
		}
	}
}

func checkBalancers(ctx context.Context, d *diagnosis) answer {
	var ids []string
	for _, l := range d.view.LoadBalancers {
		ids = append(ids, l.ID)
	}
	listeners, err := d.stack.session.Listeners(ctx, ids)
	if err != nil {
		return failed(err, d.mayRead(err))
	}
	var r remarks
	for _, l := range d.view.LoadBalancers {
		switch {
		case l.Status != "ACTIVE":
			r.problem(l.Name, "it is "+l.Status, "wait while it is PENDING, a quarter of an hour at most: what is so for longer, only the cloud's operator can end; kuryrctl stack "+d.name+" replaces what is in ERROR")
			r.whose = TheCloud
		case l.Name == d.stack.session.Name(apiBalancer):
			if d.bare() == "" { // else nothing listens on its members
				judgeListeners(&r, l, listeners[l.ID])
			}
		default:
			judgeListeners(&r, l, listeners[l.ID])
		}
	}
	return r.answer(fmt.Sprintf("all %d are ACTIVE", len(d.view.LoadBalancers)))
}

// judgeListeners: a member without a monitor is as good as one that answers, since nobody asks it.
func judgeListeners(r *remarks, l LoadBalancerView, all []provision.Listener) {
	for _, x := range all {
		var out []string
		for _, m := range x.Members {
			if m.Status == "ERROR" || m.Health == "ERROR" || m.Health == "OFFLINE" {
				out = append(out, fmt.Sprintf("%s:%d %s", m.Address, m.Port, m.Health))
			}
		}
		at := fmt.Sprintf("%s:%d", l.VIP, x.Port)
		do := "see what listens there; one that is OFFLINE may be switched off: openstack loadbalancer status show " + l.ID
		switch {
		case x.Status != "ACTIVE":
			r.problem(l.Name, at+" is "+x.Status, "wait while it is PENDING; else its operator looks at Octavia's log")
		case len(out) == 0:
		case len(out) == len(x.Members):
			r.problem(l.Name, at+" leads to nothing that answers: "+some(out), do)
		default:
			r.warning(l.Name, fmt.Sprintf("%s: of %d members these do not answer: %s", at, len(x.Members), some(out)), do)
		}
	}
}

// checkLeaks: what the cluster's controller makes it also removes; what it forgot is check pod-ports' finding.
func checkLeaks(ctx context.Context, d *diagnosis) answer {
	rows, _ := d.stack.withoutHosts(d.lab).Observe(ctx) // what could not be looked at is check objects' finding
	var r remarks
	for _, c := range d.stack.compare(d.stack.session.Inventory(), rows).Changes {
		switch {
		case c.Action != Extra:
		case strings.Contains(c.Key, d.stack.session.Name("droptest")):
			r.warning(c.Key, "a drop test that was cut off has left it: "+c.ID, "kuryrctl doctor "+d.name+" --active removes it, and so does unstack")
		default:
			r.warning(c.Key, strings.TrimSpace("it carries the stack's mark and is not declared: "+c.ID+" "+c.Detail),
				"declare it, remove it with openstack, or let kuryrctl unstack "+d.name+" do that with the rest")
		}
	}
	for _, o := range d.stack.session.Foreign() {
		r.warning(o.String(), "it is on the stack's networks and somebody else's", "leave it, and remove it before kuryrctl unstack "+d.name)
	}
	return r.answer("nothing")
}

// What a network may be full by, in percent.
const (
	nearlyFull = 90
	full       = 98
)

func checkSubnets(ctx context.Context, d *diagnosis) answer {
	rooms, err := d.stack.session.Rooms(ctx)
	if err != nil {
		return failed(err, "ask the operator of the cloud")
	}
	var r remarks
	var well []string
	for _, x := range rooms {
		percent := 100 * float64(x.Used) / float64(x.Total)
		text := fmt.Sprintf("%d of %d addresses are in use, %.0f %%", x.Used, x.Total, percent)
		well = append(well, x.Network+": "+text)
		do := "remove from " + x.Network + " what nobody needs, or add a subnet to it"
		switch {
		case percent > full:
			r.problem(x.Network, text, do)
		case percent > nearlyFull:
			r.warning(x.Network, text, do)
		}
	}
	return r.answer(cmp.Or(strings.Join(well, "; "), "there are no networks"))
}

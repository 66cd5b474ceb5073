package stack

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kuryrctl/kuryrctl/bootstrap"
)

// What is too little, and what is too much.
const (
	connectLimit = 10 * time.Second // for a node to answer SSH
	inspectLimit = 40 * time.Second // for its script to end, which takes a second where processes start fast
	skewLimit    = 5 * time.Second  // of a clock, before etcd and certificates complain
	spreadLimit  = 2 * time.Second  // between two nodes
	soon         = 30 * 24 * time.Hour
	recently     = 10 * time.Minute
	mib          = 1 << 10 // in KiB
)

// remarks gathers what a check has to say about several things.
type remarks struct {
	bad, odd, mend []string
	whose          Whose // "" is the check's
}

func (r *remarks) problem(node, what, do string) { r.add(&r.bad, node, what, do) }

func (r *remarks) warning(node, what, do string) { r.add(&r.odd, node, what, do) }

func (r *remarks) add(to *[]string, node, what, do string) {
	*to = append(*to, node+": "+what)
	if do != "" && !slices.Contains(r.mend, do) {
		r.mend = append(r.mend, do)
	}
}

// answer is the sum of it; well is said where there is nothing to remark.
func (r *remarks) answer(well string) answer {
	a := answer{Good, well, strings.Join(r.mend, "; "), r.whose, ""}
	if len(r.odd) > 0 {
		a.verdict = Warning
	}
	if len(r.bad) > 0 {
		a.verdict = Bad
	}
	if all := append(slices.Clone(r.bad), r.odd...); len(all) > 0 {
		a.text = strings.Join(all, "; ")
	}
	return a
}

// bare says why the nodes are no cluster's, or "".
func (d *diagnosis) bare() string {
	if !d.config.Kubernetes.Install {
		return "Kubernetes is not declared"
	}
	if c, err := d.stack.Declaration(); err == nil && !c.Kubernetes.Install {
		return "the stack was last declared without Kubernetes"
	}
	return ""
}

// unreached says that some nodes do not answer SSH, of which check ssh has the reasons; "" if all do.
func (d *diagnosis) unreached() string {
	var names []string
	for _, n := range d.view.Nodes {
		if !d.answers[n.Name] {
			names = append(names, n.Name)
		}
	}
	switch {
	case len(d.view.Nodes) == 0:
		return "there are no nodes"
	case len(names) == 0:
		return ""
	}
	return "not asked, since SSH does not answer: " + strings.Join(names, ", ")
}

// everywhere does something for every node at once.
func (d *diagnosis) everywhere(do func(NodeView)) {
	var wg sync.WaitGroup
	for _, n := range d.view.Nodes {
		wg.Go(func() { do(n) })
	}
	wg.Wait()
}

func checkSSH(ctx context.Context, d *diagnosis) answer {
	if len(d.view.Nodes) == 0 {
		return problem("there are no nodes", "kuryrctl stack "+d.name)
	}
	if _, err := d.stack.KeyPath(); err != nil {
		return warning(err.Error(), "run doctor where the stack was made")
	}
	var mu sync.Mutex
	failures := map[string]error{}
	d.everywhere(func(n NodeView) {
		ctx, cancel := context.WithTimeout(ctx, connectLimit)
		defer cancel()
		_, err := d.stack.Host(ctx, d.view, n.Name)
		mu.Lock()
		defer mu.Unlock()
		d.answers[n.Name] = err == nil
		failures[n.Name] = err
	})
	var r remarks
	for _, n := range d.view.Nodes {
		if err := failures[n.Name]; err != nil {
			r.problem(n.Name, err.Error(), fmt.Sprintf("read its console: kuryrctl logs %s %s --console", d.name, n.Name))
		}
	}
	return r.answer(fmt.Sprintf("all %d", len(d.view.Nodes)))
}

// inspect reads the condition of every node that answers, once.
func (d *diagnosis) inspect(ctx context.Context) {
	if d.conditions != nil {
		return
	}
	d.conditions, d.blind = map[string]*bootstrap.Condition{}, map[string]error{}
	var mu sync.Mutex
	d.everywhere(func(n NodeView) {
		if !d.answers[n.Name] {
			return
		}
		ctx, cancel := context.WithTimeoutCause(ctx, inspectLimit, fmt.Errorf("it did not answer within %v", inspectLimit))
		defer cancel()
		var c *bootstrap.Condition
		client, err := d.stack.Host(ctx, d.view, n.Name)
		if err == nil {
			c, err = bootstrap.Inspect(ctx, client)
		}
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			d.blind[n.Name] = err
			return
		}
		d.conditions[n.Name] = c
	})
}

// eachNode lets judge look at every node whose condition is known, and sums up.
func (d *diagnosis) eachNode(ctx context.Context, r *remarks, judge func(NodeView, *bootstrap.Condition)) answer {
	if why := d.bare(); why != "" {
		return skipped(why)
	}
	d.inspect(ctx)
	for _, n := range d.view.Nodes {
		if c := d.conditions[n.Name]; c != nil {
			judge(n, c)
		}
	}
	missing := d.unreached()
	if len(d.conditions) == 0 && len(r.bad)+len(r.odd) == 0 {
		return skipped(missing)
	}
	a := r.answer(fmt.Sprintf("all %d", len(d.conditions)))
	if missing != "" {
		a.text += "; " + missing
	}
	return a
}

func checkNodeSystem(ctx context.Context, d *diagnosis) answer {
	if why := d.bare(); why != "" {
		return skipped(why)
	}
	var r remarks
	d.inspect(ctx)
	for _, n := range d.view.Nodes {
		if err := d.blind[n.Name]; errors.Is(err, bootstrap.ErrSudo) {
			r.problem(n.Name, err.Error(), fmt.Sprintf("let %s become root on %s: %s ALL=(ALL) NOPASSWD:ALL in /etc/sudoers.d", n.Login, n.Name, n.Login))
		} else if err != nil {
			r.problem(n.Name, err.Error(), "look at its load and its disk: kuryrctl ssh "+d.name+" "+n.Name)
		}
	}
	mtu := 0
	for _, n := range d.view.Networks {
		if n.Name == d.stack.session.Name("pod_net") {
			var err error
			if mtu, err = d.stack.session.MTU(ctx, n.ID); err != nil {
				return failed(err, "")
			}
		}
	}
	d.judgeClocks(&r)
	return d.eachNode(ctx, &r, func(n NodeView, c *bootstrap.Condition) {
		d.judgeSystem(&r, n, c)
		judgeRoom(&r, n.Name, c)
		d.judgeNetwork(&r, n, c, mtu)
	})
}

// judgeClocks holds the clocks against this machine's and against each other.
func (d *diagnosis) judgeClocks(r *remarks) {
	var first, last string
	for _, n := range d.view.Nodes {
		c := d.conditions[n.Name]
		if c == nil {
			continue
		}
		if c.Skew.Abs() > skewLimit {
			r.problem(n.Name, fmt.Sprintf("its clock is %v off this machine's", c.Skew), "set the clocks of this machine and of "+n.Name+" by NTP: chronyc tracking, timedatectl")
		}
		if first == "" || c.Skew < d.conditions[first].Skew {
			first = n.Name
		}
		if last == "" || c.Skew > d.conditions[last].Skew {
			last = n.Name
		}
	}
	if first == last {
		return
	}
	if spread := d.conditions[last].Skew - d.conditions[first].Skew; spread > spreadLimit {
		r.warning(last, fmt.Sprintf("its clock is %v ahead of %s's", spread, first), "set the clocks of both by NTP: chronyc tracking, timedatectl")
	}
}

func (d *diagnosis) judgeSystem(r *remarks, n NodeView, c *bootstrap.Condition) {
	again := "kuryrctl stack " + d.name + " prepares " + n.Name + " again"
	if c.Hostname != n.Name {
		r.problem(n.Name, fmt.Sprintf("its hostname is %s", c.Hostname), again)
	}
	switch c.CloudInit {
	case "", "done":
	case "running":
		r.warning(n.Name, "cloud-init has not ended yet", "wait, then look at its log: kuryrctl logs "+d.name+" "+n.Name+" --unit cloud-init")
	default:
		r.problem(n.Name, "cloud-init: "+c.CloudInit, "read its log: kuryrctl logs "+d.name+" "+n.Name+" --unit cloud-init")
	}
	if len(c.Swap) > 0 {
		r.problem(n.Name, "swap is on ("+strings.Join(c.Swap, ", ")+"), and kubelet does not start with it", again)
	}
	if len(c.Unloaded) > 0 {
		r.problem(n.Name, "not loaded of the kernel's modules: "+strings.Join(c.Unloaded, ", "), again+"; if the kernel has none of that name, take another image")
	}
	if !c.CgroupV2 {
		r.problem(n.Name, "its control groups are not of version 2", "boot "+n.Name+" with systemd.unified_cgroup_hierarchy=1, or take a newer image")
	}
	if len(c.Sysctls) > 0 {
		r.problem(n.Name, strings.Join(c.Sysctls, ", "), again)
	}
	if nm := c.Units["NetworkManager.service"]; nm.Active == "active" && !c.VLANsFree {
		r.warning(n.Name, "NetworkManager runs and no rule keeps it from pods' VLAN links",
			"write [keyfile] and unmanaged-devices=type:vlan to /etc/NetworkManager/conf.d/90-kuryrctl.conf on "+n.Name+", and reload NetworkManager")
	}
}

func judgeRoom(r *remarks, node string, c *bootstrap.Condition) {
	if c.AvailableKiB < 100*mib {
		r.problem(node, fmt.Sprintf("%d MiB of %d MiB memory are left", c.AvailableKiB/mib, c.MemoryKiB/mib), "move pods away from "+node+", or take a bigger flavor")
	} else if c.AvailableKiB < 200*mib {
		r.warning(node, fmt.Sprintf("%d MiB of %d MiB memory are left", c.AvailableKiB/mib, c.MemoryKiB/mib), "move pods away from "+node+", or take a bigger flavor")
	}
	seen := map[string]bool{}
	for _, disk := range c.Disks {
		if seen[disk.At] || disk.SizeKiB == 0 {
			continue
		}
		seen[disk.At] = true
		percent := 100 * disk.FreeKiB / disk.SizeKiB
		say := fmt.Sprintf("%s has %d MiB free, %d %%", disk.At, disk.FreeKiB/mib, percent)
		do := "make room on " + node + ": journalctl --vacuum-size=200M, crictl rmi --prune; kubelet evicts pods below 10 %"
		switch {
		case percent < 5 || disk.FreeKiB < 500*mib:
			r.problem(node, say, do)
		case percent < 15 || disk.FreeKiB < 2048*mib:
			r.warning(node, say, do)
		}
	}
}

// judgeNetwork: that a node has no nameserver is by declaration in a cloud that hands none out.
func (d *diagnosis) judgeNetwork(r *remarks, n NodeView, c *bootstrap.Condition, podMTU int) {
	if len(c.Nameservers) == 0 && len(d.config.DNSServers) > 0 {
		r.warning(n.Name, "it has no nameserver, and dns_servers are declared", "look at /etc/resolv.conf on "+n.Name+", and renew its DHCP lease")
	}
	for server, answers := range c.Nameservers {
		if !answers {
			r.warning(n.Name, "nameserver "+server+" does not answer within 2 s", "declare dns_servers that "+n.Name+" reaches")
		}
	}
	switch {
	case c.Interface == "":
		r.warning(n.Name, "it has no default route", "look at its DHCP lease and at the router")
	case n.TrunkID != "" && c.MTU < podMTU:
		r.problem(n.Name, fmt.Sprintf("the MTU of %s is %d, less than the %d of the pods' network", c.Interface, c.MTU, podMTU),
			fmt.Sprintf("give %s of %s an MTU of at least %d; DHCP of its network should", c.Interface, n.Name, podMTU))
	}
}

func checkNodeRuntime(ctx context.Context, d *diagnosis) answer {
	var r remarks
	return d.eachNode(ctx, &r, func(n NodeView, c *bootstrap.Condition) {
		again := "kuryrctl stack " + d.name + " installs on " + n.Name + " what is missing"
		switch c.Containerd {
		case "answers":
		case "":
			r.problem(n.Name, "it has no containerd", again)
		default:
			r.problem(n.Name, "containerd does not answer: "+c.Containerd, "kuryrctl logs "+d.name+" "+n.Name+" --unit containerd")
		}
		if u := c.Units["containerd.service"]; u.Active != "active" {
			r.problem(n.Name, "containerd is "+u.Active, "kuryrctl logs "+d.name+" "+n.Name+" --unit containerd")
		}
		judgeKubelet(&r, n.Name, c, "kuryrctl logs "+d.name+" "+n.Name+" --unit kubelet")
		if len(c.NoImages) > 0 {
			r.problem(n.Name, "images that are not there: "+strings.Join(c.NoImages, ", "), again)
		}
		for _, file := range c.Preferred {
			r.problem(n.Name, file+" comes before 10-kuryr.conflist: pods get another plugin's network, or none",
				"on "+n.Name+": remove "+file+" and what puts it there (another network plugin in the cluster, or the image), then make the pods there anew")
			r.whose = You
		}
		judgeCertificates(&r, n.Name, c.Certificates, time.Now())
	})
}

func judgeKubelet(r *remarks, node string, c *bootstrap.Condition, do string) {
	u := c.Units["kubelet.service"]
	said := ""
	if line := telling(c.KubeletLog); line != "" {
		said = "; it says: " + line
	}
	switch {
	case u.Active == "activating" && u.Restarts > 0:
		r.problem(node, fmt.Sprintf("kubelet ends again and again, %d times so far%s", u.Restarts, said), do)
	case u.Active != "active":
		r.problem(node, "kubelet is "+u.Active+said, do)
	case u.Restarts > 0 && c.Uptime-u.Since < recently:
		r.warning(node, fmt.Sprintf("kubelet ended by itself and runs since %v%s", (c.Uptime-u.Since).Round(time.Second), said), do)
	}
}

// telling is the last line of a log that looks like an error, else the last line.
func telling(log []string) string {
	for _, line := range slices.Backward(log) {
		if low := strings.ToLower(line); strings.HasPrefix(line, "E") || strings.HasPrefix(line, "F") || strings.Contains(low, "fail") || strings.Contains(low, "err=") {
			return line
		}
	}
	if len(log) == 0 {
		return ""
	}
	return log[len(log)-1]
}

func judgeCertificates(r *remarks, node string, all []bootstrap.Certificate, now time.Time) {
	for _, c := range all {
		do := "on " + node + ": kubeadm certs renew all, then restart the control plane's pods"
		if strings.HasPrefix(path.Base(c.File), "kubelet-") {
			do = "kubelet renews its own while it runs and reaches the API; look why it did not: journalctl -u kubelet on " + node
		}
		switch left := c.Ends.Sub(now); {
		case left <= 0:
			r.problem(node, fmt.Sprintf("%s expired on %s", c.File, c.Ends.Format(time.DateOnly)), do)
		case left < soon:
			r.warning(node, fmt.Sprintf("%s ends on %s", c.File, c.Ends.Format(time.DateOnly)), do)
		}
	}
}

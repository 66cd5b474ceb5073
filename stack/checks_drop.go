package stack

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kuryrctl/kuryrctl/bootstrap"
	"github.com/kuryrctl/kuryrctl/bootstrap/ssh"
	"github.com/kuryrctl/kuryrctl/nodeagent/vif"
	"github.com/kuryrctl/kuryrctl/provision"
)

const (
	closedFor  = 30 // s, for the second subport to be found by ARP; what is dropped then is dropped at once
	openFor    = 60 // s, for a new rule to be in force on every hypervisor
	tidyLimit  = time.Minute
	dropRemedy = "ask its operator: security groups reach the subports of a trunk with ML2/OVN, or ML2/OVS and firewall_driver = openvswitch on every hypervisor; " +
		"iptables_hybrid does not see subports"
)

// checkDrop makes two subports on a worker and tries a connection between them, without and with a rule that lets it in. What it made is
// removed however it ends; what a killed one has left, the next one removes first, and so does unstack. The stack is locked meanwhile: another
// test would take what this one makes for such leftovers.
func checkDrop(ctx context.Context, d *diagnosis) (a answer) {
	if why := d.bare(); why != "" {
		return skipped(why)
	}
	workers := d.workers()
	i := slices.IndexFunc(workers, func(n NodeView) bool { return d.answers[n.Name] && n.TrunkID != "" && n.Status == "ACTIVE" })
	if i < 0 {
		return skipped("there is no worker that runs and answers SSH")
	}
	node := workers[i].Name
	client, err := d.stack.Host(ctx, d.view, node)
	if err != nil {
		return failed(err, "")
	}
	err = d.stack.alone(ctx, UpOptions{Verb: "doctor"}, func(ctx context.Context, g *guard) error {
		if err := g.take(ctx); err != nil {
			return err
		}
		a = d.dropTest(ctx, client, node)
		return nil
	})
	switch {
	case errors.As(err, new(*provision.HeldError)), errors.As(err, new(*BusyError)):
		return skipped(err.Error())
	case err != nil:
		return failed(err, "")
	}
	return a
}

// dropTest makes what the test needs, tests, and removes it.
func (d *diagnosis) dropTest(ctx context.Context, client *ssh.Client, node string) (a answer) {
	session := d.stack.session
	if err := session.EndDropTest(ctx); err != nil {
		return failed(err, "remove what an earlier test has left: the ports and the security group "+session.Name("droptest")+"*")
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyLimit)
		defer cancel()
		if err := session.EndDropTest(ctx); err != nil {
			left := failed(err, fmt.Sprintf("run it again: kuryrctl doctor %s --active removes what is left first, and so does unstack", d.name))
			left.text = "what the test made is not all removed: " + left.text
			a = left
		}
	}()
	test, err := session.BeginDropTest(ctx, node)
	if err != nil {
		return failed(err, "look at pod-pools and pod-cloud: the pods of "+node+" need the same")
	}
	return d.judgeDrop(ctx, client, node, test)
}

// judgeDrop tries twice.
func (d *diagnosis) judgeDrop(ctx context.Context, client *ssh.Client, node string, test *provision.DropTest) answer {
	ask := vif.DropTest{ParentMAC: test.ParentMAC, From: subport(test, 0), To: subport(test, 1), Seconds: closedFor}
	path := fmt.Sprintf("%s: TCP from %s to %s, two subports of its trunk", node, test.Ends[0].Address.Addr(), test.Ends[1].Address.Addr())
	broken := func(err error) answer {
		if errors.Is(err, bootstrap.ErrOldNode) {
			return failed(fmt.Errorf("%s: %w", node, err), "kuryrctl stack "+d.name+" brings this one's").of(Kuryrctl)
		}
		return failed(err, "").of(Kuryrctl)
	}
	closed, err := bootstrap.DropTest(ctx, client, ask)
	switch {
	case err != nil:
		return broken(err)
	case closed == vif.Passed:
		return problem(path+", passed, though the security group of the second lets nothing in: the cloud does not hold security groups on subports, and every pod is "+
			"open to whoever reaches the pod network", dropRemedy)
	case closed == vif.Unreachable:
		return problem(fmt.Sprintf("%s: the second did not answer to ARP within %d s, though Neutron calls both ACTIVE", path, closedFor),
			dropRemedy+"; else the hypervisor has not wired them: ovn-controller or the OVS agent there")
	}
	if err := test.Allow(ctx, vif.DropTestPort); err != nil {
		return failed(err, "")
	}
	begin := time.Now()
	ask.Open, ask.Seconds = true, openFor
	switch open, err := bootstrap.DropTest(ctx, client, ask); {
	case err != nil:
		return broken(err)
	case open != vif.Passed:
		return problem(fmt.Sprintf("%s, was dropped as it should, and is still (%s) %d s after a rule was made that lets it in: no rule of a security group opens a pod", path, open, openFor),
			dropRemedy)
	}
	return good("%s, is dropped without a rule that lets it in, and passes %v after one is made", path, time.Since(begin).Round(100*time.Millisecond))
}

// subport is an end of the test as its node needs it.
func subport(t *provision.DropTest, i int) vif.Subport {
	e := t.Ends[i]
	return vif.Subport{Port: e.Port, MAC: e.MAC, VLAN: e.VLAN, MTU: t.MTU, IPs: []vif.IP{{Address: e.Address.String()}}}
}

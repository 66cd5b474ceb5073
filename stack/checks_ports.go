package stack

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/kuryrctl/kuryrctl/nodeagent/vif"
)

func checkPodPorts(ctx context.Context, d *diagnosis) answer {
	var blind error
	a := d.ofPods(ctx, func(n *network, r *remarks) string {
		if blind = n.blind; blind != nil {
			return ""
		}
		used := 0
		for _, w := range d.workers() {
			if pool := n.pool(w.Name); pool != nil {
				used += len(pool.Status.Allocations)
				d.judgeSubports(n, r, w, pool)
				d.judgeAllocations(n, r, w, pool)
			}
		}
		d.judgeLeaks(n, r)
		return fmt.Sprintf("%d ports, %d of them have a pod", len(n.ports), used)
	})
	if blind != nil {
		return failed(blind, "ask the operator of the cloud")
	}
	return a
}

// judgeSubports holds what was published against what Neutron has. A subport that is being taken back is on its way; those of a server that
// does not run are down with it, which is another check's finding.
func (d *diagnosis) judgeSubports(n *network, r *remarks, w NodeView, pool *vif.SubportPool) {
	users, since := map[string]string{}, map[string]time.Time{}
	for _, a := range pool.Status.Allocations {
		users[a.Port], since[a.Port] = a.Namespace+"/"+a.Pod, a.Since.Time
	}
	for _, s := range pool.Spec.Subports {
		if s.Retiring {
			continue
		}
		p := n.port(s.Port)
		what, say := "free subport ", r.warning
		if users[s.Port] != "" {
			what, say = "the subport of pod "+users[s.Port]+", ", r.problem
		}
		what += fmt.Sprintf("port %s, VLAN %d", s.Port, s.VLAN)
		wait := "; the controller puts it right by itself while it works: " + d.controllerLogs()
		switch {
		case p == nil:
			say(w.Name, what+", is not in Neutron any more: somebody deleted it", "delete the pod that has it, and its successor gets another"+wait)
		case p.Node == "":
			say(w.Name, what+", is on no trunk any more: somebody took it off", "delete the pod that has it, and its successor gets another"+wait)
		case p.Node != w.Name || p.VLAN != s.VLAN:
			say(w.Name, fmt.Sprintf("%s, is in Neutron on the trunk of %s with VLAN %d", what, p.Node, p.VLAN), "somebody has moved it: delete the pod that has it"+wait)
		case p.Status == "DOWN" && w.Status == "ACTIVE" && n.older(p.Created, settleLimit):
			old := n.at.Sub(p.Created)
			if t, ok := since[s.Port]; ok {
				old = n.at.Sub(t)
			}
			say(w.Name, fmt.Sprintf("%s, is DOWN in Neutron, which has had %v to bring it up", what, old.Round(time.Second)),
				"OpenStack has not wired it: the operator looks at the hypervisor's ovn-controller or OVS agent"+wait)
		}
	}
}

// judgeAllocations holds what the daemon gave away against the pods there are. A daemon that does not report tells nothing of now.
func (d *diagnosis) judgeAllocations(n *network, r *remarks, w NodeView, pool *vif.SubportPool) {
	if n.stale(pool) {
		return
	}
	pods := map[string]bool{}
	has := map[string]bool{}
	for _, p := range n.pods {
		pods[p.UID] = true
	}
	for _, a := range pool.Status.Allocations {
		has[a.UID] = true
		if !pods[a.UID] && n.older(a.Since.Time, settleLimit) {
			r.warning(w.Name, fmt.Sprintf("port %s, VLAN %d, is still held for pod %s/%s, which is no more", a.Port, vlan(pool, a.Port), a.Namespace, a.Pod),
				"its sandbox was never taken down: crictl pods on "+w.Name+" shows it, and crictl rmp removes it; then "+d.daemonLog(w.Name))
		}
	}
	for _, p := range n.pods {
		if p.Node == w.Name && !p.HostNetwork && !p.Ending && p.Phase == "Running" && !has[p.UID] && n.older(p.Started, settleLimit) {
			r.problem(w.Name, "pod "+p.Namespace+"/"+p.Name+" runs and has no port of Neutron", "delete it, and its successor gets one; it may be older than the pods' network, or the daemon has lost its journal: "+
				d.daemonLog(w.Name))
		}
	}
}

func vlan(pool *vif.SubportPool, port string) int {
	for _, s := range pool.Spec.Subports {
		if s.Port == port {
			return s.VLAN
		}
	}
	return 0
}

// judgeLeaks finds what is in Neutron for pods and in no pool. What is new may be on its way into one.
func (d *diagnosis) judgeLeaks(n *network, r *remarks) {
	published := map[string]bool{}
	for _, pool := range n.pools {
		for _, s := range pool.Spec.Subports {
			published[s.Port] = true
		}
	}
	var loose, names []string
	for _, p := range n.ports {
		switch {
		case published[p.ID] || p.Marked && !n.older(p.Created, leakLimit):
		case p.Node == "":
			loose, names = append(loose, p.ID), append(names, strings.TrimSpace(p.ID+" "+p.Name))
		case p.Marked:
			r.warning(p.Node, fmt.Sprintf("port %s, VLAN %d, is on its trunk and not in its SubportPool", p.ID, p.VLAN),
				"the controller publishes or removes it within minutes while it works: "+d.controllerLogs())
		default:
			r.warning(p.Node, fmt.Sprintf("port %s, VLAN %d, on its trunk is none of the stack's: somebody else put it there", p.ID, p.VLAN),
				"leave it, or openstack network trunk unset --subport "+p.ID+" "+d.stack.session.Name(p.Node))
		}
	}
	if len(loose) > 0 {
		r.warning("pod_net", fmt.Sprintf("%d ports carry the stack's mark and are on no trunk and in no SubportPool: %s", len(loose), some(names)),
			"nobody uses them, and the controller removes them within minutes while it works, unless Neutron calls them in use; else: openstack port delete "+strings.Join(loose, " "))
	}
}

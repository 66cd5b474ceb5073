package stack

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kuryrctl/kuryrctl/bootstrap/cluster"
	"github.com/kuryrctl/kuryrctl/nodeagent/vif"
	"github.com/kuryrctl/kuryrctl/provision"
)

// How long what is on its way may take until it is odd, by the clocks of those who say so.
const (
	renewLimit  = 2 * time.Minute // of the controllers' Lease, which is renewed every few seconds
	reportLimit = 3 * time.Minute // of a daemon, which reports at least once a minute
	settleLimit = 3 * time.Minute // for a pool to be filled, for a subport to come up, for a pod's port to be told
	leakLimit   = 5 * time.Minute // for a port to get where it belongs: the controllers look at everything that often
)

// Where the controllers' Lease is; cmd/kuryr-node says so too.
const (
	leaseNamespace = "kube-system"
	leaseName      = "kuryr-controller"
)

// network is what the cluster and Neutron say of pods' ports, at one moment.
type network struct {
	pods    []cluster.Pod
	pools   []vif.SubportPool
	refused []cluster.Refusal
	ports   []provision.PodPort // nil when blind says why
	blind   error
	at      time.Time
}

// podNetwork reads it, once. The order makes what changes meanwhile look new and not wrong: a pod is older than its allocation, and a pool
// older than the ports that it does not know.
func (d *diagnosis) podNetwork(ctx context.Context, api *cluster.Cluster) (*network, error) {
	if d.network != nil || d.noNetwork != nil {
		return d.network, d.noNetwork
	}
	n := &network{at: time.Now()}
	if n.pods, d.noNetwork = api.Pods(ctx, ""); d.noNetwork != nil {
		return nil, d.noNetwork
	}
	if n.pools, d.noNetwork = api.Pools(ctx); d.noNetwork != nil {
		return nil, d.noNetwork
	}
	if n.refused, d.noNetwork = api.Refusals(ctx); d.noNetwork != nil {
		return nil, d.noNetwork
	}
	n.ports, n.blind = d.stack.session.PodPorts(ctx)
	d.network = n
	return n, nil
}

// ofPods runs a check that judges the network of pods.
func (d *diagnosis) ofPods(ctx context.Context, judge func(*network, *remarks) string) answer {
	known := d.noNetwork
	a := d.ofAPI(ctx, func(ctx context.Context, api *cluster.Cluster, r *remarks) (string, error) {
		n, err := d.podNetwork(ctx, api)
		if err != nil {
			return "", err
		}
		return judge(n, r), nil
	})
	switch {
	case known != nil:
		return skipped("the cluster does not tell what its pods have")
	case d.noNetwork != nil:
		a.do = "kuryrctl stack " + d.name + " gives the cluster what pods on Neutron need"
	}
	return a
}

func (n *network) pool(node string) *vif.SubportPool {
	for i := range n.pools {
		if n.pools[i].Name == node {
			return &n.pools[i]
		}
	}
	return nil
}

func (n *network) port(id string) *provision.PodPort {
	for i := range n.ports {
		if n.ports[i].ID == id {
			return &n.ports[i]
		}
	}
	return nil
}

// older tells that something of a time is older than a limit; what has no time is.
func (n *network) older(t time.Time, limit time.Duration) bool { return n.at.Sub(t) > limit }

// stale tells that what the daemon of a node reports is not how it is now.
func (n *network) stale(pool *vif.SubportPool) bool {
	return n.older(pool.Status.Heartbeat.Time, reportLimit)
}

// workers are the servers that have a trunk.
func (d *diagnosis) workers() (all []NodeView) {
	for _, n := range d.view.Nodes {
		if n.Role == string(Worker) {
			all = append(all, n)
		}
	}
	return all
}

// controllers are the masters with an API server, each of which runs a controller.
func (d *diagnosis) controllers() (all []NodeView) {
	for _, n := range d.view.Nodes {
		if n.Role == string(Master) {
			all = append(all, n)
		}
	}
	if len(all) == 2 { // the first is etcd's
		return all[1:]
	}
	return all
}

// controllerLogs is where to read on.
func (d *diagnosis) controllerLogs() string {
	var all []string
	for _, n := range d.controllers() {
		all = append(all, "kuryrctl logs "+d.name+" "+n.Name+" --unit kuryr-controller")
	}
	return strings.Join(all, ", ")
}

func (d *diagnosis) daemonLog(node string) string {
	return "kuryrctl logs " + d.name + " " + node + " --unit kuryr-daemon"
}

func checkPodController(ctx context.Context, d *diagnosis) answer {
	return d.ofAPI(ctx, func(ctx context.Context, api *cluster.Cluster, r *remarks) (string, error) {
		lease, there, err := api.Lease(ctx, leaseNamespace, leaseName)
		holder, _, _ := strings.Cut(lease.Holder, "_") // what follows is of the process
		silent := time.Since(lease.Renewed).Round(time.Second)
		do := "new pods get no ports until one works again: " + d.controllerLogs()
		switch {
		case err != nil:
			return "", err
		case !there:
			r.problem("controller", "none has ever worked here", do)
		case holder == "":
			r.problem("controller", fmt.Sprintf("none works: the last one gave its Lease up %v ago", silent), do)
		case silent > max(renewLimit, 4*lease.Lasts):
			r.problem("controller", fmt.Sprintf("that on %s works no more: it holds the Lease and has not renewed it for %v", holder, silent), do)
		}
		return fmt.Sprintf("that on %s works", holder), nil
	})
}

func checkPodPools(ctx context.Context, d *diagnosis) answer {
	return d.ofPods(ctx, func(n *network, r *remarks) string {
		var well []string
		for _, w := range d.workers() {
			pool := n.pool(w.Name)
			if pool == nil {
				r.problem(w.Name, "it has no SubportPool, and pods on it get no port", "the controller makes one for each node with a trunk; see why it does not: "+d.controllerLogs())
				continue
			}
			free := unused(pool)
			well = append(well, fmt.Sprintf("%s has %d of %d free", w.Name, free, len(pool.Spec.Subports)))
			d.judgePool(n, r, pool, free)
		}
		for _, pool := range n.pools {
			if !slices.ContainsFunc(d.workers(), func(w NodeView) bool { return w.Name == pool.Name }) {
				r.warning(pool.Name, "there is a SubportPool of this name, and no such worker", "kubectl delete node "+pool.Name+"; the controller removes what is left of it")
			}
		}
		return strings.Join(well, ", ")
	})
}

// unused counts the subports of a pool that could be given to a pod now.
func unused(pool *vif.SubportPool) int {
	taken := map[string]bool{}
	for _, a := range pool.Status.Allocations {
		taken[a.Port] = true
	}
	n := 0
	for _, s := range pool.Spec.Subports {
		if !s.Retiring && !taken[s.Port] {
			n++
		}
	}
	cooling := pool.Status.Used - len(pool.Status.Allocations)
	return max(n-max(cooling, 0), 0)
}

// judgePool: the controller has said what is wrong with a pool in its conditions. Where it has not, and nothing has changed for a while, too
// few are free all the same when nobody sees to it.
func (d *diagnosis) judgePool(n *network, r *remarks, pool *vif.SubportPool, free int) {
	left := fmt.Sprintf("; %d of %d subports are free", free, len(pool.Spec.Subports))
	ready, said := "", ""
	changed := pool.CreationTimestamp.Time
	for _, c := range pool.Status.Conditions {
		switch {
		case c.Type == vif.QuotaExceeded && c.Status == "True":
			r.problem(pool.Name, "Neutron makes no more ports, by the project's quota: "+c.Message+left,
				"as administrator: openstack quota set --ports N "+d.cloud().ProjectName()+"; the controller tries again once a minute")
			return
		case c.Type == vif.NoAddresses && c.Status == "True":
			r.problem(pool.Name, "the pods' network has no address left: "+c.Message+left,
				"add a subnet to "+d.stack.session.Name("pod_net")+" and restart kuryr-controller, or remove ports that nobody needs")
			return
		case c.Type == vif.Ready:
			said, changed = c.Message, c.LastTransitionTime.Time
			if ready = "True"; c.Status != "True" {
				ready = c.Reason
			}
		}
	}
	for _, a := range pool.Status.Allocations {
		if a.Since.After(changed) {
			changed = a.Since.Time
		}
	}
	say := r.warning
	if free == 0 {
		say = r.problem
	}
	settled := n.older(changed, settleLimit)
	switch {
	case ready == "PoolAtMax":
		say(pool.Name, fmt.Sprintf("it has %d subports, as many as it may, and %d of them are free", len(pool.Spec.Subports), free),
			"kuryrctl scale "+d.name+" --workers N adds a worker, or let the pool have more (docs/pods.md)")
	case ready == "NoTrunk":
		r.problem(pool.Name, "its trunk is not in Neutron any more", "kuryrctl stack "+d.name+" makes it again")
	case ready == "" && settled:
		r.problem(pool.Name, "the controller has never said how it is", d.controllerLogs())
	case ready != "" && ready != "True" && ready != "Filling":
		r.problem(pool.Name, "the controller cannot fill it, "+ready+": "+said+left, "where OpenStack refuses, its operator finds the request id in Neutron's log; else "+d.controllerLogs())
	case free < pool.Spec.Min && settled:
		say(pool.Name, fmt.Sprintf("%d of its %d subports are free, %d should be, and nothing has changed for %v", free, len(pool.Spec.Subports), pool.Spec.Min,
			n.at.Sub(changed).Round(time.Second)), d.controllerLogs())
	}
}

func checkPodDaemons(ctx context.Context, d *diagnosis) answer {
	return d.ofPods(ctx, func(n *network, r *remarks) string {
		count := 0
		for _, w := range d.workers() {
			pool := n.pool(w.Name)
			if pool == nil {
				continue // which is pod-pools' finding
			}
			count++
			beat := pool.Status.Heartbeat.Time
			do := "pods that run go on; new ones wait or fail: " + d.daemonLog(w.Name)
			switch published := len(pool.Spec.Subports); {
			case beat.IsZero() && n.older(pool.CreationTimestamp.Time, reportLimit):
				r.problem(w.Name, "its daemon has never reported", do)
			case !beat.IsZero() && n.stale(pool):
				r.problem(w.Name, fmt.Sprintf("its daemon has not reported for %v, since %s", n.at.Sub(beat).Round(time.Second), beat.Local().Format(time.DateTime)), do)
			case pool.Status.Subports < published && n.blind == nil && n.settled(pool):
				r.problem(w.Name, fmt.Sprintf("its daemon knows %d of the %d subports that were published more than %v ago", pool.Status.Subports, published, settleLimit),
					"it does not hear the API server: "+d.daemonLog(w.Name))
			}
		}
		return fmt.Sprintf("all %d report", count)
	})
}

// settled tells that no subport of a pool is new.
func (n *network) settled(pool *vif.SubportPool) bool {
	return !slices.ContainsFunc(pool.Spec.Subports, func(s vif.Subport) bool {
		p := n.port(s.Port)
		return p != nil && !n.older(p.Created, settleLimit)
	})
}

// some are the first of many.
func some(all []string) string {
	const most = 5
	if len(all) <= most {
		return strings.Join(all, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(all[:most], ", "), len(all)-most)
}

func checkPodStarts(ctx context.Context, d *diagnosis) answer {
	return d.ofPods(ctx, func(n *network, r *remarks) string {
		type cause struct{ node, why string }
		waiting := map[cause][]string{}
		var order []cause
		for _, x := range n.refused {
			why, ours := refusal(x.Message)
			i := slices.IndexFunc(n.pods, func(p cluster.Pod) bool { return p.UID == x.UID && p.Phase == "Pending" && !p.Ending })
			if !ours || i < 0 || n.older(x.Last, recently) {
				continue
			}
			c, name := cause{n.pods[i].Node, why}, x.Namespace+"/"+x.Pod
			if waiting[c] == nil {
				order = append(order, c)
			}
			if !slices.Contains(waiting[c], name) {
				waiting[c] = append(waiting[c], name)
			}
		}
		for _, c := range order {
			r.problem(c.node, "pods wait for their network: "+some(waiting[c])+": "+c.why, "see pod-pools and pod-daemons for "+c.node+"; "+d.daemonLog(c.node))
		}
		return "none does"
	})
}

// pluginWords are those by which a container runtime quotes kuryr's plugin.
const pluginWords = `plugin type="kuryr-cni"`

// refusal is what kuryr's plugin said, of a kubelet's words about a sandbox that could not be made.
func refusal(message string) (why string, ours bool) {
	_, why, ours = strings.Cut(message, pluginWords)
	if _, after, ok := strings.Cut(why, "): "); ok {
		why = after
	}
	return strings.TrimSpace(why), ours
}

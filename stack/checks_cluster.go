package stack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/kuryrctl/kuryrctl/bootstrap/cluster"
)

// apiLimit bounds the calls of one check.
const apiLimit = 20 * time.Second

// cluster is the stack's API as its administrator sees it, or why it is not asked.
func (d *diagnosis) cluster() (*cluster.Cluster, string) {
	if why := d.bare(); why != "" {
		return nil, why
	}
	if _, err := os.Stat(d.stack.local.kubeconfigPath()); errors.Is(err, fs.ErrNotExist) {
		return nil, "there is no kubeconfig of the stack on this machine; kuryrctl stack " + d.name + " fetches it"
	}
	if len(d.view.Nodes) == 0 || !d.answers[d.view.Nodes[0].Name] {
		return nil, "the API is asked through the first master, which does not answer SSH"
	}
	if d.kubernetes == nil {
		d.kubernetes = d.stack.attach(d.view)
	}
	api, err := d.kubernetes.API()
	if err != nil {
		return nil, err.Error()
	}
	return api, ""
}

func checkAPI(ctx context.Context, d *diagnosis) answer {
	api, why := d.cluster()
	if why != "" {
		return skipped(why)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, apiLimit, fmt.Errorf("it did not answer within %v", apiLimit))
	defer cancel()
	if err := api.Healthy(ctx); err != nil {
		return failed(err, "see whether API servers run: kuryrctl logs "+d.name+" master-0; then the load balancer's members: openstack loadbalancer status show "+d.name+"/"+apiBalancer)
	}
	d.healthy = true
	shown, err := api.Certificate(ctx)
	if err != nil {
		return failed(err, "")
	}
	var lacks []string
	names := d.addresses()
	for _, name := range names {
		if shown.VerifyHostname(name) != nil {
			lacks = append(lacks, name)
		}
	}
	if len(lacks) > 0 {
		return problem("its certificate is not for "+strings.Join(lacks, ", "),
			"add it to apiServer.certSANs in kubeadm-config, and on each master remove /etc/kubernetes/pki/apiserver.crt and .key and run kubeadm init phase certs apiserver")
	}
	return good("ready at %s, with a certificate for it", strings.Join(names, ", "))
}

// addresses are those of the API's load balancer: the virtual one, and the floating ones that lead to it.
func (d *diagnosis) addresses() (all []string) {
	found := d.stack.session.Inventory()
	for _, l := range found.LoadBalancers {
		if l.Name != d.stack.session.Name(apiBalancer) {
			continue
		}
		all = append(all, l.VipAddress)
		for _, f := range found.FloatingIPs {
			if f.PortID == l.VipPortID {
				all = append(all, f.FloatingIP)
			}
		}
	}
	return all
}

// ofAPI runs a check that stands on an API that answers.
func (d *diagnosis) ofAPI(ctx context.Context, check func(context.Context, *cluster.Cluster, *remarks) (string, error)) answer {
	api, why := d.cluster()
	if why == "" && !d.healthy {
		why = "the API does not answer"
	}
	if why != "" {
		return skipped(why)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, apiLimit, fmt.Errorf("it did not answer within %v", apiLimit))
	defer cancel()
	var r remarks
	well, err := check(ctx, api, &r)
	if err != nil {
		return failed(err, "")
	}
	return r.answer(well)
}

func checkNodes(ctx context.Context, d *diagnosis) answer {
	return d.ofAPI(ctx, func(ctx context.Context, api *cluster.Cluster, r *remarks) (string, error) {
		nodes, err := api.Nodes(ctx)
		if err != nil {
			return "", err
		}
		version, err := api.Version(ctx)
		if err != nil {
			return "", err
		}
		known := map[string]bool{}
		for _, n := range nodes {
			known[n.Name] = true
		}
		servers := map[string]bool{}
		for _, n := range d.view.Nodes {
			servers[n.Name] = true
			if !known[n.Name] {
				r.problem(n.Name, "it is no node of the cluster", "kuryrctl stack "+d.name+" lets it join")
			}
		}
		waiting := 0
		for _, n := range nodes {
			if !servers[n.Name] {
				r.warning(n.Name, "the cluster has a node of this name, and there is no such server", "kubectl delete node "+n.Name)
				continue
			}
			if awaitsNetwork(n) {
				waiting++
			}
			d.judgeNode(r, n, version)
		}
		if waiting > 0 {
			return fmt.Sprintf("all %d, %s; %d have no network plugin yet and wait for one", len(nodes), version, waiting), nil
		}
		return fmt.Sprintf("all %d are Ready, %s", len(nodes), version), nil
	})
}

// awaitsNetwork reports whether all that a node lacks is a network plugin, which is not installed by kubeadm. One that has just joined lacks
// its CSINode for a moment too.
func awaitsNetwork(n cluster.Node) bool {
	if n.Ready || n.Reason != "KubeletNotReady" {
		return false
	}
	network := false
	for why := range strings.SplitSeq(strings.Trim(n.Message, "[]"), ", ") {
		switch {
		case strings.Contains(why, "cni plugin not initialized"), strings.Contains(why, "NetworkPluginNotReady"):
			network = true
		case why != "CSINode is not yet initialized":
			return false
		}
	}
	return network
}

func (d *diagnosis) judgeNode(r *remarks, n cluster.Node, api string) {
	if !n.Ready && !awaitsNetwork(n) {
		r.problem(n.Name, "NotReady, "+n.Reason+": "+n.Message, "kuryrctl logs "+d.name+" "+n.Name+" --unit kubelet")
	}
	if n.Unschedulable {
		r.warning(n.Name, "it is cordoned and gets no new pods", "kubectl uncordon "+n.Name+", if its maintenance is over")
	}
	if why := cluster.SkewProblem(api, n.Kubelet); why != "" {
		r.problem(n.Name, why, "give "+n.Name+" the version of the API server")
	}
	if declared := d.config.Kubernetes.Version; declared != "" && n.Kubelet != declared && !strings.HasPrefix(n.Kubelet, declared+".") {
		r.warning(n.Name, "its kubelet is "+n.Kubelet+", and "+declared+" is declared", "declare kubernetes.version "+n.Kubelet+", or upgrade the node")
	}
}

// planePods are the static pods of a master, by the topology that the masters make.
func planePods(masters []string) map[string][]string {
	api := []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler"}
	all := map[string][]string{}
	for i, name := range masters {
		switch {
		case len(masters) != 2:
			all[name] = append([]string{"etcd"}, api...)
		case i == 0:
			all[name] = []string{"etcd"}
		default:
			all[name] = api
		}
	}
	return all
}

func checkControlPlane(ctx context.Context, d *diagnosis) answer {
	return d.ofAPI(ctx, func(ctx context.Context, api *cluster.Cluster, r *remarks) (string, error) {
		pods, err := api.Pods(ctx, "kube-system")
		if err != nil {
			return "", err
		}
		var masters []string
		for _, n := range d.view.Nodes {
			if n.Role == string(Master) {
				masters = append(masters, n.Name)
			}
		}
		count := 0
		for node, parts := range planePods(masters) {
			for _, part := range parts {
				count++
				judgePart(r, d.name, node, part, pods)
			}
		}
		slices.Sort(r.bad)
		slices.Sort(r.odd)
		slices.Sort(r.mend)
		return fmt.Sprintf("all %d parts run", count), nil
	})
}

func judgePart(r *remarks, stack, node, part string, pods []cluster.Pod) {
	do := "read its log below /var/log/pods on " + node + ", and kuryrctl logs " + stack + " " + node + " --unit kubelet"
	i := slices.IndexFunc(pods, func(p cluster.Pod) bool { return p.Name == part+"-"+node })
	if i < 0 {
		r.problem(node, part+" does not run", "look for its manifest in /etc/kubernetes/manifests on "+node+", and at kuryrctl logs "+stack+" "+node+" --unit kubelet")
		return
	}
	switch p := pods[i]; {
	case !p.Ready:
		what := part + " is " + p.Phase + " and not ready"
		if p.Reason != "" {
			what += ", " + strings.TrimSuffix(p.Reason+": "+p.Message, ": ")
		}
		r.problem(node, what, do)
	case p.Restarts > 0 && time.Since(p.Ended) < recently:
		r.warning(node, fmt.Sprintf("%s was started anew %v ago, and %d times in all", part, time.Since(p.Ended).Round(time.Second), p.Restarts), do)
	}
}

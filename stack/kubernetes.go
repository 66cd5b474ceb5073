package stack

import (
	"context"
	"errors"
	"net/netip"

	"github.com/kuryrctl/kuryrctl/bootstrap"
	"github.com/kuryrctl/kuryrctl/bootstrap/bundle"
	"github.com/kuryrctl/kuryrctl/bootstrap/payload"
	"github.com/kuryrctl/kuryrctl/bootstrap/ssh"
	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/provision"
	"github.com/kuryrctl/kuryrctl/templates"
)

// clusterDomain is that of services.
const clusterDomain = "cluster.local"

// kubernetes adds what makes the nodes a cluster. Masters run etcd and the API, except where there are two: then the first runs etcd, the
// second the API.
func (d *design) kubernetes(lb *provision.LoadBalancer) {
	n := d.config.Networks.Service
	d.bundle.version = d.config.Kubernetes.Version
	d.lab.Graph.Add(&d.bundle)
	public := d.session.FloatingIPOfBalancer("api", d.config.PublicNet, lb)
	d.lab.Graph.Add(public)
	c := &bootstrap.Cluster{
		Name: d.Name, Version: d.config.Kubernetes.Version, Bundle: d.bundle.get, Endpoint: netip.AddrPortFrom(n.APIVIP.Addr, apiListener),
		Public: public.Address, ServiceCIDR: n.ClusterIPs(), DNSDomain: clusterDomain, Kubeconfig: d.local.kubeconfigPath(), Access: d.access,
	}
	d.cluster = c

	prepared := map[*Node][]graph.Resource{}
	for _, n := range d.lab.Nodes {
		n.boot = &bootstrap.Node{Name: n.Name, Address: n.Port.Address, Connect: n.Host.connect, Log: d.local.logPath(n.Name)}
		steps := c.Prepare(n.boot, d.parts(n), n.Host, &d.bundle)
		d.lab.Graph.Add(steps...)
		prepared[n] = steps
	}
	c.Entrance = d.lab.Nodes[0].boot

	masters := d.config.APIMasters()
	first := d.lab.Nodes[masters[0]]
	var etcd []*bootstrap.Node
	needs := append(prepared[first], lb, public)
	if masters[0] > 0 {
		host := d.lab.Nodes[0]
		made := c.Etcd(host.boot, prepared[host]...)
		d.lab.Graph.Add(made)
		etcd, needs = []*bootstrap.Node{host.boot}, append(needs, made)
	}
	init := c.Init(first.boot, etcd, needs...)
	admin := c.Admin(first.boot, init)
	d.lab.Graph.Add(init, admin)
	joined := map[*Node]graph.Resource{first: init}
	if len(etcd) > 0 {
		joined[d.lab.Nodes[0]] = c.JoinEtcd(etcd[0], first.boot, append(prepared[d.lab.Nodes[0]], admin)...)
		d.lab.Graph.Add(joined[d.lab.Nodes[0]])
	}
	before := admin // members of etcd are added one at a time
	for _, i := range masters[1:] {
		n := d.lab.Nodes[i]
		before = c.JoinControlPlane(n.boot, first.boot, append(prepared[n], before)...)
		joined[n] = before
		d.lab.Graph.Add(before)
	}
	for _, n := range d.lab.Nodes {
		if n.Role == Worker {
			joined[n] = c.Join(n.boot, first.boot, append(prepared[n], admin)...)
			d.lab.Graph.Add(joined[n])
		}
	}
	networks := d.pods(c, first, joined, admin)
	d.addons(c, first, admin, networks)
}

// parts are what of the bundle's images a node gets beside those of every node.
func (d *design) parts(n *Node) (parts []bundle.Part) {
	if n.Role == Master {
		return []bundle.Part{bundle.ControlPlane}
	}
	if r := d.config.Registry; r.Enabled && (r.Claim != "" || n.Name == firstWorker) {
		parts = append(parts, bundle.Registry)
	}
	if d.config.Router.Enabled {
		parts = append(parts, bundle.Router)
	}
	return append(parts, bundle.Demo)
}

// firstWorker keeps the registry's images: it is the last to be removed when a stack gets smaller.
const firstWorker = "worker-0"

// addons adds what comes with a cluster: its DNS, the registry, what nodes need to pull from it, and the router. The last two are there too
// when they are turned off, to be removed; a DNS that is turned off leaves its names to another.
func (d *design) addons(c *bootstrap.Cluster, first *Node, admin graph.Resource, networks map[string]graph.Resource) {
	o := bootstrap.RegistryOptions{Enabled: d.config.Registry.Enabled, Claim: d.config.Registry.Claim, Insecure: d.config.Registry.Insecure}
	for _, n := range d.lab.Nodes {
		if n.Name == firstWorker {
			o.Storage = n.boot
		}
	}
	if d.config.Kubernetes.DNS {
		d.lab.Graph.Add(c.DNS(first.boot, admin, networks[firstWorker]))
	}
	registry := c.Registry(first.boot, o, admin, networks[firstWorker])
	d.lab.Graph.Add(registry)
	if o.Enabled {
		for _, n := range d.lab.Nodes {
			d.lab.Graph.Add(c.RegistryClient(n.boot, o.Insecure, registry, networks[n.Name]))
		}
	}
	router := bootstrap.RouterOptions{Enabled: d.config.Router.Enabled, Replicas: d.config.Router.Replicas, HostNetwork: d.config.Router.HostNetwork,
		GatewayAPI: payload.GatewayAPI}
	d.lab.Graph.Add(c.Router(first.boot, router, admin, networks[firstWorker]))
}

// pods adds what gives pods their ports: the controller beside every API server, the CNI plugin on all nodes, and daemons where there are
// trunks. It returns the last of each node.
func (d *design) pods(c *bootstrap.Cluster, first *Node, joined map[*Node]graph.Resource, admin graph.Resource) (networks map[string]graph.Resource) {
	networks = map[string]graph.Resource{}
	api := c.PodAPI(first.boot, admin)
	d.lab.Graph.Add(api)
	controllers := map[*Node]graph.Resource{}
	for _, i := range d.config.APIMasters() {
		n := d.lab.Nodes[i]
		controllers[n] = c.Controller(n.boot, joined[n], api, d.credential)
		d.lab.Graph.Add(controllers[n])
	}
	for _, n := range d.lab.Nodes {
		needs := []graph.Resource{joined[n], api, controllers[first]} // pools are filled by then
		if own, ok := controllers[n]; ok && n != first {
			needs = append(needs, own) // which installs the same programs: two at once would be in each other's way
		}
		networks[n.Name] = c.PodNetwork(n.boot, n.Role == Worker, needs...)
		d.lab.Graph.Add(networks[n.Name])
	}
	return networks
}

// access is how the controller logs in to OpenStack: with the stack's own application credential, at the endpoints that this login uses.
func (s *Stack) access() (bootstrap.Access, error) {
	secret, err := s.local.credential()
	if err != nil {
		return bootstrap.Access{}, err
	}
	cloud := s.session.Cloud
	a := bootstrap.Access{KuryrCloud: templates.KuryrCloud{AuthURL: cloud.AuthURL(), ID: secret.ID, Secret: secret.Secret,
		Region: cloud.Region(), Interface: cloud.Interface(), Own: cloud.Own()}}
	a.CA, err = cloud.CACert()
	a.CACert = a.CA != nil
	return a, err
}

// attach is the cluster of a stack as it is in the cloud, whoever declared it: to be spoken to, not to be built.
func (s *Stack) attach(v *View) *bootstrap.Cluster {
	c := &bootstrap.Cluster{Name: s.Name, Kubeconfig: s.local.kubeconfigPath()}
	for _, l := range v.LoadBalancers {
		if vip, err := netip.ParseAddr(l.VIP); err == nil && l.Name == s.session.Name(apiBalancer) {
			c.Endpoint = netip.AddrPortFrom(vip, apiListener)
		}
	}
	c.Entrance = &bootstrap.Node{Connect: func(ctx context.Context) (*ssh.Client, error) {
		if len(v.Nodes) == 0 {
			return nil, errors.New("the stack has no nodes")
		}
		return s.Host(ctx, v, v.Nodes[0].Name)
	}}
	s.cluster = c
	return c
}

package stack

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/kuryrctl/kuryrctl/bootstrap"
	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/provision"
)

// Lab is everything that a stack consists of: the graph, and its nodes by themselves.
type Lab struct {
	Graph *graph.Graph
	Nodes []*Node // masters first
}

// Role is what a node is for.
type Role string

// The roles.
const (
	Master Role = "master"
	Worker Role = "worker"
)

// Node is one server of a stack and what it hangs on.
type Node struct {
	Name       string // master-0
	Role       Role
	Port       *provision.Port
	Trunk      *provision.Trunk // nil for masters
	Server     *provision.Server
	FloatingIP *provision.FloatingIP // nil for all but the first master, the jump host
	Host       *host

	boot *bootstrap.Node
}

// Ports of the Kubernetes API: where load balancer and masters listen.
const (
	apiListener = 443
	apiMember   = 6443
	sshPort     = 22
	dnsPort     = 53
)

// apiBalancer is the role of the API's load balancer.
const apiBalancer = "api-lb"

// Design says what a lab consists of. It is the only place that does, and it asks nothing of anybody: the result depends on the
// declaration alone.
func (s *Stack) Design(c Config) *Lab {
	d := &design{Stack: s, config: c, session: s.session, lab: &Lab{Graph: &graph.Graph{}}}
	n := c.Networks

	key := d.session.KeyPair(func() (string, error) { return s.local.publicKey("kuryrctl " + s.Name) }, s.local.knownKey)
	vm := d.network("vm", Network{n.VM.CIDR, n.VM.Gateway}, true)
	pod := d.network("pod", Network{n.Pod.CIDR, n.Pod.Gateway}, false)
	service := d.network("service", Network{n.Service.CIDR, n.Service.Gateway}, false)
	service.Pool = n.Service.Pool()
	vm.DNS = addrs(c.DNSServers)

	router := d.session.Router(c.PublicNet)
	routerPort := d.session.Port("service-router-port", service)
	routerPort.Fixed = n.Service.Gateway.Addr
	vmInterface := d.session.RouterInterface("vm", router, vm)
	podInterface := d.session.RouterInterface("pod", router, pod)
	serviceInterface := d.session.RouterInterfaceByPort("service", router, service, routerPort)

	api := d.session.SecurityGroup("api")
	nodes := d.session.SecurityGroup("nodes")
	podAccess := d.session.SecurityGroup("pod_access")
	// While the anchor exists the stack can be found by its name, so it is there before anything else.
	key.After(vm.Network)
	router.After(vm.Network)
	for _, group := range []*provision.SecurityGroup{api, nodes, podAccess} {
		group.After(vm.Network)
	}
	d.lab.Graph.Add(vm.Network, pod.Network, service.Network)
	d.lab.Graph.Add(key, router, api, nodes, podAccess)
	apiRules := d.session.SecurityRules("api", api, provision.Rule{Protocol: "tcp", Port: sshPort}, provision.Rule{Protocol: "tcp", Port: apiMember},
		provision.Rule{Protocol: "icmp"})
	// Nodes trust each other and the pods (kubelet, etcd, host-network pods); a group rule would say the same and cost OVN a flow per pair.
	trusted := []provision.Rule{{From: n.VM.CIDR.Prefix}, {From: n.Pod.CIDR.Prefix}}
	if c.Kubernetes.Install && c.Router.Enabled && c.Router.HostNetwork {
		trusted = append(trusted, provision.Rule{Protocol: "tcp", Port: 80}, provision.Rule{Protocol: "tcp", Port: 443}) // clients keep their addresses
	}
	nodeRules := d.session.SecurityRules("nodes", nodes, trusted...)
	// What pods may be reached from: nodes (kubelet's probes), each other, and the load balancers of services.
	podRules := d.session.SecurityRules("pod_access", podAccess, provision.Rule{From: n.VM.CIDR.Prefix}, provision.Rule{From: n.Pod.CIDR.Prefix},
		provision.Rule{From: n.Service.CIDR.Prefix})
	d.lab.Graph.Add(apiRules, nodeRules, podRules)
	d.reachable = []graph.Resource{apiRules, nodeRules}
	d.lab.Graph.Add(vm, pod, service)
	d.lab.Graph.Add(routerPort, vmInterface, podInterface, serviceInterface)

	credential := d.session.AppCredential()
	credential.Known, credential.Keep = s.local.hasCredential, s.local.keepCredential
	credential.After(vm.Network)
	d.lab.Graph.Add(credential)
	d.credential = credential

	d.groups, d.existing = map[Role]*provision.ServerGroup{}, map[string]*provision.SecurityGroup{}
	for _, role := range []Role{Master, Worker} {
		if policy := c.of(role).ServerGroupPolicy; policy != "" {
			group := d.session.ServerGroup(string(role))
			group.Policy = policy
			group.After(vm.Network)
			d.lab.Graph.Add(group)
			d.groups[role] = group
		}
	}
	for _, name := range slices.Concat(c.Masters.SecurityGroups, c.Workers.SecurityGroups) {
		if d.existing[name] == nil {
			d.existing[name] = d.session.ExistingGroup(name)
			d.lab.Graph.Add(d.existing[name])
		}
	}
	for i := range c.Masters.Count {
		node := d.node(Master, i, vm, key, nodes, api)
		if i == 0 {
			node.FloatingIP = d.session.FloatingIP(node.Name, c.PublicNet, node.Port, vmInterface)
			d.lab.Graph.Add(node.FloatingIP)
		}
		d.host(node)
	}
	for i := range c.Workers.Count {
		d.host(d.node(Worker, i, vm, key, nodes))
	}

	var members []*provision.Port
	for _, i := range c.APIMasters() {
		members = append(members, d.lab.Nodes[i].Port)
	}
	lb := d.session.LoadBalancer(apiBalancer, service, serviceInterface, members...)
	lb.VIP, lb.Port, lb.MemberPort, lb.Provider = n.Service.APIVIP.Addr, apiListener, apiMember, c.OctaviaProvider
	d.lab.Graph.Add(lb)
	if c.Kubernetes.Install {
		d.kubernetes(lb)
	}
	return d.lab
}

func addrs(all []Addr) (out []netip.Addr) {
	for _, a := range all {
		out = append(out, a.Addr)
	}
	return out
}

// design is a lab in the making.
type design struct {
	*Stack
	config  Config
	session *provision.Session
	lab     *Lab

	credential graph.Resource   // of the controller
	reachable  []graph.Resource // without which no host answers
	groups     map[Role]*provision.ServerGroup
	existing   map[string]*provision.SecurityGroup
}

func (d *design) network(role string, n Network, dhcp bool) *provision.Subnet {
	subnet := d.session.Subnet(role, d.session.Network(role))
	subnet.CIDR, subnet.Gateway, subnet.DHCP = n.CIDR.Prefix, n.Gateway.Addr, dhcp
	return subnet
}

// node adds a port, for workers its trunk, and the server, in the order that ML2/OVS insists on.
func (d *design) node(role Role, i int, vm *provision.Subnet, key *provision.KeyPair, groups ...*provision.SecurityGroup) *Node {
	n := &Node{Name: fmt.Sprintf("%s-%d", role, i), Role: role}
	declared := d.config.of(role)
	for _, name := range declared.SecurityGroups {
		groups = append(groups, d.existing[name])
	}
	n.Port = d.session.Port(n.Name, vm, groups...)
	d.lab.Graph.Add(n.Port)
	var after []graph.Resource
	if role == Worker {
		n.Trunk = d.session.Trunk(n.Name, n.Port)
		d.lab.Graph.Add(n.Trunk)
		after = append(after, n.Trunk)
	}
	n.Server = d.session.Server(n.Name, n.Port, key, after...)
	n.Server.Image, n.Server.Flavor, n.Server.Hostname, n.Server.ConfigDrive = d.config.Image, declared.Flavor, n.Name, d.config.ConfigDrive
	n.Server.Zone, n.Server.Volume = declared.zone(i), provision.RootVolume(declared.RootVolume)
	if group := d.groups[role]; group != nil {
		n.Server.In(group)
		if role == Master && i > 0 { // Nova keeps servers apart of which it knows where they are, and not those it places at the same moment
			n.Server.After(d.lab.Nodes[i-1].Server)
		}
	}
	n.Server.Login = d.config.login
	n.Server.UserData = func() ([]byte, error) { return d.userData(n, d.config) }
	d.lab.Graph.Add(n.Server)
	d.lab.Nodes = append(d.lab.Nodes, n)
	return n
}

// host adds the step that makes a booted server a host we can work on.
func (d *design) host(n *Node) {
	h := &host{stack: d.Stack, name: n.Name, needs: append([]graph.Resource{n.Server}, d.reachable...)}
	h.at = func() place { return place{n.Port.Address(), n.Server.LoginName(), n.Port.ID(), n.Server.ID()} }
	if n.FloatingIP != nil {
		h.needs = append(h.needs, n.FloatingIP)
		h.at = func() place { return place{n.FloatingIP.Address(), n.Server.LoginName(), n.Port.ID(), n.Server.ID()} }
	} else {
		h.via = d.lab.Nodes[0].Host
		h.needs = append(h.needs, h.via)
	}
	n.Host = h
	d.lab.Graph.Add(h)
	d.hosts = append(d.hosts, h)
}

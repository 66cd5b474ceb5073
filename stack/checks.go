package stack

import "context"

// Check is a row of the list of what [Diagnose] asks.
type Check struct {
	Name  string
	About string // what kind of thing it looks at: a heading
	Asked string // the question
	Looks string // what it holds against what, and what is how bad
	Whose Whose  // at whose door a bad answer lies that does not say so itself
}

// check is a Check that can be made.
type check struct {
	Check
	stage int
	vital bool // a problem skips the checks of later stages
	run   func(context.Context, *diagnosis) answer
}

// The stages, in their order: each needs the ones before.
const (
	ofDeclaration = iota
	ofLogin
	ofServices
	ofNewStack
	ofStack  // that exists
	ofActive // that is made something in
)

// What checks are about.
const (
	aboutLogin   = "The declaration, this machine and the login"
	aboutCloud   = "What a stack needs of the cloud"
	aboutObjects = "A stack's objects in the cloud"
	aboutNodes   = "Its nodes, by SSH"
	aboutCluster = "Its cluster"
	aboutPods    = "The network of its pods"
)

// Checks are all checks of [Diagnose], in the order in which they are made.
func Checks() (all []Check) {
	for _, c := range checks {
		all = append(all, c.Check)
	}
	return all
}

// checks is the one list: Diagnose runs it, and docs/doctor.md is made from it.
var checks = []check{
	{Check{"declaration", aboutLogin, "can what is declared work at all?",
		"every value and how they fit: three ranges that do not overlap, gateways and the API's address in the right half of the service range, " +
			"enough addresses for the nodes", You},
		ofDeclaration, true, checkDeclaration},
	{Check{"cloud", aboutLogin, "is a cloud configured, and does it let us in?",
		"where credentials are found, Keystone's answer, TLS on the way to it; says who was let into what, with which roles", You},
		ofLogin, true, checkCloud},
	{Check{"secrets", aboutLogin, "can nobody else read what is secret on this machine?",
		"that clouds.yaml, secure.yaml and the key of a TLS client are this user's alone (a warning); that the stack's directory is, and that " +
			"its key, credential and kubeconfig can be read (problems)", You},
		ofServices, false, checkSecrets},
	{Check{"clock", aboutLogin, "does this machine's clock agree with the cloud's?",
		"the Date of Keystone's answer: more than a minute apart is a warning, since certificates are refused then as not yet or no longer " +
			"valid", You},
		ofServices, false, checkClock},
	{Check{"token", aboutLogin, "does the login last as long as a run?",
		"when the token ends: less than ten minutes is a warning", You},
		ofServices, false, checkToken},
	{Check{"roles", aboutLogin, "may the login make what a stack consists of?",
		"a role that may only read is a problem; so is a restricted application credential for a stack that has none of its own yet; " +
			"no role called `member` or `admin`, and none of Octavia's, are a warning each, since clouds name their roles as they like", You},
		ofServices, false, checkRoles},

	{Check{"endpoints", aboutCloud, "does every service that is needed answer?",
		"one small call to each of Keystone, Neutron, Nova, Glance, Octavia, and Cinder and Designate where they are declared, at the interface and in the " +
			"region of the login, all at once; " +
			"more than two seconds are a warning", TheCloud},
		ofServices, true, checkEndpoints},
	{Check{"certificates", aboutCloud, "are the cloud's certificates good for a while?",
		"the chains of all services that were spoken to: one that is not verified, ends within 30 days or has ended is a warning", TheCloud},
		ofNewStack, false, checkCertificates},
	{Check{"extensions", aboutCloud, "does Neutron have what pods on trunks need?",
		"what a stack cannot be without is a problem, what it does without for a price a warning; see below", TheCloud},
		ofNewStack, false, checkExtensions},
	{Check{"octavia", aboutCloud, "is there a load balancer provider that can be used?",
		"the declared provider, or ovn or amphora where none is; the API's version: below 2.12 a Service's loadBalancerSourceRanges are " +
			"refused, a warning", TheCloud},
		ofNewStack, false, checkProvider},
	{Check{"external-network", aboutCloud, "is there the external network, with addresses left?",
		"that there is exactly one of the name or id; where Neutron tells this login, how many addresses are free, against how many the stack " +
			"still takes", You},
		ofNewStack, false, checkExternal},
	{Check{"image", aboutCloud, "is there the image, and is its login known?",
		"that there is exactly one active image of the name or id, and `os_admin_user`, `ssh_user` or a name that tells the login", You},
		ofNewStack, false, checkImage},
	{Check{"flavors", aboutCloud, "are there the flavors, and are they big enough?",
		"memory: kubeadm asks 1700 MiB of a control plane; memory and disk that the image asks for; a flavor without a disk, or a root volume that the cloud cannot make; a disk below 8 GB is a warning", You},
		ofNewStack, false, checkFlavors},
	{Check{"zones", aboutCloud, "are there the availability zones that are declared?",
		"Nova's zones that take servers", You},
		ofNewStack, false, checkZones},
	{Check{"security-groups", aboutCloud, "are there the security groups that are declared?",
		"that there is exactly one of each name or id", You},
		ofNewStack, false, checkGroups},
	{Check{"quota", aboutCloud, "is there room for what is missing, and for pods and Services?",
		"the demand of every resource of the plan that does not exist yet, against the limits and uses of Neutron, Nova, Cinder and Octavia: what is " +
			"short is a problem; " +
			"what the cluster makes by itself then (free ports of each worker; what DNS, registry and router take) and the --pods and --services " +
			"that are expected: a warning. " +
			"The remedy is the whole command line", YourQuota},
		ofNewStack, false, checkQuota},
	{Check{"addresses", aboutCloud, "do the declared ranges hide something that is needed?",
		"ranges of the external network, resolvers and OpenStack's own endpoints inside a declared range are problems: nodes and pods could not " +
			"reach them; " +
			"addresses and routes of this machine that overlap are warnings, unless it reaches the cloud another way", You},
		ofNewStack, false, checkAddresses},

	{Check{"names", aboutObjects, "is every name of the stack one object's alone?",
		"objects of the stack that are called the same, and networks, subnets, routers, groups, ports, load balancers and servers of the " +
			"project that are called like the stack's and are not its: " +
			"the controller and the openstack command look for names", You},
		ofStack, false, checkNames},
	{Check{"objects", aboutObjects, "is every object of the stack as declared?",
		"all of the plan, but what is on hosts: what is missing, different, in ERROR or on its way", You},
		ofStack, false, checkObjects},
	{Check{"servers", aboutObjects, "do all servers run?",
		"Nova's status, and its fault where one is in ERROR", TheCloud},
		ofStack, false, checkServers},
	{Check{"placement", aboutObjects, "are the servers apart, and in their zones, as declared?",
		"hostId of the servers of a role with a server_group_policy: two on one hypervisor are a problem, with soft-anti-affinity a warning; " +
			"servers outside their group or in another zone are warnings", TheCloud},
		ofStack, false, checkPlacement},
	{Check{"ports", aboutObjects, "are the nodes' ports and trunks up?",
		"of each server that runs: its port ACTIVE, administratively up, filtered, and on that server; its trunk, too, ACTIVE and up: Neutron " +
			"takes no subport on one that is not", TheCloud},
		ofStack, false, checkPorts},
	{Check{"networks", aboutObjects, "does the geometry of the networks hold?",
		"addresses in the half of the service network that Kubernetes hands out and that no load balancer has; allocation pools that reach into " +
			"it; a pods' network with a larger MTU than the nodes'", TheCloud},
		ofStack, false, checkNetworks},
	{Check{"subnets", aboutObjects, "have the stack's networks addresses left?",
		"addresses in use of each network: a warning above 90 %, a problem above 98 %. Neutron counts them where the login may know " +
			"(`network-ip-availability`), else the ports that it sees are counted", You},
		ofStack, false, checkSubnets},
	{Check{"load-balancers", aboutObjects, "are the load balancers and their members in service?",
		"provisioning ACTIVE; of each listener, that its members are ONLINE: none is a problem, fewer than all a warning. Members without a " +
			"monitor count as well; those of the API do not while there is no cluster", Kuryrctl},
		ofStack, false, checkBalancers},
	{Check{"leaks", aboutObjects, "is there anything that belongs to nothing?",
		"what carries the stack's mark and is in no declaration, floating IPs that lead nowhere, ports that Octavia left behind, and what " +
			"others put on the stack's networks: it would stop `unstack`", You},
		ofStack, false, checkLeaks},

	{Check{"ssh", aboutNodes, "does every node answer SSH with its pinned key?",
		"a connection to each, through the first master, within ten seconds; a node that is down is named here and not again below", You},
		ofStack, false, checkSSH},
	{Check{"node-system", aboutNodes, "is every node's system fit for Kubernetes: clock, disk, kernel, network?",
		"hostname, clock, cloud-init, swap, disk, memory, kernel modules (8021q among them), control groups, sysctls, sudo, nameservers, the " +
			"MTU of the trunk's parent against the pods' network, NetworkManager. " +
			"A node without any nameserver is none's fault, unless `dns_servers` are declared: some clouds hand out none", You},
		ofStack, false, checkNodeSystem},
	{Check{"node-runtime", aboutNodes, "do containerd and kubelet run, with images and certificates that are valid?",
		"the units, kubelet's crashes with what it said last, images, certificates that end within 30 days; a network plugin's configuration in " +
			"`/etc/cni/net.d` that comes before kuryr's (that is yours: containerd takes the first, and that only)", Kuryrctl},
		ofStack, false, checkNodeRuntime},

	{Check{"api", aboutCluster, "is the API ready behind its load balancer, with a certificate for its addresses?",
		"`/readyz` at the VIP through the first master, and the certificate against the virtual and the floating address", Kuryrctl},
		ofStack, false, checkAPI},
	{Check{"nodes", aboutCluster, "is every server a node that is Ready, and every node a server?",
		"servers that are no nodes, nodes without a server, why a node is not Ready, versions. One that only has no network plugin yet is " +
			"well", Kuryrctl},
		ofStack, false, checkNodes},
	{Check{"control-plane", aboutCluster, "does every part of the control plane run?",
		"the static pods of the masters", Kuryrctl},
		ofStack, false, checkControlPlane},
	{Check{"registry", aboutCluster, "does the registry answer, and is it the cluster's own?",
		"its Deployment; its API at its ClusterIP, from the first master, with a certificate of the cluster's authority", Kuryrctl},
		ofStack, false, checkRegistry},
	{Check{"router", aboutCluster, "does the router answer from outside, and do the applications' names lead to it?",
		"its Deployment, its load balancer's floating IP, an answer of any kind at that, from this machine; where a place for names is declared, " +
			"a name below the applications' domain, asked of the server that has them (with Designate of this machine's resolver, and a warning)", Kuryrctl},
		ofStack, false, checkRouter},

	{Check{"pod-controller", aboutPods, "does one of the controllers keep ports for pods?",
		"the Lease `kube-system/kuryr-controller`: who holds it, and whether it is renewed", Kuryrctl},
		ofStack, false, checkPodController},
	{Check{"pod-cloud", aboutPods, "has OpenStack refused the controllers something lately?",
		"what each was refused last (`127.0.0.1:9656/debug/last-cloud-error` on its master): a warning for ten minutes", TheCloud},
		ofStack, false, checkPodCloud},
	{Check{"pod-pools", aboutPods, "has every worker free ports for the next pods?",
		"each worker's SubportPool: is there one, how many subports are free, maximum, quota, addresses, trunk, a cloud that refuses", Kuryrctl},
		ofStack, false, checkPodPools},
	{Check{"pod-daemons", aboutPods, "does every worker's daemon report, and know the ports it may hand out?",
		"when each reported last, and whether it knows all that was published", Kuryrctl},
		ofStack, false, checkPodDaemons},
	{Check{"pod-latency", aboutPods, "how long does a pod wait for its port?",
		"how long pods waited since the daemon's start (`127.0.0.1:9655/metrics` on each worker); a warning when one of a hundred waits more " +
			"than a second", Kuryrctl},
		ofStack, false, checkPodLatency},
	{Check{"pod-ports", aboutPods, "has every pod a port that works, and is every port for a pod in use or in a pool?",
		"pods, SubportPools, trunks and ports against each other; see below", Kuryrctl},
		ofStack, false, checkPodPorts},
	{Check{"pod-starts", aboutPods, "do pods wait for their network?",
		"pods that wait, and what the CNI plugin told their kubelet within the last ten minutes", Kuryrctl},
		ofStack, false, checkPodStarts},
	{Check{"drop-test", aboutPods, "does the cloud hold security groups on subports? (only with --active)",
		"a TCP connection between two subports of a worker's trunk, which are made for it and removed: dropped while nothing lets it in, passed " +
			"when a rule does; see below", TheCloud},
		ofActive, false, checkDrop},
}

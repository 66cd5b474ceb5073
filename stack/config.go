package stack

import (
	"cmp"
	"net/netip"
)

// Config is what a person declares about a stack: the lab file, with flags and KURYRCTL_* over it. The keys are those of the
// 2017 write-ups where they had one. Credentials are never in it; they come from clouds.yaml or OS_*.
type Config struct {
	// Image is the servers' image: its name, its id, or properties such as os_distro=debian,os_version=13, of which the newest that has them
	// all is meant. It needs cloud-init and ed25519 host keys.
	Image string `yaml:"image"`
	// SSHUser is the image's login. Empty asks the image (os_admin_user), then guesses from its name.
	SSHUser string `yaml:"ssh_user"`
	// PublicNet is the external network, by name or id: the router's gateway and the floating IPs are on it. Empty is the only one that the
	// project sees, or of several the one that is called public.
	PublicNet string `yaml:"public_net"`
	// DNSDomain is the domain of the nodes' names, and of all names that the stack has.
	DNSDomain string `yaml:"dns_domain"`
	// DNSServers are the nodes' resolvers; none leaves it to the cloud.
	DNSServers []Addr `yaml:"dns_servers"`
	// ConfigDrive gives servers their metadata on a disk instead of over the network.
	ConfigDrive bool `yaml:"config_drive"`
	// OctaviaProvider of the load balancers; empty takes ovn where there is one.
	OctaviaProvider string `yaml:"octavia_provider"`
	// AdminCloud names a cloud in clouds.yaml with the right to raise the project's quotas; empty never touches them.
	AdminCloud string `yaml:"admin_cloud"`

	Masters    Nodes      `yaml:"masters"`
	Workers    Nodes      `yaml:"workers"`
	Networks   Networks   `yaml:"networks"`
	Kubernetes Kubernetes `yaml:"kubernetes"`
	DNS        DNS        `yaml:"dns"`
	Registry   Registry   `yaml:"registry"`
	Router     Router     `yaml:"router"`
}

// DNS says where the stack's names are made to resolve, by `kuryrctl stack` and `kuryrctl dns sync`: by one of Update, Zone and Designate, or nowhere.
type DNS struct {
	// AppsDomain is the domain below which every name leads to the router. It is DNSDomain or below it; empty is apps.DNSDomain.
	AppsDomain string `yaml:"apps_domain"`
	// AppsAddress is where these names lead, for those who have a router of their own; empty is the floating IP of the cluster's.
	AppsAddress string    `yaml:"apps_address"`
	Update      DNSUpdate `yaml:"update"`
	Zone        DNSZone   `yaml:"zone"`
	Designate   bool      `yaml:"designate"` // in a zone of the project's
}

// kept reports whether there is a place for names.
func (d DNS) kept() bool { return d.Update != (DNSUpdate{}) || d.Zone != (DNSZone{}) || d.Designate }

// DNSUpdate is a name server that takes updates (RFC 2136).
type DNSUpdate struct {
	Server string `yaml:"server"` // the zone's primary, HOST or HOST:PORT
	// KeyFile has the TSIG key, as tsig-keygen writes it: an absolute path, or one with ~/. Empty takes KURYRCTL_TSIG_KEY.
	KeyFile string `yaml:"key_file"`
}

// DNSZone is a zone file for bind, on this machine or on a host that is reached by SSH.
type DNSZone struct {
	Directory  string `yaml:"directory"`  // absolute
	Nameserver string `yaml:"nameserver"` // that serves the zone, by name or address; empty is Host
	Host       string `yaml:"host"`       // USER@HOST or USER@HOST:PORT; empty is this machine
	HostKey    string `yaml:"host_key"`   // of Host: "ssh-ed25519 AAAA..."
	KeyFile    string `yaml:"key_file"`   // the private SSH key for Host: an absolute path, or one with ~/
}

// Registry is the cluster's own registry of images, which all nodes can pull from.
type Registry struct {
	Enabled bool `yaml:"enabled"`
	// Claim names a PersistentVolumeClaim in the namespace kuryr-registry that has the images; empty keeps them on the first worker's disk.
	Claim string `yaml:"claim"`
	// Insecure serves plain HTTP to everybody, as the 2017 write-up's registry did.
	Insecure bool `yaml:"insecure"`
}

// Router leads requests from outside to pods, by Ingress.
type Router struct {
	Enabled  bool `yaml:"enabled"`
	Replicas int  `yaml:"replicas"`
	// HostNetwork puts it on ports 80 and 443 of workers, as in the 2017 write-up, and not on a pod's own.
	HostNetwork bool `yaml:"host_network"`
}

// Kubernetes is what the nodes are to be.
type Kubernetes struct {
	// Install false stops at servers that answer SSH, for those who install something else on them.
	Install bool `yaml:"install"`
	// Version is exact (v1.37.1) or a minor (v1.37); empty is the newest stable one that the bundle has.
	Version string `yaml:"version"`
	// DNS false leaves the cluster without a DNS of its own, for those who bring one; it belongs at the tenth address of the services.
	DNS bool `yaml:"dns"`
}

// Nodes are the servers of one role.
type Nodes struct {
	Count  int    `yaml:"count"`
	Flavor string `yaml:"flavor"` // name or id
	// SecurityGroups that are there already, by name or id: the servers' ports have them beside the stack's own.
	SecurityGroups []string `yaml:"security_groups"`
	// RootVolume is what the servers boot from instead of the flavor's own disk.
	RootVolume RootVolume `yaml:"root_volume"`
	// AvailabilityZones of Nova's, over which the servers are spread in turn; none leaves it to the cloud.
	AvailabilityZones []string `yaml:"availability_zones"`
	// ServerGroupPolicy keeps the servers of the role on different hypervisors: anti-affinity, or soft-anti-affinity where there may be too few.
	ServerGroupPolicy string `yaml:"server_group_policy"`
}

// RootVolume is a disk of Cinder's; it is made of the image, and goes with its server.
type RootVolume struct {
	Size int    `yaml:"size"` // GB; 0 is none
	Type string `yaml:"type"` // of Cinder's volumes; empty is the cloud's default
}

// zone is the availability zone of the i-th server, or "".
func (n Nodes) zone(i int) string {
	if len(n.AvailabilityZones) == 0 {
		return ""
	}
	return n.AvailabilityZones[i%len(n.AvailabilityZones)]
}

// of are the nodes of a role.
func (c Config) of(role Role) Nodes {
	if role == Master {
		return c.Masters
	}
	return c.Workers
}

// Networks are the three networks of a stack.
type Networks struct {
	VM      Network        `yaml:"vm"`
	Pod     Network        `yaml:"pod"`
	Service ServiceNetwork `yaml:"service"`
}

// Network is an address range and its gateway.
type Network struct {
	CIDR    Prefix `yaml:"cidr"`
	Gateway Addr   `yaml:"gateway"` // empty is the first usable address
}

// ServiceNetwork is split: Kubernetes hands out the lower half of CIDR as ClusterIPs, Neutron allocates in the upper half. In one
// undivided range each would sooner or later hand out what the other already gave away.
type ServiceNetwork struct {
	CIDR    Prefix `yaml:"cidr"`
	Gateway Addr   `yaml:"gateway"` // of the router's port; empty is the last usable address
	APIVIP  Addr   `yaml:"api_vip"` // of the API's load balancer, the ClusterIP of default/kubernetes; empty is the first usable address
}

// Defaults are the values of what a lab file leaves out.
func Defaults() Config {
	return Config{
		Image:     "debian-13",
		DNSDomain: "kuryr.internal",
		Masters:   Nodes{Count: 1, Flavor: "m1.medium"},
		Workers:   Nodes{Count: 2, Flavor: "m1.large"},
		Networks: Networks{
			VM:      Network{CIDR: prefix("10.11.0.0/24")},
			Pod:     Network{CIDR: prefix("10.10.0.0/16")},
			Service: ServiceNetwork{CIDR: prefix("172.30.0.0/16")},
		},
		Kubernetes: Kubernetes{Install: true, DNS: true},
		Registry:   Registry{Enabled: true},
		Router:     Router{Enabled: true, Replicas: 1},
	}
}

func prefix(s string) Prefix { return Prefix{netip.MustParsePrefix(s)} }

// complete fills in what follows from other values. It is called on validated prefixes only.
func (c *Config) complete() {
	for _, n := range []*Network{&c.Networks.VM, &c.Networks.Pod} {
		if !n.Gateway.IsValid() {
			n.Gateway = Addr{n.CIDR.Addr().Next()}
		}
	}
	service := &c.Networks.Service
	if !service.Gateway.IsValid() {
		service.Gateway = Addr{last(service.CIDR.Prefix).Prev()}
	}
	if !service.APIVIP.IsValid() {
		service.APIVIP = Addr{service.CIDR.Addr().Next()}
	}
}

// ClusterIPs is the half of the service range that Kubernetes hands out.
func (n ServiceNetwork) ClusterIPs() netip.Prefix {
	return netip.PrefixFrom(n.CIDR.Addr(), n.CIDR.Bits()+1)
}

// Pool is the part of the service range that Neutron allocates from: the upper half without its first address, the gateway
// and the broadcast address.
func (n ServiceNetwork) Pool() [2]netip.Addr {
	return [2]netip.Addr{last(n.ClusterIPs()).Next().Next(), last(n.CIDR.Prefix).Prev().Prev()}
}

// APIMasters are the indices of the masters that run the API server. Of two, the first runs etcd and the second the API, as
// in the 2017 write-up; one or three run both.
func (c Config) APIMasters() []int {
	switch c.Masters.Count {
	case 2:
		return []int{1}
	case 3:
		return []int{0, 1, 2}
	}
	return []int{0}
}

// AppsDomain is the domain below which every name leads to the router.
func (c Config) AppsDomain() string { return cmp.Or(c.DNS.AppsDomain, "apps."+c.DNSDomain) }

// last is the highest address of an IPv4 prefix, its broadcast address.
func last(p netip.Prefix) netip.Addr {
	a := p.Masked().Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		a[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom4(a)
}

package openstacktest

import (
	"maps"
	"time"
)

// Option changes what kind of cloud New makes.
type Option func(*knobs)

type knobs struct {
	polls          int
	latency        time.Duration
	tokenLifetime  time.Duration
	provider       string          // default Octavia provider
	ovs            bool            // ML2/OVS rules for trunks instead of ML2/OVN
	tagsAtCreation bool            // Neutron's create calls take tags
	balancerRoles  bool            // Octavia wants roles of its own
	refuseTrees    bool            // Octavia answers a fully populated create with 501
	failDeletions  int             // of load balancers, the first so many
	noOctavia      bool            // load-balancer is not in the catalog
	clock          time.Duration   // ahead of this machine's
	roles          []string        // of the user demo; nil for the usual
	certEnds       time.Time       // of the server; zero for no TLS
	hosts          int             // hypervisors
	computeZones   []string        // of Nova; hypervisors are in them in turn
	volumeTypes    []string        // of Cinder, which is in the catalog if there are any
	zones          []string        // of the project demo in Designate, which is in the catalog if there are any
	without        map[string]bool // Neutron extension aliases that are missing
	with           map[string]bool // and those that are there on top of the usual
	quota          map[string]int  // "service/resource" to limit, -1 is unlimited
}

func defaults() knobs {
	return knobs{polls: 2, hosts: 6, computeZones: []string{"nova"}, tokenLifetime: time.Hour, provider: "ovn",
		without: map[string]bool{}, with: map[string]bool{}, quota: maps.Clone(quotaDefaults())}
}

// Polls is the number of times a thing in transition is asked for before it
// arrives: the n-th GET or list that shows a server in BUILD shows it ACTIVE. A
// write refused because the thing is in transition counts as well. The default is
// 2; 0 makes every transition immediate.
func Polls(n int) Option { return func(k *knobs) { k.polls = n } }

// Latency delays every answer; requests are delayed in parallel.
func Latency(d time.Duration) Option { return func(k *knobs) { k.latency = d } }

// TokenLifetime is how long a token lives; the default is an hour.
func TokenLifetime(d time.Duration) Option { return func(k *knobs) { k.tokenLifetime = d } }

// Provider is the default Octavia provider, "ovn" (the default) or "amphora".
func Provider(name string) Option { return func(k *knobs) { k.provider = name } }

// MechanismOVS gives trunks the rules of ML2/OVS: none can be made on or removed
// from a bound port. Without it the rules are those of ML2/OVN.
func MechanismOVS() Option { return func(k *knobs) { k.ovs = true } }

// BalancerRoles makes Octavia refuse who has none of its own roles, load-balancer_*, as clouds with its advanced policy do. Without it a
// member may do everything, as by the policy of 2025.1.
func BalancerRoles() Option { return func(k *knobs) { k.balancerRoles = true } }

// RefuseTrees makes Octavia refuse a load balancer created with listeners or
// pools in the same call, as providers without that ability do.
func RefuseTrees() Option { return func(k *knobs) { k.refuseTrees = true } }

// FailDeletions makes the first n deletions of load balancers end in ERROR, as those of a provider that is overloaded do.
func FailDeletions(n int) Option { return func(k *knobs) { k.failDeletions = n } }

// WithoutOctavia leaves the load-balancer service out of the catalog.
func WithoutOctavia() Option { return func(k *knobs) { k.noOctavia = true } }

// Clock is how far the cloud's clock is ahead of this machine's, as its Date headers say.
func Clock(ahead time.Duration) Option { return func(k *knobs) { k.clock = ahead } }

// Roles are those of the user demo; the usual ones are member, reader and load-balancer_member.
func Roles(names ...string) Option { return func(k *knobs) { k.roles = names } }

// TLS puts the cloud behind a certificate that ends at a time, which clouds.yaml names as its CA.
func TLS(ends time.Time) Option { return func(k *knobs) { k.certEnds = ends } }

// Hosts is the number of hypervisors; the default is six. They tell which servers can be kept apart.
func Hosts(n int) Option { return func(k *knobs) { k.hosts = n } }

// ComputeZones are Nova's availability zones, over which the hypervisors are spread; the default is one, nova. The first takes what asks for none.
func ComputeZones(names ...string) Option { return func(k *knobs) { k.computeZones = names } }

// VolumeTypes adds Cinder to the catalog, with these types, of which the first is the default.
func VolumeTypes(names ...string) Option { return func(k *knobs) { k.volumeTypes = names } }

// Zones adds Designate to the catalog, in which the project demo has these zones.
func Zones(names ...string) Option { return func(k *knobs) { k.zones = names } }

// WithoutExtension removes Neutron extensions by alias: "trunk" (its routes are
// then 404), "standard-attr-tag" (no tag routes), "dns-integration" (dns_name is
// refused), or any other alias, which is then only not listed.
func WithoutExtension(aliases ...string) Option {
	return func(k *knobs) {
		for _, a := range aliases {
			k.without[a] = true
		}
	}
}

// TagsAtCreation lets Neutron take tags in its create calls, and lists
// tag-ports-during-bulk-creation. Without it the cloud is like 2025.1, which lists
// tag-creation all the same, refuses tags for most kinds and drops those of ports.
func TagsAtCreation() Option {
	return func(k *knobs) { k.tagsAtCreation, k.with["tag-ports-during-bulk-creation"] = true, true }
}

// Quota limits one resource of the project demo: service is "network", "compute",
// "block-storage" or "load-balancer", resource the name in that service's quota API
// ("port", "instances", "load_balancer"). -1 is unlimited.
func Quota(service, resource string, limit int) Option {
	return func(k *knobs) { k.quota[service+"/"+resource] = limit }
}

// quotaDefaults are the limits of a fresh cloud.
func quotaDefaults() map[string]int {
	return map[string]int{
		"network/network": 100, "network/subnet": 100, "network/port": 500, "network/router": 10, "network/floatingip": 50,
		"network/security_group": 10, "network/security_group_rule": 100, "network/trunk": -1, "network/subnetpool": -1, "network/rbac_policy": 10,
		"compute/instances": 10, "compute/cores": 20, "compute/ram": 51200, "compute/key_pairs": 100, "compute/metadata_items": 128,
		"compute/server_groups": 10, "compute/server_group_members": 10,
		"block-storage/volumes": 10, "block-storage/gigabytes": 1000,
		"load-balancer/load_balancer": -1, "load-balancer/listener": -1, "load-balancer/pool": -1, "load-balancer/member": -1,
		"load-balancer/health_monitor": -1, "load-balancer/l7policy": -1, "load-balancer/l7rule": -1,
	}
}

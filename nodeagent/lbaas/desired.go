package lbaas

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// Class is the spec.loadBalancerClass that asks for what an unset one gets.
const Class = "kuryr.openstack.org/octavia"

// facts are what [desired] must know of the stack.
type facts struct {
	stack     string
	provider  string
	vipSubnet string
	public    string // network of floating IPs
	places    []place
	pieces    bool // the provider makes no load balancer with what is in it
}

// place is a subnet that members may be on.
type place struct {
	prefix netip.Prefix
	subnet string
	pods   bool // their security group is ours to open
}

func (f facts) ovn() bool { return f.provider == "ovn" }

func (f facts) place(addr string) (place, bool) {
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return place{}, false
	}
	i := slices.IndexFunc(f.places, func(p place) bool { return p.prefix.Contains(a) })
	if i < 0 {
		return place{}, false
	}
	return f.places[i], true
}

// want is what a Service asks of OpenStack.
type want struct {
	tree     *balancer // nil: nothing
	floating *floating // nil: none
	report   bool      // the Service's status is ours to write
	hostname string    // to be told there instead of the address
	rules    []rule
	wishes   []wish
}

// floating is the public address that a Service asks for.
type floating struct {
	network, subnet string
	address         string // "" is any
	keep            bool   // it outlives the Service
}

// is tells whether a floating IP is such a one.
func (f *floating) is(o publicIP) bool {
	return f.network == o.Network && (f.address == "" || f.address == o.Address)
}

// rule lets traffic in to pods.
type rule struct {
	Protocol string // tcp, udp, sctp
	Port     int
	From     string // in CIDR form; "" is everywhere
}

// wish is what a Service asks for and does not get.
type wish struct {
	reason Reason
	note   string
}

// served tells whether a Service gets a load balancer at all. That of default/kubernetes is the stack's.
func served(s *corev1.Service) bool {
	return s != nil && s.DeletionTimestamp == nil && s.Spec.Type != corev1.ServiceTypeExternalName && s.Spec.ClusterIP != "" && s.Spec.ClusterIP != corev1.ClusterIPNone &&
		!(s.Namespace == "default" && s.Name == "kubernetes")
}

// public tells whether a Service is of type LoadBalancer and of our class.
func public(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeLoadBalancer && (s.Spec.LoadBalancerClass == nil || *s.Spec.LoadBalancerClass == Class)
}

// desired says what a Service asks for, and which of its wishes cannot be granted. It depends on its arguments alone.
func desired(s *corev1.Service, endpoints []*discoveryv1.EndpointSlice, f facts) want {
	var w want
	if !served(s) {
		return w
	}
	d := &designer{Service: s, facts: f, w: &w}
	vip, err := netip.ParseAddr(s.Spec.ClusterIP)
	if err != nil || !vip.Is4() {
		d.wish(AddressFamilyNotSupported, "only IPv4 is served; the ClusterIP is %s", s.Spec.ClusterIP)
		return w
	}
	w.tree = &balancer{Name: nameOf(f.stack, s), VIP: s.Spec.ClusterIP, Provider: f.provider}
	d.annotations()
	internal := d.flag(annotationInternal)
	for _, p := range s.Spec.Ports {
		if l := d.listener(p, endpoints); l != nil {
			w.tree.Listeners = append(w.tree.Listeners, l)
		}
	}
	d.limits()
	if !public(s) {
		return w
	}
	w.report, w.hostname = true, s.Annotations[annotationPrefix+"hostname"]
	if internal {
		return w
	}
	w.floating = &floating{network: cmp.Or(s.Annotations[annotationPrefix+"floating-network-id"], f.public), subnet: s.Annotations[annotationPrefix+"floating-subnet-id"],
		address: s.Spec.LoadBalancerIP, keep: d.flag(annotationPrefix + "keep-floatingip")}
	d.open()
	return w
}

type designer struct {
	*corev1.Service
	facts
	w *want
}

// wish notes what is not granted, once however many ports have the same wish.
func (d *designer) wish(r Reason, format string, args ...any) {
	if w := (wish{r, fmt.Sprintf(format, args...)}); !slices.Contains(d.w.wishes, w) {
		d.w.wishes = append(d.w.wishes, w)
	}
}

// limits says which fields of the Service will have no effect.
func (d *designer) limits() {
	s := d.Spec
	if len(s.ExternalIPs) > 0 {
		d.wish(ExternalIPsNotServed, "spec.externalIPs are not served: use type LoadBalancer")
	}
	if s.Type == corev1.ServiceTypeNodePort {
		d.wish(NodePortNotServed, "no node listens on node ports: the Service answers at its ClusterIP; use type LoadBalancer to reach it from outside")
	}
	if s.InternalTrafficPolicy != nil && *s.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal {
		d.wish(TrafficPolicyNotServed, "spec.internalTrafficPolicy Local is not served: traffic goes to all endpoints")
	}
	if public(d.Service) && s.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal && !d.ovn() {
		d.wish(TrafficPolicyNotServed, "the provider %s does not keep the client's address, which spec.externalTrafficPolicy Local asks for", d.provider)
	}
}

// listener is what a port of the Service asks for, with its pool.
func (d *designer) listener(p corev1.ServicePort, endpoints []*discoveryv1.EndpointSlice) *listener {
	protocol := string(cmp.Or(p.Protocol, corev1.ProtocolTCP))
	name := fmt.Sprintf("%s/%s:%s:%d", d.Namespace, d.Name, protocol, p.Port)
	l := &listener{Name: name, Protocol: protocol, Port: int(p.Port), settings: standard}
	l.Pool = &pool{Name: name, Protocol: protocol, Algorithm: "ROUND_ROBIN", Members: d.members(p, endpoints)}
	if d.ovn() {
		l.Pool.Algorithm = "SOURCE_IP_PORT" // the only one that OVN has
	} else {
		l.settings = settings{Up: true, Limit: d.number("connection-limit", standard.Limit, -1, 1<<30), ClientData: d.number("timeout-client-data", standard.ClientData, 0, 365*24*3600*1000),
			MemberConnect: d.number("timeout-member-connect", standard.MemberConnect, 0, 365*24*3600*1000), MemberData: d.number("timeout-member-data", standard.MemberData, 0, 365*24*3600*1000),
			Inspect: d.number("timeout-tcp-inspect", standard.Inspect, 0, 365*24*3600*1000)}
		switch m := d.Annotations[annotationPrefix+"lb-method"]; m {
		case "":
		case "ROUND_ROBIN", "LEAST_CONNECTIONS", "SOURCE_IP":
			l.Pool.Algorithm = m
		default:
			d.wish(AnnotationInvalid, "%slb-method is %q: ROUND_ROBIN, LEAST_CONNECTIONS and SOURCE_IP are understood", annotationPrefix, m)
		}
		if public(d.Service) {
			if l.CIDRs = d.ranges(); len(l.CIDRs) == 0 && len(d.Spec.LoadBalancerSourceRanges) > 0 {
				l.CIDRs = []string{"0.0.0.0/32"} // none is everywhere, and what was asked for is some place that cannot be read
			}
		}
	}
	if d.Spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		l.Pool.Affinity = d.affinity(protocol)
	}
	if d.flag(annotationPrefix + "enable-health-monitor") {
		l.Pool.Monitor = d.monitor(protocol)
	}
	return l
}

// longest is how many seconds OVN remembers a client at most.
const longest = 65535

// affinity is what keeps a client with its member. OVN's provider keeps none without a timeout, and Octavia takes one for TCP in a load
// balancer that is made with what is in it, and at no other time; HAProxy, in the amphora, needs none.
func (d *designer) affinity(protocol string) *affinity {
	a := &affinity{"SOURCE_IP", int(corev1.DefaultClientIPServiceAffinitySeconds)}
	if c := d.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
		a.Timeout = int(*c.ClientIP.TimeoutSeconds)
	}
	switch {
	case d.ovn() && d.pieces:
		d.wish(OptionNotSupported, "the provider ovn keeps no session affinity, since Octavia refuses its timeout")
		return nil
	case d.ovn() && a.Timeout > longest:
		d.wish(OptionNotSupported, "the provider ovn keeps session affinity for %d s at most", longest)
		a.Timeout = longest
	case !d.ovn() && protocol == "TCP":
		if a.Timeout != int(corev1.DefaultClientIPServiceAffinitySeconds) {
			d.wish(OptionNotSupported, "Octavia takes no timeout of the session affinity of TCP for the provider %s", d.provider)
		}
		a.Timeout = 0
	}
	return a
}

func (d *designer) monitor(protocol string) *monitor {
	kind := map[string]string{"TCP": "TCP", "UDP": "UDP-CONNECT", "SCTP": "SCTP"}[protocol]
	if d.ovn() && protocol == "SCTP" {
		d.wish(OptionNotSupported, "the provider ovn has no health monitor for SCTP")
		return nil
	}
	m := &monitor{Type: kind, Delay: d.number("health-monitor-delay", 5, 1, 3600), Timeout: d.number("health-monitor-timeout", 3, 1, 3600),
		Retries: d.number("health-monitor-max-retries", 1, 1, 10), RetriesDown: d.number("health-monitor-max-retries-down", 3, 1, 10)}
	if m.Timeout > m.Delay {
		d.wish(AnnotationInvalid, "the health monitor's timeout %d s is longer than its delay %d s", m.Timeout, m.Delay)
		m.Timeout = m.Delay
	}
	return m
}

// ranges are the sources that a LoadBalancer is for, sorted; none is everywhere.
func (d *designer) ranges() (all []string) {
	for _, text := range d.Spec.LoadBalancerSourceRanges {
		p, err := netip.ParsePrefix(strings.TrimSpace(text))
		if err != nil || !p.Addr().Is4() {
			d.wish(SourceRangeInvalid, "spec.loadBalancerSourceRanges has %q, which is no IPv4 range", text)
			continue
		}
		all = append(all, p.Masked().String())
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// members are the endpoints behind a port: those that are ready or, where none is, those that still serve while they end.
func (d *designer) members(p corev1.ServicePort, endpoints []*discoveryv1.EndpointSlice) []member {
	var ready, ending []member
	for _, slice := range endpoints {
		if slice.AddressType != discoveryv1.AddressTypeIPv4 {
			continue
		}
		for _, sp := range slice.Ports {
			if sp.Port == nil || deref(sp.Name) != p.Name || sp.Protocol != nil && *sp.Protocol != cmp.Or(p.Protocol, corev1.ProtocolTCP) {
				continue
			}
			for _, e := range slice.Endpoints {
				if len(e.Addresses) == 0 {
					continue
				}
				m := member{Address: e.Addresses[0], Port: int(*sp.Port)}
				if at, ok := d.place(m.Address); ok {
					m.Subnet = at.subnet
				} else if d.ovn() {
					m.Subnet = d.vipSubnet // it takes no member without one, and finds its way from any
				}
				switch c := e.Conditions; {
				case c.Ready == nil || *c.Ready:
					ready = append(ready, m)
				case deref(c.Serving) && deref(c.Terminating):
					ending = append(ending, m)
				}
			}
		}
	}
	if len(ready) == 0 {
		ready = ending
	}
	slices.SortFunc(ready, member.compare)
	return slices.CompactFunc(ready, member.same)
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// open says what must be let in to the pods: OVN keeps the client's address, which is none that their security group knows.
func (d *designer) open() {
	if !d.ovn() {
		return
	}
	from := d.ranges()
	switch {
	case len(d.Spec.LoadBalancerSourceRanges) == 0:
		from = []string{""}
	case slices.Contains(from, "0.0.0.0/0"):
		from = []string{""}
	}
	closed := false
	for _, l := range d.w.tree.Listeners {
		for _, m := range l.Pool.Members {
			if at, ok := d.place(m.Address); !ok || !at.pods {
				closed = true
				continue
			}
			for _, f := range from {
				if r := (rule{strings.ToLower(l.Protocol), m.Port, f}); !slices.Contains(d.w.rules, r) {
					d.w.rules = append(d.w.rules, r)
				}
			}
		}
	}
	if closed {
		d.wish(EndpointNotOpen, "some endpoints are no pods on the pod network: what lets clients from outside in to them is not in our hands (security group %s/nodes)", d.stack)
	}
}

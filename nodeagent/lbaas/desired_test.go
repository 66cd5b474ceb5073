package lbaas

import (
	"net/netip"
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestWhatAServiceAsksFor(t *testing.T) {
	yes, no, other, clientIP := true, false, "example.org/other", int32(60)
	end := func(address string, ready, serving, terminating *bool) discoveryv1.Endpoint {
		return discoveryv1.Endpoint{Addresses: []string{address}, Conditions: discoveryv1.EndpointConditions{Ready: ready, Serving: serving, Terminating: terminating}}
	}
	name, port := "http", int32(8080)
	slice := func(all ...discoveryv1.Endpoint) []*discoveryv1.EndpointSlice {
		return []*discoveryv1.EndpointSlice{{AddressType: discoveryv1.AddressTypeIPv4, Endpoints: all, Ports: []discoveryv1.EndpointPort{{Name: &name, Port: &port}}},
			{AddressType: discoveryv1.AddressTypeIPv6, Endpoints: []discoveryv1.Endpoint{end("fd00::1", &yes, nil, nil)}, Ports: []discoveryv1.EndpointPort{{Name: &name, Port: &port}}}}
	}
	for what, c := range map[string]struct {
		provider  string
		change    func(*corev1.Service)
		endpoints []*discoveryv1.EndpointSlice
		nothing   bool
		members   []string
		floating  bool
		rules     []rule
		wishes    []Reason
		check     func(want) bool
	}{
		"ready ones": {endpoints: slice(end("10.10.0.5", nil, nil, nil), end("10.10.0.4", &yes, nil, nil), end("10.10.0.6", &no, &yes, &yes)), members: []string{"10.10.0.4", "10.10.0.5"}},
		"ending ones where none is ready": {endpoints: slice(end("10.10.0.5", &no, &no, &yes), end("10.10.0.6", &no, &yes, &yes), end("10.10.0.7", &no, &yes, &no)),
			members: []string{"10.10.0.6"}},
		"headless":       {change: func(s *corev1.Service) { s.Spec.ClusterIP = "None" }, nothing: true},
		"no address yet": {change: func(s *corev1.Service) { s.Spec.ClusterIP = "" }, nothing: true},
		"external name":  {change: func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeExternalName }, nothing: true},
		"the API's":      {change: func(s *corev1.Service) { s.Name = "kubernetes" }, nothing: true},
		"IPv6":           {change: func(s *corev1.Service) { s.Spec.ClusterIP = "fd00::1" }, nothing: true, wishes: []Reason{AddressFamilyNotSupported}},
		"another class": {change: func(s *corev1.Service) {
			s.Spec.Type, s.Spec.LoadBalancerClass = corev1.ServiceTypeLoadBalancer, &other
		}},
		"type LoadBalancer": {change: func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeLoadBalancer }, endpoints: slice(end("10.10.0.4", &yes, nil, nil)), members: []string{"10.10.0.4"}, floating: true, rules: []rule{{"tcp", 8080, ""}}},
		"no range that can be read": {change: func(s *corev1.Service) {
			s.Spec.Type, s.Spec.LoadBalancerSourceRanges = corev1.ServiceTypeLoadBalancer, []string{"x"}
		}, endpoints: slice(end("10.10.0.4", &yes, nil, nil)), members: []string{"10.10.0.4"}, floating: true, wishes: []Reason{SourceRangeInvalid}},
		"no range that amphora can read": {provider: "amphora", change: func(s *corev1.Service) {
			s.Spec.Type, s.Spec.LoadBalancerSourceRanges = corev1.ServiceTypeLoadBalancer, []string{"x"}
		}, floating: true, wishes: []Reason{SourceRangeInvalid}, check: func(w want) bool { return len(w.tree.Listeners[0].CIDRs) == 1 }},
		"a node behind it": {change: func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeLoadBalancer }, endpoints: slice(end("10.11.0.4", &yes, nil, nil)), members: []string{"10.11.0.4"}, floating: true, wishes: []Reason{EndpointNotOpen},
			check: func(w want) bool { return w.tree.Listeners[0].Pool.Members[0].Subnet == "vm" }},
		"affinity": {change: func(s *corev1.Service) {
			s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
			s.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &clientIP}}
		}, check: func(w want) bool { return *w.tree.Listeners[0].Pool.Affinity == affinity{"SOURCE_IP", 60} }},
		"what OVN lacks": {change: func(s *corev1.Service) {
			s.Annotations = map[string]string{annotationPrefix + "lb-method": "SOURCE_IP", annotationPrefix + "flavor-id": "x", annotationPrefix + "enable-health-monitor": "perhaps"}
			s.Spec.Type, s.Spec.ExternalIPs = corev1.ServiceTypeNodePort, []string{"192.0.2.1"}
		}, wishes: []Reason{AnnotationNotSupported, OptionNotSupported, AnnotationInvalid, ExternalIPsNotServed, NodePortNotServed}},
		"what every port asks for in vain": {provider: "amphora", change: func(s *corev1.Service) {
			s.Annotations = map[string]string{annotationPrefix + "enable-health-monitor": "perhaps", annotationPrefix + "connection-limit": "many"}
			s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: "https", Port: 443})
		}, wishes: []Reason{AnnotationInvalid, AnnotationInvalid}},
		"health monitors of OVN": {change: func(s *corev1.Service) {
			s.Annotations = map[string]string{annotationPrefix + "enable-health-monitor": "true", annotationPrefix + "health-monitor-delay": "10", annotationPrefix + "health-monitor-timeout": "20"}
			s.Spec.Ports = []corev1.ServicePort{{Name: "u", Port: 53, Protocol: corev1.ProtocolUDP}, {Name: "s", Port: 7000, Protocol: corev1.ProtocolSCTP}}
		}, wishes: []Reason{AnnotationInvalid, OptionNotSupported}, check: func(w want) bool {
			u, s := w.tree.Listeners[0].Pool.Monitor, w.tree.Listeners[1].Pool.Monitor
			return *u == monitor{Type: "UDP-CONNECT", Delay: 10, Timeout: 10, Retries: 1, RetriesDown: 3} && s == nil
		}},
		"traffic policies": {provider: "amphora", change: func(s *corev1.Service) {
			local := corev1.ServiceInternalTrafficPolicyLocal
			s.Spec.Type, s.Spec.ExternalTrafficPolicy, s.Spec.InternalTrafficPolicy = corev1.ServiceTypeLoadBalancer, corev1.ServiceExternalTrafficPolicyLocal, &local
		}, floating: true, wishes: []Reason{TrafficPolicyNotServed, TrafficPolicyNotServed}},
		"affinity that amphora has": {provider: "amphora", change: func(s *corev1.Service) {
			s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
			s.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &clientIP}}
			s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: "u", Port: 53, Protocol: corev1.ProtocolUDP})
		}, wishes: []Reason{OptionNotSupported}, check: func(w want) bool {
			return *w.tree.Listeners[0].Pool.Affinity == affinity{Type: "SOURCE_IP"} && *w.tree.Listeners[1].Pool.Affinity == affinity{"SOURCE_IP", 60}
		}},
		"an endpoint beyond": {endpoints: slice(end("192.0.2.7", &yes, nil, nil)), members: []string{"192.0.2.7"}, check: func(w want) bool {
			return w.tree.Listeners[0].Pool.Members[0].Subnet == "service"
		}},
		"what amphora has": {provider: "amphora", change: func(s *corev1.Service) {
			s.Annotations = map[string]string{annotationPrefix + "lb-method": "SOURCE_IP", annotationPrefix + "timeout-client-data": "3600000", annotationPrefix + "enable-health-monitor": "true"}
		}, check: func(w want) bool {
			l := w.tree.Listeners[0]
			return l.ClientData == 3600000 && l.Pool.Algorithm == "SOURCE_IP" && l.Pool.Monitor.Type == "TCP"
		}},
	} {
		t.Run(what, func(t *testing.T) {
			f := facts{stack: "demo", provider: "ovn", vipSubnet: "service", places: []place{{netip.MustParsePrefix("10.10.0.0/16"), "pod", true}, {netip.MustParsePrefix("10.11.0.0/24"), "vm", false}}}
			if c.provider != "" {
				f.provider = c.provider
			}
			s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "0123456789"}}
			s.Spec = corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: "172.30.0.20", Ports: []corev1.ServicePort{{Name: "http", Port: 80}}}
			if c.change != nil {
				c.change(s)
			}
			w := desired(s, c.endpoints, f)
			var told []Reason
			for _, x := range w.wishes {
				told = append(told, x.reason)
			}
			if (w.tree == nil) != c.nothing || (w.floating != nil) != c.floating || !reflect.DeepEqual(told, c.wishes) || !reflect.DeepEqual(w.rules, c.rules) {
				t.Fatalf("%+v; wishes %v", w, w.wishes)
			}
			if c.nothing {
				return
			}
			var members []string
			for _, m := range w.tree.Listeners[0].Pool.Members {
				members = append(members, m.Address)
			}
			if !reflect.DeepEqual(members, c.members) || c.check != nil && !c.check(w) {
				t.Errorf("members %v, %+v", members, w.tree.Listeners[0])
			}
		})
	}
}

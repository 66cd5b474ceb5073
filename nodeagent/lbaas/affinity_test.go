package lbaas_test

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
)

// sticky makes a Service keep clients for some seconds.
func sticky(s *corev1.Service, seconds int32) {
	s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
	s.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &seconds}}
}

func TestSessionAffinityIsWhatOVNKeeps(t *testing.T) {
	l := newLab(t, "ovn")
	l.start(nil)
	s, _ := l.web(balanced, func(s *corev1.Service) {
		s.Spec.Ports = append(s.Spec.Ports, port("https", "TCP", 443), port("dns", "UDP", 53))
		sticky(s, 10800)
	})
	keeps := func(tcp, udp int) {
		t.Helper()
		l.until("clients are kept", func() bool {
			const name = "demo/svc/default/web/web-0001"
			return l.fake.Affinity(name, "TCP") == tcp && l.fake.Affinity(name, "UDP") == udp && l.ingress("web") != "" && slices.Contains(l.tree(), name+" 172.30.0.20 ACTIVE")
		})
	}
	keeps(10800, 10800)
	once := []string{"POST floatingips", "POST loadbalancers", "POST security-group-rules"} // not changed, nor made anew
	if got := l.writes(); !slices.Equal(slices.Compact(slices.Sorted(slices.Values(got))), once) {
		t.Errorf("it took %v", got)
	}
	was := l.ingress("web")

	sticky(&s, 86400)
	l.put(s)
	keeps(65535, 65535)
	if told := l.events("OptionNotSupported"); len(told) != 1 || !strings.Contains(told[0], "65535 s at most") {
		t.Errorf("told %v", told)
	}
	// OVN's provider forgets the time of all ports of a protocol with any of their pools.
	sticky(&s, 60)
	s.Spec.Ports = slices.Delete(s.Spec.Ports, 1, 2)
	l.put(s)
	keeps(60, 60)
	s.Spec.SessionAffinity, s.Spec.SessionAffinityConfig = corev1.ServiceAffinityNone, nil
	l.put(s)
	keeps(0, 0)
	if l.ingress("web") != was {
		t.Errorf("its address was %s and is %s", was, l.ingress("web"))
	}
	l.fake.ResetLog()
	l.back(s, pods(3)...)
	l.until("members are changed", func() bool { return slices.Contains(l.writes(), "PUT members") })
	l.kube.Remove("v1/namespaces/default/services/web")
	l.comes()
	if got := l.writes(); slices.Contains(got, "POST loadbalancers") {
		t.Errorf("a change of pods made it anew: %v", got)
	}
}

func TestSessionAffinityThatCannotBeHadIsTold(t *testing.T) {
	for what, refuse := range map[string]func(*openstacktest.Cloud){
		"the timeout is refused": func(c *openstacktest.Cloud) {
			c.Fail("POST /v2.0/lbaas/loadbalancers", 1, 400, `{"faultcode": "Client", "faultstring": "Validation failure: persistence_timeout and persistence_granularity is only for UDP and SCTP protocol pools.", "debuginfo": null}`, nil)
		},
		"no trees": func(c *openstacktest.Cloud) {
			c.Fail("POST /v2.0/lbaas/loadbalancers", 1, 501, `{"faultcode": "Server", "faultstring": "This provider does not support creating fully populated load balancers.", "debuginfo": null}`, nil)
		},
	} {
		t.Run(what, func(t *testing.T) {
			l := newLab(t, "ovn")
			refuse(l.fake)
			l.start(nil)
			_, tree := l.web(func(s *corev1.Service) { sticky(s, 60) })
			l.comes(tree...)
			l.until("told", func() bool { return len(l.events("OptionNotSupported")) == 1 })
		})
	}
}

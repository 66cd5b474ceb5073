package lbaas_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
	"github.com/kuryrctl/kuryrctl/nodeagent/lbaas"
)

// asked is a Service with its endpoints.
type asked struct {
	corev1.Service
	pods int
}

// whole is everything that Services ask for, as [lab.tree] shows it.
func (l *lab) whole(services map[string]*asked) []string {
	all := map[string]bool{}
	for name, s := range services {
		balancer := "demo/svc/default/" + name + "/" + string(s.UID[:8])
		all[balancer+" "+s.Spec.ClusterIP+" ACTIVE"] = true
		from := []string{"<nil>"}
		if len(s.Spec.LoadBalancerSourceRanges) > 0 {
			from = s.Spec.LoadBalancerSourceRanges
		}
		for _, p := range s.Spec.Ports {
			kept := ""
			if s.Spec.SessionAffinityConfig != nil {
				kept = fmt.Sprint(" SOURCE_IP ", *s.Spec.SessionAffinityConfig.ClientIP.TimeoutSeconds)
			}
			var members []string
			for _, a := range pods(s.pods) {
				members = append(members, fmt.Sprint(a, ":", p.Port+8000))
				for _, f := range from {
					all[fmt.Sprintf("open %s %d-%d from %s", strings.ToLower(string(p.Protocol)), p.Port+8000, p.Port+8000, f)] = s.Spec.Type == corev1.ServiceTypeLoadBalancer
				}
			}
			all[fmt.Sprintf("default/%s:%s:%d SOURCE_IP_PORT%s %v", name, p.Protocol, p.Port, kept, members)] = true
		}
		if s.Spec.Type == corev1.ServiceTypeLoadBalancer {
			all[fmt.Sprintf("floating %s %s (kuryrctl stack=demo service=default/%s/%s)", l.ingress(name), balancer, name, s.UID[:8])] = true
		}
	}
	maps.DeleteFunc(all, func(_ string, there bool) bool { return !there })
	return slices.Collect(maps.Keys(all))
}

// change makes a Service another one.
func (s *asked) change(dice *rand.Rand) {
	choose := func(what ...func()) { what[dice.IntN(len(what))]() }
	choose(func() { s.Spec.Type = corev1.ServiceTypeLoadBalancer }, func() {
		s.Spec.Type, s.Spec.LoadBalancerSourceRanges = corev1.ServiceTypeClusterIP, nil
	}, func() {
		all := []corev1.ServicePort{port("http", "TCP", 80), port("https", "TCP", 443), port("dns", "UDP", 53), port("dns-tcp", "TCP", 53)}
		dice.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		s.Spec.Ports = all[:1+dice.IntN(len(all))]
	}, func() { sticky(&s.Service, int32(60*(1+dice.IntN(2)))) }, func() {
		s.Spec.SessionAffinity, s.Spec.SessionAffinityConfig = corev1.ServiceAffinityNone, nil
	}, func() {
		if s.Spec.Type == corev1.ServiceTypeLoadBalancer {
			s.Spec.LoadBalancerSourceRanges = [][]string{nil, {"198.51.100.0/24"}, {"198.51.100.0/24", "203.0.113.0/24"}}[dice.IntN(3)]
		}
	})
}

// TestAnyOrderOfEventsEndsInWhatIsAsked: Services and their endpoints come, change and go, controllers die or are two, the cloud refuses,
// loses replies and what is in it. Once it ends, there is exactly what the Services ask for, and when they go nothing is left.
func TestAnyOrderOfEventsEndsInWhatIsAsked(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			dice := rand.New(rand.NewPCG(seed, 1))
			l := newLab(t, "ovn", openstacktest.Polls(dice.IntN(3)))
			before := l.fake.Left()
			start := func() func() {
				_, stop := l.start(func(o *lbaas.Options) {
					o.Resync, o.LeakAge = 10*time.Millisecond, 20*time.Millisecond
				})
				return stop
			}
			services, stop, second := map[string]*asked{}, start(), func() {}
			// tamper changes the cloud while no controller is there that could do so, too.
			tamper := func(do func(kind, name string), kinds ...string) {
				stop()
				second()
				kind := kinds[dice.IntN(len(kinds))]
				for _, x := range l.fake.Left() {
					if name, ok := strings.CutPrefix(x, kind+" "); ok && name != "demo/api-lb" && dice.IntN(2) == 0 {
						do(kind, name)
						break
					}
				}
				stop = start()
			}
			for i := range 30 {
				name := fmt.Sprint("web-", dice.IntN(3))
				s := services[name]
				switch e := dice.IntN(20); {
				case e < 4 && s == nil:
					n := asked{Service: service(name, "172.30.0.2"+name[4:])}
					n.UID = types.UID(fmt.Sprintf("%08d-uid", i))
					s, services[name] = &n, &n
					fallthrough
				case e < 7 && s != nil:
					s.change(dice)
					l.back(s.Service, pods(s.pods)...)
					l.put(l.now(s.Service))
				case e < 10 && s != nil:
					s.pods = dice.IntN(4)
					l.back(s.Service, pods(s.pods)...)
				case e == 10 && s != nil:
					l.kube.Remove("v1/namespaces/default/services/" + name)
					delete(services, name)
				case e == 11:
					l.fake.CutAfter(dice.IntN(4))
				case e == 12:
					l.fake.CutReply(1 + dice.IntN(3))
				case e == 13:
					l.fake.Fail("POST /v2.0/lbaas/*", 2, 403, `{"faultcode": "Client", "faultstring": "Quota has been met for resources: Load Balancer", "debuginfo": null}`, nil)
				case e == 14:
					l.fake.Fail("* /v2.0/*/*", 3, 500, `{"faultcode": "Server", "faultstring": "It broke.", "debuginfo": null}`, nil)
				case e == 15:
					l.kube.EndWatches(dice.IntN(2) == 0)
				case e == 16:
					tamper(l.fake.Delete, "loadbalancer", "listener", "pool", "member", "floatingip")
				case e == 17:
					tamper(func(kind, name string) { l.fake.Set(kind, name, "provisioning_status", "ERROR") }, "loadbalancer", "listener", "pool")
				case e == 18:
					second()
					second = start()
				default:
					stop()
					l.fake.Heal()
					stop = start()
				}
				l.fake.ResetLog()
				// For a while; who finds the cloud away asks less and less often.
				for n, end := dice.IntN(20), time.Now().Add(100*time.Millisecond); len(l.fake.Reads())+len(l.fake.Writes()) < n && time.Now().Before(end); {
					<-time.After(time.Millisecond)
				}
			}
			l.fake.Heal()
			l.comesTo(func() []string { return l.whole(services) })
			for name, s := range services {
				for _, p := range s.Spec.Ports {
					should := 0
					if c := s.Spec.SessionAffinityConfig; c != nil {
						should = int(*c.ClientIP.TimeoutSeconds)
					}
					if is := l.fake.Affinity("demo/svc/default/"+name+"/"+string(s.UID[:8]), string(p.Protocol)); is != should {
						t.Errorf("%s keeps clients of %s for %d s, want %d", name, p.Protocol, is, should)
					}
				}
				l.kube.Remove("v1/namespaces/default/services/" + name)
			}
			l.comes()
			l.until("nothing is left", func() bool { return slices.Equal(l.fake.Left(), before) })
		})
	}
}

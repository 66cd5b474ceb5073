package lbaas_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
	"github.com/kuryrctl/kuryrctl/nodeagent/lbaas"
)

func TestWhatIsChangedBehindOurBackIsRepaired(t *testing.T) {
	const name = "demo/svc/default/web/web-0001"
	told := map[string]string{"ERROR": "LoadBalancerFailed", "a pool in ERROR": "LoadBalancerFailed", "a listener in ERROR": "LoadBalancerFailed", "it is deleted": "LoadBalancerRepaired"}
	for what, do := range map[string]func(*lab){
		"ERROR":                  func(l *lab) { l.fake.Set("loadbalancer", name, "provisioning_status", "ERROR") },
		"a pool in ERROR":        func(l *lab) { l.fake.Set("pool", "default/web:TCP:80", "provisioning_status", "ERROR") },
		"a listener in ERROR":    func(l *lab) { l.fake.Set("listener", "default/web:TCP:80", "provisioning_status", "ERROR") },
		"it is disabled":         func(l *lab) { l.fake.Set("loadbalancer", name, "admin_state_up", false) },
		"a pool is disabled":     func(l *lab) { l.fake.Set("pool", "default/web:TCP:80", "admin_state_up", false) },
		"a listener is disabled": func(l *lab) { l.fake.Set("listener", "default/web:TCP:80", "admin_state_up", false) },
		"it is deleted":          func(l *lab) { l.fake.Delete("loadbalancer", name) },
		"a listener is gone":     func(l *lab) { l.fake.Delete("listener", "default/web:TCP:80") },
		"the pool is gone":       func(l *lab) { l.fake.Delete("pool", "default/web:TCP:80") },
		"a member is gone": func(l *lab) {
			for _, x := range l.fake.Left() {
				if id, ok := strings.CutPrefix(x, "member "); ok {
					l.fake.Delete("member", id)
				}
			}
		},
		"a pool is changed": func(l *lab) {
			l.fake.Set("pool", "default/web:TCP:80", "session_persistence", map[string]any{"type": "SOURCE_IP"})
		},
		"the floating IP is taken away": func(l *lab) { l.fake.Set("floatingip", l.ingress("web"), "port_id", nil) },
		"the floating IP is gone":       func(l *lab) { l.fake.Delete("floatingip", l.ingress("web")) },
	} {
		t.Run(what, func(t *testing.T) {
			l := newLab(t, "ovn")
			l.start(func(o *lbaas.Options) { o.Resync = 50 * time.Millisecond })
			_, tree := l.web(balanced)
			whole := func(address string) []string {
				return append(slices.Clone(tree), "floating "+address+" "+name+" (kuryrctl stack=demo service=default/web/web-0001)", "open tcp 8080-8080 from <nil>")
			}
			was := l.address("web")
			l.ready(1)
			l.comes(whole(was)...)
			do(l)
			l.until("all is well", func() bool {
				want := whole(l.ingress("web"))
				slices.Sort(want)
				return slices.Equal(l.tree(), want)
			})
			if what != "the floating IP is gone" && l.ingress("web") != was {
				t.Errorf("its address was %s and is %s", was, l.ingress("web"))
			}
			if r := told[what]; r != "" {
				l.until("told", func() bool { return len(l.events(r)) == 1 && len(l.events("LoadBalancerReady")) == 2 })
			}
		})
	}
}

func TestAFullQuotaIsToldAndHealsWhenSomethingGoes(t *testing.T) {
	soon := func(o *lbaas.Options) { o.Resync, o.LeakAge = 50*time.Millisecond, 50*time.Millisecond }
	for resource, limit := range map[string]int{"load-balancer/load_balancer": 2, "load-balancer/listener": 1, "load-balancer/pool": 1, "load-balancer/member": 1,
		"network/floatingip": 1, "network/security_group_rule": -1} {
		t.Run(resource, func(t *testing.T) {
			service, name, _ := strings.Cut(resource, "/")
			if limit < 0 { // as many as one Service needs
				limit = len(newLab(t, "ovn").list("/security-group-rules")) + 1
			}
			l := newLab(t, "ovn", openstacktest.Quota(service, name, limit))
			l.start(soon)
			l.web(balanced)
			l.until("the first is served", func() bool { return len(l.tree()) == 4 && len(l.events("LoadBalancerReady")) == 1 })
			s := other("full", "172.30.0.21", balanced)
			l.back(s, "10.10.1.11")
			l.put(s)
			l.until("told", func() bool { return len(l.events("QuotaExceeded")) > 0 })
			l.kube.Remove("v1/namespaces/default/services/web")
			l.until("the second is served, and the first is gone", func() bool { return len(l.tree()) == 4 && l.ingress("full") != "" })
			l.until("told", func() bool {
				return slices.ContainsFunc(l.events("LoadBalancerReady"), func(e string) bool { return strings.Contains(e, " full:") })
			})
			if got := l.events("QuotaExceeded"); len(got) != 1 || !strings.Contains(got[0], " full:") || len(l.events("")) != 3 {
				t.Errorf("told %v", l.events(""))
			}
		})
	}
}

// other is a Service on another port than web.
func other(name, vip string, change ...func(*corev1.Service)) corev1.Service {
	return service(name, vip, append(change, func(s *corev1.Service) { s.Spec.Ports = []corev1.ServicePort{port("http", "TCP", 81)} })...)
}

func TestALoadBalancerThatIsBusyForLongIsToldAndWaitedFor(t *testing.T) {
	const name = "demo/svc/default/web/web-0001"
	l := newLab(t, "ovn")
	l.start(func(o *lbaas.Options) { o.Patience = 20 * time.Millisecond })
	s, _ := l.web()
	l.ready(1)
	l.fake.Set("loadbalancer", name, "provisioning_status", "PENDING_UPDATE") // for ever
	l.back(s, "10.10.1.11")
	l.until("told", func() bool { return len(l.events("LoadBalancerPending")) == 1 })
	if !strings.Contains(l.events("LoadBalancerPending")[0], name) {
		t.Errorf("told %v", l.events("LoadBalancerPending"))
	}
	l.fake.ResetLog()
	l.until("it is looked at", func() bool { return len(l.fake.Reads()) > 5 })
	if got := l.writes(); len(got) != 0 {
		t.Errorf("while it is busy: %v", got)
	}
	l.fake.Set("loadbalancer", name, "provisioning_status", "ACTIVE")
	l.comes(name+" 172.30.0.20 ACTIVE", "default/web:TCP:80 SOURCE_IP_PORT [10.10.1.11:8080]")
	l.ready(2)
	if n := len(l.events("LoadBalancerPending")); n != 1 {
		t.Errorf("%d events about one state", n)
	}
}

// octavia-api was killed when the OVN provider was done with the whole and not with what is in it.
func TestAPartThatStaysPENDINGHasTheWholeMadeAnew(t *testing.T) {
	const name = "demo/svc/default/web/web-0001"
	for what, kind := range map[string]string{"a listener": "listener", "a pool": "pool", "a pool, and its members change": "pool"} {
		t.Run(what, func(t *testing.T) {
			l := newLab(t, "ovn")
			l.start(func(o *lbaas.Options) {
				if o.Settle = 30 * time.Millisecond; !strings.Contains(what, "members") {
					o.Resync = 5 * time.Millisecond // nothing else shows it
				}
			})
			s, _ := l.web()
			l.ready(1)
			first := l.balancer(name)
			l.fake.Set(kind, "default/web:TCP:80", "provisioning_status", "PENDING_CREATE") // for ever
			if strings.Contains(what, "members") {
				l.back(s, "10.10.1.11")
			}
			l.another(name, first)
			l.ready(2)
			if told := l.events("LoadBalancerFailed"); len(told) != 1 || !strings.Contains(told[0], "PENDING_CREATE for more than") {
				t.Errorf("told %v", told)
			}
		})
	}
}

// What is made anew has parts of the same names, and the whole may well take longer than parts may be PENDING after it.
func TestASlowLoadBalancerIsNotTakenForTheOneBeforeIt(t *testing.T) {
	const name = "demo/svc/default/web/web-0001"
	l := newLab(t, "ovn", openstacktest.Polls(60))
	quick := func(o *lbaas.Options) { o.Settle = 30 * time.Millisecond }
	_, stop := l.start(quick)
	l.web()
	l.ready(1)
	first := l.balancer(name)
	stop()
	l.fake.ResetLog()
	for _, x := range l.fake.Left() {
		if kind, name, _ := strings.Cut(x, " "); slices.Contains([]string{"listener", "pool", "member"}, kind) {
			l.fake.Set(kind, name, "provisioning_status", "PENDING_CREATE") // for ever
		}
	}
	l.start(quick) // which sees all at first, and then the load balancer only as it asks for it
	l.another(name, first)
	l.ready(2)
	if got := l.writes(); !slices.Equal(got, []string{"DELETE loadbalancers", "POST loadbalancers"}) {
		t.Errorf("it took %v", got)
	}
}

func TestALoadBalancerThatStaysInERRORIsMadeAnewLessAndLessOften(t *testing.T) {
	const name = "demo/svc/default/web/web-0001"
	l := newLab(t, "ovn", openstacktest.Polls(0))
	l.start(func(o *lbaas.Options) { o.Backoff, o.Resync = 40*time.Millisecond, 5*time.Millisecond })
	l.web()
	ids, began := map[string]bool{}, time.Now()
	for len(ids) < 4 { // every one of them breaks as soon as it is there
		l.until("one more", func() bool {
			id := l.balancer(name)
			if id == "" || ids[id] {
				return false
			}
			l.fake.Set("loadbalancer", id, "provisioning_status", "ERROR")
			ids[id] = true
			return true
		})
	}
	// The second is made at once, the third 2 and the fourth 4 times the backoff after the one before.
	if took := time.Since(began); took < 240*time.Millisecond {
		t.Errorf("three were made anew in %s", took)
	}
}

func TestADeletionThatEndsInERRORIsTriedLessAndLessOften(t *testing.T) {
	const name = "demo/svc/default/web/web-0001"
	for what, do := range map[string]func(*lab){
		"the Service went": func(l *lab) { l.kube.Remove("v1/namespaces/default/services/web") },
		"it is made anew":  func(l *lab) { l.fake.Set("loadbalancer", name, "provisioning_status", "ERROR") },
	} {
		t.Run(what, func(t *testing.T) {
			l := newLab(t, "ovn", openstacktest.FailDeletions(4))
			l.start(func(o *lbaas.Options) { o.Backoff, o.Resync = 40*time.Millisecond, 20*time.Millisecond })
			_, tree := l.web()
			l.ready(1)
			was := l.balancer(name)
			l.fake.ResetLog()
			began := time.Now()
			do(l)
			l.until("it is gone", func() bool { return l.balancer(name) != was })
			// After each of the four failures twice as long as after the one before: 40, 80, 160 and 320 ms.
			if took := time.Since(began); took < 600*time.Millisecond {
				t.Errorf("five deletions were sent in %s", took)
			}
			if what == "the Service went" {
				l.comes()
			} else {
				l.comes(tree...)
			}
			deleted := slices.DeleteFunc(l.writes(), func(w string) bool { return !strings.HasPrefix(w, "DELETE") })
			if len(deleted) != 5 {
				t.Errorf("it took %v", deleted)
			}
			if told := l.events("LoadBalancerUndeletable"); len(told) != 1 || !strings.Contains(told[0], " web: ") || !strings.Contains(told[0], was) {
				t.Errorf("told %v", told)
			}
		})
	}
}

func TestWhatOctaviaIsAtIsNotDeletedOverAndOver(t *testing.T) {
	l := newLab(t, "ovn")
	l.start(func(o *lbaas.Options) { o.Patience = 20 * time.Millisecond })
	l.web()
	l.ready(1)
	l.fake.Set("loadbalancer", "demo/svc/default/web/web-0001", "provisioning_status", "PENDING_UPDATE") // for ever
	l.fake.ResetLog()
	l.kube.Remove("v1/namespaces/default/services/web")
	l.until("told", func() bool { return len(l.events("LoadBalancerPending")) == 1 })
	reads := len(l.fake.Reads())
	l.until("it is looked at", func() bool { return len(l.fake.Reads()) > reads+5 })
	if got := l.writes(); len(got) > 1 {
		t.Errorf("while it is busy: %v", got)
	}
	l.fake.Set("loadbalancer", "demo/svc/default/web/web-0001", "provisioning_status", "ACTIVE")
	l.comes()
}

func TestTwoControllersDoNotFight(t *testing.T) {
	l := newLab(t, "ovn")
	for _, id := range []string{"a", "b"} {
		l.start(func(o *lbaas.Options) { o.Identity, o.Resync = id, 50*time.Millisecond })
	}
	var want []string
	for i := range 5 {
		s := service(fmt.Sprint("web-", i), fmt.Sprint("172.30.0.", 20+i), balanced)
		l.back(s, "10.10.1.10")
		l.put(s)
		l.until("it has an address", func() bool { return l.ingress(s.Name) != "" })
		name := fmt.Sprintf("demo/svc/default/web-%d/web-%d-00", i, i)
		want = append(want, fmt.Sprintf("%s 172.30.0.%d ACTIVE", name, 20+i), fmt.Sprintf("default/web-%d:TCP:80 SOURCE_IP_PORT [10.10.1.10:8080]", i),
			fmt.Sprintf("floating %s %s (kuryrctl stack=demo service=default/web-%d/web-%d-00)", l.ingress(s.Name), name, i, i))
	}
	l.comes(append(want, "open tcp 8080-8080 from <nil>")...)
	for range 2 { // one of them may still be about what the other did just before
		l.fake.ResetLog()
		l.until("all is looked at a few times", func() bool { return len(l.fake.Reads()) > 60 })
	}
	if got := l.writes(); len(got) != 0 {
		t.Errorf("there is nothing to be done, and they do %v", got)
	}
}

func TestWhoDoesNotLeadWritesNothing(t *testing.T) {
	l := newLab(t, "ovn")
	l.quiet.Store(true)
	l.start(nil)
	_, tree := l.web(balanced)
	l.until("it was looked at", func() bool { return len(l.fake.Reads()) > 20 })
	if got := l.writes(); len(got) != 0 || l.ingress("web") != "" || len(l.events("")) != 0 {
		t.Errorf("it wrote %v, %v", got, l.events(""))
	}
	l.quiet.Store(false)
	l.until("it is served", func() bool { return len(l.tree()) == len(tree)+2 })
}

// cut tells whether the cloud left a request without an answer.
func (l *lab) cut() bool {
	return slices.ContainsFunc(append(l.fake.Writes(), l.fake.Reads()...), func(r openstacktest.Request) bool { return r.Status == 0 })
}

func TestACrashAtAnyWriteLeavesNothingBehind(t *testing.T) {
	for _, reply := range []bool{false, true} {
		for n := 1; n < 6; n++ {
			t.Run(fmt.Sprintf("after %d writes, reply lost %v", n, reply), func(t *testing.T) {
				l := newLab(t, "ovn")
				cut := func() {
					if reply {
						l.fake.CutReply(n + 1)
					} else {
						l.fake.CutAfter(n)
					}
				}
				cut()
				_, stop := l.start(nil)
				_, tree := l.web(balanced)
				l.until("it is cut, or through", func() bool { return l.cut() || l.ingress("web") != "" })
				stop()
				l.fake.Heal()
				_, stop = l.start(nil)
				l.until("all is well", func() bool {
					want := append(slices.Clone(tree), "floating "+l.ingress("web")+" demo/svc/default/web/web-0001 (kuryrctl stack=demo service=default/web/web-0001)", "open tcp 8080-8080 from <nil>")
					slices.Sort(want)
					return slices.Equal(l.tree(), want)
				})
				l.fake.ResetLog()
				cut()
				l.kube.Remove("v1/namespaces/default/services/web")
				l.until("it is cut, or through", func() bool { return l.cut() || len(l.fake.Writes()) >= 3 })
				stop()
				l.fake.Heal()
				l.start(nil)
				l.comes()
			})
		}
	}
}

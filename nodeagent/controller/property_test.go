package controller_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
	"github.com/kuryrctl/kuryrctl/nodeagent/controller"
	"github.com/kuryrctl/kuryrctl/nodeagent/vif"
)

// daemon does once what that of a node does over and over: pods that are gone give back, pods without a subport get a free one, and what
// retires and is free is released.
func (l *lab) daemon(node string, pods []string) {
	l.t.Helper()
	if l.pool(node).Name == "" {
		return
	}
	is := l.pool(node).Status
	was := fmt.Sprint(is.Allocations, is.Released)
	turn := func(s *vif.SubportPoolStatus) {
		s.Allocations = slices.DeleteFunc(s.Allocations, func(a vif.Allocation) bool { return !slices.Contains(pods, a.Pod) })
		taken, has := map[string]bool{}, map[string]bool{}
		for _, a := range s.Allocations {
			taken[a.Port], has[a.Pod] = true, true
		}
		there := map[string]bool{}
		for _, sub := range l.pool(node).Spec.Subports {
			there[sub.Port] = true
			if sub.Retiring && !taken[sub.Port] && !slices.Contains(s.Released, sub.Port) {
				s.Released = append(s.Released, sub.Port)
			}
			i := slices.IndexFunc(pods, func(p string) bool { return !has[p] })
			if i >= 0 && !taken[sub.Port] && !sub.Retiring && !slices.Contains(s.Released, sub.Port) {
				s.Allocations = append(s.Allocations, vif.Allocation{Port: sub.Port, Namespace: "default", Pod: pods[i], UID: "uid-" + pods[i], Container: "c-" + pods[i]})
				has[pods[i]] = true
			}
		}
		s.Released = slices.DeleteFunc(s.Released, func(port string) bool { return !there[port] })
	}
	if turn(&is); fmt.Sprint(is.Allocations, is.Released) != was { // one that reports without end is in the controller's way
		l.status(node, turn)
	}
}

// TestAnyOrderOfEventsEndsWell: pods come and go, controllers die, are deposed and come back, the cloud refuses and loses replies. No subport is
// two pods' at any time; once it ends, every pod has one, no VLAN id is twice on a trunk, and when the nodes go nothing is left.
func TestAnyOrderOfEventsEndsWell(t *testing.T) {
	lives := rapid.SliceOfN(rapid.IntRange(0, 9), 10, 20)
	for seed := range 5 {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			events := lives.Example(seed)
			t.Log(events)
			names := workers(2)
			l := newLab(t, names, openstacktest.Polls(0))
			term := 0
			start := func() func() {
				term++
				_, stop := l.start(func(o *controller.Options) {
					o.Identity, o.Lease, o.TTL, o.Resync = fmt.Sprint(term), time.Second, 20*time.Millisecond, 200*time.Millisecond
				})
				return stop
			}
			stop := start()
			pods := map[string][]string{}
			serve := func() {
				port := map[string]string{}
				for _, n := range names {
					l.daemon(n, pods[n])
					for _, a := range l.pool(n).Status.Allocations {
						if port[a.Port] != "" {
							t.Errorf("port %s is that of %s and of %s", a.Port, port[a.Port], a.Pod)
						}
						port[a.Port] = a.Pod
					}
				}
			}
			for i, e := range events {
				n := names[i%2]
				switch e {
				case 0, 1, 2:
					for k := range 2 * (e + 1) {
						name := fmt.Sprintf("p-%d-%d", i, k)
						l.addPods(n, name)
						pods[n] = append(pods[n], name)
					}
				case 3, 4:
					for range min(4, len(pods[n])) {
						l.kube.DeletePod("default", pods[n][0])
						pods[n] = pods[n][1:]
					}
				case 5:
					l.fake.CutAfter(i % 4)
				case 6:
					l.fake.CutReply(1 + i%3)
				case 7:
					l.fake.Fail("PUT /v2.0/trunks/*/*", 2, 409, `{"NeutronError": {"type": "DuplicateSubPort", "message": "taken", "detail": ""}}`, http.Header{})
				case 8:
					l.fake.Fail("POST /v2.0/ports", 2, 409, `{"NeutronError": {"type": "OverQuota", "message": "none left", "detail": ""}}`, http.Header{})
				case 9:
					l.kube.EndWatches(i%2 == 0)
				}
				serve()
				if e >= 5 && i%2 == 0 {
					stop()
					l.fake.Heal()
					stop = start()
				} else if e >= 5 {
					l.fake.Heal()
				}
			}
			l.until("every pod has a subport", all(names, func(n string) bool {
				serve()
				return len(l.pool(n).Status.Allocations) == len(pods[n]) && l.ready(n)
			}))
			published := func() int { return len(l.pool(names[0]).Spec.Subports) + len(l.pool(names[1]).Spec.Subports) }
			l.until("nothing is left over", func() bool { serve(); return l.podPorts() == published() })
			for _, n := range names {
				l.kube.RemoveNode(n)
			}
			l.until("nothing is left", func() bool { return l.podPorts() == 0 })
		})
	}
}

func TestTwoControllersNeverBothWrite(t *testing.T) {
	t.Parallel()
	l := newLab(t, []string{"worker-0"}, openstacktest.Polls(0))
	change := func(name string) func(*controller.Options) {
		return func(o *controller.Options) { o.Identity, o.Max = name, 200 }
	}
	a, _ := l.start(change("a"))
	b, _ := l.start(change("b"))
	pods := 0
	for range 3 {
		for range 10 {
			l.addPods("worker-0", fmt.Sprintf("web-%d", pods))
			pods++
		}
		l.until("enough", func() bool {
			// The one that leads is asked first and last: in between it may have become the other.
			if metric(t, a, "leading") == "1" && metric(t, b, "leading") == "1" && metric(t, a, "leading") == "1" {
				t.Error("both may write")
			}
			return len(l.pool("worker-0").Spec.Subports) >= pods
		})
		l.kube.Edit(lease, func(o map[string]any) { // as if a third had taken it, and died
			o["spec"].(map[string]any)["holderIdentity"] = "thief"
		})
	}
	l.until("one leads again", func() bool { return metric(t, a, "leading") != metric(t, b, "leading") })
	// Whoever led last may have been making ports for the pool's spare ones.
	l.until("all is published", func() bool { return l.podPorts() == len(l.pool("worker-0").Spec.Subports) })
	l.check("worker-0")
}

func TestALeaseThatOthersCannotReadIsRefused(t *testing.T) {
	for _, d := range []time.Duration{500 * time.Millisecond, 1500 * time.Millisecond} {
		o := controller.Options{Stack: "demo", Max: 50, Batch: 5, Lease: d}
		if _, err := controller.New(o); err == nil || !strings.Contains(err.Error(), "whole seconds") {
			t.Errorf("%s: %v", d, err)
		}
	}
}

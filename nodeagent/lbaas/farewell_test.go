package lbaas_test

import (
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kuryrctl/kuryrctl/nodeagent/lbaas"
)

func TestWhatIsInANamespaceThatIsBeingDeletedIsNotChangedBitByBit(t *testing.T) {
	for what, farewell := range map[string]time.Duration{"it goes": time.Hour, "a finalizer keeps it": 300 * time.Millisecond} {
		t.Run(what, func(t *testing.T) {
			var said strings.Builder
			l := newLab(t, "ovn")
			l.kube.SetNamespace(corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", UID: "u1"}, Status: corev1.NamespaceStatus{Phase: corev1.NamespaceTerminating}})
			stays := other("stays", "172.30.0.21")
			goes := service("web", "172.30.0.20", func(s *corev1.Service) { s.Namespace = "shop" })
			for _, s := range []corev1.Service{goes, stays} {
				l.back(s, pods(8)...)
				l.put(s)
			}
			_, stop := l.start(func(o *lbaas.Options) { o.Farewell, o.Log = farewell, slog.New(slog.NewTextHandler(&said, nil)) })
			is := func(pool string, n int) func() bool {
				var members []string
				for _, a := range pods(n) {
					members = append(members, a+":80"+pool[len(pool)-2:])
				}
				return func() bool { return slices.Contains(l.tree(), pool+" SOURCE_IP_PORT ["+strings.Join(members, " ")+"]") }
			}
			l.until("both are served", func() bool { return is("shop/web:TCP:80", 8)() && is("default/stays:TCP:81", 8)() })
			l.until("all has been told", func() bool {
				return len(l.events("LoadBalancerReady")) == 1 && slices.Contains(l.kube.Requests(), "POST /apis/events.k8s.io/v1/namespaces/shop/events")
			})
			began := time.Now()
			for n := 7; n > 0; n-- {
				l.back(goes, pods(n)...)
				l.back(stays, pods(n)...)
				l.until("what stays is up to date", is("default/stays:TCP:81", n))
			}
			if what == "it goes" {
				l.kube.Remove("v1/namespaces/shop/services/web")
				l.until("it is gone", func() bool { return l.balancer("demo/svc/shop/web/web-0001") == "" })
			} else {
				l.until("it is up to date", is("shop/web:TCP:80", 1))
				if took := time.Since(began); took < farewell {
					t.Errorf("its members were changed after %s", took)
				}
			}
			stop()
			// A pass that was under way when it began may have seen the first change.
			if n := strings.Count(said.String(), "change members of shop/web:TCP:80"); what == "it goes" && n > 1 {
				t.Errorf("its members were changed %d times", n)
			}
			if strings.Contains(said.String(), "writing an event") || !strings.Contains(said.String(), "no event") {
				t.Errorf("it says\n%s", &said)
			}
		})
	}
}

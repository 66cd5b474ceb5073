//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kuryrctl/kuryrctl/bootstrap/cloud"
)

// servicesLive asks the cluster's DNS from outside of the cloud's networks, by a Service of type LoadBalancer with two ports, and sees its load
// balancer and its floating IP go with it.
func servicesLive(t *testing.T, stack string, api *operator) {
	t.Helper()
	lab, err := cloud.Default()
	if err != nil {
		t.Fatal(err)
	}
	services := api.CoreV1().Services("kube-system")
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "e2e"}, Spec: corev1.ServiceSpec{
		Type: corev1.ServiceTypeLoadBalancer, Selector: map[string]string{"k8s-app": "kube-dns"},
		Ports: []corev1.ServicePort{{Name: "health", Port: 80, TargetPort: intstr.FromInt32(8080)}, {Name: "dns", Port: 53, TargetPort: intstr.FromInt32(53)}}}}
	if _, err := services.Create(t.Context(), svc, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	address := ""
	eventually(t, "the Service to have a floating IP", 3*time.Minute, func() string {
		s, err := services.Get(t.Context(), "e2e", metav1.GetOptions{})
		if err != nil {
			return err.Error()
		}
		for _, i := range s.Status.LoadBalancer.Ingress {
			address = i.IP
		}
		if address == "" {
			return "it has none"
		}
		return ""
	})
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialContext: lab.DialContext, DisableKeepAlives: true}}
	eventually(t, "the Service to answer", time.Minute, func() string {
		resp, err := client.Get("http://" + address + "/health")
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		if text, err := io.ReadAll(resp.Body); err != nil || string(text) != "OK" {
			return fmt.Sprintf("%s %q %v", resp.Status, text, err)
		}
		return ""
	})
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return lab.DialContext(ctx, "tcp", address+":53")
	}}
	eventually(t, "the cluster's DNS to answer", time.Minute, func() string {
		found, err := resolver.LookupHost(t.Context(), "kubernetes.default.svc.cluster.local.")
		if err != nil || !slices.Equal(found, []string{"172.30.0.1"}) {
			return fmt.Sprint(found, err)
		}
		return ""
	})
	if err := services.Delete(t.Context(), "e2e", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the Service to leave nothing", 2*time.Minute, func() string {
		for _, name := range openstackNames(t, stack) {
			if strings.Contains(name, "kube-system/e2e") {
				return name
			}
		}
		for _, f := range show(t, stack).FloatingIPs {
			if f.Address == address {
				return "floating IP " + address
			}
		}
		return ""
	})
}

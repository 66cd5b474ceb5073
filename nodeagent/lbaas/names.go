package lbaas

import (
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
)

// prefix begins the names of all load balancers that are made here.
func prefix(stack string) string { return stack + "/svc/" }

// nameOf is the name of a Service's load balancer. A Service that is made anew under its old name has another.
func nameOf(stack string, s *corev1.Service) string {
	return prefix(stack) + s.Namespace + "/" + s.Name + "/" + short(s)
}

func short(s *corev1.Service) string { return string(s.UID)[:min(8, len(s.UID))] }

// keyOf reads [nameOf] back, to namespace/name.
func keyOf(stack, name string) (string, bool) {
	rest, ok := strings.CutPrefix(name, prefix(stack))
	at := strings.LastIndex(rest, "/")
	if !ok || strings.Count(rest, "/") != 2 {
		return "", false
	}
	return rest[:at], true
}

// markOf is the description of a floating IP: whose it is, and for which Service.
func markOf(stack string, s *corev1.Service) string {
	return openstack.ServiceMark(stack, s.Namespace+"/"+s.Name+"/"+short(s))
}

package lbaas

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
)

// publish gives the VIP its floating IP. It returns the address that clients use from outside, "" while there is none.
func (t *term) publish(ctx context.Context, n *item, s *corev1.Service, w want, b *balancer) (string, error) {
	if w.floating == nil {
		if w.report {
			return b.VIP, nil
		}
		return "", nil
	}
	if b.VIPPort == "" || b.Status == "PENDING_DELETE" || b.Status == "ERROR" {
		return "", nil
	}
	description := markOf(t.o.Stack, s)
	if w.floating.keep {
		description = keptFor(s)
	}
	set := func(f publicIP, body map[string]any, what string) (string, error) {
		if err := t.cloud.write(ctx, t.cloud.network, http.MethodPut, "floatingips/"+f.ID, map[string]any{"floatingip": body}, nil); err != nil {
			return "", openstack.Wrap(err, "%s floating IP %s", what, f.Address)
		}
		f.Port, n.at = b.VIPPort, time.Now()
		if d, ok := body["description"].(string); ok {
			f.Description = d
		}
		n.floating = append(slices.DeleteFunc(n.floating, func(o publicIP) bool { return o.ID == f.ID }), f)
		return f.Address, nil
	}
	here := slices.IndexFunc(n.floating, func(f publicIP) bool { return f.Port == b.VIPPort })
	if here >= 0 {
		f := n.floating[here]
		switch ours := f.Description == markOf(t.o.Stack, s) || f.Description == keptFor(s); {
		case w.floating.address != "" && f.Address != w.floating.address:
			if _, err := set(f, map[string]any{"port_id": nil}, "taking away"); err != nil {
				return "", err
			}
			n.floating = slices.DeleteFunc(n.floating, func(o publicIP) bool { return o.ID == f.ID })
		case ours && f.Description != description:
			return set(f, map[string]any{"description": description}, "describing")
		default:
			return f.Address, nil
		}
	}
	lead := map[string]any{"port_id": b.VIPPort}
	for _, f := range n.floating {
		if f.Port == "" && f.Description == description {
			return set(f, lead, "leading to the VIP the")
		}
	}
	address := w.floating.address
	if address == "" && w.floating.keep && len(s.Status.LoadBalancer.Ingress) > 0 {
		address = s.Status.LoadBalancer.Ingress[0].IP // it may have lost its way when the load balancer was made anew
	}
	if address != "" {
		found, err := list[publicIP](ctx, t.cloud.network, "floatingips", url.Values{"floating_ip_address": {address}, "project_id": {t.cloud.project}})
		switch {
		case err != nil:
			return "", err
		case len(found) > 0 && found[0].Port == "" && (w.floating.address != "" || found[0].Description == description):
			return set(found[0], lead, "leading to the VIP the")
		case len(found) > 0 && w.floating.address != "":
			return "", &unavailable{fmt.Sprintf("floating IP %s, which spec.loadBalancerIP asks for, leads to port %s", address, found[0].Port)}
		}
	}
	body := map[string]any{"floating_network_id": w.floating.network, "port_id": b.VIPPort, "description": description}
	if w.floating.subnet != "" {
		body["subnet_id"] = w.floating.subnet
	}
	if w.floating.address != "" {
		body["floating_ip_address"] = w.floating.address
	}
	var made struct{ FloatingIP publicIP }
	err := t.cloud.write(ctx, t.cloud.network, http.MethodPost, "floatingips", map[string]any{"floatingip": body}, &made)
	switch {
	case openstack.IsForbidden(err) && w.floating.address != "":
		return "", &unavailable{fmt.Sprintf("the project has no floating IP %s, which spec.loadBalancerIP asks for, and may not choose one: allocate it first", address)}
	case openstack.IsQuota(err) || openstack.IsConflict(err) || openstack.IsNotFound(err) || openstack.IsAmbiguous(err) || errors.Is(err, errReadOnly):
		return "", openstack.Wrap(err, "allocating a floating IP")
	case err != nil:
		return "", &unavailable{openstack.Wrap(err, "allocating a floating IP").Error()}
	}
	t.o.Log.Info("allocated a floating IP", "address", made.FloatingIP.Address, "name", b.Name)
	n.floating, n.at = append(n.floating, made.FloatingIP), time.Now()
	return made.FloatingIP.Address, nil
}

// unavailable is a floating IP that cannot be had.
type unavailable struct{ text string }

func (e *unavailable) Error() string { return e.text }

// keptFor is the description of a floating IP that outlives its Service. It bears no mark: from then on it is the user's.
func keptFor(s *corev1.Service) string { return "kept for service " + s.Namespace + "/" + s.Name }

// release gives back a floating IP that the Service does not ask for, if it was made for it.
func (t *term) release(ctx context.Context, n *item, s *corev1.Service, w want) (done bool, err error) {
	for i, f := range n.floating {
		// A crash may have left a second one, that leads nowhere.
		spare := f.Port == "" && slices.ContainsFunc(n.floating, func(o publicIP) bool { return o.ID != f.ID && o.Port != "" })
		if _, ours := ownerOf(t.o.Stack, f); !ours || !spare && w.floating != nil && f.Description == markOf(t.o.Stack, s) && w.floating.is(f) {
			continue
		}
		if err := t.cloud.write(ctx, t.cloud.network, http.MethodDelete, "floatingips/"+f.ID, nil, nil); err != nil && !openstack.IsNotFound(err) {
			return false, openstack.Wrap(err, "releasing floating IP %s", f.Address)
		}
		t.o.Log.Info("released a floating IP", "address", f.Address)
		n.floating, n.at = slices.Delete(n.floating, i, i+1), time.Now()
		return true, nil
	}
	return false, nil
}

// report writes the address into the Service's status; "" is that there is none.
func (t *term) report(ctx context.Context, s *corev1.Service, w want, address string) error {
	if !w.report {
		return nil
	}
	mode := corev1.LoadBalancerIPModeVIP
	should := []corev1.LoadBalancerIngress{{IP: address, IPMode: &mode}}
	switch {
	case address == "":
		should = nil
	case w.hostname != "":
		should = []corev1.LoadBalancerIngress{{Hostname: w.hostname}}
	}
	if reflect.DeepEqual(s.Status.LoadBalancer.Ingress, should) {
		return nil
	}
	if err := t.mayWrite(); err != nil {
		return fmt.Errorf("%w: %w", errReadOnly, err)
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": s.UID}, "status": map[string]any{"loadBalancer": map[string]any{"ingress": should}}})
	if err != nil {
		return err
	}
	_, err = t.kube.CoreV1().Services(s.Namespace).Patch(ctx, s.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("writing the status of service %s/%s: %w", s.Namespace, s.Name, err)
	}
	return nil
}

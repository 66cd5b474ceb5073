package lbaas

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
)

// groupRule is a rule of a security group as Neutron has it.
type groupRule struct {
	ID, Description, Direction string
	EtherType                  string
	Protocol                   string
	Min                        int    `json:"port_range_min"`
	Max                        int    `json:"port_range_max"`
	Prefix                     string `json:"remote_ip_prefix"`
	Group                      string `json:"remote_group_id"`
}

// rule reads the ones that [desired] asks for.
func (g groupRule) rule() (rule, bool) {
	r := rule{g.Protocol, g.Min, g.Prefix}
	if r.From == "0.0.0.0/0" {
		r.From = ""
	}
	return r, g.Direction == "ingress" && g.EtherType == "IPv4" && g.Min == g.Max && g.Min != 0 && g.Group == ""
}

// firewall keeps in the pods' security group what lets clients from outside in to the Services of type LoadBalancer, one rule for each
// port and source however many Services ask for it. Rules of others are left alone, and are good enough.
func (t *term) firewall(ctx context.Context) (time.Duration, error) {
	again := min(time.Minute, t.o.Resync)
	v, err := t.cloud.look(ctx, time.Now().Add(-t.o.Resync))
	if err != nil {
		return again, err
	}
	f := t.cloud.facts
	f.provider = v.provider
	should := map[rule]bool{}
	for _, o := range t.services.List() {
		if s := o.(*corev1.Service); served(s) && public(s) {
			for _, r := range desired(s, t.endpoints(s.Namespace+"/"+s.Name), f).rules {
				should[r] = true
			}
		}
	}
	mark := openstack.ServiceMark(t.o.Stack, "*")
	all, err := list[groupRule](ctx, t.cloud.network, "security-group-rules", url.Values{"security_group_id": {t.cloud.group}})
	if err != nil {
		return again, err
	}
	for _, g := range all {
		r, ok := g.rule()
		if ok && should[r] {
			delete(should, r)
			continue
		}
		if g.Description != mark {
			continue
		}
		if err := t.cloud.write(ctx, t.cloud.network, http.MethodDelete, "security-group-rules/"+g.ID, nil, nil); err != nil && !openstack.IsNotFound(err) {
			return t.o.Backoff, openstack.Wrap(err, "closing port %d of pods", g.Min)
		}
	}
	var bodies []map[string]any
	for r := range should {
		body := map[string]any{"security_group_id": t.cloud.group, "direction": "ingress", "ethertype": "IPv4", "description": mark,
			"protocol": r.Protocol, "port_range_min": r.Port, "port_range_max": r.Port}
		if r.From != "" {
			body["remote_ip_prefix"] = r.From
		}
		bodies = append(bodies, body)
	}
	slices.SortFunc(bodies, func(a, b map[string]any) int {
		return cmp.Compare(a["port_range_min"].(int), b["port_range_min"].(int))
	})
	if len(bodies) == 0 {
		return 0, nil
	}
	post := func(some []map[string]any) error {
		return t.cloud.write(ctx, t.cloud.network, http.MethodPost, "security-group-rules", map[string]any{"security_group_rules": some}, nil)
	}
	if err = post(bodies); openstack.IsConflict(err) {
		// One of them is there by now; the others are not to blame.
		for _, one := range bodies {
			if err = post([]map[string]any{one}); err != nil && !openstack.IsConflict(err) {
				break
			}
			err = nil
		}
	}
	return t.o.Backoff, openstack.Wrap(err, "opening ports of pods") // a look at what came of it
}

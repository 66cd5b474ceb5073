package lbaas

import (
	"cmp"
	"context"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

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
	busy, err := t.doors(ctx)
	switch {
	case err != nil:
		t.stumbles++
		return t.backoff(t.stumbles), err
	case busy:
		return t.o.Backoff, nil
	}
	t.stumbles = 0
	return 0, nil
}

// doors makes what is let in what it should be. It is busy when there is something to be looked at again.
func (t *term) doors(ctx context.Context) (busy bool, err error) {
	v, err := t.cloud.look(ctx, time.Now().Add(-t.o.Resync))
	if err != nil {
		return false, err
	}
	f := t.cloud.facts
	f.provider = v.provider
	should := map[rule][]*corev1.Service{}
	for _, o := range t.services.List() {
		if s := o.(*corev1.Service); served(s) && public(s) {
			for _, r := range desired(s, t.endpoints(s.Namespace+"/"+s.Name), f).rules {
				should[r] = append(should[r], s)
			}
		}
	}
	mark := openstack.ServiceMark(t.o.Stack, "*")
	all, err := list[groupRule](ctx, t.cloud.network, "security-group-rules", url.Values{"security_group_id": {t.cloud.group}})
	if err != nil {
		return false, err
	}
	for _, g := range all {
		r, ok := g.rule()
		if ok && should[r] != nil {
			delete(should, r)
			continue
		}
		if g.Description != mark {
			continue
		}
		if err := t.cloud.write(ctx, t.cloud.network, http.MethodDelete, "security-group-rules/"+g.ID, nil, nil); err != nil && !openstack.IsNotFound(err) {
			return false, openstack.Wrap(err, "closing port %d of pods", g.Min)
		}
	}
	missing := slices.SortedFunc(maps.Keys(should), func(a, b rule) int {
		return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.From, b.From))
	})
	var bodies []map[string]any
	for _, r := range missing {
		body := map[string]any{"security_group_id": t.cloud.group, "direction": "ingress", "ethertype": "IPv4", "description": mark,
			"protocol": r.Protocol, "port_range_min": r.Port, "port_range_max": r.Port}
		if r.From != "" {
			body["remote_ip_prefix"] = r.From
		}
		bodies = append(bodies, body)
	}
	if len(bodies) == 0 {
		t.shut = nil
		return false, nil
	}
	post := func(some []map[string]any) error {
		return t.cloud.write(ctx, t.cloud.network, http.MethodPost, "security-group-rules", map[string]any{"security_group_rules": some}, nil)
	}
	refused := bodies
	if err = post(bodies); openstack.IsConflict(err) || openstack.IsQuota(err) {
		// One of them is there by now, or one too many; the others are not to blame.
		for ; len(refused) > 0; refused = refused[1:] {
			if err = post(refused[:1]); err != nil && !openstack.IsConflict(err) {
				break
			}
			err = nil
		}
	}
	err = openstack.Wrap(err, "opening ports of pods")
	if err == nil || reasonOf(err) == "" {
		return true, err
	}
	shut := map[types.UID]bool{}
	for _, r := range missing[len(missing)-len(refused):] {
		for _, s := range should[r] {
			if !shut[s.UID] && !t.shut[s.UID] {
				t.event(ctx, s, reasonOf(err), "clients from outside do not get in: "+err.Error())
			}
			shut[s.UID] = true
		}
	}
	t.shut = shut
	return false, err
}

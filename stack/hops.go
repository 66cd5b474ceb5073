package stack

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/gophercloud/gophercloud/v2/openstack/loadbalancer/v2/loadbalancers"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"

	"github.com/kuryrctl/kuryrctl/bootstrap/cluster"
	"github.com/kuryrctl/kuryrctl/provision"
)

// brokenHop is an error with the place on the way to a pod where it arose: pod, port, security group, member, listener, floating IP or DNS.
type brokenHop struct {
	hop string
	err error
}

func (b *brokenHop) Error() string { return b.err.Error() }
func (b *brokenHop) Unwrap() error { return b.err }

// hop is a place on the way to a pod that can be looked at: it says what is wrong there, or "".
type hop struct {
	name string
	look func(context.Context) (wrong string, err error)
}

// blame looks at the hops of a way that does not work, beginning at the pod, and adds to the error which is the first that is broken.
func (d *demo) blame(ctx context.Context, err error, way []hop) error {
	if ctx.Err() != nil {
		return err
	}
	for _, h := range way {
		wrong, lookErr := h.look(ctx)
		switch {
		case lookErr != nil:
			return fmt.Errorf("%w; looking at the %s: %w", err, h.name, lookErr)
		case wrong != "":
			return &brokenHop{h.name, fmt.Errorf("%w; the %s: %s", err, h.name, wrong)}
		}
	}
	return fmt.Errorf("%w; pod, ports, rules and load balancers look well: is a firewall in between?", err)
}

// podHops are the hops next to a pod.
func (d *demo) podHops(p cluster.Pod) []hop {
	var port ports.Port
	return []hop{
		{"pod", func(ctx context.Context) (string, error) {
			pods, err := d.api.Pods(ctx, demoNamespace)
			if err != nil {
				return "", err
			}
			i := slices.IndexFunc(pods, func(q cluster.Pod) bool { return q.Name == p.Name })
			switch {
			case i < 0:
				return p.Name + " is gone", nil
			case !pods[i].Ready:
				return fmt.Sprintf("%s is not ready: %s %s", p.Name, pods[i].Reason, pods[i].Message), nil
			}
			return "", nil
		}},
		{"port", func(ctx context.Context) (string, error) {
			found, err := d.session.Discover(ctx)
			if err != nil {
				return "", err
			}
			i := slices.IndexFunc(found.Ports, func(q ports.Port) bool {
				return slices.ContainsFunc(q.FixedIPs, func(ip ports.IP) bool { return ip.IPAddress == p.Address })
			})
			if i < 0 {
				return "Neutron has none with address " + p.Address, nil
			}
			if port = found.Ports[i]; port.Status != "ACTIVE" {
				return fmt.Sprintf("%s is %s", port.ID, port.Status), nil
			}
			return "", nil
		}},
		{"security group", func(context.Context) (string, error) {
			for _, g := range d.session.Inventory().Groups {
				if g.Name == d.session.Name("pod_access") && !slices.Contains(port.SecurityGroups, g.ID) {
					return "port " + port.ID + " is not in " + g.Name, nil
				}
			}
			return "", nil
		}},
	}
}

// balancerHops are the hops of a Service: its listener, and the member for an address; "" is any member.
func (d *demo) balancerHops(namespace, name, address string) []hop {
	balancer := d.session.Name("svc/" + namespace + "/" + name)
	var listeners []provision.Listener
	return []hop{
		{"listener", func(ctx context.Context) (string, error) {
			all := d.session.Inventory().LoadBalancers
			i := slices.IndexFunc(all, func(l loadbalancers.LoadBalancer) bool { return ofService(l.Name, balancer) })
			if i < 0 {
				return "there is no load balancer " + balancer, nil
			}
			if status := all[i].ProvisioningStatus; status != "ACTIVE" {
				return balancer + " is " + status, nil
			}
			found, err := d.session.Listeners(ctx, []string{all[i].ID})
			if err != nil {
				return "", err
			}
			if listeners = found[all[i].ID]; len(listeners) == 0 {
				return balancer + " has no listener", nil
			}
			return "", nil
		}},
		{"member", func(context.Context) (string, error) {
			for _, l := range listeners {
				for _, m := range l.Members {
					switch {
					case m.Address != address && address != "":
					case m.Health == "ERROR" || m.Health == "OFFLINE":
						return fmt.Sprintf("%s of %s is %s", m.Address, balancer, m.Health), nil
					default:
						return "", nil
					}
				}
			}
			return strings.TrimSpace(fmt.Sprintf("%s has no member %s", balancer, address)), nil
		}},
	}
}

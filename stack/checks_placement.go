package stack

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"

	"github.com/kuryrctl/kuryrctl/provision"
)

func checkZones(ctx context.Context, d *diagnosis) answer {
	var r remarks
	for _, err := range d.stack.zonesMissing(ctx, d.config) {
		r.problem("zones", err.Error(), "set masters.availability_zones and workers.availability_zones to some of those")
	}
	return r.answer("all that are declared")
}

func checkGroups(ctx context.Context, d *diagnosis) answer {
	var r remarks
	declared := slices.Concat(d.config.Masters.SecurityGroups, d.config.Workers.SecurityGroups)
	slices.Sort(declared)
	for _, name := range slices.Compact(declared) {
		if _, err := d.stack.session.ExistingGroup(name).Observe(ctx); err != nil {
			r.problem(name, err.Error(), "set masters.security_groups and workers.security_groups to some that there are")
		}
	}
	return r.answer("all that are declared")
}

// checkPlacement tells servers' hypervisors apart by hostId, a hash that Nova shows to everybody.
func checkPlacement(_ context.Context, d *diagnosis) answer {
	if !d.config.placed() {
		return good("nothing is declared of it")
	}
	found := d.stack.session.Inventory()
	var r remarks
	for _, role := range []Role{Master, Worker} {
		declared, together := d.config.of(role), map[string][]string{}
		for i, n := range d.nodesOf(role) {
			at := slices.IndexFunc(found.Servers, func(v servers.Server) bool { return v.Name == n.Server.Name() })
			if at < 0 || found.Servers[at].HostID == "" {
				continue // which is another check's finding
			}
			v := found.Servers[at]
			together[v.HostID] = append(together[v.HostID], n.Name)
			if zone := declared.zone(i); zone != "" && v.AvailabilityZone != zone {
				r.warning(n.Name, fmt.Sprintf("it is in zone %s, declared %s", v.AvailabilityZone, zone), moveServer)
			}
			if declared.ServerGroupPolicy != "" && !found.InServerGroup(v.ID) {
				r.warning(n.Name, "it is in no server group: it was made before one was declared, and Nova takes no members later",
					"declare none, or delete workers one by one and let kuryrctl stack "+d.name+" make them anew")
				r.whose = You
			}
		}
		for _, host := range slices.Sorted(maps.Keys(together)) {
			names := together[host]
			if len(names) < 2 || declared.ServerGroupPolicy == "" {
				continue
			}
			note := r.problem
			if declared.ServerGroupPolicy == provision.ApartSoft {
				note = r.warning
			}
			note(strings.Join(names, ", "), "they are on one hypervisor, declared "+declared.ServerGroupPolicy, moveServer)
		}
	}
	return r.answer("every server is where it was declared to be")
}

const moveServer = "the operator moves it: openstack server migrate --live-migration"

// placed reports whether c says anything of where servers are to be.
func (c Config) placed() bool {
	return slices.ContainsFunc([]Nodes{c.Masters, c.Workers}, func(n Nodes) bool { return n.ServerGroupPolicy != "" || len(n.AvailabilityZones) > 0 })
}

func (d *diagnosis) nodesOf(role Role) (all []*Node) {
	for _, n := range d.lab.Nodes {
		if n.Role == role {
			all = append(all, n)
		}
	}
	return all
}

package dns

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/dns/v2/recordsets"
	"github.com/gophercloud/gophercloud/v2/openstack/dns/v2/zones"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
)

// Designate is a zone of the project's in OpenStack's own name service. A record set carries the stack's mark as its description, as everything of
// a stack in a cloud does, and is removed with the stack by that.
type Designate struct {
	Client *gophercloud.ServiceClient
	Domain string
}

// Sync implements [Place]. Designate knows no uuid of a stack: within a project a name says which one it is.
func (d Designate) Sync(ctx context.Context, owner Owner, want []Record, before func() error) ([]Change, error) {
	zone, err := d.zone(ctx)
	if err != nil {
		return nil, err
	}
	page, err := recordsets.ListByZone(d.Client, zone.ID, recordsets.ListOpts{Type: "A"}).AllPages(ctx)
	if err != nil {
		return nil, openstack.Wrap(err, "listing the record sets of zone %s", zone.Name)
	}
	found, err := recordsets.ExtractRecordSets(page)
	if err != nil {
		return nil, openstack.Wrap(err, "listing the record sets of zone %s", zone.Name)
	}
	mark := openstack.Mark(owner.Stack)
	there, ids, foreign := map[string]netip.Addr{}, map[string]string{}, map[string]bool{}
	for _, set := range found {
		name := strings.TrimSuffix(strings.ToLower(set.Name), ".")
		if set.Description != mark {
			foreign[name] = true
			continue
		}
		ids[name] = set.ID
		there[name] = netip.Addr{} // one that holds anything else is drifted
		if len(set.Records) == 1 {
			there[name], _ = netip.ParseAddr(set.Records[0])
		}
	}
	taken := &TakenError{Where: "Designate's zone " + strings.TrimSuffix(zone.Name, ".")}
	changes := compare(there, want)
	for _, c := range changes {
		if c.Action == Made && foreign[c.Name] {
			taken.Names = append(taken.Names, c.Name)
		}
	}
	if len(taken.Names) > 0 {
		return nil, taken
	}
	if Settled(changes) {
		return changes, nil
	}
	if err := before(); err != nil {
		return nil, err
	}
	for _, c := range changes {
		if err := d.change(ctx, zone.ID, ids[c.Name], mark, c); err != nil {
			return nil, err
		}
	}
	return changes, nil
}

func (d Designate) change(ctx context.Context, zoneID, id, mark string, c Change) error {
	ttl := TTL
	switch c.Action {
	case Made:
		// A create call that succeeded without telling is found by its mark the next time.
		_, err := recordsets.Create(ctx, d.Client, zoneID, recordsets.CreateOpts{Name: c.Name + ".", Type: "A", TTL: ttl, Description: mark, Records: []string{c.Address.String()}}).Extract()
		return openstack.Wrap(err, "creating record set %s", c.Name)
	case Repaired:
		_, err := recordsets.Update(ctx, d.Client, zoneID, id, recordsets.UpdateOpts{TTL: &ttl, Records: []string{c.Address.String()}}).Extract()
		return openstack.Wrap(err, "changing record set %s", c.Name)
	case Removed:
		err := recordsets.Delete(ctx, d.Client, zoneID, id).ExtractErr()
		if openstack.IsNotFound(err) {
			return nil
		}
		return openstack.Wrap(err, "deleting record set %s", c.Name)
	}
	return nil
}

// zone is the project's zone nearest to the domain.
func (d Designate) zone(ctx context.Context) (*zones.Zone, error) {
	page, err := zones.List(d.Client, nil).AllPages(ctx)
	if err != nil {
		return nil, openstack.Wrap(err, "listing zones")
	}
	all, err := zones.ExtractZones(page)
	if err != nil {
		return nil, openstack.Wrap(err, "listing zones")
	}
	var best *zones.Zone
	var names []string
	for i, z := range all {
		names = append(names, strings.TrimSuffix(z.Name, "."))
		if within(d.Domain, strings.TrimSuffix(z.Name, ".")) && (best == nil || len(z.Name) > len(best.Name)) {
			best = &all[i]
		}
	}
	if best == nil {
		there := "it has none"
		if len(names) > 0 {
			there = "it has " + strings.Join(names, ", ")
		}
		return nil, fmt.Errorf("finding the zone of %s in Designate: %s; make one with `openstack zone create --email hostmaster@%s %s.`", d.Domain, there, d.Domain, d.Domain)
	}
	return best, nil
}

package provision

import (
	"context"
	"encoding/binary"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
)

// Room is how many addresses of one of the stack's networks are in use.
type Room struct {
	Network     string // its name
	Used, Total int
}

// Rooms tells it of all networks that Neutron hands out addresses of, IPv4 alone. Neutron counts them for who may know; else the ports
// that this login sees are counted, of which the inventory has been made.
func (s *Session) Rooms(ctx context.Context) ([]Room, error) {
	told, err := s.availabilities(ctx, url.Values{"project_id": {s.Cloud.ProjectID()}})
	if err != nil {
		return nil, err
	}
	v := s.Inventory()
	var all []Room
	for _, n := range v.Networks {
		room := Room{Network: n.Name}
		if i := slices.IndexFunc(told, func(a availability) bool { return a.Network == n.ID }); i >= 0 {
			room.Used, room.Total = told[i].count()
		} else {
			room.Used, room.Total = v.room(n.ID)
		}
		if room.Total > 0 {
			all = append(all, room)
		}
	}
	slices.SortFunc(all, func(a, b Room) int { return strings.Compare(a.Network, b.Network) })
	return all, nil
}

// ExternalRoom is how many IPv4 addresses of an external network are in use; a total of 0 where Neutron does not tell this login.
func (s *Session) ExternalRoom(ctx context.Context, id string) (Room, error) {
	told, err := s.availabilities(ctx, url.Values{"network_id": {id}})
	if err != nil || len(told) != 1 {
		return Room{Network: id}, err
	}
	used, total := told[0].count()
	return Room{id, used, total}, nil
}

// availability is what Neutron counts of a network.
type availability struct {
	Network string `json:"network_id"`
	Subnets []struct {
		Version int     `json:"ip_version"`
		Used    float64 `json:"used_ips"`
		Total   float64 `json:"total_ips"` // of IPv6 more than an int holds
	} `json:"subnet_ip_availability"`
}

func (a availability) count() (used, total int) {
	for _, sub := range a.Subnets {
		if sub.Version == 4 {
			used, total = used+int(sub.Used), total+int(sub.Total)
		}
	}
	return used, total
}

// availabilities are what Neutron tells this login, which may be nothing.
func (s *Session) availabilities(ctx context.Context, query url.Values) ([]availability, error) {
	told, err := list[availability](ctx, s.Cloud, neutron("network-ip-availabilities", "network_ip_availability", "network_ip_availabilities"), query)
	if openstack.IsForbidden(err) || openstack.IsNotFound(err) {
		return nil, nil
	}
	return told, err
}

// room counts what is in use of the allocation pools of a network, and their size.
func (v *Inventory) room(network string) (used, total int) {
	var pools [][2]netip.Addr
	for _, sub := range v.Subnets {
		for _, p := range sub.AllocationPools {
			first, err := netip.ParseAddr(p.Start)
			last, err2 := netip.ParseAddr(p.End)
			if sub.NetworkID == network && err == nil && err2 == nil && first.Is4() {
				pools = append(pools, [2]netip.Addr{first, last})
				total += number(last) - number(first) + 1
			}
		}
	}
	for _, p := range v.Ports {
		for _, ip := range p.FixedIPs {
			a, err := netip.ParseAddr(ip.IPAddress)
			if p.NetworkID == network && err == nil && slices.ContainsFunc(pools, func(x [2]netip.Addr) bool { return x[0].Compare(a) <= 0 && a.Compare(x[1]) <= 0 }) {
				used++
			}
		}
	}
	return used, total
}

// number is an IPv4 address as one.
func number(a netip.Addr) int {
	b := a.As4()
	return int(binary.BigEndian.Uint32(b[:]))
}

package openstacktest

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
)

type fixedIP struct {
	SubnetID string `json:"subnet_id"`
	Address  string `json:"ip_address"`
}

// taken are the addresses in use on s.
func (c *Cloud) taken(s *subnet) map[netip.Addr]bool {
	used := map[netip.Addr]bool{}
	for _, p := range c.network.ports.rows {
		if p.NetworkID != s.NetworkID {
			continue
		}
		for _, f := range p.FixedIPs {
			if a, err := netip.ParseAddr(f.Address); err == nil && f.SubnetID == s.ID {
				used[a] = true
			}
		}
	}
	return used
}

// freeAddress is one of the first free addresses of the allocation pools, at
// random: as in Neutron, nobody can count on getting the lowest.
func (c *Cloud) freeAddress(s *subnet) (netip.Addr, bool) {
	const window = 200
	free := c.freeAddresses(s, window)
	if len(free) == 0 {
		return netip.Addr{}, false
	}
	return free[c.dice.IntN(len(free))], true
}

// freeAddresses are up to n free addresses of the allocation pools, lowest first.
func (c *Cloud) freeAddresses(s *subnet, n int) []netip.Addr {
	var free []netip.Addr
	used := c.taken(s)
	for _, p := range s.Pools {
		last := netip.MustParseAddr(p.End)
		for a := netip.MustParseAddr(p.Start); a.Compare(last) <= 0; a = a.Next() {
			if !used[a] {
				free = append(free, a)
			}
			if len(free) == n {
				return free
			}
		}
	}
	return free
}

// allocate turns the wanted addresses of a port into real ones. Without any
// wish (nil) the port gets one of the network's first subnet of each IP version
// with room. own is the port that may already hold an address.
func (c *Cloud) allocate(networkID string, wanted []fixedIP, own *port) ([]fixedIP, error) {
	subnets := c.network.subnets.where(func(s *subnet) bool { return s.NetworkID == networkID })
	if wanted == nil {
		return c.anyAddress(networkID, subnets)
	}
	got := []fixedIP{}
	for _, w := range wanted {
		s, err := c.subnetFor(networkID, subnets, w)
		if err != nil {
			return nil, err
		}
		used := c.taken(s)
		if own != nil {
			for _, f := range own.FixedIPs {
				if a, e := netip.ParseAddr(f.Address); e == nil {
					delete(used, a)
				}
			}
		}
		for _, f := range got {
			used[netip.MustParseAddr(f.Address)] = true
		}
		var a netip.Addr
		if w.Address != "" {
			a, _ = netip.ParseAddr(w.Address)
			if used[a] {
				return nil, neutron(http.StatusConflict, "IpAddressAlreadyAllocated", "IP address %s already allocated in subnet %s", a, s.ID)
			}
		} else if free, ok := c.freeAddress(s); ok {
			a = free
		} else {
			return nil, noAddress(networkID)
		}
		got = append(got, fixedIP{s.ID, a.String()})
	}
	return got, nil
}

func noAddress(networkID string) error {
	return neutron(http.StatusConflict, "IpAddressGenerationFailure", "No more IP addresses available on network %s.", networkID)
}

func (c *Cloud) anyAddress(networkID string, subnets []*subnet) ([]fixedIP, error) {
	got := []fixedIP{}
	for _, version := range []int{4, 6} {
		candidates := slices.DeleteFunc(slices.Clone(subnets), func(s *subnet) bool { return s.IPVersion != version })
		found := len(candidates) == 0
		for _, s := range candidates {
			if a, ok := c.freeAddress(s); ok {
				got, found = append(got, fixedIP{s.ID, a.String()}), true
				break
			}
		}
		if !found {
			return nil, noAddress(networkID)
		}
	}
	return got, nil
}

// subnetFor finds the subnet of a wish that names the subnet, an address, or both.
func (c *Cloud) subnetFor(networkID string, subnets []*subnet, w fixedIP) (*subnet, error) {
	var a netip.Addr
	if w.Address != "" {
		var err error
		if a, err = netip.ParseAddr(w.Address); err != nil {
			return nil, neutron(http.StatusBadRequest, "HTTPBadRequest", "Invalid input for fixed_ips. Reason: '%s' is not a valid IP address.", w.Address)
		}
	}
	for _, s := range subnets {
		if w.SubnetID != "" && s.ID != w.SubnetID || a.IsValid() && !s.prefix().Contains(a) {
			continue
		}
		return s, nil
	}
	if w.SubnetID == "" {
		return nil, neutron(http.StatusBadRequest, "InvalidIpForNetwork", "IP address %s is not a valid IP for any of the subnets on the specified network.", w.Address)
	}
	if s, ok := c.network.subnets.get(w.SubnetID); !ok {
		return nil, neutron(http.StatusNotFound, "SubnetNotFound", "Subnet %s could not be found.", w.SubnetID)
	} else if s.NetworkID != networkID {
		return nil, neutron(http.StatusBadRequest, "InvalidInput", "Invalid input for operation: Failed to create port on network %s, because fixed_ips included invalid subnet %s.", networkID, s.ID)
	}
	return nil, neutron(http.StatusBadRequest, "InvalidIpForSubnet", "IP address %s is not a valid IP for the specified subnet.", w.Address)
}

// newMAC is an address in Neutron's default range.
func (c *Cloud) newMAC() string {
	n := c.dice.Uint64()
	return fmt.Sprintf("fa:16:3e:%02x:%02x:%02x", n&0xff, n>>8&0xff, n>>16&0xff)
}

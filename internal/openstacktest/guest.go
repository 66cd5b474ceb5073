package openstacktest

import "encoding/base64"

// Guest is a server as its inside would see it.
type Guest struct {
	Name      string
	UserData  []byte
	Addresses []string // of its ports, then their floating IPs
}

// Guests lists the servers that have left BUILD, for tests in which something plays their inside.
func (c *Cloud) Guests() []Guest {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []Guest
	for _, s := range c.compute.servers.where(func(s *server) bool { return s.Status == "ACTIVE" }) {
		g := Guest{Name: s.Name}
		g.UserData, _ = base64.StdEncoding.DecodeString(s.UserData) // it was checked when the server was made
		for _, id := range s.ports {
			if p, ok := c.network.ports.get(id); ok && len(p.FixedIPs) > 0 {
				g.Addresses = append(g.Addresses, p.FixedIPs[0].Address)
			}
			for _, f := range c.network.floatingIPs.where(func(f *floatingIP) bool { return f.PortID != nil && *f.PortID == id }) {
				g.Addresses = append(g.Addresses, f.Address)
			}
		}
		all = append(all, g)
	}
	return all
}

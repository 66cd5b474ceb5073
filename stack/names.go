package stack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kuryrctl/kuryrctl/bootstrap/dns"
	"github.com/kuryrctl/kuryrctl/bootstrap/ssh"
	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/provision"
)

// routerService is the Service of the router, as NAMESPACE/NAME: its load balancer's floating IP is what the applications' names lead to.
const routerService = "kuryr-router/router"

// Names are the names that a stack should have.
type Names struct {
	Domain     string     `json:"domain"`
	AppsDomain string     `json:"apps_domain"`
	Records    []NameView `json:"records"`
	// Without says why the names of applications are not among them, or is "".
	Without string `json:"without,omitempty"`

	uuid string
}

// NameView is one name and what it is the name of: a node, or the router.
type NameView struct {
	dns.Record
	Of string `json:"of"`
}

// Names tells which names the stack should have now: one of each node, at its floating IP if it has one, and one for all applications, at the
// router.
func (s *Stack) Names(ctx context.Context, c Config) (*Names, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	v, err := s.Show(ctx)
	if err != nil {
		return nil, err
	}
	n := &Names{Domain: c.DNSDomain, AppsDomain: c.AppsDomain(), Records: []NameView{}, uuid: v.UUID}
	if router := s.routerAddress(c); router.IsValid() {
		n.Records = append(n.Records, NameView{dns.Record{Name: "*." + n.AppsDomain, Address: router}, "router"})
	} else {
		n.Without = fmt.Sprintf("there is no router: no floating IP leads to a load balancer %s", s.session.Name("svc/"+routerService))
	}
	for _, node := range v.Nodes {
		text := node.Address
		if node.FloatingIP != "" {
			text = node.FloatingIP
		}
		if address, err := netip.ParseAddr(text); err == nil {
			n.Records = append(n.Records, NameView{dns.Record{Name: node.Name + "." + c.DNSDomain, Address: address}, node.Name})
		}
	}
	return n, nil
}

// ofService reports whether a load balancer's name is one for a Service: after the Service's name stands a part of its uid.
func ofService(name, balancer string) bool { return strings.HasPrefix(name, balancer+"/") }

// routerAddress is where the names of applications lead: to the router that is declared, or to the cluster's; invalid while there is none.
func (s *Stack) routerAddress(c Config) netip.Addr {
	if address, err := netip.ParseAddr(c.DNS.AppsAddress); err == nil {
		return address
	}
	return serviceAddress(s.session.Inventory(), s.session.Name("svc/"+routerService))
}

// serviceAddress is the floating IP of a Service's load balancer, if there is one.
func serviceAddress(i *provision.Inventory, balancer string) netip.Addr {
	for _, l := range i.LoadBalancers {
		for _, f := range i.FloatingIPs {
			if ofService(l.Name, balancer) && l.VipPortID != "" && f.PortID == l.VipPortID {
				address, _ := netip.ParseAddr(f.FloatingIP)
				return address
			}
		}
	}
	return netip.Addr{}
}

func (n *Names) records() (all []dns.Record) {
	for _, r := range n.Records {
		all = append(all, r.Record)
	}
	return all
}

// Zone is a zone file with the names, for a server that nameserver is the name or address of; "" is the one declared.
func (s *Stack) Zone(c Config, n *Names, nameserver string) (string, error) {
	z := zoneFile(c.DNSDomain, c.DNS.Zone)
	if nameserver != "" {
		z.Nameserver = nameserver
	}
	if z.Nameserver == "" {
		return "", errors.New("rendering the zone: no name server is declared: give --nameserver, the name or address of the server that will serve it")
	}
	return z.Render(dns.Owner{Stack: s.Name, UUID: n.uuid}, n.records(), 1)
}

// ErrNowhere means that a declaration does not say where names are kept.
var ErrNowhere = errors.New("no place for names is declared")

// SyncNames makes the names resolve where c says, and removes from there those that the stack has had and should not have any more. When c
// names another place than before, all names go from the former first. It locks the stack before it writes, so that
// a run that removes addresses meanwhile is not overtaken; n is from before that, and a name that it has too many goes with the next call.
func (s *Stack) SyncNames(ctx context.Context, c Config, n *Names, o UpOptions) (changes []dns.Change, err error) {
	err = s.alone(ctx, o, func(ctx context.Context, g *guard) error {
		changes, err = s.syncNames(ctx, c, n, g)
		return err
	})
	return changes, err
}

func (s *Stack) syncNames(ctx context.Context, c Config, n *Names, g *guard) ([]dns.Change, error) {
	take := func() error { return g.take(ctx) }
	there := namesPlace{UUID: n.uuid, Domain: c.DNSDomain, DNS: c.DNS}
	there.DNS.AppsDomain, there.DNS.AppsAddress = "", "" // of no meaning for where they are
	known, err := s.local.knownNames()
	if err != nil {
		return nil, err
	}
	if _, _, err := s.placeOf(ctx, there, false); err != nil {
		return nil, err
	}
	if known != nil && *known != there {
		if _, err := s.removeNames(ctx, *known, take); err != nil {
			return nil, fmt.Errorf("removing the names from where they were before (if that place is no more, delete %s): %w", s.local.namesPath(), err)
		}
	}
	if err := s.local.keepNames(there); err != nil { // before there is anything to forget
		return nil, err
	}
	place, done, err := s.placeOf(ctx, there, true)
	if err != nil {
		return nil, err
	}
	defer done()
	return place.Sync(ctx, dns.Owner{Stack: s.Name, UUID: there.UUID}, n.records(), take)
}

// nameUp makes the names resolve as the last step of a run, when the cluster has made the router's address.
func (s *Stack) nameUp(ctx context.Context, c Config, g *guard, on func(graph.Event)) error {
	event := graph.Event{Key: "names", Kind: graph.Unchanged}
	begin := time.Now()
	n, err := s.Names(ctx, c)
	if err == nil {
		event.Detail = n.Without
		var changes []dns.Change
		if changes, err = s.syncNames(ctx, c, n, g); !dns.Settled(changes) {
			event.Kind = graph.Done
		}
	}
	if err != nil {
		err = fmt.Errorf("names: %w", err)
		event.Kind, event.Err = graph.Error, err
	}
	event.At = time.Now()
	event.Took = event.At.Sub(begin)
	on(event)
	return err
}

// NamesAt tells where this machine has put the stack's names, or "".
func (s *Stack) NamesAt() (string, error) {
	known, err := s.local.knownNames()
	if known == nil || err != nil {
		return "", err
	}
	return known.String(), nil
}

func (p namesPlace) String() string {
	at := "Designate"
	switch {
	case p.DNS.Update != (DNSUpdate{}):
		at = "name server " + p.DNS.Update.Server
	case p.DNS.Zone.Host != "":
		at = p.DNS.Zone.Directory + " of " + p.DNS.Zone.Host
	case p.DNS.Zone != (DNSZone{}):
		at = p.DNS.Zone.Directory
	}
	return p.Domain + " at " + at
}

// RemoveNames removes what this machine has made with [Stack.SyncNames]. It needs no declaration and no stack, and no lock on one: a name that is
// missing leads nobody astray, and the next run makes it again.
func (s *Stack) RemoveNames(ctx context.Context) ([]dns.Change, error) {
	return s.removeKnownNames(ctx, dns.AtOnce)
}

func (s *Stack) removeKnownNames(ctx context.Context, before func() error) ([]dns.Change, error) {
	known, err := s.local.knownNames()
	if known == nil || err != nil {
		return nil, err
	}
	changes, err := s.removeNames(ctx, *known, before)
	if err != nil {
		return nil, err
	}
	return changes, s.local.forgetNames()
}

// RemoveNamesFrom removes the stack's names from where c says, for a machine that has not made them. While there is a stack of this name, only
// its own are removed.
func (s *Stack) RemoveNamesFrom(ctx context.Context, c Config) ([]dns.Change, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	found, err := s.session.Discover(ctx)
	if err != nil {
		return nil, err
	}
	return s.removeNames(ctx, namesPlace{UUID: found.UUID(), Domain: c.DNSDomain, DNS: c.DNS}, dns.AtOnce)
}

func (s *Stack) removeNames(ctx context.Context, from namesPlace, before func() error) ([]dns.Change, error) {
	place, done, err := s.placeOf(ctx, from, true)
	if err != nil {
		return nil, err
	}
	defer done()
	return place.Sync(ctx, dns.Owner{Stack: s.Name, UUID: from.UUID}, nil, before)
}

// placeOf prepares the place, connected to its host if that is wanted; done ends the connection.
func (s *Stack) placeOf(ctx context.Context, p namesPlace, connect bool) (place dns.Place, done func(), err error) {
	done = func() {}
	switch d := p.DNS; {
	case d.Update != (DNSUpdate{}):
		key, err := s.updateKey(d.Update)
		if err != nil {
			return nil, nil, err
		}
		address, err := hostPort(d.Update.Server, dnsPort)
		if err != nil {
			return nil, nil, err
		}
		return dns.Server{Address: address, Domain: p.Domain, Key: key, Dial: s.dial}, done, nil
	case d.Zone != (DNSZone{}):
		z := zoneFile(p.Domain, d.Zone)
		if d.Zone.Host == "" || !connect {
			return z, done, nil
		}
		if z.Host, err = s.nameHost(ctx, d.Zone); err != nil {
			return nil, nil, err
		}
		return z, z.Host.Close, nil
	}
	if p.DNS.Designate {
		client, err := s.session.Cloud.Names()
		return dns.Designate{Client: client, Domain: p.Domain}, done, err
	}
	return nil, nil, fmt.Errorf("%w: declare dns.update, dns.zone or dns.designate in the lab file (docs/dns.md)", ErrNowhere)
}

func zoneFile(domain string, z DNSZone) dns.ZoneFile {
	f := dns.ZoneFile{Domain: domain, Nameserver: z.Nameserver, Directory: z.Directory}
	if f.Nameserver == "" && z.Host != "" {
		_, at, _ := strings.Cut(z.Host, "@")
		if host, _, err := net.SplitHostPort(at); err == nil {
			at = host
		}
		f.Nameserver = at
	}
	return f
}

func (s *Stack) updateKey(u DNSUpdate) (dns.Key, error) {
	switch {
	case s.tsigKey != "":
		return dns.ParseKey(s.tsigKey)
	case u.KeyFile == "":
		return dns.Key{}, errors.New("reading TSIG key: none is given: declare dns.update.key_file, or set KURYRCTL_TSIG_KEY")
	}
	path, err := atHome(u.KeyFile)
	if err != nil {
		return dns.Key{}, err
	}
	return dns.LoadKey(path)
}

// nameHost connects to the host that runs bind.
func (s *Stack) nameHost(ctx context.Context, z DNSZone) (*ssh.Client, error) {
	user, at, _ := strings.Cut(z.Host, "@")
	at, err := hostPort(at, sshPort)
	if err != nil {
		return nil, err
	}
	host, port, _ := net.SplitHostPort(at)
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host) // an address is its own
	if err != nil {
		return nil, fmt.Errorf("finding the host of the zone: %w", err)
	}
	address, err := netip.ParseAddrPort(net.JoinHostPort(found[0].Unmap().String(), port))
	if err != nil {
		return nil, err
	}
	path, err := atHome(z.KeyFile)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.LoadUserKey(path)
	if err != nil {
		return nil, err
	}
	return ssh.Dial(ctx, ssh.Config{Node: z.Host, Address: address, User: user, Signer: signer, HostKeys: []string{z.HostKey}, Dial: s.dial, Log: s.log})
}

// atHome replaces a leading ~/.
func atHome(path string) (string, error) {
	rest, ok := strings.CutPrefix(path, "~/")
	if !ok {
		return path, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("finding %s: %w", path, err)
	}
	return filepath.Join(home, rest), nil
}

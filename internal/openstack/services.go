package openstack

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/tokens"
)

// Endpoint is one address in the service catalog.
type Endpoint struct {
	Type      string // "network", "compute", "load-balancer", ...
	Interface string // "public", "internal" or "admin"
	Region    string
	URL       string
}

func endpointsOf(catalog []tokens.CatalogEntry) []Endpoint {
	var all []Endpoint
	for _, entry := range catalog {
		for _, e := range entry.Endpoints {
			region := e.RegionID
			if region == "" {
				region = e.Region
			}
			all = append(all, Endpoint{Type: entry.Type, Interface: e.Interface, Region: region, URL: e.URL})
		}
	}
	return all
}

// chooseRegion checks the region asked for against the catalog, or takes that of the network service, so that all services
// come from one region.
func chooseRegion(all []Endpoint, want string) (string, error) {
	var known []string
	for _, e := range all {
		if want == "" && e.Type == "network" {
			return e.Region, nil
		}
		if e.Region != "" && !slices.Contains(known, e.Region) {
			known = append(known, e.Region)
		}
	}
	if want == "" || len(known) == 0 || slices.Contains(known, want) {
		return want, nil
	}
	return "", fmt.Errorf("the cloud has no region %q (it has %s)", want, strings.Join(known, ", "))
}

// Endpoints is the service catalog, in the cloud's order.
func (c *Cloud) Endpoints() []Endpoint { return slices.Clone(c.endpoints) }

// service is one API and the version of it that gophercloud speaks.
type service struct {
	name    string
	types   []string // official type first, then what catalogs also call it (https://service-types.openstack.org)
	version string   // path element, added where the catalog's URL has none
}

// prefixes are what keys of the configuration for this service alone begin with.
func (s service) prefixes() []string {
	var all []string
	for _, t := range s.types {
		all = append(all, strings.ReplaceAll(t, "-", "_")+"_")
	}
	return all
}

var (
	networkAPI  = service{"Neutron", []string{"network", "networking"}, "v2.0"}
	computeAPI  = service{"Nova", []string{"compute"}, "v2.1"}
	imageAPI    = service{"Glance", []string{"image"}, "v2"}
	volumeAPI   = service{"Cinder", []string{"block-storage", "volumev3"}, "v3"} // "volume" and "volumev2" are of versions that are gone
	balancerAPI = service{"Octavia", []string{"load-balancer"}, "v2.0"}
	namesAPI    = service{"Designate", []string{"dns"}, "v2"}
	identityAPI = service{"Keystone", []string{"identity"}, "v3"}
	services    = []service{networkAPI, computeAPI, imageAPI, volumeAPI, balancerAPI, namesAPI, identityAPI}
)

// Network is Neutron.
func (c *Cloud) Network() (*gophercloud.ServiceClient, error) { return c.client(networkAPI) }

// Compute is Nova, at its base microversion: set another on a copy.
func (c *Cloud) Compute() (*gophercloud.ServiceClient, error) { return c.client(computeAPI) }

// Image is Glance.
func (c *Cloud) Image() (*gophercloud.ServiceClient, error) { return c.client(imageAPI) }

// Volumes is Cinder.
func (c *Cloud) Volumes() (*gophercloud.ServiceClient, error) { return c.client(volumeAPI) }

// LoadBalancer is Octavia.
func (c *Cloud) LoadBalancer() (*gophercloud.ServiceClient, error) { return c.client(balancerAPI) }

// Names is Designate.
func (c *Cloud) Names() (*gophercloud.ServiceClient, error) { return c.client(namesAPI) }

// Identity is Keystone.
func (c *Cloud) Identity() (*gophercloud.ServiceClient, error) { return c.client(identityAPI) }

// client makes the service's client, or returns the one made before. It does what gophercloud's NewXxxV2 do but for the version
// discovery, which would send one more request per service, with no context.
func (c *Cloud) client(s service) (*gophercloud.ServiceClient, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if sc, ok := c.clients[s.name]; ok {
		return sc, nil
	}
	address, err := c.address(s)
	if err != nil {
		return nil, err
	}
	base, err := versioned(address, s.version)
	if err != nil {
		return nil, fmt.Errorf("reading %s's URL: %w", s.name, err)
	}
	sc := &gophercloud.ServiceClient{
		ProviderClient: c.provider,
		Endpoint:       gophercloud.NormalizeURL(address),
		ResourceBase:   base,
		Type:           s.types[0],
	}
	c.clients[s.name] = sc
	return sc, nil
}

// address is what the configuration says for this service, or else the catalog.
func (c *Cloud) address(s service) (string, error) {
	own := func(key, otherwise string) string {
		for _, prefix := range s.prefixes() {
			if v := c.own[prefix+key]; v != "" {
				return v
			}
		}
		return otherwise
	}
	if address := own("endpoint_override", ""); address != "" {
		return address, nil
	}
	iface, region := own("interface", c.iface), own("region_name", c.region)
	for _, e := range c.endpoints {
		if slices.Contains(s.types, e.Type) && e.Interface == iface && (region == "" || e.Region == region) {
			return e.URL, nil
		}
	}
	return "", &noServiceError{service: s.name, kind: s.types[0], iface: iface, region: region}
}

var versionElement = regexp.MustCompile(`^v[0-9]+(\.[0-9]+)?$`)

// versioned is the URL below which a service keeps its resources: with a slash at the end, and with version unless the URL
// names a version of the same major number, as Nova's does ("/v2.1", perhaps with a project behind it).
func versioned(endpoint, version string) (string, error) {
	u, err := url.Parse(endpoint)
	if err != nil {
		return "", err
	}
	parts := strings.Split(strings.Trim(u.Path, "/"), "/")
	at := slices.IndexFunc(parts, versionElement.MatchString)
	switch {
	case at < 0:
		parts = append(parts, version)
	case parts[at][1] != version[1]: // Keystone's entry may still say /v2.0
		parts = append(parts[:at], version)
	}
	u.Path = strings.TrimLeft(strings.Join(parts, "/"), "/") + "/"
	return u.String(), nil
}

type noServiceError struct{ service, kind, iface, region string }

func (e *noServiceError) Error() string {
	where := ""
	if e.region != "" {
		where = fmt.Sprintf(" in region %q", e.region)
	}
	return fmt.Sprintf("the cloud has no %s: its service catalog names no %s endpoint of type %q%s", e.service, e.iface, e.kind, where)
}

// IsNoService tells that the cloud's catalog does not have the service.
func IsNoService(err error) bool {
	var e *noServiceError
	return errors.As(err, &e)
}

// Extensions are the aliases of Neutron's extensions, sorted.
type Extensions []string

// Has tells whether the extension is there.
func (e Extensions) Has(alias string) bool {
	_, ok := slices.BinarySearch(e, alias)
	return ok
}

// Extensions lists what this Neutron can do (https://docs.openstack.org/api-ref/network/v2/#list-extensions). It asks once, however
// many call at the same time; an error is not remembered.
func (c *Cloud) Extensions(ctx context.Context) (Extensions, error) {
	select {
	case c.asking <- struct{}{}:
		defer func() { <-c.asking }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if c.extensions != nil {
		return c.extensions, nil
	}
	network, err := c.Network()
	if err != nil {
		return nil, err
	}
	var body struct {
		Extensions []struct{ Alias string }
	}
	if _, err := network.Get(ctx, network.ServiceURL("extensions"), &body, nil); err != nil {
		return nil, Wrap(err, "listing Neutron's extensions")
	}
	found := Extensions{}
	for _, e := range body.Extensions {
		found = append(found, e.Alias)
	}
	slices.Sort(found)
	c.extensions = found
	return found, nil
}

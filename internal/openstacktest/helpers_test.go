package openstacktest_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/subnets"
	"go.yaml.in/yaml/v3"

	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
)

// clients are the real gophercloud, authenticated against a fake cloud.
type clients struct {
	t        testing.TB
	provider *gophercloud.ProviderClient
	identity *gophercloud.ServiceClient
	network  *gophercloud.ServiceClient
	compute  *gophercloud.ServiceClient
	image    *gophercloud.ServiceClient
	balancer *gophercloud.ServiceClient
}

func connect(t testing.TB, c *openstacktest.Cloud, cloud string) *clients {
	t.Helper()
	raw, err := os.ReadFile(c.CloudsYAML())
	must(t, err)
	var file struct {
		Clouds map[string]struct {
			Auth   map[string]string
			Region string `yaml:"region_name"`
		}
	}
	must(t, yaml.Unmarshal(raw, &file))
	entry, auth := file.Clouds[cloud], file.Clouds[cloud].Auth
	return login(t, gophercloud.AuthOptions{IdentityEndpoint: auth["auth_url"], Username: auth["username"], Password: auth["password"], DomainName: auth["user_domain_name"],
		TenantName: auth["project_name"], AllowReauth: true}, entry.Region)
}

// login authenticates and makes a client for each service.
func login(t testing.TB, ao gophercloud.AuthOptions, region string) *clients {
	t.Helper()
	p, err := openstack.AuthenticatedClient(t.Context(), ao)
	must(t, err)
	k, eo := &clients{t: t, provider: p}, gophercloud.EndpointOpts{Region: region}
	for dst, open := range map[**gophercloud.ServiceClient]func(*gophercloud.ProviderClient, gophercloud.EndpointOpts) (*gophercloud.ServiceClient, error){
		&k.identity: openstack.NewIdentityV3, &k.network: openstack.NewNetworkV2, &k.compute: openstack.NewComputeV2, &k.image: openstack.NewImageV2, &k.balancer: openstack.NewLoadBalancerV2,
	} {
		sc, err := open(p, eo)
		must(t, err)
		*dst = sc
	}
	k.compute.Microversion = "2.90"
	return k
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// refused demands that err is this status and, for Neutron, this exception.
func refused(t testing.TB, err error, status int, kind string) {
	t.Helper()
	var e gophercloud.ErrUnexpectedResponseCode
	if !errors.As(err, &e) || e.Actual != status {
		t.Fatalf("got %v, want status %d", err, status)
	}
	if kind == "" {
		return
	}
	var body struct{ NeutronError struct{ Type string } }
	if json.Unmarshal(e.Body, &body) != nil || body.NeutronError.Type != kind {
		t.Fatalf("got %s, want the exception %s", e.Body, kind)
	}
}

// do sends one request; path is below the service's resource base ("ports?name=x").
// The answer is decoded into out when that is not nil.
func (k *clients) do(sc *gophercloud.ServiceClient, method, path string, body, out any) error {
	k.t.Helper()
	opts := &gophercloud.RequestOpts{OkCodes: []int{200, 201, 202, 204}, JSONResponse: out}
	if body != nil {
		opts.JSONBody = body
	}
	resp, err := sc.Request(k.t.Context(), method, sc.ServiceURL(path), opts)
	if err == nil {
		_ = resp.Body.Close()
	}
	return err
}

// ids lists the ids of a Neutron collection under a query.
func (k *clients) ids(collection, query string) []string {
	k.t.Helper()
	var page map[string][]struct{ ID string }
	must(k.t, k.do(k.network, "GET", collection+"?"+query, nil, &page))
	got := []string{}
	for _, r := range page[strings.ReplaceAll(collection, "-", "_")] {
		got = append(got, r.ID)
	}
	return got
}

// loose is a test that counts failures instead of having them.
type loose struct {
	testing.TB
	failures []string
}

func (l *loose) Errorf(format string, args ...any) {
	l.failures = append(l.failures, fmt.Sprintf(format, args...))
}

type object map[string]any

func (k *clients) net(name string) *networks.Network {
	k.t.Helper()
	n, err := networks.Create(k.t.Context(), k.network, networks.CreateOpts{Name: name}).Extract()
	must(k.t, err)
	return n
}

func (k *clients) subnet(networkID, cidr string) *subnets.Subnet {
	k.t.Helper()
	s, err := subnets.Create(k.t.Context(), k.network, subnets.CreateOpts{NetworkID: networkID, CIDR: cidr, IPVersion: 4}).Extract()
	must(k.t, err)
	return s
}

func (k *clients) port(networkID, name string) *ports.Port {
	k.t.Helper()
	p, err := ports.Create(k.t.Context(), k.network, ports.CreateOpts{NetworkID: networkID, Name: name}).Extract()
	must(k.t, err)
	return p
}

func (k *clients) getPort(id string) *ports.Port {
	k.t.Helper()
	p, err := ports.Get(k.t.Context(), k.network, id).Extract()
	must(k.t, err)
	return p
}

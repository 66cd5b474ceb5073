package openstacktest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
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

// clients are the real gophercloud, authenticated against a cloud.
type clients struct {
	t        testing.TB
	place    place
	run      string // what the names of this run begin with
	loose    *loose // the fake's failures with onEachCloud, nil on a real cloud
	provider *gophercloud.ProviderClient
	identity *gophercloud.ServiceClient
	network  *gophercloud.ServiceClient
	compute  *gophercloud.ServiceClient
	image    *gophercloud.ServiceClient
	balancer *gophercloud.ServiceClient
}

// connect logs in to a fake cloud that the test makes and changes as it likes.
func connect(t testing.TB, c *openstacktest.Cloud, cloud string) *clients {
	t.Helper()
	p := fake(c)
	p.name = cloud
	k := login(t, p.account(t, ""), nil)
	k.place = p
	return k
}

// account is what the file says about the place, or about another of its users ("-admin").
func (p place) account(t testing.TB, suffix string) gophercloud.AuthOptions {
	t.Helper()
	raw, err := os.ReadFile(p.file)
	must(t, err)
	var file struct {
		Clouds map[string]struct{ Auth map[string]string }
	}
	must(t, yaml.Unmarshal(raw, &file))
	auth := file.Clouds[p.name+suffix].Auth
	return gophercloud.AuthOptions{IdentityEndpoint: auth["auth_url"], Username: auth["username"], Password: auth["password"], DomainName: auth["user_domain_name"],
		TenantName: auth["project_name"], AllowReauth: true}
}

// authenticate gets a token.
func authenticate(ctx context.Context, ao gophercloud.AuthOptions, transport http.RoundTripper) (*gophercloud.ProviderClient, error) {
	p, err := openstack.NewClient(ao.IdentityEndpoint)
	if err != nil {
		return nil, err
	}
	p.HTTPClient.Transport = transport
	return p, openstack.Authenticate(ctx, p, ao)
}

// login authenticates and makes a client for each service.
func login(t testing.TB, ao gophercloud.AuthOptions, transport http.RoundTripper) *clients {
	t.Helper()
	p, err := authenticate(t.Context(), ao, transport)
	must(t, err)
	k, eo := &clients{t: t, provider: p}, gophercloud.EndpointOpts{Region: "RegionOne"}
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
	return send(k.t.Context(), sc, method, path, body, out)
}

func send(ctx context.Context, sc *gophercloud.ServiceClient, method, path string, body, out any) error {
	opts := &gophercloud.RequestOpts{OkCodes: []int{200, 201, 202, 204}, JSONResponse: out}
	if body != nil {
		opts.JSONBody = body
	}
	resp, err := sc.Request(ctx, method, sc.ServiceURL(path), opts)
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
	n, err := networks.Create(k.t.Context(), k.network, networks.CreateOpts{Name: k.name(name)}).Extract()
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
	p, err := ports.Create(k.t.Context(), k.network, ports.CreateOpts{NetworkID: networkID, Name: k.name(name)}).Extract()
	must(k.t, err)
	return p
}

func (k *clients) getPort(id string) *ports.Port {
	k.t.Helper()
	p, err := ports.Get(k.t.Context(), k.network, id).Extract()
	must(k.t, err)
	return p
}

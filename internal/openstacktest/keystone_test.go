package openstacktest_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"os"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/applicationcredentials"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/projects"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/tokens"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"

	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
)

func TestCloudsFileIsSecret(t *testing.T) {
	c := openstacktest.New(t)
	info, err := os.Stat(c.CloudsYAML())
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
}

func TestTokenSaysWhoWhereAndUntilWhen(t *testing.T) {
	c := openstacktest.New(t, openstacktest.TokenLifetime(10*time.Minute))
	k := connect(t, c, "fake")
	got := tokens.Get(t.Context(), k.identity, k.provider.Token())
	project, err := got.ExtractProject()
	must(t, err)
	user, err := got.ExtractUser()
	must(t, err)
	roles, err := got.ExtractRoles()
	must(t, err)
	token, err := got.Extract()
	must(t, err)
	if project.ID != c.ProjectID() || project.Name != "demo" || user.Name != "demo" {
		t.Errorf("project %s, user %s", project.Name, user.Name)
	}
	if !slices.ContainsFunc(roles, func(r tokens.Role) bool { return r.Name == "load-balancer_member" }) {
		t.Errorf("roles %v", roles)
	}
	if left := time.Until(token.ExpiresAt); left < 9*time.Minute || left > 10*time.Minute {
		t.Errorf("the token lives for %v", left)
	}
	if got.Header.Get("X-Openstack-Request-Id") == "" || got.Header.Get("Date") == "" {
		t.Errorf("headers %v", got.Header)
	}
}

func TestRolesAndClockAreWhatATestAsksFor(t *testing.T) {
	c := openstacktest.New(t, openstacktest.Roles("reader", "custom"), openstacktest.Clock(time.Hour))
	k := connect(t, c, "fake")
	got := tokens.Get(t.Context(), k.identity, k.provider.Token())
	roles, err := got.ExtractRoles()
	must(t, err)
	if len(roles) != 2 || roles[0].Name != "reader" || roles[1].Name != "custom" {
		t.Errorf("roles %v", roles)
	}
	date, err := http.ParseTime(got.Header.Get("Date"))
	must(t, err)
	if ahead := time.Until(date); ahead < 59*time.Minute || ahead > time.Hour {
		t.Errorf("the clock is %v ahead", ahead)
	}
}

func TestTheCertificateIsInTheFileThatCloudsYAMLNames(t *testing.T) {
	ends := time.Now().Add(time.Hour).Truncate(time.Second)
	c := openstacktest.New(t, openstacktest.TLS(ends))
	_, err := http.Get(c.AuthURL())
	var unknown x509.UnknownAuthorityError
	if !errors.As(err, &unknown) {
		t.Errorf("everybody trusts it: %v", err)
	}
	text, err := os.ReadFile(c.CloudsYAML())
	must(t, err)
	file := regexp.MustCompile(`cacert: (.+)`).FindSubmatch(text)
	if file == nil {
		t.Fatalf("no cacert in %s", text)
	}
	ca, err := os.ReadFile(string(file[1]))
	must(t, err)
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(ca)
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted}}}
	resp, err := client.Get(c.AuthURL())
	must(t, err)
	resp.Body.Close()
	if until := resp.TLS.PeerCertificates[0].NotAfter; !until.Equal(ends) {
		t.Errorf("it ends at %v, want %v", until, ends)
	}
}

func TestWrongPasswordIsRefused(t *testing.T) {
	onEachCloud(t, func(t *testing.T, k *clients) {
		ao := k.place.account(t, "")
		ao.Password = "guess"
		_, err := authenticate(t.Context(), ao, k.provider.HTTPClient.Transport)
		if !gophercloud.ResponseCodeIs(err, 401) {
			t.Errorf("got %v", err)
		}
	})
}

func TestRevokedTokensAreReplaced(t *testing.T) {
	c := openstacktest.New(t)
	k := connect(t, c, "fake")
	c.RevokeTokens()
	k.net("n") // the client authenticates again by itself
	if got := len(c.Auths()); got != 2 {
		t.Errorf("%d logins, want 2", got)
	}
}

func TestExpiredTokensAreRefused(t *testing.T) {
	c := openstacktest.New(t, openstacktest.TokenLifetime(-time.Second))
	p, err := openstack.AuthenticatedClient(t.Context(), gophercloud.AuthOptions{IdentityEndpoint: c.AuthURL(), Username: "demo", Password: "demo-secret", DomainName: "Default", TenantName: "demo"})
	must(t, err)
	network, err := openstack.NewNetworkV2(p, gophercloud.EndpointOpts{Region: "RegionOne"})
	must(t, err)
	_, err = networks.List(network, nil).AllPages(t.Context())
	if !gophercloud.ResponseCodeIs(err, 401) {
		t.Errorf("got %v", err)
	}
}

func TestApplicationCredentials(t *testing.T) {
	onEachCloud(t, func(t *testing.T, k *clients) {
		user, err := tokens.Get(t.Context(), k.identity, k.provider.Token()).ExtractUser()
		must(t, err)
		made, err := applicationcredentials.Create(t.Context(), k.identity, user.ID, applicationcredentials.CreateOpts{Name: k.name("controller"), Roles: []applicationcredentials.Role{{Name: "member"}}}).Extract()
		must(t, err)
		_, err = applicationcredentials.Create(t.Context(), k.identity, user.ID, applicationcredentials.CreateOpts{Name: k.name("controller")}).Extract()
		refused(t, err, 409, "")
		_, err = applicationcredentials.Create(t.Context(), k.identity, user.ID, applicationcredentials.CreateOpts{Name: k.name("x"), Roles: []applicationcredentials.Role{{Name: "admin"}}}).Extract()
		refused(t, err, 400, "")
		seen, err := applicationcredentials.Get(t.Context(), k.identity, user.ID, made.ID).Extract()
		must(t, err)
		if made.Secret == "" || seen.Secret != "" {
			t.Error("the secret is not shown exactly once")
		}
		ao := gophercloud.AuthOptions{IdentityEndpoint: k.provider.IdentityEndpoint, ApplicationCredentialID: made.ID, ApplicationCredentialSecret: made.Secret}
		limited := login(t, ao, k.provider.HTTPClient.Transport)
		limited.net(k.name("n"))
		must(t, limited.do(limited.balancer, "GET", "lbaas/loadbalancers", nil, nil))
		_, err = applicationcredentials.Create(t.Context(), limited.identity, user.ID, applicationcredentials.CreateOpts{Name: k.name("child")}).Extract()
		refused(t, err, 403, "")
		guess := ao
		guess.ApplicationCredentialSecret = "guess"
		if _, err := authenticate(t.Context(), guess, k.provider.HTTPClient.Transport); !gophercloud.ResponseCodeIs(err, 401) {
			t.Errorf("a wrong secret logs in: %v", err)
		}
		must(t, applicationcredentials.Delete(t.Context(), k.identity, user.ID, made.ID).ExtractErr())
		if _, err := authenticate(t.Context(), ao, k.provider.HTTPClient.Transport); !gophercloud.ResponseCodeIs(err, 404) {
			t.Errorf("a deleted credential logs in: %v", err)
		}
	})
}

func TestOctaviaMayWantRolesOfItsOwn(t *testing.T) {
	k := connect(t, openstacktest.New(t, openstacktest.BalancerRoles(), openstacktest.Roles("member")), "fake")
	octaviaRefused(t, k.do(k.balancer, "GET", "lbaas/loadbalancers", nil, nil), 403, "Policy does not allow")
}

func TestAdminSeesWhatDemoDoesNot(t *testing.T) {
	onEachCloud(t, func(t *testing.T, k *clients) {
		admin := k.place.connect(t, "-admin")
		_, err := projects.List(k.identity, nil).AllPages(t.Context())
		refused(t, err, 403, "")
		pages, err := projects.List(admin.identity, projects.ListOpts{Name: "demo"}).AllPages(t.Context())
		must(t, err)
		all, err := projects.ExtractProjects(pages)
		must(t, err)
		if len(all) != 1 || all[0].ID != k.project() {
			t.Errorf("projects %v", all)
		}
		if mine, theirs := k.ids("agents", ""), admin.ids("agents", ""); len(mine) != 0 || len(theirs) == 0 {
			t.Errorf("demo sees %d agents, admin %d", len(mine), len(theirs))
		}
		n := admin.net("theirs")
		refused(t, k.do(k.network, "GET", "networks/"+n.ID, nil, nil), 404, "NetworkNotFound")
	})
}

func TestCloudWithoutOctavia(t *testing.T) {
	c := openstacktest.New(t, openstacktest.WithoutOctavia())
	p, err := openstack.AuthenticatedClient(t.Context(), gophercloud.AuthOptions{IdentityEndpoint: c.AuthURL(), Username: "demo", Password: "demo-secret", DomainName: "Default", TenantName: "demo"})
	must(t, err)
	if _, err = openstack.NewLoadBalancerV2(p, gophercloud.EndpointOpts{Region: "RegionOne"}); err == nil {
		t.Error("the catalog has a load-balancer service")
	}
}

package openstack_test

import (
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/applicationcredentials"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"
	"github.com/gophercloud/gophercloud/v2/openstack/loadbalancer/v2/loadbalancers"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
)

func connect(t *testing.T, fake *openstacktest.Cloud) *openstack.Cloud {
	t.Helper()
	c, err := openstack.Connect(t.Context(), openstack.Options{Cloud: "fake", File: fake.CloudsYAML(), Backoff: time.Microsecond})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// must gives the service or ends the test.
func must(t *testing.T, service func() (*gophercloud.ServiceClient, error)) *gophercloud.ServiceClient {
	t.Helper()
	sc, err := service()
	if err != nil {
		t.Fatal(err)
	}
	return sc
}

func TestAListIsReadPageByPage(t *testing.T) {
	fake := openstacktest.New(t)
	network := must(t, connect(t, fake).Network)
	for _, name := range []string{"a", "b", "c"} {
		if _, err := networks.Create(t.Context(), network, networks.CreateOpts{Name: name, Description: "mine"}).Extract(); err != nil {
			t.Fatal(err)
		}
	}
	fake.ResetLog()
	all, err := openstack.List[struct{ Name string }](t.Context(), network, "networks", "networks", url.Values{"limit": {"1"}, "description": {"mine"}})
	if err != nil || len(all) != 3 || all[0] == all[1] || len(fake.Reads()) < 3 {
		t.Errorf("got %v, %v in %d pages", all, err, len(fake.Reads()))
	}
	if _, err := openstack.List[struct{ Name string }](t.Context(), network, "networks", "nets", nil); err == nil {
		t.Error("an answer without the collection is one")
	}
}

func TestGophercloudReachesEveryService(t *testing.T) {
	fake := openstacktest.New(t)
	c := connect(t, fake)
	if _, err := networks.List(must(t, c.Network), networks.ListOpts{Description: openstack.Mark("demo")}).AllPages(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := servers.List(must(t, c.Compute), nil).AllPages(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := images.List(must(t, c.Image), nil).AllPages(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := loadbalancers.List(must(t, c.LoadBalancer), nil).AllPages(t.Context()); err != nil {
		t.Error(err)
	}
	if c.ProjectID() != fake.ProjectID() {
		t.Errorf("project %s, want %s", c.ProjectID(), fake.ProjectID())
	}
	if got, want := c.Calls(), (openstack.Calls{Reads: len(fake.Reads()), Writes: 0, Auths: 1}); got != want || got.Reads < 4 {
		t.Errorf("counted %+v, the cloud saw %+v", got, want)
	}
}

func TestAnApplicationCredentialLogsIn(t *testing.T) {
	fake := openstacktest.New(t)
	c := connect(t, fake)
	made, err := applicationcredentials.Create(t.Context(), must(t, c.Identity), c.UserID(),
		applicationcredentials.CreateOpts{Name: "ci", Secret: "sesame-open"}).Extract()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "clouds.yaml")
	text := "clouds: {ac: {auth_type: v3applicationcredential, auth: {auth_url: '" + fake.AuthURL() +
		"', application_credential_id: " + made.ID + ", application_credential_secret: sesame-open}}}"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := openstack.Connect(t.Context(), openstack.Options{File: file})
	if err != nil || again.ProjectID() != c.ProjectID() {
		t.Errorf("project %v: %v", again, err)
	}
	if c.Restricted() || !again.Restricted() || !slices.Equal(again.SecretFiles(), []string{file}) {
		t.Errorf("restricted: a password %v, a credential %v; secrets are in %v", c.Restricted(), again.Restricted(), again.SecretFiles())
	}
	fake.RevokeTokens()
	if _, err := again.Extensions(t.Context()); err != nil {
		t.Errorf("an application credential does not renew its token: %v", err)
	}
	if err := applicationcredentials.Delete(t.Context(), must(t, c.Identity), c.UserID(), made.ID).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	fake.RevokeTokens()
	_, err = networks.List(must(t, again.Network), nil).AllPages(t.Context())
	if !openstack.IsUnauthorized(err) || openstack.IsNotFound(err) {
		t.Errorf("a credential that is no more, which is a 404 of Keystone's, is taken for an object that is: %v", err)
	}
	_, err = openstack.Connect(t.Context(), openstack.Options{File: file})
	if !openstack.IsUnauthorized(err) || !strings.Contains(err.Error(), "Keystone refused application credential") {
		t.Errorf("got %v", err)
	}
}

func TestACloudWithoutOctaviaSaysSo(t *testing.T) {
	_, err := connect(t, openstacktest.New(t, openstacktest.WithoutOctavia())).LoadBalancer()
	if !openstack.IsNoService(err) || !strings.Contains(err.Error(), "Octavia") {
		t.Errorf("got %v", err)
	}
}

// TestALostReplyIsFoundOutAndNotDoubled: the heart of resuming. A create whose reply is lost is never sent twice, and said to be ambiguous;
// a delete or a change is, and ends as if nothing had happened.
func TestALostReplyIsFoundOutAndNotDoubled(t *testing.T) {
	fake := openstacktest.New(t)
	c := connect(t, fake)
	network := must(t, c.Network)
	count := func() int {
		t.Helper()
		pages, err := networks.List(network, networks.ListOpts{Description: openstack.Mark("demo")}).AllPages(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		all, err := networks.ExtractNetworks(pages)
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	create := networks.CreateOpts{Name: "demo/vm", Description: openstack.Mark("demo")}

	fake.Drop("POST /v2.0/networks", 1, openstacktest.AfterWrite)
	_, err := networks.Create(t.Context(), network, create).Extract()
	if !openstack.IsAmbiguous(err) || count() != 1 {
		t.Errorf("%d networks, ambiguous %v: %v", count(), openstack.IsAmbiguous(err), err)
	}
	fake.Fail("POST /v2.0/networks", 2, http.StatusTooManyRequests, "", nil)
	made, err := networks.Create(t.Context(), network, create).Extract()
	if err != nil || count() != 2 {
		t.Fatalf("%d networks: %v", count(), err)
	}
	name := "demo/other"
	fake.Drop("PUT /v2.0/networks/*", 1, openstacktest.AfterWrite)
	if _, err := networks.Update(t.Context(), network, made.ID, networks.UpdateOpts{Name: &name}).Extract(); err != nil {
		t.Error(err)
	}
	fake.Drop("DELETE /v2.0/networks/*", 1, openstacktest.AfterWrite)
	err = networks.Delete(t.Context(), network, made.ID).ExtractErr()
	if !openstack.IsNotFound(err) || !openstack.IsAmbiguous(err) || count() != 1 {
		t.Errorf("%d networks: %v", count(), err)
	}
	if got, want := c.Calls().Writes, len(fake.Writes()); got != want {
		t.Errorf("counted %d writes, the cloud saw %d", got, want)
	}
}

func TestManyRequestsSurviveRevokedTokensAndOutages(t *testing.T) {
	fake := openstacktest.New(t)
	c := connect(t, fake)
	network := must(t, c.Network)
	fake.RevokeTokens()
	if _, err := networks.Create(t.Context(), network, networks.CreateOpts{Name: "demo/vm"}).Extract(); err != nil {
		t.Errorf("a create that met a revoked token: %v", err)
	}
	fake.RevokeTokens()
	fake.Fail("GET /v2.0/networks", 4, http.StatusServiceUnavailable, "<html><body>busy</body></html>", nil)
	var group sync.WaitGroup
	for range 10 {
		group.Go(func() {
			for range 5 {
				if _, err := networks.List(network, nil).AllPages(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if auths := len(fake.Auths()); auths != 3 || c.Calls().Auths != 3 || len(fake.Left()) != 1 {
		t.Errorf("%d logins, counted %d, want 3; left %v", auths, c.Calls().Auths, fake.Left())
	}
}

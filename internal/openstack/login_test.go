package openstack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestLoginSendsTheCredentialsInTheirForm(t *testing.T) {
	const password = `{"identity":{"methods":["password"],"password":{"user":{"domain":{"id":"default"},"name":"alice","password":"sesame"}}},`
	tests := []struct{ name, cloud, want string }{
		{"a password with the default domain", `username: alice, password: sesame, project_name: demo`,
			password + `"scope":{"project":{"domain":{"id":"default"},"name":"demo"}}}`},
		{"domains of their own for user and project", `username: alice, password: sesame, project_name: demo, user_domain_name: People, project_domain_id: d2`,
			`{"identity":{"methods":["password"],"password":{"user":{"domain":{"name":"People"},"name":"alice","password":"sesame"}}},"scope":{"project":{"domain":{"id":"d2"},"name":"demo"}}}`},
		{"one domain for both", `username: alice, password: sesame, project_name: demo, domain_name: All`,
			`{"identity":{"methods":["password"],"password":{"user":{"domain":{"name":"All"},"name":"alice","password":"sesame"}}},"scope":{"project":{"domain":{"name":"All"},"name":"demo"}}}`},
		{"a domain of its own wins over the common one", `username: alice, password: sesame, project_name: demo, domain_name: All, user_domain_name: People`,
			`{"identity":{"methods":["password"],"password":{"user":{"domain":{"name":"People"},"name":"alice","password":"sesame"}}},"scope":{"project":{"domain":{"name":"All"},"name":"demo"}}}`},
		{"a default domain", `username: alice, password: sesame, project_name: demo, default_domain: dd`,
			`{"identity":{"methods":["password"],"password":{"user":{"domain":{"id":"dd"},"name":"alice","password":"sesame"}}},"scope":{"project":{"domain":{"id":"dd"},"name":"demo"}}}`},
		{"ids instead of names", `user_id: u1, password: sesame, project_id: p1`,
			`{"identity":{"methods":["password"],"password":{"user":{"id":"u1","password":"sesame"}}},"scope":{"project":{"id":"p1"}}}`},
		{"an application credential by id, never with a scope", `application_credential_id: ac1, application_credential_secret: sesame, project_name: demo`,
			`{"identity":{"application_credential":{"id":"ac1","secret":"sesame"},"methods":["application_credential"]}}`},
		{"an application credential by name", `application_credential_name: ci, application_credential_secret: sesame, username: alice, user_domain_name: People`,
			`{"identity":{"application_credential":{"name":"ci","secret":"sesame","user":{"domain":{"name":"People"},"name":"alice"}},"methods":["application_credential"]}}`},
		{"a token for a project", `token: given, project_id: p1`,
			`{"identity":{"methods":["token"],"token":{"id":"given"}},"scope":{"project":{"id":"p1"}}}`},
		{"a passcode", `username: alice, passcode: "123", project_id: p1`,
			`{"identity":{"methods":["totp"],"totp":{"user":{"domain":{"id":"default"},"name":"alice","passcode":"123"}}},"scope":{"project":{"id":"p1"}}}`},
		{"two factors", `user_id: u1, password: sesame, passcode: "123", project_id: p1`,
			`{"identity":{"methods":["password","totp"],"password":{"user":{"id":"u1","password":"sesame"}},"totp":{"user":{"id":"u1","passcode":"123"}}},"scope":{"project":{"id":"p1"}}}`},
		{"an id of the user or the project before its name", `user_id: u1, username: alice, password: sesame, project_id: p1, project_name: demo`,
			`{"identity":{"methods":["password"],"password":{"user":{"id":"u1","password":"sesame"}}},"scope":{"project":{"id":"p1"}}}`},
		{"a trust", `username: alice, password: sesame, trust_id: t1`,
			password + `"scope":{"OS-TRUST:trust":{"id":"t1"}}}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			isolate(t)
			k := newKeystone(t)
			mustConnect(t, Options{File: k.write(t, "clouds: {demo: {auth: {auth_url: $URL/v3, "+tt.cloud+"}}}")})
			got, _ := json.Marshal(k.lastBody(t)["auth"])
			if string(got) != tt.want {
				t.Errorf("sent %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestATokenThatHasAProjectIsUsedAsItIs(t *testing.T) {
	isolate(t)
	k := newKeystone(t)
	c := mustConnect(t, Options{File: k.write(t, "clouds: {demo: {auth_type: token, auth: {auth_url: $URL, token: given}}}")})
	if _, err := c.Extensions(t.Context()); err != nil {
		t.Error(err)
	}
	if calls := c.Calls(); c.ProjectID() != "p1" || calls.Auths != 0 {
		t.Errorf("project %q, calls %+v", c.ProjectID(), calls)
	}
}

func TestLoginErrorsSayWhatIsWrong(t *testing.T) {
	const good = "auth: {auth_url: $URL/v3, username: alice, password: sesame, project_name: demo}"
	page := func(w http.ResponseWriter) bool {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<html><head><title>Hotel Wi-Fi</title></head><body></body></html>")
		return true
	}
	tests := []struct {
		name, cloud string
		refuse      func(http.ResponseWriter) bool
		want        []string
	}{
		{"wrong password", strings.Replace(good, "sesame", "wrong", 1), nil, []string{`"demo"`, `user "alice"`, "requires authentication", "(401, req-1)"}},
		{"no password", strings.Replace(good, "password: sesame,", "", 1), nil, []string{"no password (OS_PASSWORD)"}},
		{"nothing but an address", "auth: {auth_url: $URL}", nil, []string{"no project_name (OS_PROJECT_NAME), no username (OS_USERNAME), no password (OS_PASSWORD)"}},
		{"a federated login", "auth_type: v3oidcpassword, " + good, nil, []string{`"v3oidcpassword" is not supported`, "openstack application credential create"}},
		{"a login of the system", "system_scope: all, " + good, nil, []string{"system_scope (OS_SYSTEM_SCOPE)", "name a project instead"}},
		{"a trust with a project", "trust_id: t, " + good, nil, []string{"trust_id and a project exclude each other", "leave one out"}},
		{"a passcode that is not asked for", "auth_type: password, passcode: 1, " + good, nil, []string{"passcode (OS_PASSCODE)", "v3multifactor"}},
		{"a second factor that is missing", "auth_type: v3multifactor, " + good, nil, []string{"no passcode (OS_PASSCODE)"}},
		{"a factor that is not supported", "auth_type: v3multifactor, auth_methods: [v3password, v3kerberos], passcode: 1, " + good, nil, []string{`"v3kerberos"`, "only v3password and v3totp"}},
		{"Identity v2", "auth_type: v2password, " + good, nil, []string{`"v2password" is not supported`}},
		{"nobody there", "auth: {auth_url: 'http://127.0.0.1:1/v3', username: u, password: p, project_name: x}", nil, []string{"reaching Keystone", "connection refused", "http://127.0.0.1:1/v3"}},
		{"another path", strings.Replace(good, "$URL/v3", "$URL/elsewhere/v3", 1), nil, []string{"is auth_url right?", "404"}},
		{"an unknown region", "region_name: Moon, " + good, nil, []string{`no region "Moon"`, "RegionOne"}},
		{"a page instead of an answer", good, page, []string{`a web page ("Hotel Wi-Fi")`, "is this the address of an OpenStack API?"}},
		{"a redirect", good, func(w http.ResponseWriter) bool {
			w.Header().Set("Location", "https://cloud/v3")
			w.WriteHeader(301)
			return true
		}, []string{"redirects to https://cloud/v3"}},
		{"an outage", good, func(w http.ResponseWriter) bool {
			http.Error(w, "<html><body><h1>503 Service Unavailable</h1>No server is available.</body></html>", http.StatusServiceUnavailable)
			return true
		}, []string{"503 Service Unavailable No server is available. (503, req-1)"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			isolate(t)
			k := newKeystone(t)
			k.refuse = tt.refuse
			_, err := Connect(t.Context(), Options{File: k.write(t, "clouds: {demo: {"+tt.cloud+"}}"), Backoff: time.Microsecond})
			if err == nil {
				t.Fatal("no error")
			}
			for _, part := range tt.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("want %q in: %v", part, err)
				}
			}
			if strings.ContainsAny(err.Error(), "\n") || strings.Contains(err.Error(), "sesame") {
				t.Errorf("not one line without secrets: %q", err)
			}
			if got, want := IsUnauthorized(err), tt.name == "wrong password"; got != want {
				t.Errorf("IsUnauthorized is %v for: %v", got, err)
			}
		})
	}
}

func TestLoginIsRepeatedWhileKeystoneIsAway(t *testing.T) {
	isolate(t)
	k := newKeystone(t)
	left := 2
	k.refuse = func(w http.ResponseWriter) bool {
		left--
		if left >= 0 {
			w.WriteHeader(http.StatusBadGateway)
		}
		return left >= 0
	}
	if c := mustConnect(t, Options{File: k.write(t, simpleCloud)}); c.Calls().Auths != 3 {
		t.Errorf("%d logins, want 3", c.Calls().Auths)
	}
}

func TestAnExpiredTokenIsRenewedOnceForAll(t *testing.T) {
	isolate(t)
	k := newKeystone(t)
	c := mustConnect(t, Options{File: k.write(t, simpleCloud)})
	network, err := c.Network()
	if err != nil {
		t.Fatal(err)
	}
	k.expire()
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			if _, err := network.Get(t.Context(), network.ServiceURL("ports"), nil, nil); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if calls := c.Calls(); calls.Auths != 2 {
		t.Errorf("%d logins for 20 requests with an expired token, want one more than the first: %+v", calls.Auths, calls)
	}
}

func TestOneCancelledRequestDoesNotSpoilTheRenewal(t *testing.T) {
	isolate(t)
	k := newKeystone(t)
	c := mustConnect(t, Options{File: k.write(t, simpleCloud)})
	k.expire()
	entered, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	k.refuse = func(http.ResponseWriter) bool {
		once.Do(func() { close(entered) })
		<-release
		return false
	}
	ctx, cancel := context.WithCancel(t.Context())
	renewed := make(chan error)
	go func() { renewed <- c.provider.Reauthenticate(ctx, "token-1") }()
	<-entered
	cancel()
	close(release)
	if err := <-renewed; err != nil {
		t.Errorf("renewing failed with whoever asked for it: %v", err)
	}
}

func TestACredentialThatEndsIsUnauthorized(t *testing.T) {
	isolate(t)
	k := newKeystone(t)
	c := mustConnect(t, Options{File: k.write(t, simpleCloud)})
	k.expire()
	k.refuse = func(w http.ResponseWriter) bool {
		http.Error(w, `{"error": {"code": 401, "message": "The password is expired."}}`, http.StatusUnauthorized)
		return true
	}
	_, err := c.Extensions(t.Context())
	if !IsUnauthorized(err) || !strings.Contains(err.Error(), "logging in again: The password is expired. (401, req-1)") {
		t.Errorf("got %v", err)
	}
}

func TestServicesComeFromTheRegionAndInterfaceAskedFor(t *testing.T) {
	isolate(t)
	k := newKeystone(t)
	k.regions = []string{"East", "West"}
	c := mustConnect(t, Options{File: k.write(t, strings.Replace(simpleCloud, "demo:", "demo:\n    region_name: West\n    interface: internal", 1))})
	network, err := c.Network()
	if err != nil {
		t.Fatal(err)
	}
	if want := k.URL + "/network/West/internal/v2.0/ports"; network.ServiceURL("ports") != want {
		t.Errorf("got %s, want %s", network.ServiceURL("ports"), want)
	}
	if again, _ := c.Network(); again != network {
		t.Error("a second client was made")
	}
	_, err = c.LoadBalancer()
	if !IsNoService(err) || !strings.Contains(err.Error(), `no Octavia: its service catalog names no internal endpoint of type "load-balancer" in region "West"`) {
		t.Errorf("got %v", err)
	}
	if got := c.Endpoints(); len(got) != 4 || got[0] != (Endpoint{"network", "public", "East", k.URL + "/network/East/public"}) {
		t.Errorf("endpoints %+v", got)
	}
	if IsNoService(errors.New("x")) {
		t.Error("any error is taken for a missing service")
	}
}

func TestAServiceMayHaveAnAddressInterfaceOrRegionOfItsOwn(t *testing.T) {
	isolate(t)
	k := newKeystone(t)
	k.regions = []string{"East", "West"}
	for more, want := range map[string]string{
		"network_endpoint_override: http://192.0.2.9:9696/":       "http://192.0.2.9:9696/v2.0/ports",
		"networking_endpoint_override: http://192.0.2.9/net/v2.0": "http://192.0.2.9/net/v2.0/ports",
		"network_interface: internal":                             k.URL + "/network/East/internal/v2.0/ports",
		"network_region_name: West":                               k.URL + "/network/West/public/v2.0/ports",
	} {
		c := mustConnect(t, Options{File: k.write(t, strings.Replace(simpleCloud, "demo:", "demo:\n    region_name: East\n    "+more, 1))})
		network, err := c.Network()
		if err != nil || network.ServiceURL("ports") != want || len(c.Own()) != 1 {
			t.Errorf("%s: got %v, want %s (%v)", more, network, want, err)
		}
	}
}

func TestVersionsAreAddedWhereTheCatalogHasNone(t *testing.T) {
	for _, tt := range [][3]string{
		{"http://c:9696", "v2.0", "http://c:9696/v2.0/"},
		{"http://c:9696/", "v2.0", "http://c:9696/v2.0/"},
		{"http://c/networking", "v2.0", "http://c/networking/v2.0/"},
		{"http://c:9696/v2.0", "v2.0", "http://c:9696/v2.0/"},
		{"http://c/compute/v2.1", "v2.1", "http://c/compute/v2.1/"},
		{"http://c:8774/v2/0123abc", "v2.1", "http://c:8774/v2/0123abc/"},
		{"http://c/image", "v2", "http://c/image/v2/"},
		{"http://c/load-balancer/v2", "v2.0", "http://c/load-balancer/v2/"},
		{"http://c/identity", "v3", "http://c/identity/v3/"},
		{"http://c:5000/v2.0", "v3", "http://c:5000/v3/"},
	} {
		if got, err := versioned(tt[0], tt[1]); got != tt[2] || err != nil {
			t.Errorf("versioned(%q, %q) = %q, %v, want %q", tt[0], tt[1], got, err, tt[2])
		}
	}
}

func TestExtensionsAreAskedForOnce(t *testing.T) {
	isolate(t)
	k := newKeystone(t)
	fail := true
	k.network = func(w http.ResponseWriter, r *http.Request) {
		if fail {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		fmt.Fprint(w, `{"extensions": [{"alias": "trunk"}, {"alias": "dns-integration"}]}`)
	}
	c := mustConnect(t, Options{File: k.write(t, simpleCloud)})
	if _, err := c.Extensions(t.Context()); !IsForbidden(err) {
		t.Errorf("got %v", err)
	}
	fail = false
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			e, err := c.Extensions(t.Context())
			if err != nil || !e.Has("trunk") || !e.Has("dns-integration") || e.Has("dns") {
				t.Errorf("got %v, %v", e, err)
			}
		})
	}
	group.Wait()
	if calls := c.Calls(); calls != (Calls{Reads: 2, Auths: 1}) {
		t.Errorf("calls %+v", calls)
	}
}

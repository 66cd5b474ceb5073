package openstack

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// keystone is the smallest cloud one can log in to. Its network endpoint is itself, below /network.
type keystone struct {
	*httptest.Server
	mu                  sync.Mutex
	bodies              []map[string]any // of POST /auth/tokens
	serial              int              // of the newest token, which alone is valid
	regions, interfaces []string
	skew                time.Duration
	noDate              bool
	network             http.HandlerFunc // what answers below /network/, with a valid token
	refuse              func(w http.ResponseWriter) bool
}

func newKeystone(t *testing.T) *keystone {
	k := &keystone{regions: []string{"RegionOne"}, interfaces: []string{"public", "internal"}}
	k.network = func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"extensions": []}`) }
	k.Server = httptest.NewUnstartedServer(k)
	k.Start()
	t.Cleanup(k.Close)
	return k
}

func (k *keystone) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Openstack-Request-Id", "req-1")
	k.mu.Lock()
	token := fmt.Sprintf("token-%d", k.serial)
	k.mu.Unlock()
	switch {
	case r.Method == "POST" && r.URL.Path == "/v3/auth/tokens":
		k.issue(w, r)
	case r.Method == "GET" && r.URL.Path == "/v3/auth/tokens" && r.Header.Get("X-Subject-Token") == "given":
		k.token(w, "given", 200)
	case !strings.HasPrefix(r.URL.Path, "/network/"):
		http.NotFound(w, r)
	case r.Header.Get("X-Auth-Token") != token && r.Header.Get("X-Auth-Token") != "given":
		http.Error(w, `{"error": {"code": 401, "message": "The request you have made requires authentication.", "title": "Unauthorized"}}`, http.StatusUnauthorized)
	default:
		k.network(w, r)
	}
}

func (k *keystone) issue(w http.ResponseWriter, r *http.Request) {
	if k.refuse != nil && k.refuse(w) {
		return
	}
	var body map[string]any
	_ = json.NewDecoder(r.Body).Decode(&body)
	k.mu.Lock()
	k.bodies = append(k.bodies, body)
	k.serial++
	token := fmt.Sprintf("token-%d", k.serial)
	k.mu.Unlock()
	if strings.Contains(fmt.Sprint(body), "wrong") {
		http.Error(w, `{"error": {"code": 401, "message": "The request you have made requires authentication.", "title": "Unauthorized"}}`, http.StatusUnauthorized)
		return
	}
	k.token(w, token, 201)
}

func (k *keystone) token(w http.ResponseWriter, token string, code int) {
	var endpoints []map[string]string
	for _, region := range k.regions {
		for _, iface := range k.interfaces {
			endpoints = append(endpoints, map[string]string{"interface": iface, "region": region, "region_id": region, "url": k.URL + "/network/" + region + "/" + iface})
		}
	}
	now := time.Now().Add(k.skew).UTC()
	w.Header().Set("Date", now.Format(http.TimeFormat))
	if k.noDate {
		w.Header()["Date"] = nil
	}
	w.Header().Set("X-Subject-Token", token)
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{"token": map[string]any{
		"issued_at":  now.Format("2006-01-02T15:04:05.000000Z"),
		"expires_at": "2031-02-03T04:05:06.000000Z",
		"project":    map[string]string{"id": "p1", "name": "demo"},
		"user":       map[string]string{"id": "u1", "name": "alice"},
		"roles":      []map[string]string{{"name": "member"}, {"name": "load-balancer_member"}},
		"catalog":    []map[string]any{{"type": "network", "name": "neutron", "endpoints": endpoints}},
	}})
}

// expire makes every token given so far invalid.
func (k *keystone) expire() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.serial++
}

func (k *keystone) lastBody(t *testing.T) map[string]any {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.bodies) == 0 {
		t.Fatal("nobody logged in")
	}
	return k.bodies[len(k.bodies)-1]
}

// write makes a clouds.yaml in a directory of its own; $URL in it becomes k's address.
func (k *keystone) write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "clouds.yaml")
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "$URL", k.URL)), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const simpleCloud = `
clouds:
  demo:
    auth: {auth_url: $URL/v3, username: alice, password: sesame, project_name: demo}
`

func discardLog() *log.Logger { return log.New(io.Discard, "", 0) }

// isolate takes away the clouds of whoever runs the tests.
func isolate(t *testing.T) {
	t.Helper()
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "OS_") {
			t.Setenv(name, "")
		}
	}
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	t.Setenv("XDG_CONFIG_DIRS", t.TempDir())
	t.Chdir(t.TempDir())
}

func mustConnect(t *testing.T, o Options) *Cloud {
	t.Helper()
	if o.Backoff == 0 {
		o.Backoff = time.Microsecond
	}
	c, err := Connect(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestConnectTellsWhoLoggedInWhere(t *testing.T) {
	isolate(t)
	k := newKeystone(t)
	c := mustConnect(t, Options{File: k.write(t, simpleCloud)})
	got := fmt.Sprint(c.Name, c.ProjectID(), c.ProjectName(), c.UserID(), c.UserName(), c.Region(), c.Roles(), c.AuthURL() == k.URL+"/v3")
	want := fmt.Sprint("demo", "p1", "demo", "u1", "alice", "RegionOne", []string{"member", "load-balancer_member"}, true)
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if want := time.Date(2031, 2, 3, 4, 5, 6, 0, time.UTC); !c.TokenExpires().Equal(want) {
		t.Errorf("the token expires at %s, want %s", c.TokenExpires(), want)
	}
	if calls := c.Calls(); calls != (Calls{Auths: 1}) {
		t.Errorf("connecting took %+v, want one login and nothing else", calls)
	}
}

func TestTheCloudsClockIsReadFromTheLogin(t *testing.T) {
	isolate(t)
	k := newKeystone(t)
	for _, skew := range []time.Duration{0, time.Hour, -time.Minute} {
		for _, noDate := range []bool{false, true} { // uWSGI alone sends no Date
			k.skew, k.noDate = skew, noDate
			c := mustConnect(t, Options{File: k.write(t, simpleCloud)})
			if off := c.ClockSkew() - skew; off.Abs() > 2*time.Second || c.ClockSkew() == 0 {
				t.Errorf("a cloud %s ahead of us (no Date: %v) was measured as %s", skew, noDate, c.ClockSkew())
			}
		}
	}
}

package openstacktest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/tokens"

	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
	"github.com/kuryrctl/kuryrctl/internal/wait"
)

// place is a cloud that the contract is held against, and how to get there.
type place struct {
	name     string // in the file; the same with -admin has an admin's account
	file     string // a clouds.yaml
	dial     func(ctx context.Context, network, address string) (net.Conn, error)
	patience time.Duration // with what takes its time
	interval time.Duration // between looks at it
}

// fake is the place of a fake cloud, in which time passes by looking.
func fake(c *openstacktest.Cloud) place {
	return place{name: "fake", file: c.CloudsYAML(), patience: 10 * time.Second}
}

// onEachCloud runs one statement of the contract, how OpenStack behaves, on the fake cloud and, in the tests tagged e2e, on a real
// one. What body makes is removed for it. It shares the real cloud with others: it goes by what it made itself, by k.name where
// names count, and waits with k.until. The options are the fake's only, to make it what the real one is.
func onEachCloud(t *testing.T, body func(t *testing.T, k *clients), options ...openstacktest.Option) {
	t.Helper()
	t.Run("fake", func(t *testing.T) {
		l := &loose{TB: t}
		c := openstacktest.New(l, options...)
		t.Cleanup(func() {
			if left := c.Left(); len(left) > 0 {
				t.Errorf("left over: %q", left)
			}
			for _, f := range l.failures {
				t.Error(f)
			}
		})
		k := fake(c).connect(t, "")
		k.loose = l
		body(t, k)
	})
	for _, p := range realPlaces(t) {
		t.Run(p.name, func(t *testing.T) { body(t, p.connect(t, "")) })
	}
}

// connect logs in as the place's user, or as another of the file ("-admin"), and removes at the end of the test what that one made.
func (p place) connect(t testing.TB, suffix string) *clients {
	t.Helper()
	b := &broom{next: &http.Transport{DialContext: p.dial}}
	k := login(t, p.account(t, suffix), b)
	k.place, k.run = p, fmt.Sprintf("contract-%06x/", rand.N(1<<24))
	t.Cleanup(k.sweep)
	return k
}

// name is a name that no other run has, on a cloud that others use.
func (k *clients) name(s string) string { return k.run + s }

// until waits for what takes its time, or ends the test.
func (k *clients) until(what string, look func() (seen string, done bool)) {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(k.t.Context(), k.place.patience)
	defer cancel()
	must(k.t, wait.For(ctx, what, k.place.interval, func(context.Context) (string, bool, error) {
		seen, done := look()
		return seen, done, nil
	}))
}

// misuses demands that so many requests were none that a real client should send, which is what the fake fails tests for.
func (k *clients) misuses(n int) {
	k.t.Helper()
	if k.loose == nil {
		return
	}
	if len(k.loose.failures) != n {
		k.t.Errorf("failures %q, want %d", k.loose.failures, n)
	}
	k.loose.failures = nil
}

// project is the id of the client's.
func (k *clients) project() string {
	k.t.Helper()
	p, err := tokens.Get(k.t.Context(), k.identity, k.provider.Token()).ExtractProject()
	must(k.t, err)
	return p.ID
}

// made is what was made through the client, in that order.
func (k *clients) made() []thing {
	b := k.provider.HTTPClient.Transport.(*broom)
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.made)
}

// thing is what was made, and the request that removes it.
type thing struct {
	method, url string
	body        any
}

// sweep removes all that was made, the last first, and waits until it is gone. What is refused, as a subport that was made after its
// trunk, is asked again after what was made before it; what is on its way is waited for.
func (k *clients) sweep() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(k.t.Context()), k.place.patience)
	defer cancel()
	left, going := k.made(), map[string]bool{}
	err := wait.For(ctx, "the end of what was made", k.place.interval, func(ctx context.Context) (seen string, _ bool, _ error) {
		for i := len(left) - 1; i >= 0; i-- {
			x := left[i]
			var err error
			if going[x.url], err = k.remove(ctx, x, going[x.url]); gophercloud.ResponseCodeIs(err, 404) {
				left = slices.Delete(left, i, i+1)
				continue
			}
			if seen = fmt.Sprint(x.url, " ", err); going[x.url] {
				break
			}
		}
		return seen, len(left) == 0, nil
	})
	if err != nil {
		k.t.Error(err)
	}
}

// remove asks for a thing to be removed, or looks whether one that is going is gone, which is a 404. One that is a load balancer which
// is neither gone nor going is to be asked for again.
func (k *clients) remove(ctx context.Context, x thing, going bool) (bool, error) {
	var now struct {
		LoadBalancer struct{ Provisioning_Status string }
	}
	method, opts := x.method, &gophercloud.RequestOpts{OkCodes: []int{200, 202, 204}, JSONBody: x.body}
	if going {
		method, opts.JSONResponse = "GET", &now
	}
	resp, err := k.provider.Request(ctx, method, x.url, opts)
	if err != nil {
		return false, err
	}
	_ = resp.Body.Close()
	state := now.LoadBalancer.Provisioning_Status
	return x.method == "DELETE" && (state == "" || strings.HasPrefix(state, "PENDING")), nil
}

// broom is the transport of a client that remembers what was made through it.
type broom struct {
	next http.RoundTripper
	mu   sync.Mutex
	made []thing // in that order
}

func (b *broom) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(r)
	if err != nil || resp.StatusCode >= 300 {
		return resp, err
	}
	reply, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(reply))
	b.mu.Lock()
	defer b.mu.Unlock()
	b.made = append(b.made, madeBy(r, reply)...)
	return resp, nil
}

// madeBy is what a request made, as the reply to it says.
func madeBy(r *http.Request, reply []byte) (things []thing) {
	var envelope map[string]json.RawMessage
	_ = json.Unmarshal(reply, &envelope) // what is no object says nothing
	at := *r.URL
	at.RawQuery = ""
	router, plugged := strings.CutSuffix(at.Path, "/add_router_interface")
	switch {
	case plugged:
		at.Path = router + "/remove_router_interface"
		return []thing{{"PUT", at.String(), object{"port_id": envelope["port_id"]}}}
	case r.Method != "POST":
		return nil
	case strings.HasSuffix(at.Path, "/loadbalancers"):
		at.RawQuery = "cascade=true"
	case strings.Contains(at.Path, "/lbaas/"):
		return nil // it goes with its load balancer
	}
	for _, content := range envelope {
		type identity struct{ ID, Name string }
		var one identity
		var many []identity
		if json.Unmarshal(content, &many) != nil && json.Unmarshal(content, &one) == nil {
			many = []identity{one}
		}
		for _, x := range many {
			if strings.HasSuffix(at.Path, "/os-keypairs") {
				x.ID = x.Name
			}
			if x.ID != "" {
				things = append(things, thing{"DELETE", at.JoinPath(x.ID).String(), nil})
			}
		}
	}
	return things
}

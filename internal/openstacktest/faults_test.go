package openstacktest_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"

	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
)

// create asks for a network and lets it fail.
func (k *clients) create(name string) error {
	_, err := networks.Create(k.t.Context(), k.network, networks.CreateOpts{Name: name}).Extract()
	return err
}

func TestFailAnswersInsteadOfTheCloud(t *testing.T) {
	c := openstacktest.New(t)
	k := connect(t, c, "fake")
	c.Fail("POST /v2.0/networks", 2, 503, "<html>upstream</html>", http.Header{"Retry-After": {"1"}})
	for range 2 {
		err := k.create("n")
		if !gophercloud.ResponseCodeIs(err, 503) || !strings.Contains(err.Error(), "<html>upstream</html>") {
			t.Fatalf("got %v", err)
		}
	}
	must(t, k.create("n"))
	if got := k.ids("networks", "name=n"); len(got) != 1 {
		t.Errorf("%d networks were made", len(got))
	}
	c.Fail("PUT /v2.0/trunks/*/add_subports", -1, 409, "{}", nil)
	refused(t, k.do(k.network, "PUT", "trunks/x/add_subports", object{}, nil), 409, "")
	c.Heal()
	refused(t, k.do(k.network, "PUT", "trunks/x/add_subports", object{}, nil), 404, "TrunkNotFound")
}

func TestDropLosesTheRequestOrTheReply(t *testing.T) {
	for name, tt := range map[string]struct {
		when openstacktest.When
		made int
	}{"before the write": {openstacktest.BeforeWrite, 0}, "after the write": {openstacktest.AfterWrite, 1}} {
		t.Run(name, func(t *testing.T) {
			c := openstacktest.New(t)
			k := connect(t, c, "fake")
			c.Drop("POST /v2.0/networks", 1, tt.when)
			if err := k.create("n"); err == nil {
				t.Fatal("the client got an answer")
			}
			if got := k.ids("networks", "name=n"); len(got) != tt.made {
				t.Errorf("%d networks were made, want %d", len(got), tt.made)
			}
			if w := c.Writes(); len(w) != 1 || w[0].Status != 0 {
				t.Errorf("writes %+v", w)
			}
		})
	}
}

func TestCuts(t *testing.T) {
	for name, tt := range map[string]struct {
		cut    func(*openstacktest.Cloud)
		errors []bool
		made   int
	}{
		"after no write":         {func(c *openstacktest.Cloud) { c.CutAfter(0) }, []bool{true, true, true}, 0},
		"after the second write": {func(c *openstacktest.Cloud) { c.CutAfter(2) }, []bool{false, false, true}, 2},
		"in the second reply":    {func(c *openstacktest.Cloud) { c.CutReply(2) }, []bool{false, true, true}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			c := openstacktest.New(t)
			k := connect(t, c, "fake")
			tt.cut(c)
			for i, want := range tt.errors {
				if err := k.create("n"); (err != nil) != want {
					t.Errorf("write %d: %v", i+1, err)
				}
			}
			if _, err := networks.List(k.network, nil).AllPages(t.Context()); err == nil {
				t.Error("reads go through a cut")
			}
			c.Heal()
			if got := k.ids("networks", "name=n"); len(got) != tt.made {
				t.Errorf("%d networks were made, want %d", len(got), tt.made)
			}
		})
	}
}

func TestLogTellsReadsWritesAndLoginsApart(t *testing.T) {
	c := openstacktest.New(t)
	k := connect(t, c, "fake")
	c.ResetLog()
	n := k.net("n")
	k.ids("networks", "")
	refused(t, k.do(k.network, "DELETE", "ports/"+nobody, nil, nil), 404, "PortNotFound")
	want := []string{"POST /v2.0/networks 201", "DELETE /v2.0/ports/" + nobody + " 404"}
	var got []string
	for _, r := range c.Writes() {
		got = append(got, r.Method+" "+r.Path+" "+map[int]string{201: "201", 404: "404"}[r.Status])
	}
	if !slices.Equal(got, want) || len(c.Reads()) != 1 || len(c.Auths()) != 0 {
		t.Errorf("writes %q, %d reads, %d logins", got, len(c.Reads()), len(c.Auths()))
	}
	if r := c.Reads()[0]; r.Service != "network" || n.ID == "" {
		t.Errorf("read %+v", r)
	}
}

func TestThingsChangeBehindOurBack(t *testing.T) {
	c := openstacktest.New(t)
	k := connect(t, c, "fake")
	n := k.net("n")
	k.subnet(n.ID, "10.0.0.0/24")
	id := k.boot("demo/master-0", k.port(n.ID, "p").ID)
	c.Set("server", "demo/master-0", "status", "ERROR")
	c.Set("server", "demo/master-0", "fault", map[string]any{"code": 500, "message": "No valid host was found."})
	s, err := servers.Get(t.Context(), k.compute, id).Extract()
	must(t, err)
	if s.Status != "ERROR" || s.Fault.Message != "No valid host was found." {
		t.Errorf("the server is %s: %+v", s.Status, s.Fault)
	}
	c.Delete("server", "demo/master-0")
	if _, err := servers.Get(t.Context(), k.compute, id).Extract(); !gophercloud.ResponseCodeIs(err, 404) {
		t.Errorf("got %v", err)
	}
	c.Delete("network", "n")
	if left := c.Left(); len(left) > 0 {
		t.Errorf("left over: %q", left)
	}
}

func TestSettleEndsEveryTransition(t *testing.T) {
	c := openstacktest.New(t, openstacktest.Polls(100))
	k := connect(t, c, "fake")
	n := k.net("n")
	k.subnet(n.ID, "10.0.0.0/24")
	id := k.boot("a", k.port(n.ID, "p").ID)
	c.Settle()
	k.becomes(id, "ACTIVE")
}

func TestLatencyIsPaidInParallel(t *testing.T) {
	const latency = 500 * time.Millisecond
	c := openstacktest.New(t, openstacktest.Latency(latency))
	k := connect(t, c, "fake")
	start := time.Now()
	done := make(chan error)
	for range 8 {
		go func() {
			_, err := networks.List(k.network, nil).AllPages(t.Context())
			done <- err
		}()
	}
	for range 8 {
		must(t, <-done)
	}
	if took := time.Since(start); took < latency || took > 8*latency {
		t.Errorf("eight requests took %v", took)
	}
}

func TestJudgeDecidesAboutEachRequest(t *testing.T) {
	c := openstacktest.New(t)
	k := connect(t, c, "fake")
	var sent []string
	c.Judge(func(s openstacktest.Sent) *openstacktest.Mishap {
		sent = append(sent, s.Method+" "+s.Path+"?"+s.URL.RawQuery+" "+string(s.Body))
		switch {
		case s.Method != "POST":
			return nil
		case strings.Contains(string(s.Body), "lost"):
			return &openstacktest.Mishap{Status: 502, Body: "<html>gone</html>", Applied: true}
		}
		return &openstacktest.Mishap{Hang: true}
	})
	if err := k.create("lost"); !gophercloud.ResponseCodeIs(err, 502) || !strings.Contains(err.Error(), "gone") {
		t.Errorf("got %v", err)
	}
	if got := k.ids("networks", "name=lost"); len(got) != 1 {
		t.Errorf("%d networks were made", len(got))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := networks.Create(ctx, k.network, networks.CreateOpts{Name: "hung"}).Extract(); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	c.Heal()
	must(t, k.create("n"))
	want := []string{`POST /v2.0/networks? {"network":{"name":"lost"}}`, "GET /v2.0/networks?name=lost ", `POST /v2.0/networks? {"network":{"name":"hung"}}`}
	if !slices.Equal(sent, want) {
		t.Errorf("it was asked about %q", sent)
	}
}

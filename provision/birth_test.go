package provision

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
)

func session(t *testing.T, fake *openstacktest.Cloud) *Session {
	t.Helper()
	cloud, err := openstack.Connect(t.Context(), openstack.Options{Cloud: "fake", File: fake.CloudsYAML(), Backoff: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	s := NewSession(cloud, "demo")
	s.Poll = time.Millisecond
	return s
}

// together creates n networks at the same moment.
func together(s *Session, n int, body func(i int) map[string]any) []error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			b := Base{s: s, name: fmt.Sprintf("demo/%d", i)}
			_, errs[i] = create[networks.Network](context.Background(), s, networkCollection, b.born(body(i)))
		})
	}
	wg.Wait()
	return errs
}

func TestWhatIsCreatedAtTheSameMomentGoesInOneCall(t *testing.T) {
	fake := openstacktest.New(t)
	for _, err := range together(session(t, fake), 10, func(int) map[string]any { return map[string]any{} }) {
		if err != nil {
			t.Fatal(err)
		}
	}
	if w := fake.Writes(); len(w) > 3 || len(fake.Left()) != 10 { // one, and a few more on a machine that is very busy
		t.Fatalf("%d writes, %v", len(w), fake.Left())
	}
}

func TestOneRefusedObjectDoesNotTakeTheOthersAlong(t *testing.T) {
	fake := openstacktest.New(t)
	errs := together(session(t, fake), 3, func(i int) map[string]any {
		if i == 1 {
			return map[string]any{"mtu": -1}
		}
		return map[string]any{}
	})
	if errs[0] != nil || errs[1] == nil || errs[2] != nil || len(fake.Left()) != 2 {
		t.Fatalf("errors %v, left %v", errs, fake.Left())
	}
}

func TestAFullQuotaIsNotTriedOneByOne(t *testing.T) {
	fake := openstacktest.New(t, openstacktest.Quota("network", "network", 2))
	for _, err := range together(session(t, fake), 3, func(int) map[string]any { return map[string]any{} }) {
		if !openstack.IsQuota(err) {
			t.Errorf("got %v", err)
		}
	}
	if len(fake.Left()) != 0 {
		t.Errorf("left %v", fake.Left())
	}
}

func TestAQuotaThatIsFreeInAMomentIsNoError(t *testing.T) {
	fake := openstacktest.New(t)
	s := session(t, fake)
	fake.Fail("POST /v2.0/networks", tries-1, 409, `{"NeutronError": {"type": "OverQuota", "message": "Quota exceeded for resources: ['network'].", "detail": ""}}`, nil)
	if errs := together(s, 1, func(int) map[string]any { return map[string]any{} }); errs[0] != nil || len(fake.Left()) != 1 {
		t.Errorf("%v, left %v", errs[0], fake.Left())
	}
	if n := len(fake.Reads()); n != 0 {
		t.Errorf("a refusal was followed by %d looks", n)
	}
}

func TestACallWithoutAReplyIsLookedUpAndNotSentAgain(t *testing.T) {
	for name, fault := range map[string]func(*openstacktest.Cloud){
		"applied, reply lost": func(c *openstacktest.Cloud) { c.Drop("POST /v2.0/networks", 1, openstacktest.AfterWrite) },
		"not applied":         func(c *openstacktest.Cloud) { c.Drop("POST /v2.0/networks", 1, openstacktest.BeforeWrite) },
		"a proxy's 502":       func(c *openstacktest.Cloud) { c.Fail("POST /v2.0/networks", 1, 502, "<html>bad gateway</html>", nil) },
	} {
		t.Run(name, func(t *testing.T) {
			fake := openstacktest.New(t)
			s := session(t, fake)
			fault(fake)
			for i, err := range together(s, 2, func(int) map[string]any { return map[string]any{} }) {
				if err != nil {
					t.Errorf("network %d: %v", i, err)
				}
			}
			if got := strings.Join(fake.Left(), " "); got != "network demo/0 network demo/1" {
				t.Errorf("left %s", got)
			}
		})
	}
}

// Whoever was making it may have died over it, unless its answer is only late.
func TestWhatMayBeHalfMadeIsMadeAnew(t *testing.T) {
	for name, tt := range map[string]struct {
		fault openstacktest.Mishap
		want  []string
	}{
		"a connection that was reset": {openstacktest.Mishap{Applied: true}, []string{"POST", "DELETE", "POST"}},
		"a proxy's 502":               {openstacktest.Mishap{Applied: true, Status: http.StatusBadGateway}, []string{"POST", "DELETE", "POST"}},
		"a proxy's 504":               {openstacktest.Mishap{Applied: true, Status: http.StatusGatewayTimeout}, []string{"POST"}},
	} {
		t.Run(name, func(t *testing.T) {
			fake := openstacktest.New(t)
			s := session(t, fake)
			befallen := false
			fake.Judge(func(sent openstacktest.Sent) *openstacktest.Mishap {
				if befallen || sent.Method != http.MethodPost || !strings.HasSuffix(sent.URL.Path, "/v2.0/networks") {
					return nil
				}
				befallen = true
				return &tt.fault
			})
			b := Base{s: s, name: "demo/vm_net"}
			raws, err := s.post(t.Context(), networkCollection, []birth{b.born(map[string]any{})})
			if err != nil {
				t.Fatal(err)
			}
			var methods []string
			for _, w := range fake.Writes() {
				methods = append(methods, w.Method)
			}
			if !slices.Equal(methods, tt.want) || !fake.Has("network", "demo/vm_net") || len(raws) != 1 {
				t.Errorf("sent %v, want %v; left %v", methods, tt.want, fake.Left())
			}
		})
	}
}

// The first call is late, and what it makes comes to be during the second, which meets it.
func TestWhatComesLateIsNotTakenForHalfMade(t *testing.T) {
	fake := openstacktest.New(t)
	s := session(t, fake)
	calls := 0
	fake.Judge(func(sent openstacktest.Sent) *openstacktest.Mishap {
		if sent.Method != http.MethodPost || !strings.HasSuffix(sent.URL.Path, "/v2.0/networks") {
			return nil
		}
		if calls++; calls == 1 {
			return &openstacktest.Mishap{Status: http.StatusGatewayTimeout}
		}
		return &openstacktest.Mishap{Applied: true, Status: http.StatusConflict, Body: `{"NeutronError": {"type": "Conflict", "message": "it is there"}}`}
	})
	b := Base{s: s, name: "demo/vm_net"}
	if _, err := s.post(t.Context(), networkCollection, []birth{b.born(map[string]any{})}); err != nil {
		t.Fatal(err)
	}
	for _, w := range fake.Writes() {
		if w.Method == http.MethodDelete {
			t.Errorf("sent %v", fake.Writes())
		}
	}
}

func TestACloudThatNeverAnswersIsGivenUp(t *testing.T) {
	fake := openstacktest.New(t)
	s := session(t, fake)
	fake.Fail("POST /v2.0/networks", -1, 500, "", nil)
	if errs := together(s, 1, func(int) map[string]any { return map[string]any{} }); errs[0] == nil {
		t.Fatal("no error")
	}
	if n := len(fake.Writes()); n != tries {
		t.Errorf("sent %d times", n)
	}
}

func TestTwoObjectsOfOneNameAreRefused(t *testing.T) {
	fake := openstacktest.New(t)
	s := session(t, fake)
	for range 2 {
		b := Base{s: s, name: "demo/vm_net"}
		if _, err := s.post(t.Context(), networkCollection, []birth{b.born(map[string]any{})}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Discover(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err := s.Network("vm").Observe(t.Context())
	if err == nil || !strings.Contains(err.Error(), "2 networks are called demo/vm_net") {
		t.Fatalf("got %v", err)
	}
}

func TestChooseNamesTheChoices(t *testing.T) {
	all := [][2]string{{"small", "1"}, {"large", "2"}, {"large", "3"}}
	is := func(x [2]string) (string, string) { return x[0], x[1] }
	for name, want := range map[string]string{"small": "1", "2": "2"} {
		if x, err := choose("flavor", name, all, is); x[1] != want || err != nil {
			t.Errorf("%s: %q, %v", name, x, err)
		}
	}
	if _, err := choose("flavor", "large", all, is); err == nil || !strings.Contains(err.Error(), "2, 3") {
		t.Errorf("two of one name: %v", err)
	}
	var missing *NotThere
	if _, err := choose("flavor", "huge", all, is); !errors.As(err, &missing) || !strings.Contains(err.Error(), "large, small") {
		t.Errorf("none of the name: %v", err)
	}
}

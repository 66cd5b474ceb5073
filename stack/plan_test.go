package stack_test

import (
	"strings"
	"testing"

	"github.com/kuryrctl/kuryrctl/internal/labtest"
	"github.com/kuryrctl/kuryrctl/internal/sshtest"
	"github.com/kuryrctl/kuryrctl/stack"
)

func TestAHostThatCannotBeLookedAtIsUnknownInAPlan(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	kubernetes(t, lab)
	lab.Host("demo/worker-1").On("*", sshtest.Fail(1, "no space left on device"))
	p, err := open(t, lab, "demo").Plan(t.Context(), stack.Defaults())
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]stack.Change{}
	for _, c := range p.Changes {
		found[c.Key] = c
	}
	c := found["system.worker-1"]
	if c.Action != stack.Unknown || c.Phase != "unknown" || !strings.HasPrefix(c.Detail, "cannot be looked at: ") || !strings.Contains(c.Detail, "no space left on device") {
		t.Errorf("%+v", c)
	}
	if c := found["server.worker-1"]; c.Action != stack.Keep || !p.HasChanges() {
		t.Errorf("%+v", c)
	}

	// Without the cloud there is no plan.
	lab.Fail("GET /v2.0/lbaas/loadbalancers/*/status", -1, 403, "{}", nil)
	if p, err := open(t, lab, "demo").Plan(t.Context(), stack.Defaults()); err == nil {
		t.Errorf("%+v", p)
	}
}

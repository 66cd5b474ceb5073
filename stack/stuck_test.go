package stack_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/kuryrctl/kuryrctl/internal/labtest"
	"github.com/kuryrctl/kuryrctl/provision"
	"github.com/kuryrctl/kuryrctl/stack"
)

func TestALoadBalancerThatStaysPendingIsGivenUpAndHoldsOnlyWhatItIsOn(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	id := mustUp(t, lab, "demo", servers()).LoadBalancers[0].ID
	stays := func(status string) {
		lab.Set("loadbalancer", "demo/api-lb", "provisioning_status", status)
		lab.Set("loadbalancer", "demo/api-lb", "updated_at", "2026-01-02T03:04:05")
	}
	told := func(err error, status string) {
		t.Helper()
		var stuck *provision.StuckError
		if !errors.As(err, &stuck) || stuck.ID != id || !strings.Contains(err.Error(), "load balancer demo/api-lb ("+id+") is "+status+" since 2026-01-02T03:04:05Z") {
			t.Fatalf("%s: %v", status, err)
		}
	}
	stays("PENDING_CREATE")
	_, err := up(t, lab, "demo", servers())
	told(err, "PENDING_CREATE")

	for _, status := range []string{"PENDING_UPDATE", "PENDING_DELETE"} { // the second finds what the first has left
		stays(status)
		lab.ResetLog()
		err := down(t, lab, "demo")
		if told(err, status); !errors.Is(err, stack.ErrLeftovers) {
			t.Errorf("got %v", err)
		}
		for _, o := range left(lab) {
			kind, _, _ := strings.Cut(o, " ")
			switch kind {
			case "server", "trunk", "keypair", "floatingip", "application_credential":
				t.Errorf("%s: %s is still there", status, o)
			case "port":
				if strings.Contains(o, "worker") || strings.Contains(o, "master") {
					t.Errorf("%s: %s is still there", status, o)
				}
			}
		}
		if n := len(lab.Writes()); status == "PENDING_DELETE" && n > 3 { // two are for the lock
			t.Errorf("there was nothing to be done but to ask once more, and it took %d writes", n)
		}
	}

	lab.Set("loadbalancer", "demo/api-lb", "provisioning_status", "ERROR") // its operator has ended it
	mustDown(t, lab, "demo")
	empty(t, lab)
}

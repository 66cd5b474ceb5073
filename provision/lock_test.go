package provision

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
)

// locking is a session that has looked at the cloud.
func locking(t *testing.T, fake *openstacktest.Cloud) *Session {
	t.Helper()
	s := session(t, fake)
	if _, err := s.Discover(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestWhoComesLaterIsRefusedWhicheverIdIsSmaller(t *testing.T) {
	for range 8 { // ids are random
		fake := openstacktest.New(t)
		first, second := locking(t, fake), locking(t, fake)
		claim, err := first.Claim(t.Context(), Lock{Owner: "a", Who: "alice@here", Verb: "stack"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		var held *HeldError
		if _, err := second.Claim(t.Context(), Lock{Owner: "b", Who: "bob@there", Verb: "unstack"}, nil); !errors.As(err, &held) || held.Lock.Who != "alice@here" {
			t.Fatalf("got %v", err)
		}
		if len(fake.Left()) != 1 {
			t.Fatalf("who was refused left something: %v", fake.Left())
		}
		if err := claim.Release(t.Context()); err != nil || len(fake.Left()) != 0 {
			t.Fatalf("%v, left %v", err, fake.Left())
		}
		if err := claim.Renew(t.Context()); !errors.Is(err, ErrLost) {
			t.Fatalf("a lock that is gone was renewed: %v", err)
		}
	}
}

// A node of the cloud's database that is behind shows neither what was there first nor what was just made.
func TestALockThatIsShownLateIsSeenAllTheSame(t *testing.T) {
	fake := openstacktest.New(t)
	first, second := locking(t, fake), locking(t, fake)
	if _, err := first.Claim(t.Context(), Lock{Owner: "a", Who: "alice@here", Verb: "stack"}, nil); err != nil {
		t.Fatal(err)
	}
	fake.Fail("GET /v2.0/security-groups", 3, http.StatusOK, `{"security_groups": []}`, nil)
	var held *HeldError
	if _, err := second.Claim(t.Context(), Lock{Owner: "b", Who: "bob@there", Verb: "unstack"}, nil); !errors.As(err, &held) || held.Lock.Who != "alice@here" {
		t.Fatalf("got %v", err)
	}
	if len(fake.Left()) != 1 {
		t.Fatalf("who was refused left something: %v", fake.Left())
	}
}

func TestALockThatIsNeverShownIsNone(t *testing.T) {
	fake := openstacktest.New(t)
	s := locking(t, fake)
	fake.Fail("GET /v2.0/security-groups", -1, http.StatusOK, `{"security_groups": []}`, nil)
	if _, err := s.Claim(t.Context(), Lock{Owner: "a", Who: "alice@here", Verb: "stack"}, nil); err == nil || !strings.Contains(err.Error(), "is not listed") {
		t.Fatalf("got %v", err)
	}
	if len(fake.Left()) != 0 {
		t.Fatalf("left %v", fake.Left())
	}
}

func TestAStackThatWasMadeInBetweenIsNoticed(t *testing.T) {
	fake := openstacktest.New(t)
	slow, fast := locking(t, fake), locking(t, fake)
	if err := fast.SecurityGroup("nodes").Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := slow.Claim(t.Context(), Lock{Owner: "a", Verb: "stack"}, nil); !errors.Is(err, errChanged) || len(fake.Left()) != 1 {
		t.Fatalf("%v, left %v", err, fake.Left())
	}
}

package stack_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kuryrctl/kuryrctl/internal/labtest"
	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
	"github.com/kuryrctl/kuryrctl/stack"
)

// mishaps are what clouds do to requests, by what it is called; service is the catalog's type of the one that is asked.
var mishaps = []struct {
	name string
	of   func(service string) openstacktest.Mishap
}{
	{"conflict", func(service string) openstacktest.Mishap {
		return refusal(service, http.StatusConflict, "RetryRequest", "it is being changed")
	}},
	{"quota", func(service string) openstacktest.Mishap {
		if service == "network" {
			return refusal(service, http.StatusConflict, "OverQuota", "Quota exceeded for resources: ['port'].")
		}
		return refusal(service, http.StatusForbidden, "", "Quota exceeded for instances: Requested 1, but already used 10 of 10 instances")
	}},
	{"too many requests", func(service string) openstacktest.Mishap {
		return refusal(service, http.StatusTooManyRequests, "", "slowly")
	}},
	{"error", func(service string) openstacktest.Mishap {
		return refusal(service, http.StatusInternalServerError, "HTTPInternalServerError", "Request Failed: internal server error while processing your request.")
	}},
	{"error, done", func(service string) openstacktest.Mishap {
		m := refusal(service, http.StatusInternalServerError, "HTTPInternalServerError", "Request Failed: internal server error while processing your request.")
		m.Applied = true
		return m
	}},
	{"bad gateway", func(string) openstacktest.Mishap {
		return openstacktest.Mishap{Status: http.StatusBadGateway, Body: "<html><head><title>502 Bad Gateway</title></head></html>"}
	}},
	{"bad gateway, done", func(string) openstacktest.Mishap {
		return openstacktest.Mishap{Status: http.StatusBadGateway, Body: "<html><head><title>502 Bad Gateway</title></head></html>", Applied: true}
	}},
	{"reset", func(string) openstacktest.Mishap { return openstacktest.Mishap{} }},
	{"reset, done", func(string) openstacktest.Mishap { return openstacktest.Mishap{Applied: true} }},
	{"no token", func(string) openstacktest.Mishap {
		return refusal("identity", http.StatusUnauthorized, "", "The request you have made requires authentication.")
	}},
	{"hangs", func(string) openstacktest.Mishap { return openstacktest.Mishap{Hang: true} }}, // until somebody ends the run
	{"hangs, done", func(string) openstacktest.Mishap { return openstacktest.Mishap{Hang: true, Applied: true} }},
}

// refusal is an answer as each service words it; kind is the type of an error of Neutron's.
func refusal(service string, status int, kind, message string) openstacktest.Mishap {
	body := fmt.Sprintf(`{"error": {"code": %d, "title": %q, "message": %q}}`, status, http.StatusText(status), message)
	switch service {
	case "network":
		body = fmt.Sprintf(`{"NeutronError": {"type": %q, "message": %q, "detail": ""}}`, kind, message)
	case "load-balancer":
		body = fmt.Sprintf(`{"faultcode": "Client", "faultstring": %q}`, message)
	case "compute":
		body = fmt.Sprintf(`{"badRequest": {"code": %d, "message": %q}}`, status, message)
	}
	return openstacktest.Mishap{Status: status, Body: body}
}

// moment is one mishap at one call of a stack's being made or removed.
type moment struct {
	masters, workers int
	removed          bool
	call             string // with its number among those of its kind, which does not depend on what is done beside it
	mishap           int
}

func (m moment) config() stack.Config {
	c := servers()
	c.Masters.Count, c.Workers.Count = m.masters, m.workers
	return c
}

func (m moment) String() string {
	return fmt.Sprintf("%d+%d, removed %t, %s, %s", m.masters, m.workers, m.removed, m.call, mishaps[m.mishap].name)
}

// anyID is in the paths of things, and of users and credentials.
var anyID = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32}`)

// numbered names calls as a moment does.
func numbered() func(openstacktest.Sent) string {
	seen := map[string]int{}
	return func(s openstacktest.Sent) string {
		call := s.Method + " " + anyID.ReplaceAllString(s.Path, "ID")
		seen[call]++
		return fmt.Sprintf("%s number %d", call, seen[call])
	}
}

// moments are all that there are for stacks of a size, and what is in the cloud after nothing went wrong.
func moments(t *testing.T, masters, workers int) (all []moment, want []string) {
	t.Helper()
	lab := labtest.NewOf(t, []string{"demo"}, workers, plenty...)
	m := moment{masters: masters, workers: workers}
	watch := func() {
		number := numbered()
		lab.Judge(func(s openstacktest.Sent) *openstacktest.Mishap {
			m.call = number(s)
			for m.mishap = range mishaps {
				all = append(all, m)
			}
			return nil
		})
	}
	watch()
	mustUp(t, lab, "demo", m.config())
	lab.Heal()
	want, m.removed = left(lab), true
	watch()
	mustDown(t, lab, "demo")
	lab.Heal()
	return all, want
}

// happen lets it happen, and wants the next run to end in the same state, and the stack to leave nothing.
func (m moment) happen(t *testing.T, want []string) {
	lab := labtest.NewOf(t, []string{"demo"}, m.workers, plenty...)
	if m.removed {
		mustUp(t, lab, "demo", m.config())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	number := numbered()
	lab.Judge(func(s openstacktest.Sent) *openstacktest.Mishap {
		if number(s) != m.call {
			return nil
		}
		x := mishaps[m.mishap].of(s.Service)
		if x.Hang {
			cancel()
		}
		return &x
	})
	l := &life{t: t, lab: lab, c: m.config(), dice: rand.New(rand.NewPCG(0, 0))}
	do := l.scale
	if m.removed {
		do = l.unstack
	}
	err := do(ctx)
	if ctx.Err() == context.DeadlineExceeded {
		t.Fatalf("it did not end: %v", err)
	}
	lab.Heal()
	if !m.removed {
		mustUp(t, lab, "demo", m.config())
		lab.ResetLog()
		mustUp(t, lab, "demo", m.config())
		if w := lab.Writes(); len(w) > 0 {
			t.Errorf("after %v and a run without faults, another wrote %v", err, w)
		}
		if got := left(lab); !slices.Equal(got, want) {
			t.Errorf("after %v, got:\n%s\nwant:\n%s", err, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	mustDown(t, lab, "demo")
	empty(t, lab)
}

func TestEveryMishapAtEveryCall(t *testing.T) {
	if *soakFor == 0 {
		t.Parallel()
	}
	all, small := moments(t, 1, 2)
	var large []string
	if *soakFor > 0 {
		var more []moment
		more, large = moments(t, 3, 10)
		all = append(all, more...)
	}
	// In an order of the seed, so that a short soak has some of everything.
	slices.SortFunc(all, func(a, b moment) int { return strings.Compare(a.String(), b.String()) })
	rand.New(rand.NewPCG(*soakSeed, 0)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	t.Logf("of %d", len(all))
	until(t, *soakFor/2, 6, func(t *testing.T, n int) (more bool) {
		if n >= len(all) {
			return false
		}
		want := small
		if all[n].masters > 1 {
			want = large
		}
		return t.Run(all[n].String(), func(t *testing.T) { all[n].happen(t, want) })
	})
}

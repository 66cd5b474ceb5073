package stack_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kuryrctl/kuryrctl/internal/labtest"
	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
	"github.com/kuryrctl/kuryrctl/stack"
)

func diagnose(t *testing.T, lab *labtest.Lab, name string, c stack.Config) map[string]stack.Finding {
	t.Helper()
	login := func(ctx context.Context) (*openstack.Cloud, error) {
		return openstack.Connect(ctx, openstack.Options{Cloud: "fake", File: lab.CloudsYAML(), Backoff: time.Millisecond})
	}
	all, err := stack.Diagnose(t.Context(), name, c, login, stack.Options{Dial: lab.Dial, State: lab.State, Poll: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]stack.Finding{}
	for _, f := range all {
		found[f.Check] = f
	}
	return found
}

func TestAHealthyLabYieldsNoFinding(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	for _, f := range diagnose(t, lab, "", servers()) {
		if f.Verdict != stack.Good {
			t.Errorf("before: %+v", f)
		}
	}
	mustUp(t, lab, "demo", servers())
	lab.ResetLog()
	found := diagnose(t, lab, "demo", servers())
	for _, f := range found {
		if f.Verdict != stack.Good && !slices.Contains(slices.Concat(ofNodes, ofPods), f.Check) { // these are about Kubernetes, which is not declared
			t.Errorf("after: %+v", f)
		}
	}
	if len(found) != len(stack.Checks()) || len(lab.Writes()) != 0 {
		t.Errorf("%d of %d checks ran and wrote %v", len(found), len(stack.Checks()), lab.Writes())
	}
}

func TestFaultsAreFoundAndNamed(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		check, text string
		options     []openstacktest.Option
		declare     func(*stack.Config)
		plant       func(*labtest.Lab)
	}{
		"overlapping ranges":  {check: "declaration", text: "overlaps", declare: func(c *stack.Config) { c.Networks.Pod.CIDR = c.Networks.VM.CIDR }},
		"Keystone down":       {check: "cloud", text: "logging in", plant: func(l *labtest.Lab) { l.Drop("POST /v3/auth/tokens", -1, openstacktest.BeforeWrite) }},
		"wrong password":      {check: "cloud", text: "401", plant: func(l *labtest.Lab) { l.Fail("POST /v3/auth/tokens", -1, 401, "{}", nil) }},
		"no Octavia":          {check: "endpoints", text: "load-balancer", options: []openstacktest.Option{openstacktest.WithoutOctavia()}},
		"Glance broken":       {check: "endpoints", text: "asking service image", plant: func(l *labtest.Lab) { l.Fail("GET /v2/images", -1, 503, "", nil) }},
		"no trunks":           {check: "extensions", text: "trunk (pods are subports", options: []openstacktest.Option{openstacktest.WithoutExtension("trunk")}},
		"unknown provider":    {check: "octavia", text: `"f5"`, declare: func(c *stack.Config) { c.OctaviaProvider = "f5" }},
		"no external network": {check: "external-network", text: "there are: public", declare: func(c *stack.Config) { c.PublicNet = "pubilc" }},
		"no image":            {check: "image", text: "there are: debian-13", declare: func(c *stack.Config) { c.Image = "centos7" }},
		"no flavor":           {check: "flavors", text: "m1.small", declare: func(c *stack.Config) { c.Workers.Flavor = "m1.huge" }},
		"a full quota":        {check: "quota", text: "port: 11 more are needed and 3 are free", options: []openstacktest.Option{openstacktest.Quota("network", "port", 3)}},
		"external overlap": {check: "addresses", text: "172.24.4.0/24 of external network public", declare: func(c *stack.Config) {
			c.Networks.VM.CIDR = stack.Prefix{Prefix: c.Networks.VM.CIDR.Prefix}
			_ = c.Networks.VM.CIDR.UnmarshalText([]byte("172.24.4.0/24"))
		}},
		"no such stack":        {check: "objects", text: "there are none"},
		"a trunk gone":         {check: "objects", text: "trunk.worker-1 is absent", plant: func(l *labtest.Lab) { l.Delete("trunk", "demo/worker-1") }},
		"a server in ERROR":    {check: "servers", text: "worker-0 is ERROR", plant: func(l *labtest.Lab) { l.Set("server", "demo/worker-0", "status", "ERROR") }},
		"a load balancer hung": {check: "load-balancers", text: "PENDING_UPDATE", plant: func(l *labtest.Lab) { l.Set("loadbalancer", "demo/api-lb", "provisioning_status", "PENDING_UPDATE") }},
		"a stolen address":     {check: "ssh", text: "SHA256:", plant: func(l *labtest.Lab) { l.Host("demo/worker-0").SetHostKey(nil) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lab := labtest.New(t, []string{"demo"}, x.options...)
			c := servers()
			if stageOf(x.check) == 3 && name != "no such stack" {
				mustUp(t, lab, "demo", c)
			}
			if x.declare != nil {
				x.declare(&c)
			}
			if x.plant != nil {
				x.plant(lab)
			}
			found := diagnose(t, lab, "demo", c)
			f := found[x.check]
			if f.Verdict != stack.Bad || !strings.Contains(f.Answer, x.text) {
				t.Fatalf("got %+v, want a problem with %q", f, x.text)
			}
			if f.Do == "" {
				t.Errorf("%q does not say what to do", f.Answer)
			}
			lab.Heal()
		})
	}
}

// stageOf tells the checks of a stack that exists from the others.
func stageOf(check string) int {
	switch check {
	case "objects", "servers", "load-balancers", "ssh":
		return 3
	}
	return 0
}

func TestWhatABrokenCheckCarriesIsSkipped(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	lab.Fail("POST /v3/auth/tokens", -1, 401, "{}", nil)
	found := diagnose(t, lab, "demo", servers())
	if found["cloud"].Verdict != stack.Bad || found["image"].Verdict != stack.Skipped || found["ssh"].Verdict != stack.Skipped {
		t.Fatalf("%+v", found)
	}
}

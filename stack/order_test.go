package stack

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/internal/labtest"
	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/provision"
)

// The order of creation is in edges, that of deletion in stages. This holds the two together: what needs something is deleted, and gone,
// before that is touched. The exceptions go along with what they need.
func TestNothingIsDeletedBeforeWhatNeedsIt(t *testing.T) {
	t.Parallel()
	goesAlong := []string{"subnet needs network", "interface needs port", "rules needs secgroup",
		"server needs server"} // which only Nova's choice of their places needs
	lab := labtest.New(t, []string{"demo"})
	cloud, err := openstack.Connect(t.Context(), openstack.Options{Cloud: "fake", File: lab.CloudsYAML()})
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(cloud, "demo", Options{Dial: lab.Dial, State: lab.State, Poll: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	c := Defaults()
	c.Masters.Count, c.Masters.ServerGroupPolicy = 3, provision.Apart
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.discover(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	// What goes on top lives on the servers, and goes with them.
	if err := s.withoutHosts(s.Design(c)).Apply(t.Context(), 8, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.session.Discover(t.Context()); err != nil {
		t.Fatal(err)
	}
	design := s.withoutHosts(s.Design(c))
	rows, err := design.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ids := map[graph.Key]string{}
	for _, row := range rows {
		ids[row.Key] = row.State.ID
	}
	deletions := map[string]graph.Resource{}
	for _, d := range s.session.Removal().Resources() {
		state, err := d.Observe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		deletions[state.ID] = d
	}
	edges := 0
	for _, r := range design.Resources() {
		for _, need := range r.Needs() {
			edge := kindOf(r) + " needs " + kindOf(need)
			if kindOf(need) == "subnet" {
				need = need.Needs()[0] // a subnet goes along with its network
			}
			first, then := deletions[ids[r.Key()]], deletions[ids[need.Key()]]
			if slices.Contains(goesAlong, edge) {
				continue
			}
			if first == nil || then == nil {
				t.Fatalf("%s: %s or %s is not deleted at all", edge, r.Key(), need.Key())
			}
			if edges++; !slices.Contains(then.Needs(), first) {
				t.Errorf("%s, and %s is deleted without waiting for %s", edge, need.Key(), r.Key())
			}
		}
	}
	if edges < 30 {
		t.Errorf("only %d edges were checked", edges)
	}
}

func kindOf(r graph.Resource) string {
	kind, _, _ := strings.Cut(string(r.Key()), ".")
	return kind
}

// Two steps that install programs on one host do not run at once: each unpacks the same archive there.
func TestOneStepAtATimeInstallsOnAHost(t *testing.T) {
	lab := labtest.New(t, []string{"demo"})
	cloud, err := openstack.Connect(t.Context(), openstack.Options{Cloud: "fake", File: lab.CloudsYAML()})
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(cloud, "demo", Options{Dial: lab.Dial, State: lab.State})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	c := Defaults()
	c.Masters.Count = 3
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	resources := map[graph.Key]graph.Resource{}
	for _, r := range s.Design(c).Graph.Resources() {
		resources[r.Key()] = r
	}
	var needs func(r graph.Resource, key graph.Key) bool
	needs = func(r graph.Resource, key graph.Key) bool {
		return slices.ContainsFunc(r.Needs(), func(n graph.Resource) bool { return n.Key() == key || needs(n, key) })
	}
	for _, master := range []string{"master-0", "master-1", "master-2"} {
		network, controller := resources[graph.Key("network."+master)], graph.Key("controller."+master)
		if network == nil || resources[controller] == nil || !needs(network, controller) {
			t.Errorf("network.%s may run beside %s", master, controller)
		}
	}
}

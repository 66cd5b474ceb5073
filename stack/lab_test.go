package stack_test

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2"

	"github.com/kuryrctl/kuryrctl/internal/labtest"
	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/stack"
)

// open logs in anew, as every command does.
func open(t testing.TB, lab *labtest.Lab, name string) *stack.Stack {
	t.Helper()
	cloud, err := openstack.Connect(t.Context(), openstack.Options{Cloud: "fake", File: lab.CloudsYAML(), Backoff: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	s, err := stack.Open(cloud, name, stack.Options{Dial: lab.Dial, State: lab.State, Poll: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// servers declares a stack that ends at servers: what OpenStack does is the business of most tests.
func servers() stack.Config {
	c := stack.Defaults()
	c.Kubernetes.Install = false
	return c
}

func up(t testing.TB, lab *labtest.Lab, name string, c stack.Config) (*stack.View, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return open(t, lab, name).Up(ctx, c, stack.UpOptions{Parallel: 8})
}

func down(t testing.TB, lab *labtest.Lab, name string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s := open(t, lab, name)
	r, err := s.Removal(ctx)
	if err != nil {
		return err
	}
	return s.Down(ctx, r, stack.UpOptions{Parallel: 8})
}

func mustUp(t testing.TB, lab *labtest.Lab, name string, c stack.Config) *stack.View {
	t.Helper()
	v, err := up(t, lab, name, c)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func mustDown(t testing.TB, lab *labtest.Lab, name string) {
	t.Helper()
	if err := down(t, lab, name); err != nil {
		t.Fatal(err)
	}
}

// madeUp is in the names that the cloud makes up: ids, and addresses it chose.
var madeUp = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|172\.24\.4\.\d+`)

// left is what is in the cloud, without what differs between two runs.
func left(lab *labtest.Lab) []string {
	all := lab.Left()
	for i := range all {
		all[i] = madeUp.ReplaceAllString(all[i], "ID")
	}
	slices.Sort(all)
	return all
}

func empty(t *testing.T, lab *labtest.Lab) {
	t.Helper()
	if all := left(lab); len(all) > 0 {
		t.Fatalf("left in the cloud:\n%s", strings.Join(all, "\n"))
	}
}

func connect(t *testing.T, lab *labtest.Lab) *openstack.Cloud {
	t.Helper()
	cloud, err := openstack.Connect(t.Context(), openstack.Options{Cloud: "fake", File: lab.CloudsYAML()})
	if err != nil {
		t.Fatal(err)
	}
	return cloud
}

func prefix(t *testing.T, s string) (p stack.Prefix) {
	t.Helper()
	if err := p.Prefix.UnmarshalText([]byte(s)); err != nil {
		t.Fatal(err)
	}
	return p
}

// neutron makes a call of Neutron as somebody else would.
func neutron(t *testing.T, lab *labtest.Lab, method, path string, body, into any) {
	t.Helper()
	as(t, lab, "fake", method, path, body, into)
}

func get(t *testing.T, lab *labtest.Lab, path string, into any) {
	t.Helper()
	as(t, lab, "fake", "GET", path, nil, into)
}

// as makes a call of Neutron with a login of the fake cloud.
func as(t *testing.T, lab *labtest.Lab, login, method, path string, body, into any) {
	t.Helper()
	cloud, err := openstack.Connect(t.Context(), openstack.Options{Cloud: login, File: lab.CloudsYAML()})
	if err != nil {
		t.Fatal(err)
	}
	client, err := cloud.Network()
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.Request(t.Context(), method, client.ServiceURL(path), &gophercloud.RequestOpts{JSONBody: body, JSONResponse: into, OkCodes: []int{200, 201}})
	if err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// id is that of a thing of Neutron's, as somebody else would find it.
func id(t *testing.T, lab *labtest.Lab, path, name string) string {
	t.Helper()
	var found map[string][]struct{ ID string }
	get(t, lab, path+"?name="+name, &found)
	if len(found[path]) != 1 {
		t.Fatalf("%s %s: %v", path, name, found)
	}
	return found[path][0].ID
}

// balancer makes a load balancer as somebody else would, and returns the id of its VIP's port.
func balancer(t *testing.T, lab *labtest.Lab, body map[string]any) string {
	t.Helper()
	octavia, err := connect(t, lab).LoadBalancer()
	must(t, err)
	var made struct {
		LoadBalancer struct {
			VIPPort string `json:"vip_port_id"`
		}
	}
	_, err = octavia.Post(t.Context(), octavia.ServiceURL("lbaas", "loadbalancers"), map[string]any{"loadbalancer": body}, &made, nil)
	must(t, err)
	return made.LoadBalancer.VIPPort
}

//go:build e2e

package openstack_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/gophercloud/gophercloud/v2"

	"github.com/kuryrctl/kuryrctl/bootstrap/cloud"
	"github.com/kuryrctl/kuryrctl/internal/openstack"
)

// TestARealCloudIsUnderstood needs the lab's own cloud to be up (`kuryrctl cloud up`) and changes nothing in it: every write is one
// that the services refuse. It holds our reading of errors against what the services really say.
func TestARealCloudIsUnderstood(t *testing.T) {
	lab, err := cloud.Default()
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	o := openstack.Options{
		Cloud: "lab", File: lab.CloudsYAML(), Dial: lab.DialContext,
		Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	c, err := openstack.Connect(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: project %s, user %s, roles %v, region %s, skew %s, token until %s", c.Name, c.ProjectName(), c.UserName(), c.Roles(), c.Region(), c.ClockSkew(), c.TokenExpires())
	if skew := c.ClockSkew().Abs(); skew.Seconds() > 2 {
		t.Errorf("a cloud on this machine has a clock %s away", skew)
	}
	e, err := c.Extensions(t.Context())
	if err != nil || !e.Has("trunk") || !e.Has("port-security") {
		t.Errorf("extensions %v, %v", e, err)
	}

	const nothing = "00000000-0000-0000-0000-000000000000"
	object := func(name string, fields map[string]any) map[string]any { return map[string]any{name: fields} }
	tests := []struct {
		name    string
		service func() (*gophercloud.ServiceClient, error)
		method  string
		path    string
		body    map[string]any
		is      func(error) bool
		reason  string
	}{
		{"a port that is not there", c.Network, "GET", "ports/" + nothing, nil, openstack.IsNotFound, "could not be found"},
		{"a server that is not there", c.Compute, "GET", "servers/" + nothing, nil, openstack.IsNotFound, "could not be found"},
		{"an image that is not there", c.Image, "GET", "images/" + nothing, nil, openstack.IsNotFound, "No image found with ID " + nothing},
		{"a load balancer that is not there", c.LoadBalancer, "GET", "lbaas/loadbalancers/" + nothing, nil, openstack.IsNotFound, "not found"},
		{"a path that is not there", c.Network, "GET", "nonsense", nil, openstack.IsNotFound, "could not be found"},
		{"a list for operators", c.Compute, "GET", "os-hypervisors", nil, openstack.IsForbidden, "Policy doesn't allow"},
		{"a project's quota, changed by a user", c.Network, "PUT", "quotas/" + c.ProjectID(), object("quota", map[string]any{"port": 1}), openstack.IsForbidden, "disallowed by policy"},
		{"a user of another", c.Identity, "GET", "users", nil, openstack.IsForbidden, "not authorized"},
		{"a port in no network", c.Network, "POST", "ports", object("port", map[string]any{"network_id": nothing}), openstack.IsNotFound, "could not be found"},
		{"a load balancer in no subnet", c.LoadBalancer, "POST", "lbaas/loadbalancers", object("loadbalancer", map[string]any{"vip_subnet_id": nothing}),
			func(err error) bool { return !openstack.IsAmbiguous(err) && !openstack.IsQuota(err) }, "not found"},
	}
	for _, tt := range tests {
		sc, err := tt.service()
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		opts := &gophercloud.RequestOpts{}
		if tt.body != nil {
			opts.JSONBody = tt.body
		}
		_, err = sc.Request(t.Context(), tt.method, sc.ServiceURL(tt.path), opts)
		t.Logf("%s: %v", tt.name, openstack.Wrap(err, "trying"))
		if !tt.is(err) || !strings.Contains(openstack.Reason(err), tt.reason) || strings.Contains(openstack.Reason(err), "<br") {
			t.Errorf("%s: want %q in: %v", tt.name, tt.reason, err)
		}
		if openstack.RequestID(err) == "" {
			t.Errorf("%s: no request id in: %v", tt.name, err)
		}
	}
	compute, err := c.Compute()
	if err != nil {
		t.Fatal(err)
	}
	_, err = compute.Post(t.Context(), compute.ServiceURL("servers"), object("server", map[string]any{
		"name": "x", "imageRef": nothing, "flavorRef": "1", "user_data": "c-a-n-a-r-y",
	}), nil, nil)
	t.Logf("user data that is no base64: %v", err)
	if err == nil || strings.Contains(err.Error(), "c-a-n-a-r-y") || !strings.Contains(err.Error(), "[redacted]") {
		t.Errorf("Nova quotes user data in its refusal, and we show it or Nova no longer does: %v", err)
	}
	if calls := c.Calls(); calls.Auths != 1 {
		t.Errorf("calls %+v", calls)
	}
	if strings.Contains(log.String(), "gAAAA") || strings.Contains(log.String(), "c-a-n-a-r-y") {
		t.Error("the log has a token or user data")
	}

	o.Cloud = "nobody"
	if _, err := openstack.Connect(t.Context(), o); err == nil || !strings.Contains(err.Error(), "lab-admin") {
		t.Errorf("got %v", err)
	}
}

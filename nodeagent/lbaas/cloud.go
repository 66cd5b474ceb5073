package lbaas

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/gophercloud/gophercloud/v2"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
)

// cloud is Neutron and Octavia as far as they are the stack's. It is safe for concurrent use.
type cloud struct {
	network, octavia *gophercloud.ServiceClient
	project, stack   string
	mayWrite         func() error

	facts facts  // but for the provider, which a view has
	vips  string // id of the network of the VIPs
	group string // id of the pods' security group

	looking chan struct{} // held by who looks
	latest  *view         // guarded by looking
}

// errReadOnly is wrapped by the errors of calls that were not made since mayWrite refused.
var errReadOnly = errors.New("not sent")

// open finds what a stack has of networks by their names: five reads.
func open(ctx context.Context, login *openstack.Cloud, stack string, mayWrite func() error) (*cloud, error) {
	c := &cloud{project: login.ProjectID(), stack: stack, mayWrite: mayWrite, looking: make(chan struct{}, 1)}
	var err error
	if c.network, err = login.Network(); err != nil {
		return nil, err
	}
	if c.octavia, err = login.LoadBalancer(); err != nil {
		return nil, err
	}
	type named struct {
		ID, Name, CIDR string
		Network        string `json:"network_id"`
		Gateway        struct {
			Network string `json:"network_id"`
		} `json:"external_gateway_info"`
	}
	find := func(path, name string) (named, error) {
		all, err := list[named](ctx, c.network, path, url.Values{"name": {stack + "/" + name}, "project_id": {c.project}})
		if err == nil && len(all) != 1 {
			err = fmt.Errorf("%d %s are called %s/%s, and one is needed: is the stack's name right?", len(all), path, stack, name)
		}
		if err != nil {
			return named{}, err
		}
		return all[0], nil
	}
	service, err := find("subnets", "service_subnet")
	if err != nil {
		return nil, err
	}
	c.vips, c.facts = service.Network, facts{stack: stack, vipSubnet: service.ID}
	for _, role := range []string{"pod", "vm"} {
		s, err := find("subnets", role+"_subnet")
		if err != nil {
			return nil, err
		}
		p, err := netip.ParsePrefix(s.CIDR)
		if err != nil {
			return nil, fmt.Errorf("reading subnet %s: %w", s.ID, err)
		}
		c.facts.places = append(c.facts.places, place{p, s.ID, role == "pod"})
	}
	router, err := find("routers", "router")
	if err != nil {
		return nil, err
	}
	group, err := find("security-groups", "pod_access")
	c.facts.public, c.group = router.Gateway.Network, group.ID
	return c, err
}

// list reads a collection, whose key in the answer is the last word of its path.
func list[T any](ctx context.Context, client *gophercloud.ServiceClient, path string, query url.Values) ([]T, error) {
	return openstack.List[T](ctx, client, path, strings.ReplaceAll(path[strings.LastIndex(path, "/")+1:], "-", "_"), query)
}

// write sends a request that changes something. out, if not nil, takes the answer.
func (c *cloud) write(ctx context.Context, client *gophercloud.ServiceClient, method, path string, body, out any) error {
	if err := c.mayWrite(); err != nil {
		return fmt.Errorf("%s %s: %w: %w", method, path, errReadOnly, err)
	}
	opts := &gophercloud.RequestOpts{JSONBody: body, JSONResponse: out, OkCodes: []int{http.StatusOK, http.StatusCreated, http.StatusAccepted, http.StatusNoContent}}
	resp, err := client.Request(ctx, method, client.ServiceURL(path), opts)
	if err == nil && out == nil {
		err = resp.Body.Close()
	}
	return err
}

func (c *cloud) lb(ctx context.Context, method, path string, body, out any) error {
	return c.write(ctx, c.octavia, method, "lbaas/"+path, body, out)
}

// evict removes the port that holds a VIP, if a load balancer left it behind: OVN's provider does so when it refuses what it was asked to
// make. It says after what time the address can be had, or else who holds it. A port younger than age may be that of a load balancer which
// is being made.
func (c *cloud) evict(ctx context.Context, vip string, age time.Duration) (again time.Duration, holder string, err error) {
	ports, err := list[struct {
		ID, Name, Description string
		Project               string    `json:"project_id"`
		CreatedAt             time.Time `json:"created_at"`
		Owner                 string    `json:"device_owner"`
	}](ctx, c.network, "ports", url.Values{"network_id": {c.vips}, "fixed_ips": {"ip_address=" + vip}})
	if err != nil || len(ports) == 0 {
		return 0, "", err
	}
	p := ports[0]
	holder = fmt.Sprintf("port %s %s %s", p.ID, p.Name, p.Owner)
	id, leaked := strings.CutPrefix(p.Name, "ovn-lb-vip-")
	if !leaked || p.Project != c.project {
		return 0, holder, nil
	}
	_, err = c.octavia.Get(ctx, c.octavia.ServiceURL("lbaas", "loadbalancers", id), nil, nil)
	switch {
	case err == nil:
		return 0, holder, nil
	case !openstack.IsNotFound(err):
		return 0, holder, openstack.Wrap(err, "looking for the load balancer of port %s", p.ID)
	}
	if left := age - time.Since(p.CreatedAt); left > 0 {
		return left, "", nil
	}
	if err := c.write(ctx, c.network, http.MethodDelete, "ports/"+p.ID, nil, nil); err != nil && !openstack.IsNotFound(err) {
		return 0, holder, openstack.Wrap(err, "deleting port %s", p.ID)
	}
	return soon, "", nil
}

package provision

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"github.com/gophercloud/gophercloud/v2"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
)

// collection is one REST collection of a service and how its bodies wrap one object and many.
type collection struct {
	service   func(*openstack.Cloud) (*gophercloud.ServiceClient, error)
	path      string // below the service's endpoint
	one, many string // the JSON keys around one object and around a list
	details   string // what follows the path where a list shows objects whole
	// half tells that an object whose maker has died can look whole and not be: Neutron stores it, and then tells its driver. OVN never hears of
	// it, or when Neutron compares the two, minutes later; a port on such a network is refused with 500, an interface of such a router vanishes.
	half bool
}

func neutron(path, one, many string) collection {
	return collection{service: (*openstack.Cloud).Network, path: path, one: one, many: many, half: true}
}

func nova(path, one, many string) collection {
	return collection{service: (*openstack.Cloud).Compute, path: path, one: one, many: many, details: "/detail"}
}

func glance(path, one, many string) collection {
	return collection{service: (*openstack.Cloud).Image, path: path, one: one, many: many}
}

func octavia(path, one, many string) collection {
	return collection{service: (*openstack.Cloud).LoadBalancer, path: "lbaas/" + path, one: one, many: many}
}

func keystone(path, one, many string) collection {
	return collection{service: (*openstack.Cloud).Identity, path: path, one: one, many: many}
}

// at is the collection spoken to in one microversion.
func (c collection) at(microversion string) collection {
	plain := c.service
	c.service = func(cloud *openstack.Cloud) (*gophercloud.ServiceClient, error) {
		client, err := plain(cloud)
		if err != nil {
			return nil, err
		}
		versioned := *client
		versioned.Microversion = microversion
		return &versioned, nil
	}
	return c
}

var (
	networkCollection = neutron("networks", "network", "networks")
	subnetCollection  = neutron("subnets", "subnet", "subnets")
	routerCollection  = neutron("routers", "router", "routers")
	groupCollection   = neutron("security-groups", "security_group", "security_groups")
	portCollection    = neutron("ports", "port", "ports")
	trunkCollection   = neutron("trunks", "trunk", "trunks")
	fipCollection     = neutron("floatingips", "floatingip", "floatingips")
	serverCollection  = nova("servers", "server", "servers")
	keypairCollection = nova("os-keypairs", "keypair", "keypairs")
	// Designate's record sets of all zones; each is deleted through its zone.
	recordSetCollection = collection{service: (*openstack.Cloud).Names, path: "recordsets", one: "recordset", many: "recordsets"}
	balancerCollection  = octavia("loadbalancers", "loadbalancer", "loadbalancers")
)

// list reads a whole collection, page by page. query filters on the server's side.
func list[T any](ctx context.Context, cloud *openstack.Cloud, c collection, query url.Values) ([]T, error) {
	client, err := c.service(cloud)
	if err != nil {
		return nil, err
	}
	return openstack.List[T](ctx, client, c.path+c.details, c.many, query)
}

// get reads one object.
func get[T any](ctx context.Context, cloud *openstack.Cloud, c collection, id string) (*T, error) {
	client, err := c.service(cloud)
	if err != nil {
		return nil, err
	}
	body := map[string]*T{}
	if _, err := client.Get(ctx, client.ServiceURL(c.path, id), &body, nil); err != nil {
		return nil, err
	}
	if body[c.one] == nil {
		return nil, fmt.Errorf("reading a %s: %w", c.one, errBadReply)
	}
	return body[c.one], nil
}

// call is a request whose answer does not matter beyond its status.
func call(ctx context.Context, cloud *openstack.Cloud, c collection, method, suffix string, body any) error {
	client, err := c.service(cloud)
	if err != nil {
		return err
	}
	opts := &gophercloud.RequestOpts{JSONBody: body, OkCodes: []int{http.StatusOK, http.StatusAccepted, http.StatusNoContent, http.StatusCreated}}
	resp, err := client.Request(ctx, method, client.ServiceURL(c.path)+suffix, opts)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// remove deletes one object; that it is gone already is success.
func remove(ctx context.Context, cloud *openstack.Cloud, c collection, suffix string) error {
	err := call(ctx, cloud, c, http.MethodDelete, suffix, nil)
	if openstack.IsNotFound(err) {
		return nil
	}
	return err
}

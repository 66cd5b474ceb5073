package provision

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/gophercloud/gophercloud/v2"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
)

// collection is one REST collection of a service and how its bodies wrap one object and many.
type collection struct {
	service   func(*openstack.Cloud) (*gophercloud.ServiceClient, error)
	path      string // below the service's endpoint
	one, many string // the JSON keys around one object and around a list
	details   string // what follows the path where a list shows objects whole
}

func neutron(path, one, many string) collection {
	return collection{service: (*openstack.Cloud).Network, path: path, one: one, many: many}
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
	at := client.ServiceURL(c.path) + c.details
	if len(query) > 0 {
		at += "?" + query.Encode()
	}
	var all []T
	for at != "" {
		var page map[string]json.RawMessage
		if _, err := client.Get(ctx, at, &page, nil); err != nil {
			return nil, openstack.Wrap(err, "listing %s", strings.ReplaceAll(c.many, "_", " "))
		}
		var items []T
		if err := json.Unmarshal(page[c.many], &items); err != nil {
			return nil, openstack.Wrap(err, "listing %s: reading the answer", c.many)
		}
		all = append(all, items...)
		if at, err = nextPage(page[c.many+"_links"], at); err != nil {
			return nil, openstack.Wrap(err, "listing %s", c.many)
		}
	}
	return all, nil
}

// nextPage follows the "next" link of a page: its query, on the address that we know. Behind a proxy the link itself may name another
// host or plain http, and our token does not go there. A link back to the page itself would never end and is no link.
func nextPage(raw json.RawMessage, at string) (string, error) {
	var links []struct{ Rel, Href string }
	if len(raw) == 0 || json.Unmarshal(raw, &links) != nil {
		return "", nil
	}
	for _, l := range links {
		if l.Rel != "next" {
			continue
		}
		next, err := url.Parse(l.Href)
		if err != nil {
			return "", err
		}
		here, err := url.Parse(at)
		if err != nil {
			return "", err
		}
		if here.RawQuery == next.RawQuery {
			return "", nil
		}
		here.RawQuery = next.RawQuery
		return here.String(), nil
	}
	return "", nil
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

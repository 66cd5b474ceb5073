package provision

import (
	"context"
	"encoding/json"
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
	networkCollection  = collection{(*openstack.Cloud).Network, "networks", "network", "networks"}
	subnetCollection   = collection{(*openstack.Cloud).Network, "subnets", "subnet", "subnets"}
	routerCollection   = collection{(*openstack.Cloud).Network, "routers", "router", "routers"}
	groupCollection    = collection{(*openstack.Cloud).Network, "security-groups", "security_group", "security_groups"}
	portCollection     = collection{(*openstack.Cloud).Network, "ports", "port", "ports"}
	trunkCollection    = collection{(*openstack.Cloud).Network, "trunks", "trunk", "trunks"}
	fipCollection      = collection{(*openstack.Cloud).Network, "floatingips", "floatingip", "floatingips"}
	serverCollection   = collection{(*openstack.Cloud).Compute, "servers", "server", "servers"}
	keypairCollection  = collection{(*openstack.Cloud).Compute, "os-keypairs", "keypair", "keypairs"}
	balancerCollection = collection{(*openstack.Cloud).LoadBalancer, "lbaas/loadbalancers", "loadbalancer", "loadbalancers"}
)

// list reads a whole collection, page by page. query filters on the server's side.
func list[T any](ctx context.Context, cloud *openstack.Cloud, c collection, suffix string, query url.Values) ([]T, error) {
	client, err := c.service(cloud)
	if err != nil {
		return nil, err
	}
	at := client.ServiceURL(c.path) + suffix
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
		at = nextPage(page[c.many+"_links"], at)
	}
	return all, nil
}

// nextPage follows the "next" link of a page. A link back to the page itself would never end and is no link.
func nextPage(raw json.RawMessage, at string) string {
	var links []struct{ Rel, Href string }
	if len(raw) == 0 || json.Unmarshal(raw, &links) != nil {
		return ""
	}
	for _, l := range links {
		if l.Rel == "next" && l.Href != at {
			return l.Href
		}
	}
	return ""
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

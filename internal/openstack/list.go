package openstack

import (
	"context"
	"encoding/json"
	"net/url"
	"strings"

	"github.com/gophercloud/gophercloud/v2"
)

// List reads a whole collection, page by page. many is the key that it has in the answer; query filters on the server's side.
func List[T any](ctx context.Context, client *gophercloud.ServiceClient, path, many string, query url.Values) ([]T, error) {
	at := client.ServiceURL(path)
	if len(query) > 0 {
		at += "?" + query.Encode()
	}
	var all []T
	for at != "" {
		var page map[string]json.RawMessage
		if _, err := client.Get(ctx, at, &page, nil); err != nil {
			return nil, Wrap(err, "listing %s", strings.ReplaceAll(many, "_", " "))
		}
		var items []T
		if err := json.Unmarshal(page[many], &items); err != nil {
			return nil, Wrap(err, "listing %s: reading the answer", many)
		}
		all = append(all, items...)
		var err error
		if at, err = nextPage(link(page, many), at); err != nil {
			return nil, Wrap(err, "listing %s", many)
		}
	}
	return all, nil
}

// link is where an answer says that the list goes on, or "". Neutron, Nova and Octavia say it beside the objects, Designate among links, Glance in a
// key of its own; the last two do so for every list of more than 20 or 25, whether a limit was asked for or not.
func link(page map[string]json.RawMessage, many string) string {
	var links []struct{ Rel, Href string }
	_ = json.Unmarshal(page[many+"_links"], &links) // what is not there, or something else, is no link
	for _, l := range links {
		if l.Rel == "next" {
			return l.Href
		}
	}
	var named struct{ Next string }
	_ = json.Unmarshal(page["links"], &named)
	_ = json.Unmarshal(page["next"], &named.Next)
	return named.Next
}

// nextPage follows the link to the next page: its query, on the address that we know. Behind a proxy the link itself may name another
// host or plain http, and our token does not go there. A link back to the page itself would never end and is no link.
func nextPage(link, at string) (string, error) {
	if link == "" {
		return "", nil
	}
	next, err := url.Parse(link)
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

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
		if at, err = nextPage(page[many+"_links"], at); err != nil {
			return nil, Wrap(err, "listing %s", many)
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

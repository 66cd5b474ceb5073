package provision

import (
	"context"
	"encoding/json"
	"net/url"
	"slices"
	"strings"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
)

// Document is a part of a stack as the cloud's API returns it.
type Document struct {
	Name string // such as networks, or loadbalancer-status.ID
	JSON []byte // nil where Err says why
	Err  error
}

// Documents reads everything that the session's inventory holds once more, whole and as the API returns it, with the status trees of load
// balancers and the project's quotas. Secrets that the API tells are in it.
func (s *Session) Documents(ctx context.Context) (all []Document) {
	add := func(name string, v any, err error) {
		if err != nil {
			all = append(all, Document{Name: name, Err: err})
			return
		}
		text, err := json.MarshalIndent(v, "", "  ")
		all = append(all, Document{name, text, err})
	}
	var ids []string
	v := s.Inventory()
	for _, o := range s.Owned() {
		ids = append(ids, o.ID)
	}
	for _, p := range v.Ports { // those that load balancers and DHCP have on our networks too
		ids = append(ids, p.ID)
	}
	for _, x := range v.Subnets {
		ids = append(ids, x.ID)
	}
	for _, c := range []collection{networkCollection, subnetCollection, routerCollection, groupCollection, portCollection, trunkCollection,
		fipCollection, serverCollection, balancerCollection} {
		query := url.Values{"project_id": {s.Cloud.ProjectID()}}
		if c.path == portCollection.path || c.path == serverCollection.path {
			query = nil // the project's own are what a list has anyway, and DHCP's ports are nobody's
		}
		items, err := list[json.RawMessage](ctx, s.Cloud, c, query)
		items = slices.DeleteFunc(items, func(item json.RawMessage) bool {
			var x struct{ ID string }
			return json.Unmarshal(item, &x) != nil || !slices.Contains(ids, x.ID)
		})
		add(strings.TrimPrefix(c.path, "lbaas/"), items, err)
	}
	one := func(name string, c collection, id string) {
		x, err := get[json.RawMessage](ctx, s.Cloud, c, id)
		add(name, x, err)
	}
	if v.KeyPair != nil {
		one("keypair", keypairCollection, v.KeyPair.Name)
	}
	if v.AppCredential != nil {
		one("application-credential", s.appCredentials(), v.AppCredential.ID)
	}
	for _, l := range v.LoadBalancers {
		status := balancerCollection
		status.one = "statuses"
		one("loadbalancer-status."+l.ID, status, l.ID+"/status")
	}
	quotas, err := s.Quotas(ctx)
	add("quotas", quotas, openstack.Wrap(err, "reading the quotas"))
	return all
}

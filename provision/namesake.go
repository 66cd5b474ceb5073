package provision

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
)

// Namesakes are the names below the stack's that more than one object of a kind has in the project, or that only objects have that are
// not the stack's: by kind and name, all ids. Ports of pods do not count: they are called like their pods, and a namespace may be called like
// the stack.
func (s *Session) Namesakes(ctx context.Context) ([]string, error) {
	type named struct {
		ID, Name, Description string
		Owner                 string `json:"device_owner"` // of a port
	}
	kinds := map[string]collection{
		"network": networkCollection, "subnet": subnetCollection, "router": routerCollection, "security group": groupCollection,
		"port": portCollection, "load balancer": balancerCollection,
	}
	found := map[string]*[]named{}
	g, each := errgroup.WithContext(ctx)
	for kind, c := range kinds {
		found[kind] = &[]named{}
		fields := []string{"id", "name", "description"}
		if kind == "port" {
			fields = append(fields, "device_owner")
		}
		fetch(each, g, s, c, url.Values{"project_id": {s.Cloud.ProjectID()}, "fields": fields}, found[kind])
	}
	var servers []named
	g.Go(func() error {
		all, err := s.listServers(each)
		for _, x := range all {
			description := ""
			if s.ownsServer(x) {
				description = s.mark()
			}
			servers = append(servers, named{ID: x.ID, Name: x.Name, Description: description})
		}
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	found["server"] = &servers
	var all []string
	for _, kind := range slices.Sorted(maps.Keys(found)) {
		ids, ours := map[string][]string{}, map[string]int{}
		for _, x := range *found[kind] {
			if !strings.HasPrefix(x.Name, s.Stack+"/") || x.Owner == "trunk:subport" {
				continue
			}
			ids[x.Name] = append(ids[x.Name], x.ID)
			if s.marked(x.Description) {
				ours[x.Name]++
			}
		}
		for _, name := range slices.Sorted(maps.Keys(ids)) {
			if len(ids[name]) > 1 || ours[name] == 0 {
				slices.Sort(ids[name])
				all = append(all, fmt.Sprintf("%s %s is the name of %d, %d of them the stack's (%s)",
					kind, name, len(ids[name]), ours[name], strings.Join(ids[name], ", ")))
			}
		}
	}
	return all, nil
}

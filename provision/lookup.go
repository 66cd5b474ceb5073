package provision

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/flavors"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
)

var (
	imageCollection  = glance("images", "image", "images")
	flavorCollection = nova("flavors", "flavor", "flavors")
)

// Image finds an active image by name or id. Of several images with one name the user has to say which.
func (s *Session) Image(ctx context.Context, name string) (images.Image, error) {
	_, err := s.lookups.once(ctx, "images", func(ctx context.Context) (string, error) {
		all, err := list[images.Image](ctx, s.Cloud, imageCollection, url.Values{"status": {"active"}})
		s.lookups.images = all
		return "", err
	})
	if err != nil {
		return images.Image{}, err
	}
	id, err := choose("image", name, s.lookups.images, func(i images.Image) (string, string) { return i.Name, i.ID })
	for _, i := range s.lookups.images {
		if err == nil && i.ID == id {
			return i, nil
		}
	}
	return images.Image{}, err
}

// Flavor finds a flavor by name or id.
func (s *Session) Flavor(ctx context.Context, name string) (string, error) {
	all, err := s.Flavors(ctx)
	if err != nil {
		return "", err
	}
	return choose("flavor", name, all, func(f flavors.Flavor) (string, string) { return f.Name, f.ID })
}

// Flavors lists the flavors that the project may use.
func (s *Session) Flavors(ctx context.Context) ([]flavors.Flavor, error) {
	_, err := s.lookups.once(ctx, "flavors", func(ctx context.Context) (string, error) {
		all, err := list[flavors.Flavor](ctx, s.Cloud, flavorCollection, nil)
		s.lookups.flavors = all
		return "", err
	})
	return s.lookups.flavors, err
}

// choose picks the object called name, or with that id, and lists the choices when there is none or more than one.
func choose[T any](kind, name string, all []T, is func(T) (name, id string)) (string, error) {
	var hits, known []string
	for _, x := range all {
		n, id := is(x)
		if id == name {
			return id, nil
		}
		if n == name {
			hits = append(hits, id)
		}
		known = append(known, n)
	}
	switch len(hits) {
	case 0:
		slices.Sort(known)
		there := "there are none"
		if known = slices.Compact(known); len(known) > 0 {
			there = "there are: " + strings.Join(known, ", ")
		}
		return "", &NotThere{Kind: kind, Name: name, There: there}
	case 1:
		return hits[0], nil
	}
	return "", fmt.Errorf("%d %ss are called %q: name the one you mean by its id: %s", len(hits), kind, name, strings.Join(hits, ", "))
}

// NotThere is the error of something that a stack uses, does not own, and cannot find.
type NotThere struct{ Kind, Name, There string }

func (e *NotThere) Error() string {
	return fmt.Sprintf("finding %s %q: the project sees none of that name (%s)", e.Kind, e.Name, e.There)
}

// Ping makes one small request of a service, named by its type in the catalog, to see that it answers.
func (s *Session) Ping(ctx context.Context, service string) error {
	c, ok := map[string]collection{
		"identity": keystone("auth/catalog", "", ""), "network": networkCollection, "compute": flavorCollection, "image": imageCollection,
		"load-balancer": balancerCollection, "dns": {service: (*openstack.Cloud).Names, path: "zones"},
	}[service]
	if !ok {
		return fmt.Errorf("asking service %s: nothing is known to ask of it", service)
	}
	query := "?limit=1"
	if service == "identity" {
		query = ""
	}
	return openstack.Wrap(call(ctx, s.Cloud, c, http.MethodGet, query, nil), "asking service %s", service)
}

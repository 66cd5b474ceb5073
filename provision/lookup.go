package provision

import (
	"context"
	"errors"
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

// Image finds an active image by name or id. Of several images with one name the user has to say which. What is neither but reads
// KEY=VALUE,... are properties, and of several images that have them all the newest is taken: clouds that renew their images keep the old ones.
func (s *Session) Image(ctx context.Context, name string) (images.Image, error) {
	_, err := s.lookups.once(ctx, "images", func(ctx context.Context) (string, error) {
		all, err := list[images.Image](ctx, s.Cloud, imageCollection, url.Values{"status": {"active"}})
		s.lookups.images = all
		return "", err
	})
	if err != nil {
		return images.Image{}, err
	}
	found, err := choose("image", name, s.lookups.images, func(i images.Image) (string, string) { return i.Name, i.ID })
	var none *NotThere
	switch {
	case !errors.As(err, &none):
		return found, err
	case strings.Contains(name, "="):
		return newest(s.lookups.images, name)
	}
	return s.unlisted(ctx, name, err)
}

// unlisted is the image with this id where Glance has it and does not list it, be it hidden or another project's for the community; else absent.
func (s *Session) unlisted(ctx context.Context, id string, absent error) (images.Image, error) {
	_, err := s.lookups.once(ctx, "unlisted image", func(ctx context.Context) (string, error) {
		client, err := s.Cloud.Image()
		if err != nil {
			return "", err
		}
		_, err = client.Get(ctx, client.ServiceURL("images", url.PathEscape(id)), &s.lookups.unlisted, nil)
		return "", err
	})
	switch {
	case openstack.IsNotFound(err):
		return images.Image{}, absent
	case err != nil:
		return images.Image{}, openstack.Wrap(err, "finding image %s", id)
	case s.lookups.unlisted.Status != images.ImageStatusActive:
		return images.Image{}, absent
	}
	return s.lookups.unlisted, nil
}

// newest is the newest image with the properties KEY=VALUE,...
func newest(all []images.Image, properties string) (images.Image, error) {
	var found images.Image
	var there []string
	for _, i := range all {
		has, is := true, []string{}
		for pair := range strings.SplitSeq(properties, ",") {
			key, want, _ := strings.Cut(strings.TrimSpace(pair), "=")
			value, known := i.Properties[key]
			has = has && known && fmt.Sprint(value) == want
			if known {
				is = append(is, fmt.Sprintf("%s=%v", key, value))
			}
		}
		if has && !i.CreatedAt.Before(found.CreatedAt) {
			found = i
		}
		there = append(there, strings.Join(append([]string{i.Name}, is...), " "))
	}
	if found.ID == "" {
		return found, fmt.Errorf("finding an image with %s: the project sees none (there are: %s)", properties, strings.Join(there, ", "))
	}
	return found, nil
}

// Flavor finds a flavor by name or id.
func (s *Session) Flavor(ctx context.Context, name string) (flavors.Flavor, error) {
	all, err := s.Flavors(ctx)
	if err != nil {
		return flavors.Flavor{}, err
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
func choose[T any](kind, name string, all []T, is func(T) (name, id string)) (T, error) {
	var hits []T
	var ids, known []string
	for _, x := range all {
		n, id := is(x)
		if id == name {
			return x, nil
		}
		if n == name {
			hits, ids = append(hits, x), append(ids, id)
		}
		known = append(known, n)
	}
	var none T
	switch len(hits) {
	case 0:
		slices.Sort(known)
		there := "there are none"
		if known = slices.Compact(known); len(known) > 0 {
			there = "there are: " + strings.Join(known, ", ")
		}
		return none, &NotThere{Kind: kind, Name: name, There: there}
	case 1:
		return hits[0], nil
	}
	return none, fmt.Errorf("%d %ss are called %q: name the one you mean by its id: %s", len(hits), kind, name, strings.Join(ids, ", "))
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
		"block-storage": volumeTypeCollection,
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

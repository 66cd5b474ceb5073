package openstacktest

import (
	"encoding/json"
	"net/http"
	"slices"
)

// taggable tells whether a collection has tag routes (standard-attr-tag).
func (c *Cloud) taggable(plural string) bool {
	return !c.knobs.without["standard-attr-tag"] && plural != "security-group-rules"
}

func registerTags[T row](c *Cloud, s collection[T]) {
	path := "/v2.0/" + s.plural + "/{id}/tags"
	tags := func(do func(*call, *standard) (any, error)) func(*call) (any, error) {
		return func(q *call) (any, error) {
			find := s.owned
			if q.Method == http.MethodGet {
				find = s.lookup
			}
			r, err := find(q, q.PathValue("id"))
			if err != nil {
				return nil, err
			}
			return do(q, any(r).(interface{ std() *standard }).std())
		}
	}
	c.on("GET", prefixNetwork, path, route{do: tags(func(_ *call, std *standard) (any, error) {
		return map[string]any{"tags": std.Tags}, nil
	})})
	c.on("PUT", prefixNetwork, path, route{do: tags(replaceTags)})
	c.on("DELETE", prefixNetwork, path, route{status: http.StatusNoContent, do: tags(func(_ *call, std *standard) (any, error) {
		std.setTags(nil)
		return nil, nil
	})})
	c.on("GET", prefixNetwork, path+"/{tag}", route{status: http.StatusNoContent, do: tags(func(q *call, std *standard) (any, error) {
		if !slices.Contains(std.Tags, q.PathValue("tag")) {
			return nil, neutron(http.StatusNotFound, "TagNotFound", "Tag %s could not be found.", q.PathValue("tag"))
		}
		return nil, nil
	})})
	c.on("PUT", prefixNetwork, path+"/{tag}", route{status: http.StatusCreated, do: tags(func(q *call, std *standard) (any, error) {
		std.setTags(append(slices.Clone(std.Tags), q.PathValue("tag")))
		return nil, nil
	})})
	c.on("DELETE", prefixNetwork, path+"/{tag}", route{status: http.StatusNoContent, do: tags(func(q *call, std *standard) (any, error) {
		if !slices.Contains(std.Tags, q.PathValue("tag")) {
			return nil, neutron(http.StatusNotFound, "TagNotFound", "Tag %s could not be found.", q.PathValue("tag"))
		}
		std.setTags(slices.DeleteFunc(slices.Clone(std.Tags), func(t string) bool { return t == q.PathValue("tag") }))
		return nil, nil
	})})
}

func replaceTags(q *call, std *standard) (any, error) {
	var body struct {
		Tags []string `json:"tags"`
	}
	if err := json.Unmarshal(q.body, &body); err != nil || body.Tags == nil {
		q.misuse("bad body %q", q.body)
		return nil, neutron(http.StatusBadRequest, "HTTPBadRequest", "Invalid tags body")
	}
	for _, t := range body.Tags {
		if len(t) > 255 || t == "" {
			return nil, invalid("'%s' exceeds maximum length of 255.", t)
		}
	}
	std.setTags(body.Tags)
	return map[string]any{"tags": std.Tags}, nil
}

func (s *standard) setTags(tags []string) {
	s.Tags = append([]string{}, tags...)
	slices.Sort(s.Tags)
	s.Tags = slices.Compact(s.Tags)
	s.Revision++
	s.UpdatedAt = stamp()
}

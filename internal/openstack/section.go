package openstack

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// section is a part of a configuration file. Its values are strings as they are written (a password of 0123 stays one), sections,
// and lists of both. A value of null is left out.
type section map[string]any

func parse(data []byte) (section, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return nil, err
	}
	if doc.Kind == 0 {
		return nil, nil
	}
	left := maxNodes
	if err := count(&doc, map[*yaml.Node]bool{}, &left); err != nil {
		return nil, err
	}
	root, ok := plain(&doc).(section)
	if !ok {
		return nil, errors.New("it is not a mapping with a key \"clouds\"")
	}
	return root, nil
}

// maxNodes bounds a file with its aliases resolved: a few of them that name each other can stand for more than there is memory.
const maxNodes = 1 << 18

// count fails where plain would not end, or not soon. Within are the nodes that n is in.
func count(n *yaml.Node, within map[*yaml.Node]bool, left *int) error {
	if *left--; *left < 0 {
		return fmt.Errorf("with its aliases resolved it has more than %d values", maxNodes)
	}
	if within[n] {
		return fmt.Errorf("line %d: &%s contains itself", n.Line, n.Anchor)
	}
	within[n] = true
	defer delete(within, n)
	if n.Alias != nil {
		return count(n.Alias, within, left)
	}
	for _, item := range n.Content {
		if err := count(item, within, left); err != nil {
			return err
		}
	}
	return nil
}

// plain turns a node into strings, sections and lists, with aliases and merge keys ("<<: *base") resolved.
func plain(n *yaml.Node) any {
	switch n.Kind {
	case yaml.DocumentNode:
		return plain(n.Content[0])
	case yaml.AliasNode:
		return plain(n.Alias)
	case yaml.SequenceNode:
		var list []any
		for _, item := range n.Content {
			list = append(list, plain(item))
		}
		return list
	case yaml.MappingNode:
		s, base := section{}, section{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], plain(n.Content[i+1])
			switch {
			case key.Tag == "!!merge":
				base = mergeBase(base, value)
			case value != nil:
				s[key.Value] = value
			}
		}
		for key, value := range base {
			if _, ok := s[key]; !ok {
				s[key] = value
			}
		}
		return s
	case yaml.ScalarNode:
		if n.Tag != "!!null" {
			return n.Value
		}
	}
	return nil
}

// mergeBase adds what a merge key names, one section or a list of them of which the first wins.
func mergeBase(base section, value any) section {
	list, ok := value.([]any)
	if !ok {
		list = []any{value}
	}
	for _, item := range list {
		if from, ok := item.(section); ok {
			for key, v := range from {
				if _, ok := base[key]; !ok {
					base[key] = v
				}
			}
		}
	}
	return base
}

// merged is under with over laid upon it, section by section; neither is changed.
func merged(under, over section) section {
	result := maps.Clone(under)
	if result == nil {
		result = section{}
	}
	for key, value := range over {
		below, okBelow := result[key].(section)
		above, okAbove := value.(section)
		if okBelow && okAbove {
			result[key] = merged(below, above)
		} else {
			result[key] = value
		}
	}
	return result
}

// normalized writes keys with underscores, as openstacksdk does ("auth-url" is auth_url).
func normalized(s section) section {
	result := section{}
	for key, value := range s {
		if inner, ok := value.(section); ok {
			value = normalized(inner)
		}
		result[strings.ReplaceAll(key, "-", "_")] = value
	}
	return result
}

func sections(v any) map[string]section {
	result := map[string]section{}
	all, _ := v.(section)
	for name, value := range all {
		if s, ok := value.(section); ok {
			result[name] = s
		}
	}
	return result
}

// str is the first of the keys that has text.
func str(s section, keys ...string) string {
	for _, key := range keys {
		if v, ok := s[key].(string); ok && v != "" {
			return v
		}
	}
	return ""
}

// isTrue and isFalse know YAML 1.1's words, which Python's reader accepts.
func isTrue(v string) bool {
	return slices.Contains([]string{"true", "yes", "on", "1"}, strings.ToLower(v))
}

func isFalse(v string) bool {
	return slices.Contains([]string{"false", "no", "off", "0"}, strings.ToLower(v))
}

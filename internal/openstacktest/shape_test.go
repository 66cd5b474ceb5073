package openstacktest_test

import (
	"flag"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/gophercloud/gophercloud/v2"
)

var update = flag.Bool("update", false, "write testdata/shapes from the real cloud, in the tests tagged e2e")

// checkShapes holds what the cloud says about these things, and everything made through the client, against testdata/shapes: the
// fields of a real cloud and their types. The fake may leave fields out; what it shows is there, and of that type.
func (k *clients) checkShapes(urls ...string) {
	k.t.Helper()
	for _, x := range k.made() {
		if x.method == "DELETE" {
			urls = append(urls, strings.TrimSuffix(x.url, "?cascade=true"))
		}
	}
	shapes := map[string]string{}
	for _, url := range urls {
		var answer map[string]any
		resp, err := k.provider.Request(k.t.Context(), "GET", url, &gophercloud.RequestOpts{JSONResponse: &answer})
		must(k.t, err)
		_ = resp.Body.Close()
		if len(answer) > 1 { // Glance answers without an envelope
			answer = map[string]any{path.Base(path.Dir(url)): answer}
		}
		k.flatten(shapes, "", answer)
	}
	const file = "testdata/shapes"
	if *update && k.loose == nil {
		var lines []string
		for field, kind := range shapes {
			lines = append(lines, field+" "+kind+"\n")
		}
		slices.Sort(lines)
		must(k.t, os.WriteFile(file, []byte(strings.Join(lines, "")), 0o644))
	}
	raw, err := os.ReadFile(file)
	must(k.t, err)
	golden := map[string]string{}
	for line := range strings.Lines(string(raw)) {
		field, kind, _ := strings.Cut(strings.TrimSpace(line), " ")
		golden[field] = kind
	}
	for field, kind := range shapes {
		if want, ok := golden[field]; !ok && k.loose != nil || ok && want != kind && want != "null" && kind != "null" {
			k.t.Errorf("%s is a %s, want %q", field, kind, want)
		}
	}
	if k.loose != nil {
		return
	}
	for field := range golden {
		if _, ok := shapes[field]; !ok {
			k.t.Errorf("%s is no more", field)
		}
	}
}

// flatten names the types of the leaves of a JSON value by where they are; a key that has this run's name in it is a star.
func (k *clients) flatten(into map[string]string, field string, value any) {
	switch v := value.(type) {
	case map[string]any:
		for key, x := range v {
			if strings.Contains(key, k.run) {
				key = "*"
			}
			k.flatten(into, strings.TrimPrefix(field+"."+key, "."), x)
		}
	case []any:
		into[field] = "list"
		for _, x := range v {
			k.flatten(into, field+"[]", x)
		}
	case string:
		into[field] = "string"
	case bool:
		into[field] = "bool"
	case nil:
		if into[field] == "" {
			into[field] = "null"
		}
	default:
		into[field] = "number"
	}
}

package main

import (
	_ "embed"
	"fmt"
	"strings"

	"github.com/kuryrctl/kuryrctl/stack"
)

// doctorFrame is docs/doctor.md but for the lists, which are put where it says {{checks}} and {{extensions}}.
//
//go:embed testdata/doctor.md
var doctorFrame string

// doctorText is docs/doctor.md.
func doctorText() string {
	var checks, extensions strings.Builder
	about := ""
	for _, c := range stack.Checks() {
		if c.About != about {
			about = c.About
			fmt.Fprintf(&checks, "\n## %s\n\n| check | asks | looks at | whose, mostly |\n| --- | --- | --- | --- |\n", about)
		}
		fmt.Fprintf(&checks, "| `%s` | %s | %s | %s |\n", c.Name, c.Asked, c.Looks, c.Whose)
	}
	for _, x := range stack.Extensions() {
		if x.Needed {
			fmt.Fprintf(&extensions, "| `%s` | problem: %s |\n", x.Alias, x.Why)
		} else {
			fmt.Fprintf(&extensions, "| `%s` | warning: without it, %s |\n", x.Alias, x.Why)
		}
	}
	return strings.NewReplacer("{{checks}}", strings.TrimSpace(checks.String()), "{{extensions}}", strings.TrimSpace(extensions.String())).Replace(doctorFrame)
}

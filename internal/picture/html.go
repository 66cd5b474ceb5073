package picture

import (
	_ "embed"
	"html/template"
	"strings"

	"github.com/kuryrctl/kuryrctl/stack"
)

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"join": func(all []string) string { return strings.Join(all, " ") },
	"state": func(s string) template.HTML {
		if s == "" {
			return "-"
		}
		t := toneOf(s)
		return template.HTML(`<span class="` + t.String() + `">` + t.mark() + " " + escape(s) + "</span>")
	},
}).Parse(pageText))

// HTML is a page with a stack's topology and all that is known of the stack in tables.
func HTML(v *stack.View) string {
	var b strings.Builder
	data := struct {
		*stack.View
		Picture template.HTML // escaped as it was written
	}{v, template.HTML(SVG(v))}
	if err := page.Execute(&b, data); err != nil {
		panic(err) // of a template that is a constant, about a type that it knows
	}
	return cleanLines(b.String())
}

// Package templates holds the files that kuryrctl writes on hosts, with one function for each that fills it in. It owns their
// text and what makes their values safe in it; it has no logic and knows no host.
package templates

import (
	"bytes"
	"fmt"
	"text/template"
)

// render fills in a template; a value that is not there is an error, not "<no value>" on some host.
func render(name, text string, data any) ([]byte, error) {
	t, err := template.New(name).Option("missingkey=error").Parse(text)
	if err != nil {
		return nil, fmt.Errorf("parsing template %s: %w", name, err)
	}
	return execute(t, name, data)
}

func execute(t *template.Template, name string, data any) ([]byte, error) {
	var out bytes.Buffer
	if err := t.Execute(&out, data); err != nil {
		return nil, fmt.Errorf("rendering %s: %w", name, err)
	}
	return out.Bytes(), nil
}

package templates

import _ "embed"

//go:embed files/demo/demo.yaml.tmpl
var demo string

// DemoData is the deployment example: a Deployment, its Service and, with a host, a route to it.
type DemoData struct {
	Namespace, Name string
	Image           string
	Replicas        int
	Port            int    // of the pods
	Host            string // name of the route; "" for none
}

// Demo renders the manifest of the deployment example.
func Demo(d DemoData) ([]byte, error) { return render("demo.yaml", demo, d) }

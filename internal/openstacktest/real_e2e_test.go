//go:build e2e

package openstacktest_test

import (
	"testing"
	"time"

	"github.com/kuryrctl/kuryrctl/bootstrap/cloud"
)

// realPlaces are the lab's own cloud, which has to be up (`kuryrctl cloud up`).
func realPlaces(t testing.TB) []place {
	t.Helper()
	lab, err := cloud.Default()
	must(t, err)
	return []place{{name: "lab", file: lab.CloudsYAML(), dial: lab.DialContext, patience: 90 * time.Second, interval: 300 * time.Millisecond}}
}

//go:build !e2e

package openstacktest_test

import "testing"

// realPlaces are none in the tests that need no cloud.
func realPlaces(testing.TB) []place { return nil }

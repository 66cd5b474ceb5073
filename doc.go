// Package kuryrctl holds the tests that keep the house in order; the program is in cmd/kuryrctl, and docs/architecture.md is the
// place to start reading.
package kuryrctl

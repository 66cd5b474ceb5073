//go:build tools

// Package coredns pins CoreDNS. Nothing imports it; it keeps `go mod tidy` honest.
package coredns

import _ "github.com/coredns/coredns"

//go:build tools

// Package router pins Traefik. It is built from a copy of this directory, beside which makebundle puts lego with the package dns of
// this one in the place of its own (see there); `go mod tidy` works in such a copy too.
package router

import _ "github.com/traefik/traefik/v3/cmd/traefik"

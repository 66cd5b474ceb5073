// Package ext is where a distribution of Traefik puts options of its own. This one has none.
package ext

// HTTP are more options of the configuration of HTTP.
type HTTP struct{}

// Router are more options of a router.
type Router struct{}

// Package openstacktest is a stateful OpenStack in one process, for tests that
// speak to it with the real gophercloud: Keystone v3, Neutron 2.0, Nova 2.1 (to
// microversion 2.100), Glance 2, Octavia v2 and, with VolumeTypes and Zones, Cinder v3 and
// Designate v2 behind one HTTP server.
//
// It owns the rules a client can trip over: conflicts with the real error
// bodies, quotas, policy, asynchronous life cycles, tags in a call of their own,
// all-or-nothing bulk requests, ownership by project. It refuses to be lenient:
// an unknown route, query filter or body field fails the test that sent it.
//
// It does not move packets, it knows no project of ours, and it is no reference:
// where a real cloud disagrees, this package is wrong.
//
// Every service has a prefix on the one server, as behind a real API gateway:
//
//	/identity/v3  /networking/v2.0  /compute/v2.1  /image/v2  /block-storage/v3  /load-balancer/v2.0  /dns/v2
//
// Fail, Drop and the request log name paths without that prefix
// ("POST /v2.0/trunks"); a pattern that starts with a prefix matches too, which
// is only needed where two services share a path (quotas).
//
// Nothing happens by itself: a server leaves BUILD, a load balancer PENDING_* and
// a deleted thing disappears after it was shown a number of times (see Polls), so
// a test that polls without sleeping sees every state and never waits.
//
// Start reading at New in cloud.go, then serve.go and collection.go.
package openstacktest

// Package e2e holds the tests that need the lab cloud: a real OpenStack on this machine, brought up with `kuryrctl cloud up`. They
// drive the built binary as a person would and compare with what the stock openstack client says. Run them with `make e2e`; without
// a lab they fail, they do not skip.
package e2e

// Package hostporttest holds the tests of hostPort: the portmap plugin, as nodes have it in their list, between a worker, its router and
// its pods.
//
// It owns no code. It refuses the lab: the kernel of the lab's servers has no NAT, so a network of namespaces in this machine's kernel
// stands for Neutron's.
package hostporttest

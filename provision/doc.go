// Package provision makes, finds and removes the OpenStack resources of a stack, over gophercloud.
//
// It owns one file per kind (what it looks like when declared, how it is found, created, repaired and deleted), the discovery
// of everything that belongs to a stack, and the order of deletion. It does not know what a stack consists of (package stack
// says that) nor what runs inside a server.
//
// Ownership lives in the cloud and nowhere else: every object is born, in the very call that creates it, with a name
// "STACK/ROLE" and the description that [openstack.Mark] gives (servers carry it as metadata, key pairs and application
// credentials in their name). A crash after any call therefore leaves nothing that the next run does not recognise.
//
// Start reading at [Session] and kinds.
package provision

package provision

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/keypairs"

	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/internal/openstack"
)

// KeyPair is the public half of the stack's SSH key, known to Nova. The private half never leaves the machine it was made on.
type KeyPair struct {
	Base
	// Public returns the line of authorized_keys form, making the key first if need be.
	Public func() (string, error)
	// Known returns that line if the key is on this machine, else "".
	Known func() string
}

// ErrForeignKey means that Nova holds another public key under the stack's name than the one on this machine.
var ErrForeignKey = errors.New("the key pair in the cloud was made from another key")

// KeyPair declares the stack's key pair. Its name carries the project, since key pairs belong to a user.
func (s *Session) KeyPair(public func() (string, error), known func() string) *KeyPair {
	return &KeyPair{s.base("keypair", "main", s.userScoped()), public, known}
}

// Observe implements [graph.Resource].
func (k *KeyPair) Observe(context.Context) (graph.State, error) {
	if k.s.found.KeyPair == nil {
		return graph.State{}, nil
	}
	k.id = k.name
	if known := k.Known(); known != "" && !sameKey(known, k.s.found.KeyPair.PublicKey) {
		return graph.State{Phase: graph.Failed, ID: k.name, Detail: ErrForeignKey.Error()}, nil
	}
	return graph.State{Phase: graph.Ready, ID: k.name, Detail: k.s.found.KeyPair.Fingerprint}, nil
}

// Apply implements [graph.Resource].
func (k *KeyPair) Apply(ctx context.Context) error {
	public, err := k.Public()
	if err != nil {
		return err
	}
	body := map[string]any{"keypair": map[string]string{"name": k.name, "public_key": public}}
	err = call(ctx, k.s.Cloud, keypairCollection, http.MethodPost, "", body)
	if openstack.IsConflict(err) || openstack.IsAmbiguous(err) {
		there, lookErr := get[keypairs.KeyPair](ctx, k.s.Cloud, keypairCollection, k.name)
		switch {
		case lookErr == nil && sameKey(there.PublicKey, public):
			err = nil
		case lookErr == nil:
			err = fmt.Errorf("%w: delete key pair %s if no stack uses it", ErrForeignKey, k.name)
		}
	}
	if err != nil {
		return openstack.Wrap(err, "uploading key pair %s", k.name)
	}
	k.id = k.name
	return nil
}

// sameKey compares two lines of authorized_keys form without their comments.
func sameKey(a, b string) bool {
	var x, y [2]string
	fmt.Sscan(a, &x[0], &x[1])
	fmt.Sscan(b, &y[0], &y[1])
	return x == y
}

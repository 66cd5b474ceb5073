package provision

import (
	"context"
	"net/http"
	"net/url"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/applicationcredentials"

	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/internal/openstack"
)

// AppCredential is the stack's own login for what runs inside it, with the roles of its maker and no right to make others. Its
// secret is shown once, by the call that makes it.
type AppCredential struct {
	Base
	// Known reports whether the secret of the credential with this id is kept on this machine.
	Known func(id string) bool
	// Keep stores the secret.
	Keep func(id, secret string) error
}

// AppCredential declares the stack's application credential. Like a key pair it belongs to a user, so its name carries the project.
func (s *Session) AppCredential() *AppCredential {
	return &AppCredential{Base: s.base("appcredential", "main", s.userScoped())}
}

func (s *Session) appCredentials() collection {
	return keystone("users/"+s.Cloud.UserID()+"/application_credentials", "application_credential", "application_credentials")
}

// Observe implements [graph.Resource].
func (a *AppCredential) Observe(context.Context) (graph.State, error) {
	found := a.s.found.AppCredential
	if found == nil {
		return graph.State{}, nil
	}
	a.id = found.ID
	if !a.Known(found.ID) {
		return graph.State{Phase: graph.Drifted, ID: found.ID, Detail: "its secret is not on this machine"}, nil
	}
	return graph.State{Phase: graph.Ready, ID: found.ID}, nil
}

// Apply implements [graph.Resource]. One whose secret is lost is of no use and is replaced.
func (a *AppCredential) Apply(ctx context.Context) error {
	c := a.s.appCredentials()
	if a.id != "" {
		if err := remove(ctx, a.s.Cloud, c, "/"+a.id); err != nil {
			return openstack.Wrap(err, "replacing application credential %s", a.name)
		}
	}
	client, err := a.s.Cloud.Identity()
	if err != nil {
		return err
	}
	body := map[string]any{c.one: map[string]any{"name": a.name, "description": a.s.mark(), "unrestricted": false}}
	var made map[string]applicationcredentials.ApplicationCredential
	opts := &gophercloud.RequestOpts{OkCodes: []int{http.StatusCreated}}
	_, err = client.Post(ctx, client.ServiceURL(c.path), body, &made, opts)
	if openstack.IsAmbiguous(err) {
		// If it was made, its secret is lost with the reply; the next run sees a credential without a secret and replaces it.
		return openstack.Wrap(err, "creating application credential %s (run the command again)", a.name)
	}
	if openstack.IsForbidden(err) {
		// Keystone lets a restricted application credential make no others (https://docs.openstack.org/keystone/latest/user/application_credentials.html).
		return openstack.Wrap(err, "creating application credential %s (a login that is itself a restricted application credential cannot: use a password or an unrestricted one)", a.name)
	}
	if err != nil {
		return openstack.Wrap(err, "creating application credential %s", a.name)
	}
	a.id = made[c.one].ID
	return a.Keep(a.id, made[c.one].Secret)
}

// findAppCredential looks for the stack's credential among those of the user.
func (s *Session) findAppCredential(ctx context.Context) (*applicationcredentials.ApplicationCredential, error) {
	all, err := list[applicationcredentials.ApplicationCredential](ctx, s.Cloud, s.appCredentials(), url.Values{"name": {s.userScoped()}})
	if err != nil {
		if openstack.IsForbidden(err) || openstack.IsNotFound(err) { // a cloud may not offer them
			return nil, nil
		}
		return nil, err
	}
	for i := range all {
		if all[i].Name == s.userScoped() {
			return &all[i], nil
		}
	}
	return nil, nil
}

// Package openstack logs in to a cloud and hands out gophercloud clients that behave.
//
// It owns where credentials come from (clouds.yaml, secure.yaml, OS_*: the rules of openstacksdk), logging in again when a token
// ends, the one place where a request is retried, how many requests a service is given at once, what may appear in a log or in an
// error, how errors are read (predicates, the cloud's own sentence, request ids), and the mark by which an object says
// whose it is. It knows no resources: those are in package provision. It refuses Identity v2, tokens without a project, and
// federated logins.
//
// Start reading at [Connect], then transport.go.
package openstack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	osclient "github.com/gophercloud/gophercloud/v2/openstack"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/tokens"
)

// Options choose a cloud and the way to it. The zero value means what the openstack command would mean.
type Options struct {
	// Cloud is a name in clouds.yaml. Empty means OS_CLOUD, then the cloud that OS_AUTH_URL and its companions describe
	// ("envvars"), then the only cloud in the file.
	Cloud string
	// File is a clouds.yaml to use instead of the search path (OS_CLIENT_CONFIG_FILE, ./, $XDG_CONFIG_HOME/openstack,
	// ~/.config/openstack, /etc/openstack). With it the environment gives a name (OS_CLOUD) at most, never values: a left-over
	// OS_REGION_NAME must not leak into a cloud that was named in full.
	File string
	// Dial reaches the cloud from somewhere else, a network namespace for one; proxies of the environment do not apply then. Nil
	// dials from here.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Log gets one debug record for each request sent: never a body, a token or a secret. Nil logs nothing.
	Log *slog.Logger
	// Parallel is how many requests one service is given at once at most. Zero means 8.
	Parallel int
	// Backoff bounds the random wait before the first retry; each further bound is twice the one before. Zero means 250 ms.
	Backoff time.Duration
	// UserAgent is put in front of gophercloud's own.
	UserAgent string
}

// Cloud is one project of one cloud, logged in. It is safe for concurrent use and needs no closing.
type Cloud struct {
	Name string // as in clouds.yaml, or "envvars"

	provider  *gophercloud.ProviderClient
	transport *transport
	authURL   string
	iface     string
	region    string
	own       map[string]string
	ca        string   // path of the CA's certificate; "" trusts the system's
	secrets   []string // paths of the files that the login's secrets came from
	login     login
	endpoints []Endpoint

	mu      sync.Mutex
	clients map[string]*gophercloud.ServiceClient

	asking     chan struct{} // held while extensions is looked at
	extensions Extensions
}

// login is what Keystone says about a token (https://docs.openstack.org/api-ref/identity/v3/#password-authentication-with-scoped-authorization).
type login struct {
	Project struct{ ID, Name string }
	User    struct{ ID, Name string }
	Roles   []struct{ Name string }
	Expires time.Time             `json:"expires_at"`
	Catalog []tokens.CatalogEntry `json:"catalog"`
	// Credential is the application credential that logged in, if one did.
	Credential struct{ Restricted bool } `json:"application_credential"`
}

// Connect logs in. Its errors say which cloud, which URL, what was wrong and what to do about it; [IsNotConfigured] tells the
// case of no cloud at all.
func Connect(ctx context.Context, o Options) (*Cloud, error) {
	s, err := resolve(o)
	if err != nil {
		return nil, err
	}
	c, err := connect(ctx, o, s)
	if err != nil {
		return nil, fmt.Errorf("logging in to cloud %q at %s: %w", s.name, s.auth["auth_url"], err)
	}
	return c, nil
}

func connect(ctx context.Context, o Options, s *settings) (*Cloud, error) {
	ao, err := s.authOptions()
	if err != nil {
		return nil, err
	}
	tlsConfig, err := s.tlsConfig()
	if err != nil {
		return nil, err
	}
	provider, err := osclient.NewClient(ao.IdentityEndpoint)
	if err != nil {
		return nil, fmt.Errorf("reading auth_url: %w", err)
	}
	t := newTransport(o, tlsConfig)
	provider.HTTPClient = http.Client{Transport: t, CheckRedirect: checkRedirect}
	if o.UserAgent != "" {
		provider.UserAgent.Prepend(o.UserAgent)
	}
	// Straight to /v3: asking Keystone for its versions costs a request, and behind a proxy that ends TLS the links in the answer
	// are often wrong.
	if err := osclient.AuthenticateV3(ctx, provider, &ao, gophercloud.EndpointOpts{}); err != nil {
		return nil, explainLogin(err, s)
	}
	if again := provider.ReauthFunc; again != nil {
		provider.ReauthFunc = func(ctx context.Context) error {
			// Whoever meets the 401 first logs in for everybody, so its own cancellation must not fail the others.
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reauthTimeout)
			defer cancel()
			return again(ctx)
		}
	}
	l, err := loginOf(provider)
	if err != nil {
		return nil, err
	}
	if l.Project.ID == "" {
		return nil, errors.New("the token belongs to no project: set project_name (OS_PROJECT_NAME) or project_id")
	}
	c := &Cloud{
		Name: s.name, provider: provider, transport: t, authURL: ao.IdentityEndpoint, iface: s.iface, own: s.own,
		ca: s.cacert, secrets: s.secrets, login: l, endpoints: endpointsOf(l.Catalog), clients: map[string]*gophercloud.ServiceClient{},
		asking: make(chan struct{}, 1),
	}
	c.region, err = chooseRegion(c.endpoints, s.region)
	return c, err
}

// reauthTimeout bounds logging in again, which does not end with the request that began it.
const reauthTimeout = 2 * time.Minute

// loginOf reads the token that provider holds at this moment.
func loginOf(provider *gophercloud.ProviderClient) (login, error) {
	var l login
	var err error
	switch r := provider.GetAuthResult().(type) {
	case tokens.CreateResult:
		err = r.ExtractInto(&l)
	case tokens.GetResult:
		err = r.ExtractInto(&l)
	default:
		err = fmt.Errorf("unexpected kind of token %T", r)
	}
	if err != nil {
		return login{}, fmt.Errorf("reading the token: %w", err)
	}
	return l, nil
}

// ProjectID is the project the token is for.
func (c *Cloud) ProjectID() string { return c.login.Project.ID }

// ProjectName is the project's name within its domain.
func (c *Cloud) ProjectName() string { return c.login.Project.Name }

// UserID is the user who logged in; with an application credential, the one who made it.
func (c *Cloud) UserID() string { return c.login.User.ID }

// UserName is the user's name within its domain.
func (c *Cloud) UserName() string { return c.login.User.Name }

// Region is the one asked for or, where none was, the region of the cloud's network endpoint.
func (c *Cloud) Region() string { return c.region }

// AuthURL is Keystone's address as it was configured.
func (c *Cloud) AuthURL() string { return c.authURL }

// Interface is which of a service's endpoints is used: public, internal or admin.
func (c *Cloud) Interface() string { return c.iface }

// Own is what the configuration says for one service, by key: NETWORK_endpoint_override, _interface and _region_name, each in front of
// what counts for all.
func (c *Cloud) Own() map[string]string { return maps.Clone(c.own) }

// CACert is the certificate of the CA that the cloud's endpoints are trusted by, in PEM; nil is whatever the system trusts.
func (c *Cloud) CACert() ([]byte, error) {
	if c.ca == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(expand(c.ca))
	if err != nil {
		return nil, fmt.Errorf("reading cacert: %w", err)
	}
	return pem, nil
}

// Roles are the names of the user's roles in the project.
func (c *Cloud) Roles() []string {
	names := make([]string, len(c.login.Roles))
	for i, r := range c.login.Roles {
		names[i] = r.Name
	}
	return names
}

// Restricted tells that the login is an application credential which may make no others.
func (c *Cloud) Restricted() bool { return c.login.Credential.Restricted }

// SecretFiles are the paths of the files that the login's secrets came from: clouds.yaml, secure.yaml, the key of a TLS client. What
// the environment says is in none.
func (c *Cloud) SecretFiles() []string { return slices.Clone(c.secrets) }

// TokenExpires is when the present token ends. A new one is fetched then, unless the login was by token alone.
func (c *Cloud) TokenExpires() time.Time {
	l, err := loginOf(c.provider)
	if err != nil {
		return c.login.Expires
	}
	return l.Expires
}

// ClockSkew is how far the cloud's clock is ahead of ours (negative: behind), to about a second: neither the Date header of the
// last login nor the token's issued_at has a finer grain. Zero when both were missing.
func (c *Cloud) ClockSkew() time.Duration { return time.Duration(c.transport.skew.Load()) }

// Calls counts requests as the cloud saw them: retries count again.
type Calls struct {
	Reads  int // GET and HEAD
	Writes int // everything else but logins
	Auths  int // POST /auth/tokens
}

// Calls tells what was sent since [Connect] began.
func (c *Cloud) Calls() Calls {
	return Calls{Reads: int(c.transport.reads.Load()), Writes: int(c.transport.writes.Load()), Auths: int(c.transport.auths.Load())}
}

// Sent is one sending of a request: one that is sent again is two.
type Sent struct {
	Method, Path string
	Login        bool          // for a token
	Status       int           // 0 when no answer came
	Took         time.Duration // from the first byte out to the last one in
}

// Observe has f called after each sending from now on, for as long as the login is used. It must not block.
func (c *Cloud) Observe(f func(Sent)) {
	c.transport.mu.Lock()
	defer c.transport.mu.Unlock()
	c.transport.observers = append(slices.Clip(c.transport.observers), f)
}

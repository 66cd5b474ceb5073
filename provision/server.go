package provision

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"

	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/internal/wait"
)

// Server is a node of the stack, booted on a port that exists already.
type Server struct {
	Base
	Port          *Port
	KeyPair       *KeyPair
	Image, Flavor string // as [Session.Image] and [Session.Flavor] take them
	Hostname      string
	ConfigDrive   bool
	Volume        RootVolume
	Zone          string       // Nova's availability zone; "" leaves it to the cloud
	Group         *ServerGroup // nil for none; see [Server.In]
	// Login is the name to log in with, for an image; "" where it cannot be told. The server keeps it in its metadata, so that
	// whoever finds the server knows it.
	Login func(images.Image) (string, error)
	// UserData is asked for just before the server is created, and again if it is created anew.
	UserData func() ([]byte, error)

	found *servers.Server
	login string
}

// LoginMetadata is the key of a server's metadata under which its login is kept.
const LoginMetadata = "kuryrctl:login"

// LoginName is the name to log in with; "" before the server exists.
func (v *Server) LoginName() string { return v.login }

// Server declares the server "STACK/ROLE" on port p; after are further resources to have first, such as the trunk of p.
func (s *Session) Server(role string, p *Port, key *KeyPair, after ...graph.Resource) *Server {
	return &Server{Base: s.base("server", role, s.Name(role), append([]graph.Resource{p, key}, after...)...), Port: p, KeyPair: key}
}

// In makes the server a member of a group, which has to be there first.
func (v *Server) In(g *ServerGroup) {
	v.Group = g
	v.After(g)
}

// Observe implements [graph.Resource].
func (v *Server) Observe(context.Context) (graph.State, error) {
	found, err := sole("server", v.name, v.s.found.Servers,
		func(x servers.Server) bool { return x.Name == v.name }, func(x servers.Server) string { return x.ID })
	if found == nil || err != nil {
		return graph.State{}, err
	}
	v.id, v.found, v.login = found.ID, found, found.Metadata[LoginMetadata]
	state := graph.State{ID: v.id, Detail: found.Status}
	switch {
	case found.Status == "ACTIVE" && !v.Port.mayCarry(found.ID):
		state.Phase, state.Detail = graph.Failed, "it is not on port "+v.Port.name
	case found.Status == "ACTIVE":
		state.Phase, state.Detail = graph.Ready, v.Port.address.String()
	case slices.Contains(passing, found.Status):
		state.Phase = graph.Pending
	case found.Status == "ERROR":
		state.Phase, state.Detail = graph.Failed, "ERROR: "+found.Fault.Message
	default:
		state.Phase = graph.Drifted
	}
	return state, nil
}

// mayCarry is false when the port is known to be on another server, or on none. Ports and servers are listed at slightly
// different moments, so a port without a server may have got one since.
func (p *Port) mayCarry(server string) bool {
	return !p.fresh && (p.device == "" || p.device == server)
}

// passing are the states of a server that is on its way to ACTIVE by itself.
var passing = []string{"BUILD", "REBOOT", "HARD_REBOOT"}

// Apply implements [graph.Resource]. A server in ERROR is replaced once: it holds its port, and nothing heals it. One that a
// person paused, shelved or took off its port is left to that person.
func (v *Server) Apply(ctx context.Context) error {
	if v.found != nil && v.found.Status == "ERROR" {
		if err := v.s.deleteServer(ctx, v.id, v.name); err != nil {
			return err
		}
		gone := v.id
		v.id, v.found = "", nil
		v.s.note(func(i *Inventory) {
			i.Servers = slices.DeleteFunc(slices.Clone(i.Servers), func(x servers.Server) bool { return x.ID == gone })
		})
	}
	switch {
	case v.found == nil:
		if err := v.create(ctx); err != nil {
			return openstack.Wrap(err, "creating server %s", v.name)
		}
	case v.found.Status == "SHUTOFF":
		err := call(ctx, v.s.Cloud, serverCollection, http.MethodPost, "/"+v.id+"/action", map[string]any{"os-start": nil})
		if err != nil && !openstack.IsConflict(err) {
			return openstack.Wrap(err, "starting server %s", v.name)
		}
	case v.found.Status == "ACTIVE":
		return fmt.Errorf("server %s is not on port %s: delete the server and run the command again", v.name, v.Port.name)
	case !slices.Contains(passing, v.found.Status):
		return fmt.Errorf("server %s is %s: bring it back to ACTIVE, or delete it and run the command again", v.name, v.found.Status)
	}
	return v.waitActive(ctx)
}

func (v *Server) create(ctx context.Context) error {
	image, err := v.s.Image(ctx, v.Image)
	if err != nil {
		return err
	}
	flavor, err := v.s.Flavor(ctx, v.Flavor)
	if err != nil {
		return err
	}
	if v.login, err = v.Login(image); err != nil {
		return err
	}
	userData, err := v.UserData()
	if err != nil {
		return err
	}
	metadata := openstack.ServerMetadata(v.s.Stack, string(v.key))
	metadata[LoginMetadata] = v.login
	body := map[string]any{
		"name": v.name, "imageRef": image.ID, "flavorRef": flavor.ID, "key_name": v.KeyPair.id, "metadata": metadata,
		// Encoded here because gophercloud sends bytes that happen to be valid base64 as they are.
		"user_data": base64.StdEncoding.EncodeToString(userData),
		"networks":  []map[string]string{{"port": v.Port.id}},
	}
	if v.ConfigDrive {
		body["config_drive"] = true
	}
	if v.Volume.Size > 0 {
		delete(body, "imageRef")
		body["block_device_mapping_v2"] = v.Volume.mapping(image.ID)
	}
	if v.Zone != "" {
		body["availability_zone"] = v.Zone
	}
	var beside map[string]any
	if v.Group != nil {
		beside = map[string]any{"os:scheduler_hints": map[string]any{"group": v.Group.id}}
	}
	c := serverCollection
	switch {
	case v.s.computeVersion(ctx) >= 90: // 2.90 lets the name differ from the host name; before it, cloud-init alone sets it
		body["hostname"] = v.Hostname
		c = c.at("2.90")
	case v.Volume.Type != "":
		c = c.at(fmt.Sprint("2.", typedVolumes))
	}
	made, err := create[servers.Server](ctx, v.s, c, birth{
		body: body, beside: beside, find: url.Values{"name": {"^" + regexp.QuoteMeta(v.name) + "$"}},
		ours: func(raw json.RawMessage) bool {
			var x servers.Server
			return json.Unmarshal(raw, &x) == nil && v.s.ownsServer(x)
		},
	})
	if err != nil {
		return err
	}
	v.id = made.ID
	return nil
}

// waitActive waits for Nova. The create call answers 202 and scheduling fails afterwards, so ERROR is looked for too.
func (v *Server) waitActive(ctx context.Context) error {
	begin, listed := time.Now(), false
	return wait.For(ctx, "server "+v.name+" to become ACTIVE", v.s.every(), func(ctx context.Context) (string, bool, error) {
		x, err := v.s.servers.look(ctx, v.s, v.id)
		switch {
		case err != nil:
			return "", false, err
		case x == nil && (listed || time.Since(begin) > consistency):
			return "", false, errors.New("it has disappeared from the cloud")
		case x == nil:
			return "not listed yet", false, nil
		case x.Status == "ERROR":
			return "", false, faultOf(v.fault(ctx, x))
		}
		listed = true
		if x.Status == "ACTIVE" {
			v.s.note(func(i *Inventory) {
				i.Servers = put(i.Servers, *x, func(x servers.Server) string { return x.ID })
			})
		}
		return x.Status, x.Status == "ACTIVE", nil
	})
}

// consistency is how long a new object may be missing from a list: cells and database replicas answer late.
const consistency = 10 * time.Second

// fault asks for the reason of an ERROR; some clouds leave it out of lists.
func (v *Server) fault(ctx context.Context, x *servers.Server) string {
	if x.Fault.Message == "" {
		if one, err := get[servers.Server](ctx, v.s.Cloud, serverCollection, x.ID); err == nil {
			x = one
		}
	}
	if x.Fault.Message == "" {
		return "it gives no reason"
	}
	return x.Fault.Message
}

// Fault is what Nova says about a server in ERROR, or "". Some clouds leave it out of lists.
func (s *Session) Fault(ctx context.Context, id string) string {
	for _, v := range s.found.Servers {
		if v.ID == id && v.Fault.Message != "" {
			return v.Fault.Message
		}
	}
	one, err := get[servers.Server](ctx, s.Cloud, serverCollection, id)
	if err != nil {
		return ""
	}
	return one.Fault.Message
}

// listServers lists the servers under the stack's name. Nova's name filter is a regular expression.
func (s *Session) listServers(ctx context.Context) ([]servers.Server, error) {
	return list[servers.Server](ctx, s.Cloud, serverCollection, url.Values{"name": {"^" + regexp.QuoteMeta(s.Stack+"/")}})
}

// deleteServer deletes a server and waits until it is gone, since until then it holds its port and its trunk.
func (s *Session) deleteServer(ctx context.Context, id, name string) error {
	if err := remove(ctx, s.Cloud, serverCollection, "/"+id); err != nil {
		return openstack.Wrap(err, "deleting server %s", name)
	}
	asked := time.Now()
	return wait.For(ctx, "server "+name+" to be gone", s.every()/2, func(ctx context.Context) (string, bool, error) {
		x, err := s.servers.look(ctx, s, id)
		if err != nil {
			return "", false, err
		}
		if x == nil {
			return "", s.servers.since(asked), nil
		}
		if x.Status == "ERROR" && s.servers.since(asked) && x.TaskState == "" {
			return "", false, fmt.Errorf("deleting it ended in ERROR: %s", x.Fault.Message)
		}
		return x.Status, false, nil
	})
}

// poller shares one list of servers between all who wait for one: the number of calls does not grow with the number of nodes.
type poller struct {
	mu   sync.Mutex
	at   time.Time // when the last list was asked for
	seen map[string]*servers.Server
}

// look returns the server as of a list not older than nine tenths of the poll interval or than the call, or nil if it is not there. All who
// come during a list, which takes seconds where there are many servers, share the next one.
func (p *poller) look(ctx context.Context, s *Session, id string) (*servers.Server, error) {
	came := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.at.Before(came) && time.Since(p.at) >= s.every()*9/10 {
		at := time.Now()
		all, err := s.listServers(ctx)
		if err != nil {
			return nil, err
		}
		p.at, p.seen = at, map[string]*servers.Server{}
		for i := range all {
			p.seen[all[i].ID] = &all[i]
		}
	}
	return p.seen[id], nil
}

// since reports whether the last list was asked for after t.
func (p *poller) since(t time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.at.After(t)
}

// computeVersion is the minor number of the newest compute microversion (2.N), or 0 if the cloud does not tell.
func (s *Session) computeVersion(ctx context.Context) int {
	version, err := s.lookups.once(ctx, "compute version", func(ctx context.Context) (string, error) {
		client, err := s.Cloud.Compute()
		if err != nil {
			return "", err
		}
		var doc struct{ Version struct{ Version string } }
		_, err = client.Get(ctx, client.Endpoint, &doc, nil)
		return doc.Version.Version, err
	})
	if err != nil {
		return 0
	}
	minor, _ := strconv.Atoi(strings.TrimPrefix(version, "2."))
	return minor
}

// Console is the end of a server's console log as Nova keeps it; 0 lines are all of it.
func (s *Session) Console(ctx context.Context, serverID string, lines int) (string, error) {
	client, err := s.Cloud.Compute()
	if err != nil {
		return "", err
	}
	ask := map[string]any{}
	if lines > 0 {
		ask["length"] = lines
	}
	var answer struct{ Output string }
	_, err = client.Post(ctx, client.ServiceURL("servers", serverID, "action"), map[string]any{"os-getConsoleOutput": ask}, &answer,
		&gophercloud.RequestOpts{OkCodes: []int{http.StatusOK}})
	return answer.Output, openstack.Wrap(err, "reading the console of server %s", serverID)
}

// faultOf is why a server is in ERROR. A quota that two servers met at once is told there, since Nova counts once more after it has taken them.
func faultOf(fault string) error {
	if strings.HasPrefix(fault, "Quota exceeded") {
		return fmt.Errorf("the cloud could not boot it: %w", openstack.QuotaError(fault))
	}
	return fmt.Errorf("the cloud could not boot it: %s", fault)
}

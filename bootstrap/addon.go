package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/kuryrctl/kuryrctl/bootstrap/cluster"
	"github.com/kuryrctl/kuryrctl/bootstrap/ssh"
	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/internal/wait"
	"github.com/kuryrctl/kuryrctl/templates"
)

// addon is something of our own that is in the cluster: objects of a manifest, and often a Deployment that they end in.
type addon struct {
	key graph.Key
	// definitions are a manifest of kinds that the other has objects of. They stay when it is turned off. It may be nil.
	definitions func() ([]byte, error)
	// manifest renders it. Nothing may be made for it unless that is allowed; then there may be a state in its place that says what is missing.
	manifest func(ctx context.Context, client *ssh.Client, api *cluster.Cluster, allowed bool) ([]byte, *graph.State, error)
	// The Deployment that has to run, none when it has no name.
	namespace, deployment string
	// lacks says what keeps it from working once its pods are ready, or "". It may be nil.
	lacks func(context.Context, *cluster.Cluster) (string, error)
}

// runLimit is how long the pods of an add-on may take to be ready.
const runLimit = 5 * time.Minute

// install is the state of an add-on that is wanted.
func (c *Cluster) install(a addon, first *Node, needs ...graph.Resource) *step {
	s := &step{key: a.key, node: first, needs: needs}
	s.look = func(ctx context.Context, client *ssh.Client) (graph.State, error) {
		if !c.hasKubeconfig() {
			return graph.State{}, nil
		}
		api, err := c.API()
		if err != nil {
			return graph.State{}, err
		}
		manifest, state, err := a.manifest(ctx, client, api, false)
		if err != nil {
			return graph.State{}, err
		}
		if state != nil {
			return *state, nil
		}
		differ, err := a.differs(ctx, api, manifest)
		if err != nil || len(differ) > 0 {
			return graph.State{Phase: graph.Drifted, Detail: "to be applied: " + strings.Join(differ, ", ")}, err
		}
		lacks, err := a.unready(ctx, api)
		return found(lacks, "as applied"), err
	}
	s.do = func(ctx context.Context, client *ssh.Client) error {
		api, err := c.API()
		if err != nil {
			return err
		}
		manifest, _, err := a.manifest(ctx, client, api, true)
		if err != nil {
			return err
		}
		if err := a.apply(ctx, api, manifest); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeoutCause(ctx, runLimit, fmt.Errorf("look at `kubectl -n %s get pods,events`", a.namespace))
		defer cancel()
		return wait.For(ctx, string(a.key)+" to run", 500*time.Millisecond, func(ctx context.Context) (string, bool, error) {
			lacks, err := a.unready(ctx, api)
			if err != nil { // an API server may go for a moment, and its answer with it
				return err.Error(), false, nil
			}
			return lacks, lacks == "", nil
		})
	}
	return s
}

// differs says what apply would create or change.
func (a addon) differs(ctx context.Context, api *cluster.Cluster, manifest []byte) (all []string, err error) {
	if a.definitions != nil {
		definitions, err := a.definitions()
		if err != nil {
			return nil, err
		}
		undefined, err := api.Undefined(ctx, definitions)
		if err != nil {
			return nil, err
		}
		if n := len(undefined); n > 0 {
			all = append(all, fmt.Sprintf("definitions (%d)", n))
		}
	}
	differ, err := api.Differs(ctx, manifest)
	return append(all, differ...), err
}

func (a addon) apply(ctx context.Context, api *cluster.Cluster, manifest []byte) error {
	if a.definitions != nil {
		definitions, err := a.definitions()
		if err != nil {
			return err
		}
		if err := api.Define(ctx, definitions); err != nil {
			return err
		}
	}
	return api.Apply(ctx, manifest)
}

func (a addon) unready(ctx context.Context, api *cluster.Cluster) (string, error) {
	if a.deployment != "" {
		if lacks, err := api.Unfinished(ctx, a.namespace, a.deployment); err != nil || lacks != "" {
			return lacks, err
		}
	}
	if a.lacks == nil {
		return "", nil
	}
	return a.lacks(ctx, api)
}

// withdraw is the state of an add-on that is not wanted.
func (c *Cluster) withdraw(key graph.Key, render func() ([]byte, error), first *Node, needs ...graph.Resource) *step {
	s := &step{key: key, node: first, needs: needs}
	s.look = func(ctx context.Context, _ *ssh.Client) (graph.State, error) {
		if !c.hasKubeconfig() {
			return graph.State{}, nil
		}
		api, err := c.API()
		if err != nil {
			return graph.State{}, err
		}
		manifest, err := render()
		if err != nil {
			return graph.State{}, err
		}
		there, err := api.Remains(ctx, manifest)
		if err != nil || len(there) > 0 {
			return graph.State{Phase: graph.Drifted, Detail: "to be removed: " + strings.Join(there, ", ")}, err
		}
		return graph.State{Phase: graph.Ready, Detail: "is turned off"}, nil
	}
	s.do = func(ctx context.Context, _ *ssh.Client) error {
		api, err := c.API()
		if err != nil {
			return err
		}
		manifest, err := render()
		if err != nil {
			return err
		}
		if err := api.Withdraw(ctx, manifest); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeoutCause(ctx, runLimit, errors.New("look at the conditions of the namespace"))
		defer cancel()
		return wait.For(ctx, "what is turned off to be gone", 500*time.Millisecond, func(ctx context.Context) (string, bool, error) {
			there, err := api.Remains(ctx, manifest)
			if err != nil {
				return err.Error(), false, nil
			}
			return strings.Join(there, ", ") + " is there", len(there) == 0, nil
		})
	}
	return s
}

// hasKubeconfig reports whether there is a cluster to ask.
func (c *Cluster) hasKubeconfig() bool {
	_, err := os.Stat(c.Kubeconfig)
	return err == nil
}

// image is the reference of a component's image in the bundle, for the first node's architecture.
func (c *Cluster) image(ctx context.Context, first *Node, client *ssh.Client, component string) (string, error) {
	r, err := c.release(ctx, first, client)
	if err != nil {
		return "", err
	}
	return ref(r, component)
}

// RouterOptions are what is declared of the router.
type RouterOptions struct {
	Enabled     bool
	Replicas    int
	HostNetwork bool

	// GatewayAPI are the definitions of its kinds. What is turned off does not need them.
	GatewayAPI func() ([]byte, error)
}

// Router is what leads requests from outside to pods: Traefik, behind a Service of type LoadBalancer, for Ingresses and for routes of the
// Gateway API.
func (c *Cluster) Router(first *Node, o RouterOptions, needs ...graph.Resource) graph.Resource {
	const key = "addon.router"
	render := func(image string) ([]byte, error) {
		return templates.Router(templates.RouterData{Image: image, Replicas: o.Replicas, HostNetwork: o.HostNetwork})
	}
	if !o.Enabled {
		return c.withdraw(key, func() ([]byte, error) { return render("none") }, first, needs...)
	}
	return c.install(addon{key: key, definitions: o.GatewayAPI, namespace: "kuryr-router", deployment: "router",
		manifest: func(ctx context.Context, client *ssh.Client, _ *cluster.Cluster, _ bool) ([]byte, *graph.State, error) {
			image, err := c.image(ctx, first, client, "traefik")
			if err != nil {
				return nil, nil, err
			}
			manifest, err := render(image)
			return manifest, nil, err
		},
		lacks: func(ctx context.Context, api *cluster.Cluster) (string, error) {
			addresses, err := api.External(ctx, "kuryr-router", "router")
			if err != nil {
				return "", err
			}
			if len(addresses) == 0 {
				return "its load balancer has no address", nil
			}
			return api.Unprogrammed(ctx, "kuryr-router", "router")
		}}, first, needs...)
}

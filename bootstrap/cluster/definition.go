package cluster

import (
	"cmp"
	"context"
	"errors"
	"time"

	"golang.org/x/mod/semver"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kuryrctl/kuryrctl/internal/wait"
)

// The annotations in which a definition of the Gateway API says what it is; its owners have settled on these names for everybody who
// installs it.
const (
	bundleVersion = "gateway.networking.k8s.io/bundle-version"
	channel       = "gateway.networking.k8s.io/channel"
)

// defineLimit is how long kinds may take to be served once they are defined; an API server that is one of several waits 5 s with each.
const defineLimit = time.Minute

// Undefined names the definitions of the Gateway API in a manifest that [Cluster.Define] would create or change: those that the cluster lacks
// or has older. One as new or newer, or of another channel, stays as it is: who installed it may have objects that depend on it.
func (c *Cluster) Undefined(ctx context.Context, manifest []byte) (names []string, err error) {
	err = c.eachUndefined(ctx, manifest, func(o *unstructured.Unstructured) error {
		names = append(names, o.GetName())
		return nil
	})
	return names, err
}

// Define makes the cluster have what is [Cluster.Undefined] of a manifest, and returns when all kinds in it are served. Nothing here deletes a
// definition: every object of its kind would go with it.
func (c *Cluster) Define(ctx context.Context, manifest []byte) error {
	err := c.eachUndefined(ctx, manifest, func(o *unstructured.Unstructured) error {
		_, err := c.patch(ctx, o, "")
		return err
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, defineLimit, errors.New("look at the conditions of the definition"))
	defer cancel()
	return each("defining", manifest, func(o *unstructured.Unstructured) error {
		return wait.For(ctx, "it to be served", 200*time.Millisecond, func(ctx context.Context) (string, bool, error) {
			is, err := c.object(ctx, o)
			if err != nil || is == nil {
				return "", false, err
			}
			established, err := conditionOf(is, "Established")
			return established.Message, established.Status == "True", err
		})
	})
}

func (c *Cluster) eachUndefined(ctx context.Context, manifest []byte, do func(*unstructured.Unstructured) error) error {
	return each("defining", manifest, func(o *unstructured.Unstructured) error {
		is, err := c.object(ctx, o)
		if err != nil {
			return err
		}
		if is != nil {
			there, ours := is.GetAnnotations(), o.GetAnnotations()
			other := there[channel] != "" && there[channel] != ours[channel]
			if other || semver.Compare(there[bundleVersion], ours[bundleVersion]) >= 0 {
				return nil
			}
		}
		return do(o)
	})
}

// Unprogrammed says what keeps a Gateway from leading anywhere, or "".
func (c *Cluster) Unprogrammed(ctx context.Context, namespace, name string) (string, error) {
	o, err := c.named(ctx, "gateway.networking.k8s.io/v1", "Gateway", namespace, name)
	if err != nil {
		return "", err
	}
	if o == nil {
		return "there is no gateway " + name, nil
	}
	programmed, err := conditionOf(o, "Programmed")
	if err != nil || programmed.Status == "True" && programmed.ObservedGeneration >= o.GetGeneration() {
		return "", err
	}
	return "its gateway is not programmed: " + cmp.Or(programmed.Message, "nobody has looked at it"), nil
}

type condition struct {
	Type, Status, Message string
	ObservedGeneration    int64
}

// conditionOf is the condition of that type in an object's status; one that is not there has no status.
func conditionOf(o *unstructured.Unstructured, name string) (condition, error) {
	var with struct {
		Status struct{ Conditions []condition }
	}
	if err := read(o, &with); err != nil {
		return condition{}, err
	}
	for _, c := range with.Status.Conditions {
		if c.Type == name {
			return c, nil
		}
	}
	return condition{}, nil
}

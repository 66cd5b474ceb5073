package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/kuryrctl/kuryrctl/bootstrap/cloud"
	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/stack"
)

// errLabDown means that the lab's own cloud was named and does not run.
var errLabDown = errors.New("the cloud of this machine is not running")

// noCloudError is any reason why there is no cloud to speak to: none named, none reached, or one that lets us not in.
type noCloudError struct{ error }

func (e noCloudError) Unwrap() error { return e.error }

// cloudName is the cloud that was named by a flag or by OS_CLOUD, or "".
func (a *app) cloudName() string {
	if a.cloud != "" {
		return a.cloud
	}
	return os.Getenv("OS_CLOUD")
}

// isLab reports whether a name is one of the two clouds of `kuryrctl cloud`. They are built in: a clouds.yaml cannot redefine them.
func isLab(name string) bool { return name == "lab" || name == "lab-admin" }

// connect logs in to the cloud that was named.
func (a *app) connect(ctx context.Context) (*openstack.Cloud, error) {
	o := openstack.Options{Cloud: a.cloudName(), Dial: a.dial, Log: a.log, UserAgent: "kuryrctl"}
	if isLab(o.Cloud) {
		lab, err := cloud.Default()
		if err != nil {
			return nil, err
		}
		if !lab.Running() {
			return nil, noCloudError{errLabDown}
		}
		a.dial = lab.DialContext
		o.File, o.Dial = lab.CloudsYAML(), a.dial
	}
	c, err := openstack.Connect(ctx, o)
	if err != nil {
		return nil, noCloudError{err}
	}
	return c, nil
}

// open logs in and prepares the stack of that name. Close it when done.
func (a *app) open(ctx context.Context, name string) (*openstack.Cloud, *stack.Stack, error) {
	a.stackName = name
	if err := stack.CheckName(name); err != nil {
		return nil, nil, usageError{err}
	}
	c, err := a.connect(ctx)
	if err != nil {
		return nil, nil, err
	}
	s, err := stack.Open(c, name, stack.Options{Dial: a.dial, Log: a.log, Poll: a.poll})
	return c, s, err
}

// bringUp starts the lab's cloud if it was named, does not run, and it is wanted: by a flag or by a person's answer.
func (a *app) bringUp(cmd *cobra.Command, wanted bool) error {
	if !isLab(a.cloudName()) {
		if wanted {
			return usageError{fmt.Errorf("--up starts the cloud lab, and the cloud named is %q", a.cloudName())}
		}
		return nil
	}
	lab, err := cloud.Default()
	if err != nil {
		return err
	}
	if !wanted && !lab.Running() {
		wanted, _ = a.confirm(cmd.Context(), "The cloud lab is not running. Start it? The first time takes minutes.")
	}
	if !wanted {
		return nil
	}
	return cloudUp(cmd, lab, cloud.UpOptions{}, false)
}

// whichCloud is what to do when no cloud is configured. A lab that runs is offered and never taken silently: what is made in it
// would be looked for elsewhere.
func (a *app) whichCloud() string {
	if lab, err := cloud.Default(); err == nil && lab.Running() {
		return "the cloud of this machine is running: name it with --cloud lab"
	}
	return "name a cloud of a clouds.yaml with --cloud, or set OS_CLOUD or OS_AUTH_URL and its companions; `kuryrctl cloud up` makes a cloud on this machine, named lab"
}

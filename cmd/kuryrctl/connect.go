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

// way is how to log in to the cloud of that name ("" is what OpenStack's own rules choose), and how its hosts are reached.
func (a *app) way(name string) (openstack.Options, stack.Dialer, error) {
	o := openstack.Options{Cloud: name, Dial: a.dial, Log: a.log, UserAgent: "kuryrctl"}
	if !isLab(name) {
		return o, a.dial, nil
	}
	lab, err := cloud.Default()
	if err == nil && !lab.Running() {
		err = errLabDown
	}
	if err != nil {
		return o, nil, noCloudError{err}
	}
	o.File, o.Dial = lab.CloudsYAML(), lab.DialContext
	return o, lab.DialContext, nil
}

// login logs in to the cloud of that name.
func (a *app) login(ctx context.Context, name string) (*openstack.Cloud, stack.Dialer, error) {
	o, dial, err := a.way(name)
	if err != nil {
		return nil, nil, err
	}
	c, err := openstack.Connect(ctx, o)
	if err != nil {
		return nil, nil, noCloudError{err}
	}
	return c, dial, nil
}

// open logs in and prepares the stack of that name. The cloud called admin, if any, may raise the project's quotas. Close the stack
// when done.
func (a *app) open(ctx context.Context, name, admin string) (*openstack.Cloud, *stack.Stack, error) {
	a.stackName = name
	if err := stack.CheckName(name); err != nil {
		return nil, nil, usageError{err}
	}
	c, dial, err := a.login(ctx, a.cloudName())
	if err != nil {
		return nil, nil, err
	}
	o := stack.Options{Dial: dial, Log: a.log, Poll: a.poll, Bundle: a.bundle, TSIGKey: os.Getenv("KURYRCTL_TSIG_KEY")}
	if admin != "" {
		if o.Admin, _, err = a.login(ctx, admin); err != nil {
			return nil, nil, err
		}
	}
	s, err := stack.Open(c, name, o)
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

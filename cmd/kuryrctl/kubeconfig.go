package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/kuryrctl/kuryrctl/bootstrap/cluster"
	"github.com/kuryrctl/kuryrctl/stack"
)

func (a *app) newKubeconfigCommand() *cobra.Command {
	var merge bool
	var o cluster.MergeOptions
	cmd := &cobra.Command{
		Use:   "kubeconfig NAME",
		Short: "Print the administrator's kubeconfig of a stack, or merge it into your own",
		Long: `Print the administrator's kubeconfig of a stack, and nothing else. It was fetched when the stack was made and stays on that machine; no cloud
is asked for it, and --cloud is needed only when stacks of several clouds have this name. The API is reached at the floating IP of the stack's load
balancer.

With --merge it becomes an entry called NAME in your own kubeconfig (the first file of KUBECONFIG, or ~/.kube/config), whose former content is kept
beside it. unstack takes the entry out again.`,
		Example: "  kuryrctl kubeconfig demo >demo.kubeconfig\n  kuryrctl kubeconfig demo --merge --switch",
		Args:    names("NAME"),

		ValidArgsFunction: a.completeStacks,
	}
	f := cmd.Flags()
	f.BoolVar(&merge, "merge", false, "merge it into your own kubeconfig instead of printing it")
	f.BoolVar(&o.Switch, "switch", false, "with --merge: make it the current context")
	f.BoolVar(&o.Force, "force", false, "with --merge: replace an entry of the same name that belongs to another cluster")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !merge && (o.Switch || o.Force) {
			return usageError{errors.New("--switch and --force say how to merge: give --merge too")}
		}
		found, err := a.findFile(cmd, args[0], stack.FindKubeconfig, (*stack.Stack).KubeconfigPath)
		if err != nil {
			return err
		}
		config, err := os.ReadFile(found)
		if err != nil {
			return fmt.Errorf("reading the kubeconfig of %s: %w", args[0], err)
		}
		if !merge {
			_, err = a.stdout.Write(config)
			return err
		}
		path, err := cluster.UserFile()
		if err != nil {
			return err
		}
		r, err := cluster.Merge(cmd.Context(), path, config, o)
		if err != nil {
			return err
		}
		switch {
		case !r.Changed:
			a.say("%s has %s as it is", path, r.Name)
		case r.Backup == "":
			a.say("%s is new, with %s", path, r.Name)
		default:
			a.say("%s has %s now; what it was is in %s", path, r.Name, r.Backup)
		}
		if r.Current != r.Name {
			a.say("the current context is still %s: use `kubectl --context %s`, or --switch", r.Current, r.Name)
		}
		return nil
	}
	return cmd
}

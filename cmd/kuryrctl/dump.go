package main

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/stack"
)

func (a *app) newDumpCommand() *cobra.Command {
	var path string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "dump NAME",
		Short: "Write all that tells how a stack is into one file, without its secrets",
		Long: `Write all that tells how a stack is into one archive, to be looked at elsewhere: what was declared, the plan, what doctor finds, every
object in the cloud, consoles, what kuryrctl ran on the nodes; and as far as nodes and API answer, journals, logs, pods and events.

What cannot be had is named in errors.txt there, and does not stop the rest. Keys, tokens, passwords and whatever looks like one are
masked; all the same, look at it before you hand it on: it has names and addresses.`,
		Example: "  kuryrctl dump demo\n  kuryrctl dump demo -f lab.yaml -o demo.tar.gz --timeout 1m",
		Args:    names("NAME"),

		ValidArgsFunction: a.completeStacks,
	}
	lab := addLabFile(cmd)
	cmd.Flags().StringVarP(&path, "output", "o", "", "the `file` to write, a tar.gz (default: kuryrctl-dump-NAME-TIME.tar.gz)")
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Minute, "write what there is after this time")
	cobra.CheckErr(cmd.MarkFlagFilename("output", "tar.gz"))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		a.stackName = args[0]
		if err := stack.CheckName(a.stackName); err != nil {
			return usageError{err}
		}
		config, err := lab.read(a.stdin)
		if err != nil {
			return usageError{err}
		}
		about, err := thisVersion()
		if err != nil {
			return err
		}
		way, dial, noWay := a.way(a.cloudName())
		connect := func(ctx context.Context) (*openstack.Cloud, error) {
			if noWay != nil {
				return nil, noWay
			}
			return openstack.Connect(ctx, way)
		}
		path := cmp.Or(path, fmt.Sprintf("kuryrctl-dump-%s-%s.tar.gz", a.stackName, time.Now().UTC().Format("20060102T150405Z")))
		missing, err := stack.Dump(cmd.Context(), a.stackName, config, connect, stack.DumpOptions{
			Options: stack.Options{Dial: dial, Log: a.log, Poll: a.poll}, Path: path, Timeout: timeout, About: about,
			On: func(what string) { a.say("dump: %s", what) },
		})
		if err != nil {
			return err
		}
		if missing > 0 {
			a.say("%d parts could not be had; errors.txt in the archive says why", missing)
		}
		return a.print(path + "\n")
	}
	return cmd
}

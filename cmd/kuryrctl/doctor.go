package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/stack"
)

func (a *app) newDoctorCommand() *cobra.Command {
	var list strings.Builder
	for _, c := range stack.Checks() {
		fmt.Fprintf(&list, "\n  %-16s  %s", c.Check, c.Asked)
	}
	cmd := &cobra.Command{
		Use:   "doctor [NAME]",
		Short: "Tell what is missing or wrong, whose fault it is, and how to mend it",
		Long: `Check whether a stack as declared can be built, and with NAME whether the stack of that name is well. It changes nothing. The exit
code is 3 when there is a problem; warnings alone are no problem. Without --file, NAME is held against what it was last declared to be on this machine.
` + list.String(),
		Example: "  kuryrctl doctor -f examples/minimal.yaml\n  kuryrctl doctor demo -o json",
		Args:    cobra.MaximumNArgs(1),

		ValidArgsFunction: a.completeStacks,
	}
	lab, format := addLabFile(cmd), addOutput(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			a.stackName = args[0]
			if err := stack.CheckName(a.stackName); err != nil {
				return usageError{err}
			}
		}
		lab.known = func() stack.Config { return stack.LastDeclared(a.stackName) }
		config, err := lab.read(a.stdin) // whether it can work is a finding
		if err != nil {
			return usageError{err}
		}
		o, dial, noWay := a.way(a.cloudName())
		connect := func(ctx context.Context) (*openstack.Cloud, error) {
			if noWay != nil {
				return nil, noWay // a finding too
			}
			return openstack.Connect(ctx, o)
		}
		found, err := stack.Diagnose(cmd.Context(), a.stackName, config, connect, stack.Options{Dial: dial, Log: a.log, Poll: a.poll})
		if err != nil {
			return err
		}
		return a.reportFindings(format, found)
	}
	return cmd
}

func (a *app) reportFindings(format *output, found []stack.Finding) error {
	t := table{columns: []column{{name: "CHECK"}, {name: "VERDICT"}, {name: "ANSWER"}, {name: "ASKED", wide: true}, {name: "DO", wide: true}}}
	problems := 0
	for _, f := range found {
		t.add(f.Check, string(f.Verdict), f.Answer, f.Asked, f.Do)
		if f.Verdict == stack.Bad {
			problems++
		}
	}
	if err := format.print(a.stdout, found, t); err != nil {
		return err
	}
	for _, f := range found {
		if f.Do != "" && format.format == "table" {
			fmt.Fprintf(a.stderr, "hint: %s: %s\n", f.Check, f.Do)
		}
	}
	if problems > 0 {
		a.say("%d of %d checks found a problem", problems, len(found))
		return commandExit(exitDiffers)
	}
	return nil
}

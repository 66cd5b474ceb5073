package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/stack"
)

func (a *app) newDoctorCommand() *cobra.Command {
	var list strings.Builder
	for _, c := range stack.Checks() {
		fmt.Fprintf(&list, "\n  %-16s  %s", c.Name, c.Asked)
	}
	var strict bool
	var o stack.DiagnoseOptions
	cmd := &cobra.Command{
		Use:   "doctor [NAME]",
		Short: "Tell what is missing or wrong, whose fault it is, and how to mend it",
		Long: `Check whether a stack as declared can be built, and with NAME whether the stack of that name is well. It changes nothing, but with
--active, which makes two subports on a worker for a moment, in a security group of their own, and sees whether the cloud filters them. The exit
code is 3 when there is a problem; with --strict a warning counts as one. Each finding says what was asked, what came back, whose it is to
act and what to do; -o wide and -o json show all of it, docs/doctor.md explains the checks. Without --file, NAME is held against what it was
last declared to be on this machine.
` + list.String(),
		Example: "  kuryrctl doctor -f examples/minimal.yaml\n  kuryrctl doctor demo -o json\n  kuryrctl doctor demo --active",
		Args:    cobra.MaximumNArgs(1),

		ValidArgsFunction: a.completeStacks,
	}
	lab, format := addLabFile(cmd), addOutput(cmd)
	cmd.Flags().BoolVar(&strict, "strict", false, "let warnings fail, too")
	cmd.Flags().IntVar(&o.Pods, "pods", 0, "pods that are expected, for which the quota must have room as well")
	cmd.Flags().IntVar(&o.Services, "services", 0, "Services that are expected, likewise")
	cmd.Flags().BoolVar(&o.Active, "active", false, "also make what a test needs in the stack NAME, and remove it: see drop-test")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if o.Active && len(args) == 0 {
			return usageError{errors.New("--active tests a stack that exists: name it")}
		}
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
		way, dial, noWay := a.way(a.cloudName())
		connect := func(ctx context.Context) (*openstack.Cloud, error) {
			if noWay != nil {
				return nil, noWay // a finding too
			}
			return openstack.Connect(ctx, way)
		}
		o.Options = stack.Options{Dial: dial, Log: a.log, Poll: a.poll}
		found, err := stack.Diagnose(cmd.Context(), a.stackName, config, connect, o)
		if err != nil {
			return err
		}
		return a.reportFindings(format, found, strict)
	}
	return cmd
}

func (a *app) reportFindings(format *output, found []stack.Finding, strict bool) error {
	t := table{columns: []column{{name: "CHECK"}, {name: "VERDICT"}, {name: "WHOSE"}, {name: "ANSWER"},
		{name: "ASKED", wide: true}, {name: "DO", wide: true}, {name: "REQUEST ID", wide: true}}}
	problems, warnings := 0, 0
	for _, f := range found {
		t.add(f.Check, string(f.Verdict), string(f.Whose), f.Answer, f.Asked, f.Do, f.Request)
		switch f.Verdict {
		case stack.Bad:
			problems++
		case stack.Warning:
			warnings++
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
	switch {
	case problems > 0:
		a.say("%d of %d checks found a problem", problems, len(found))
	case strict && warnings > 0:
		a.say("%d of %d checks have a warning", warnings, len(found))
	default:
		return nil
	}
	return commandExit(exitDiffers)
}

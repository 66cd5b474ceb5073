package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kuryrctl/kuryrctl/stack"
)

func (a *app) newDemoCommand() *cobra.Command {
	var o stack.DemoOptions
	cmd := &cobra.Command{
		Use:   "demo NAME",
		Short: "Run the deployment example on a stack, and check every step of it",
		Long: `Run the "Deployment example" of the 2017 write-up: deploy a program, ask its pod from its node and from a VM, ask its Service and its route,
scale it to three, see that all three answer and that each is a port in Neutron, delete it, and see that nothing is left. A step that fails
says where on the way to the pod it is broken: pod, port, security group, member, listener, floating IP or DNS. The exit code is 3 then.`,
		Example: "  kuryrctl demo demo\n  kuryrctl demo demo --keep -o json",
		Args:    names("NAME"),

		ValidArgsFunction: a.completeStacks,
	}
	lab, format := addDeclared(cmd), addOutput(cmd)
	cmd.Flags().BoolVar(&o.Keep, "keep", false, "leave the example in the cluster (kubectl delete namespace kuryrctl-demo removes it)")
	cmd.Flags().DurationVar(&o.Limit, "timeout", 0, "for what one step waits for (default 2m)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		_, s, err := a.open(cmd.Context(), args[0], "")
		if err != nil {
			return err
		}
		defer s.Close()
		config, err := lab.of(s, a.stdin)
		if err != nil {
			return err
		}
		t := table{columns: []column{{name: "STEP"}, {name: "RESULT"}, {name: "TOOK"}, {name: "HOP"}, {name: "SAW"}}}
		steps := []stack.DemoStep{}
		err = s.Demo(cmd.Context(), config, o, func(step stack.DemoStep) {
			result := "works"
			if !step.OK {
				result = "fails"
			}
			a.say("%s %s after %.1fs", step.Step, result, step.Seconds)
			steps = append(steps, step)
			t.add(step.Step, result, fmt.Sprintf("%.1fs", step.Seconds), step.Hop, strings.ReplaceAll(step.Saw, "\n", " "))
		})
		if err != nil && !errors.Is(err, stack.ErrDemo) {
			return err
		}
		if printed := format.print(a.stdout, steps, t); printed != nil {
			return printed
		}
		if err != nil {
			return commandExit(exitDiffers)
		}
		return nil
	}
	return cmd
}

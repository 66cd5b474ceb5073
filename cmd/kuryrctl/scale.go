package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kuryrctl/kuryrctl/stack"
)

func (a *app) newScaleCommand() *cobra.Command {
	var workers int
	var yes bool
	var o stack.ScaleOptions
	cmd := &cobra.Command{
		Use:   "scale NAME --workers N",
		Short: "Change the number of workers of a stack",
		Long: `Change the number of workers of a stack, as it was last declared on this machine. New workers are made and join; of too many, those with the
highest numbers are drained, forgotten by the cluster, and removed with their trunks and ports. It can be run again after it was stopped.

Draining respects PodDisruptionBudgets, and stops before it begins when a pod would not come back elsewhere; --force takes such pods, and nodes of a
cluster that does not answer, away all the same.`,
		Example: "  kuryrctl scale demo --workers 5\n  kuryrctl scale demo --workers 1 --yes",
		Args:    names("NAME"),

		ValidArgsFunction: a.completeStacks,
	}
	format, w := addOutput(cmd), addWork(cmd, time.Hour)
	f := cmd.Flags()
	f.IntVar(&workers, "workers", 0, "the number of workers that there are to be")
	cobra.CheckErr(cmd.MarkFlagRequired("workers"))
	f.BoolVarP(&yes, "yes", "y", false, "do not ask before workers are removed")
	f.BoolVar(&o.Force, "force", false, "remove workers also where pods are lost or the cluster cannot be asked")
	f.DurationVar(&o.Grace, "grace", 0, "time for each pod to end; 0 is what the pod asks for")
	a.addBundle(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		c, s, err := a.open(ctx, args[0], "")
		if err != nil {
			return err
		}
		defer s.Close()
		config, err := s.Declaration()
		if err != nil {
			return err
		}
		config.Workers.Count = workers
		if err := config.Validate(); err != nil {
			return usageError{err}
		}
		surplus, err := s.Surplus(ctx, config)
		if err != nil {
			return err
		}
		if err := s.Free(w.lock); err != nil { // before anybody is asked
			return err
		}
		if len(surplus) > 0 && !yes {
			yes, asked := a.confirm(ctx, fmt.Sprintf("Remove %s of %s?", strings.Join(surplus, ", "), args[0]))
			switch {
			case !asked:
				return usageError{errors.New("removing workers needs --yes where nobody can be asked")}
			case !yes:
				return errors.New("nothing was changed")
			}
		}
		var v *stack.View
		t, err := w.do(ctx, a, cmd.Name(), args[0], func(ctx context.Context, up stack.UpOptions) (err error) {
			o.UpOptions = up
			v, err = s.Scale(ctx, config, o)
			return err
		})
		if w.timings && t != nil {
			t.print(a.stderr, c.Calls())
		}
		if err != nil {
			return err
		}
		a.say("%s has %d workers after %s", args[0], workers, time.Since(t.begin).Round(100*time.Millisecond))
		return printView(a.stdout, format, v)
	}
	return cmd
}

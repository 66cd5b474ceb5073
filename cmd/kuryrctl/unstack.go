package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/kuryrctl/kuryrctl/provision"
	"github.com/kuryrctl/kuryrctl/stack"
)

func (a *app) newUnstackCommand() *cobra.Command {
	var yes, keepNames bool
	cmd := &cobra.Command{
		Use:   "unstack NAME",
		Short: "Remove every trace of a stack, and look again to prove it",
		Long: `Remove every object in the cloud that has the stack's mark, whoever of its programs made it, then look again and fail if anything is
left. It needs no lab file, no key and no living server, and works for stacks that were never finished.

Names that dns sync made from this machine are removed first; those that were made from another one are removed there, or with dns remove --file.

What somebody else hung on the stack's networks is not touched: it is listed, nothing is removed, and the exit code is 3.`,
		Example: "  kuryrctl unstack demo\n  kuryrctl unstack demo --yes --progress json",
		Args:    names("NAME"),

		ValidArgsFunction: a.completeStacks,
	}
	format, w := addOutput(cmd), addWork(cmd, 30*time.Minute)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&keepNames, "keep-names", false, "leave the names that dns sync made, say because their server is no more")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		c, s, err := a.open(ctx, args[0], "")
		if err != nil {
			return err
		}
		defer s.Close()
		r, err := s.Removal(ctx)
		if err != nil {
			return err
		}
		if err := s.Free(w.lock); err != nil { // first: what somebody is making at this moment may look foreign
			return err
		}
		if err := format.print(a.stdout, r, removalTable(r)); err != nil {
			return err
		}
		if r.Hidden != "" {
			a.say("%s", r.Hidden)
		}
		if len(r.Foreign) > 0 {
			for _, o := range r.Foreign {
				a.say("not of %s: %s, id %s", args[0], o, o.ID)
			}
			return provision.ErrForeign
		}
		at, err := s.NamesAt()
		if err != nil {
			return err
		}
		switch {
		case at != "" && keepNames:
			a.say("its names stay, %s, and this machine will know nothing of them", at)
		case at != "":
			a.say("its names go first: %s", at)
		}
		if err := a.mayRemove(ctx, r, yes); err != nil {
			return err
		}
		t, err := w.do(ctx, a, cmd.Name(), args[0], func(ctx context.Context, o stack.UpOptions) error {
			o.KeepNames = keepNames
			return s.Down(ctx, r, o)
		})
		if w.timings && t != nil {
			t.print(a.stderr, c.Calls())
		}
		if err != nil {
			return err
		}
		a.say("nothing of %s is in project %s of cloud %s", args[0], c.ProjectName(), c.Name)
		return nil
	}
	return cmd
}

// mayRemove gets a person's consent. Nothing to remove needs none.
func (a *app) mayRemove(ctx context.Context, r *stack.Removal, yes bool) error {
	return a.consent(ctx, fmt.Sprintf("Remove these %d objects of %s?", len(r.Objects), r.Stack), yes || len(r.Objects) == 0)
}

// consent asks a person, unless the answer was given on the command line.
func (a *app) consent(ctx context.Context, question string, yes bool) error {
	if yes {
		return nil
	}
	yes, asked := a.confirm(ctx, question)
	switch {
	case !asked:
		return usageError{errors.New("removing needs --yes where nobody can be asked")}
	case !yes:
		return errors.New("nothing was removed")
	}
	return nil
}

func removalTable(r *stack.Removal) table {
	t := table{columns: []column{{name: " "}, {name: "KIND"}, {name: "NAME"}, {name: "DETAIL"}, {name: "ID", wide: true}}}
	for _, o := range r.Objects {
		t.add(string(stack.Extra), o.Kind, o.Name, o.Detail, o.ID)
	}
	for _, o := range r.Foreign {
		t.add("!", o.Kind, o.Name, o.Detail, o.ID)
	}
	return t
}

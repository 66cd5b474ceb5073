package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/kuryrctl/kuryrctl/stack"
)

func (a *app) newLogsCommand() *cobra.Command {
	var o stack.LogOptions
	var local, console bool
	cmd := &cobra.Command{
		Use:   "logs NAME NODE",
		Short: "Print the journal of a node's kubelet, or another log of it",
		Long: `Print the journal of a node's kubelet, or of another unit. Where the node does not answer SSH, --console prints what Nova keeps of its
console, and --local what kuryrctl itself ran there and what came back. Ctrl-C ends --follow.`,
		Example: "  kuryrctl logs demo worker-0 --follow\n  kuryrctl logs demo worker-0 --unit cloud-init --lines 0\n  kuryrctl logs demo worker-0 --console",
		Args:    names("NAME", "NODE"),

		ValidArgsFunction: a.completeNodes,
	}
	f := cmd.Flags()
	f.StringVar(&o.Unit, "unit", "kubelet", "kubelet, containerd, cloud-init, or any other `unit` of systemd")
	f.IntVarP(&o.Lines, "lines", "n", 100, "the last `lines`; 0 is all there are")
	f.BoolVar(&o.Follow, "follow", false, "go on with what is added")
	f.BoolVar(&local, "local", false, "the log on this machine of what kuryrctl ran there; asks no cloud")
	f.BoolVar(&console, "console", false, "the console of the server; needs no way to it")
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("unit", cobra.FixedCompletions([]string{"kubelet", "containerd", "cloud-init"}, cobra.ShellCompDirectiveNoFileComp)))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		if local && console || (local || console) && (o.Follow || f.Changed("unit")) {
			return usageError{errors.New("--local, --console and the journal (--unit, --follow) are three logs: name one")}
		}
		if o.Lines < 0 {
			return usageError{fmt.Errorf("--lines %d: it is a number of lines, or 0 for all", o.Lines)}
		}
		if local {
			key, err := a.findFile(cmd, args[0], stack.FindKey, (*stack.Stack).KeyPath)
			if err != nil {
				return err
			}
			text, err := stack.LocalLog(key, args[1], o.Lines)
			return errors.Join(err, a.print(text))
		}
		_, s, err := a.open(ctx, args[0], "")
		if err != nil {
			return err
		}
		defer s.Close()
		v, err := s.Show(ctx)
		if err != nil {
			return err
		}
		if console {
			text, err := s.Console(ctx, v, args[1], o.Lines)
			return errors.Join(err, a.print(text))
		}
		if o.Follow {
			a.say("following %s of %s; interrupt to end", o.Unit, args[1])
		}
		err = s.Logs(ctx, v, args[1], o, a.stdout)
		if o.Follow && ctx.Err() != nil {
			return nil // that it ends so is what was wanted
		}
		return err
	}
	return cmd
}

// print writes a text as data.
func (a *app) print(text string) error {
	_, err := io.WriteString(a.stdout, text)
	return err
}

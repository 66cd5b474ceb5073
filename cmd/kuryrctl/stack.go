package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/kuryrctl/kuryrctl/stack"
)

// names are the arguments that a verb wants, all of them.
func names(wanted ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(wanted):
			return fmt.Errorf("%s: %s is missing; usage: %s", cmd.CommandPath(), wanted[len(args)], cmd.UseLine())
		case len(args) > len(wanted):
			return fmt.Errorf("%s: %q is too much; usage: %s", cmd.CommandPath(), args[len(wanted)], cmd.UseLine())
		}
		return nil
	}
}

// work is how a verb that changes the cloud goes about it.
type work struct {
	progress string
	timings  bool
	picture  string // file; "" is none
	parallel int
	timeout  time.Duration
	lock     bool // break it
}

func addWork(cmd *cobra.Command, timeout time.Duration) *work {
	w := &work{}
	f := cmd.Flags()
	f.StringVar(&w.progress, "progress", "auto", "how to tell what is going on: tree, plain, json (one event a line), or auto: tree on a terminal")
	f.BoolVar(&w.timings, "timings", false, "at the end, print what took how long and how many API calls were made")
	f.StringVar(&w.picture, "timings-svg", "", "at the end, also of a run that failed, draw what took how long into this `file`")
	cobra.CheckErr(cmd.MarkFlagFilename("timings-svg", "svg"))
	f.IntVar(&w.parallel, "parallel", 32, "resources to work on at once; those that wait do not count")
	f.DurationVar(&w.timeout, "timeout", timeout, "give up after this time")
	addBreakLock(cmd, &w.lock)
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("progress", cobra.FixedCompletions(progressModes(), cobra.ShellCompDirectiveNoFileComp)))
	return w
}

// addBreakLock gives cmd the flag for a stack that another run has.
func addBreakLock(cmd *cobra.Command, into *bool) {
	cmd.Flags().BoolVar(into, "break-lock", false, "take the stack from another run that is changing it, say because that is dead")
}

// addBundle gives cmd the flag that names where nodes' software comes from.
func (a *app) addBundle(cmd *cobra.Command) {
	cmd.Flags().StringVar(&a.bundle, "bundle", "", "the `file` with the software of nodes (kuryrctl bundle create); without one it is fetched from upstream")
	cobra.CheckErr(cmd.MarkFlagFilename("bundle", "tar"))
}

// do runs one change of the cloud with its progress shown. The first interrupt lets calls in flight end.
func (w *work) do(ctx context.Context, a *app, verb, title string, change func(context.Context, stack.UpOptions) error) (*timings, error) {
	if w.parallel < 1 {
		return nil, usageError{fmt.Errorf("--parallel %d: at least one resource has to be worked on", w.parallel)}
	}
	if w.picture != "" { // said now and not after minutes
		if dir, err := os.Stat(filepath.Dir(w.picture)); err != nil || !dir.IsDir() {
			return nil, usageError{fmt.Errorf("--timings-svg %s: there is no directory %s", w.picture, filepath.Dir(w.picture))}
		}
	}
	p, err := a.newProgress(w.progress, title)
	if err != nil {
		return nil, err
	}
	defer p.close()
	a.interrupt.finishFirst(func() { p.say("finishing the calls in flight; interrupt again to stop at once") })
	t := &timings{begin: time.Now(), keep: w.picture != ""}
	ctx, cancel := context.WithTimeoutCause(ctx, w.timeout, fmt.Errorf("the time of --timeout %s is over", w.timeout))
	defer cancel()
	err = change(ctx, stack.UpOptions{Parallel: w.parallel, On: t.and(p.event), Verb: verb, BreakLock: w.lock})
	if errors.Is(err, context.DeadlineExceeded) && context.Cause(ctx) != nil {
		err = errors.Join(err, context.Cause(ctx))
	}
	if w.picture != "" {
		if e := t.draw(w.picture, fmt.Sprintf("%s: where the time of a run of %s went", title, seconds(time.Since(t.begin)))); e != nil {
			err = errors.Join(err, e)
		}
	}
	return t, err
}

func (a *app) newStackCommand() *cobra.Command {
	var up bool
	cmd := &cobra.Command{
		Use:   "stack NAME",
		Short: "Make the cloud hold what is declared: networks, trunks, servers, load balancer, and Kubernetes on them",
		Long: `Make the cloud hold what is declared. It can be run again at any time: what is ready is left alone, what was cut off goes on, what
has drifted is repaired. It deletes nothing but servers and load balancers in ERROR, which it replaces.

The first interrupt (Ctrl-C) lets calls in flight end, the second cuts them off; after either, run the same command again to go on.`,
		Example: "  kuryrctl stack demo\n  kuryrctl stack demo -f examples/superfluidity.yaml --timings\n  kuryrctl stack demo --cloud lab --up",
		Args:    names("NAME"),

		ValidArgsFunction: a.completeStacks,
	}
	lab, format, w := addLabFile(cmd), addOutput(cmd), addWork(cmd, time.Hour)
	a.addBundle(cmd)
	cmd.Flags().BoolVar(&up, "up", false, "start the cloud lab first if it does not run")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		config, err := lab.load(a.stdin)
		if err != nil {
			return err
		}
		if err := a.bringUp(cmd, up); err != nil {
			return err
		}
		c, s, err := a.open(cmd.Context(), args[0], config.AdminCloud)
		if err != nil {
			return err
		}
		defer s.Close()
		lab.warn(a, s, config)
		var v *stack.View
		t, err := w.do(cmd.Context(), a, cmd.Name(), args[0], func(ctx context.Context, o stack.UpOptions) (err error) {
			v, err = s.Up(ctx, config, o)
			return err
		})
		if w.timings && t != nil {
			t.print(a.stderr, c.Calls())
		}
		if err != nil {
			return err
		}
		a.say("%s is as declared after %s", args[0], time.Since(t.begin).Round(100*time.Millisecond))
		if err := printView(a.stdout, format, v); err != nil {
			return err
		}
		next(a.stderr, a, s, v)
		return nil
	}
	return cmd
}

// next tells what one may want to do with a stack that was just made.
func next(w io.Writer, a *app, s *stack.Stack, v *stack.View) {
	cloud := ""
	if a.cloud != "" {
		cloud = " --cloud " + a.cloud
	}
	fmt.Fprintf(w, "next:\n")
	for _, n := range v.Nodes[:min(1, len(v.Nodes))] {
		fmt.Fprintf(w, "  kuryrctl ssh %s %s%s\n", v.Name, n.Name, cloud)
	}
	if _, err := s.KubeconfigPath(); err == nil {
		fmt.Fprintf(w, "  kuryrctl kubeconfig %s --merge%s\n", v.Name, cloud)
	}
	fmt.Fprintf(w, "  kuryrctl show %s%s\n  kuryrctl unstack %s%s\n", v.Name, cloud, v.Name, cloud)
}

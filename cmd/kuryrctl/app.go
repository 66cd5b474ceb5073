package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"
	"golang.org/x/term"

	"github.com/kuryrctl/kuryrctl/bootstrap/bundle"
	"github.com/kuryrctl/kuryrctl/stack"
)

// app is one run of the program: its streams, and what every verb shares.
type app struct {
	stdin  io.Reader
	stdout io.Writer // data
	stderr io.Writer // talk

	// dial and poll, when set, replace the way to the cloud and the interval of looks at it.
	dial stack.Dialer
	poll time.Duration

	bundle string // as --bundle names it
	// upstream, when set, stands for the sites that releases are fetched from.
	upstream bundle.Source

	cloud   string // as --cloud names it; "" is what OpenStack's own rules choose
	verbose int
	logFile string

	log       *slog.Logger
	closeLog  func() error
	begun     bool   // the command line was understood
	stackName string // what the verb is about, for hints
	interrupt interrupt
}

// run is the whole program without the process around it, so that tests can call it. It returns the exit code.
func (a *app) run(ctx context.Context, args []string, signals <-chan os.Signal) int {
	a.closeLog = func() error { return nil }
	ctx, done := a.interrupt.watch(ctx, signals)
	defer done()
	root := a.newRootCommand()
	root.SetArgs(args)
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	err := root.ExecuteContext(ctx)
	if closing := a.closeLog(); err == nil {
		err = closing
	}
	return a.end(err, args)
}

// sharedFlags are those of every command.
func (a *app) sharedFlags(f *pflag.FlagSet) {
	f.StringVar(&a.cloud, "cloud", "", "use this `cloud` of clouds.yaml, or lab, the one on this machine (also --os-cloud)")
	f.CountVarP(&a.verbose, "verbose", "v", "tell more on standard error; -vv every request")
	f.StringVar(&a.logFile, "log-file", "", "append all there is to tell to this `file`")
	for _, name := range []string{"cloud", "log-file"} {
		f.Lookup(name).DefValue = ""
	}
}

// begin runs before every verb, when its command line has been parsed.
func (a *app) begin(cmd *cobra.Command, _ []string) error {
	if err := fromEnvironment(cmd.Flags()); err != nil {
		return err
	}
	a.begun = true
	return a.openLog()
}

// fromEnvironment gives every flag that was not on the command line the value of KURYRCTL_ and its name, if that is set. A value that
// the flag would refuse is refused here too.
func fromEnvironment(flags *pflag.FlagSet) (err error) {
	settings := viper.New()
	settings.SetEnvPrefix("KURYRCTL")
	settings.SetEnvKeyReplacer(strings.NewReplacer("-", "_"))
	settings.AutomaticEnv()
	if e := settings.BindEnv("cloud", "KURYRCTL_CLOUD", "KURYRCTL_OS_CLOUD"); e != nil {
		return e
	}
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Changed || f.Hidden || f.Name == "help" || !settings.IsSet(f.Name) || err != nil {
			return
		}
		if e := flags.Set(f.Name, settings.GetString(f.Name)); e != nil {
			err = fmt.Errorf("reading KURYRCTL_%s: %w", strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_")), e)
		}
	})
	return err
}

// openLog makes the log that -v, -vv and --log-file ask for. Warnings are always told.
func (a *app) openLog() error {
	level := slog.LevelWarn
	switch {
	case a.verbose == 1:
		level = slog.LevelInfo
	case a.verbose > 1:
		level = slog.LevelDebug
	}
	var out slog.Handler = slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: level})
	if a.logFile != "" {
		f, err := os.OpenFile(a.logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return fmt.Errorf("opening the log: %w", err)
		}
		a.closeLog = f.Close
		out = slog.NewMultiHandler(out, slog.NewTextHandler(f, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	a.log = slog.New(out)
	return nil
}

// say tells a person something that is no result.
func (a *app) say(format string, args ...any) {
	fmt.Fprintf(a.stderr, "kuryrctl: "+format+"\n", args...)
}

// confirm asks a yes-or-no question; asked is false where there is nobody to ask.
func (a *app) confirm(ctx context.Context, question string) (yes, asked bool) {
	f, ok := a.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return false, false
	}
	fmt.Fprintf(a.stderr, "kuryrctl: %s [y/N] ", question)
	answer := make(chan string, 1)
	go func() { // ends with the process at the latest: a blocked read of a terminal cannot be taken back
		var s string
		fmt.Fscanln(f, &s)
		answer <- s
	}()
	select {
	case s := <-answer:
		return s == "y" || s == "yes", true
	case <-ctx.Done():
		fmt.Fprintln(a.stderr)
		return false, true
	}
}

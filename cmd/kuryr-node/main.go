// Command kuryr-node is what kuryrctl runs in a cluster: the daemon of each node, the controller, and a test of the network when a person asks
// for one.
//
// It owns flags and signals, and nothing else. There is one file for each verb.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

var version = "dev" // set by the build

// verb is one thing the program does. run returns when it is done, or when ctx is.
type verb struct {
	name, about string
	run         func(ctx context.Context, args []string, stdout, stderr io.Writer) error
}

func verbs() []verb {
	return []verb{
		{"controller", "keep subports on the trunks of the workers", runController},
		{"daemon", "give the subports of this node to its pods", runDaemon},
		{"droptest", "see whether a connection passes between two subports", runDropTest},
		{"version", "print the version", func(_ context.Context, _ []string, stdout, _ io.Writer) error {
			_, err := fmt.Fprintln(stdout, version)
			return err
		}},
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run returns the exit code: 1 for what went wrong, 2 for what was asked wrongly.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 {
		for _, v := range verbs() {
			if v.name != args[0] {
				continue
			}
			err := v.run(ctx, args[1:], stdout, stderr)
			switch {
			case err == nil, errors.Is(err, flag.ErrHelp):
				return 0
			case errors.Is(err, errUsage):
				return 2
			}
			fmt.Fprintf(stderr, "kuryr-node %s: %v\n", v.name, err)
			return 1
		}
	}
	fmt.Fprintln(stderr, "usage: kuryr-node VERB [FLAGS]; FLAGS of a verb: kuryr-node VERB -h")
	for _, v := range verbs() {
		fmt.Fprintf(stderr, "  %-12s %s\n", v.name, v.about)
	}
	return 2
}

// errUsage is the error of a verb that has told already what was asked wrongly.
var errUsage = errors.New("usage")

// parse reads a verb's flags, which must be all there is.
func parse(flags *flag.FlagSet, args []string, stderr io.Writer) error {
	flags.SetOutput(stderr)
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return errUsage
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "%s: unexpected argument %q\n", flags.Name(), flags.Arg(0))
		return errUsage
	}
	return nil
}

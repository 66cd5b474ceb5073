package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/kuryrctl/kuryrctl/bootstrap"
	"github.com/kuryrctl/kuryrctl/bootstrap/ssh"
	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/internal/wait"
	"github.com/kuryrctl/kuryrctl/provision"
	"github.com/kuryrctl/kuryrctl/stack"
)

// The exit codes. Their meaning is in exitcodes.md, and does not change.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitDiffers     = 3
	exitNoCloud     = 4
	exitQuota       = 5
	exitHeld        = 6
	exitInterrupted = 130 // as shells count a program that SIGINT ended
)

// usageError is a command line or a lab file that makes no sense.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// end says what went wrong and what to do about it, and returns the exit code.
func (a *app) end(err error, args []string) int {
	code := a.code(err)
	var told commandExit
	if err == nil || errors.As(err, &told) {
		return code
	}
	said := false
	for _, e := range parts(err) {
		if code == exitInterrupted && stopped(e) {
			continue // that it did not go on is the interrupt's work, and nothing to report of each resource
		}
		a.tell(e)
		said = true
	}
	if code == exitInterrupted && !said {
		a.say("interrupted")
	}
	if code == exitUsage && !a.begun {
		fmt.Fprintln(a.stderr, "hint: kuryrctl help tells what there is, and any command explains itself with --help")
	}
	for _, h := range a.hints(args) {
		if h.when(err) {
			fmt.Fprintln(a.stderr, "hint: "+h.say)
			break
		}
	}
	return code
}

// shownLines is how much of a failed command's output is told with its error; the log has all of it.
const shownLines = 10

// tell writes one error. That of a step on a node has where to read on, and the last of what the command printed.
func (a *app) tell(err error) {
	var step *bootstrap.StepError
	if !errors.As(err, &step) {
		a.say("%v", err)
		return
	}
	a.say("%v (step %s, log %s)", step, step.Step, step.Log)
	var run *ssh.RunError
	if !errors.As(step, &run) {
		return
	}
	lines := strings.Split(run.Output, "\n")
	if len(lines) == 1 { // which is in the error
		return
	}
	for _, line := range lines[max(0, len(lines)-shownLines):] {
		fmt.Fprintln(a.stderr, "    "+line)
	}
}

func (a *app) code(err error) int {
	var told commandExit
	var usage usageError
	var cloudless noCloudError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &told):
		return told.ExitCode()
	case a.interrupt.seen.Load():
		return exitInterrupted
	case !a.begun, errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &cloudless), some(err, openstack.IsUnauthorized):
		return exitNoCloud
	case some(err, isQuota):
		return exitQuota
	case some(err, isHeld):
		return exitHeld
	case errors.Is(err, provision.ErrForeign), errors.Is(err, stack.ErrLeftovers):
		return exitDiffers
	}
	return exitFailed
}

// parts are the errors that were joined, each of which is a line of its own.
func parts(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || errors.Join(joined.Unwrap()...).Error() != err.Error() { // a text of its own says more than its parts
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, parts(e)...)
	}
	return all
}

// some reports whether is holds for err or any error joined in it: predicates on API replies look at the first they find only.
func some(err error, is func(error) bool) bool {
	if err == nil || is(err) {
		return err != nil
	}
	switch x := err.(type) {
	case interface{ Unwrap() error }:
		return some(x.Unwrap(), is)
	case interface{ Unwrap() []error }:
		for _, e := range x.Unwrap() {
			if some(e, is) {
				return true
			}
		}
	}
	return false
}

// stopped reports whether an error only says that the run was interrupted.
func stopped(err error) bool {
	return errors.Is(err, wait.ErrStopping) || errors.Is(err, errInterrupted) || errors.Is(err, context.Canceled)
}

// isQuota reports whether a quota is used up, or too small for what is declared.
func isQuota(err error) bool {
	var short *stack.ShortError
	return openstack.IsQuota(err) || errors.As(err, &short)
}

// isStuck reports whether Octavia does not get done with a load balancer.
func isStuck(err error) bool {
	var stuck *provision.StuckError
	return errors.As(err, &stuck)
}

// hint is the next thing to do about an error.
type hint struct {
	when func(error) bool
	say  string
}

func is(target error) func(error) bool { return func(err error) bool { return errors.Is(err, target) } }

// hints are tried in this order; the first that fits is given.
func (a *app) hints(args []string) []hint {
	again := "kuryrctl " + commandLine(args)
	return []hint{
		{func(error) bool { return a.interrupt.seen.Load() && a.stackName != "" }, "resume with `" + again + "`"},
		{openstack.IsNotConfigured, a.whichCloud()},
		{is(errLabDown), "start it with `kuryrctl cloud up`; `kuryrctl stack` does it with --up"},
		{func(err error) bool { return some(err, isQuota) },
			"ask for more (`openstack quota show` tells what there is) or declare less; what was made so far stays, and `" + again + "` goes on from there"},
		{is(provision.ErrForeign), "they are not kuryrctl's to remove; when they are gone, run `" + again + "` again"},
		{func(err error) bool { return some(err, isStuck) },
			"give the cloud's operator the load balancer's id. If no worker of Octavia is at it any more (their logs say), " +
				"`update load_balancer set provisioning_status='ERROR' where id='ID'` in Octavia's database ends it; then run `" + again + "` again, it goes on from here"},
		{is(stack.ErrLeftovers), "run `" + again + "` again; it goes on from here"},
		{is(stack.ErrElsewhere), "work from that machine, or copy its kuryrctl state directory here; `kuryrctl unstack " + a.stackName + "` needs no key"},
		{isNotThere("stack"), "make it with `kuryrctl stack " + a.stackName + "`, or name another cloud with --cloud"},
		{isNotThere("image", "flavor", "network", "external network"), "name one that is there, in the lab file or by a flag"},
		{needsPassword, "kuryrctl works as root on nodes without asking: let the login user use sudo without a password, as cloud images do"},
		{func(err error) bool { return some(err, openstack.IsForbidden) }, "a role of yours in this project does not allow it; ask the cloud's operator"},
		{isStep, "mend what the node says, and run `" + again + "` again; it goes on from here"},
	}
}

// isHeld reports whether another run has the stack, or took it from this one.
func isHeld(err error) bool {
	var held *provision.HeldError
	var busy *stack.BusyError
	return errors.As(err, &held) || errors.As(err, &busy) || errors.Is(err, provision.ErrLost)
}

// isStep reports whether a step on a node failed.
func isStep(err error) bool {
	return some(err, func(err error) bool {
		var step *bootstrap.StepError
		return errors.As(err, &step)
	})
}

// needsPassword reports whether sudo on a node would not work without somebody who types.
func needsPassword(err error) bool {
	return some(err, func(err error) bool {
		var run *ssh.RunError
		return errors.As(err, &run) && strings.Contains(run.Output, "a password is required")
	})
}

func isNotThere(kinds ...string) func(error) bool {
	return func(err error) bool {
		return some(err, func(err error) bool {
			var missing *provision.NotThere
			return errors.As(err, &missing) && slices.Contains(kinds, missing.Kind)
		})
	}
}

// commandLine is args as one would type them.
func commandLine(args []string) string {
	plain := regexp.MustCompile(`^[A-Za-z0-9_./:=@%+,-]+$`)
	words := make([]string, len(args))
	for i, w := range args {
		if words[i] = w; !plain.MatchString(w) {
			words[i] = ssh.Quote(w)
		}
	}
	return strings.Join(words, " ")
}

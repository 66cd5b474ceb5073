package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/kuryrctl/kuryrctl/bootstrap"
	"github.com/kuryrctl/kuryrctl/bootstrap/ssh"
	"github.com/kuryrctl/kuryrctl/internal/wait"
	"github.com/kuryrctl/kuryrctl/provision"
	"github.com/kuryrctl/kuryrctl/stack"
)

func TestEveryErrorHasItsCodeWhereverItIsJoined(t *testing.T) {
	other := errors.New("server.worker-0: no valid host was found")
	short := &stack.ShortError{Shortage: provision.Shortage{}, Project: "demo"}
	for _, x := range []struct {
		name string
		err  error
		want int
	}{
		{"nothing", nil, exitDone},
		{"anything", other, exitFailed},
		{"usage", usageError{other}, exitUsage},
		{"no cloud", fmt.Errorf("listing: %w", noCloudError{other}), exitNoCloud},
		{"quota beside another", errors.Join(other, fmt.Errorf("planning: %w", short)), exitQuota},
		{"quota in a list of problems", &stack.Problems{Errors: []error{other, short}}, exitQuota},
		{"foreign", fmt.Errorf("removing: %w", provision.ErrForeign), exitDiffers},
		{"leftovers", errors.Join(stack.ErrLeftovers, other), exitDiffers},
		{"a load balancer that stays PENDING", errors.Join(stack.ErrLeftovers, fmt.Errorf("removing: %w", &provision.StuckError{})), exitDiffers},
		{"a command on a node", commandExit(7), 7},
	} {
		a := &app{stderr: new(strings.Builder), begun: true}
		if got := a.end(x.err, nil); got != x.want {
			t.Errorf("%s: exit code %d, want %d", x.name, got, x.want)
		}
	}
}

func TestJoinedErrorsAreLinesAndAnInterruptIsSilentAboutWhatItStopped(t *testing.T) {
	waiting := fmt.Errorf("server.worker-0: waiting for it (BUILD): %w", wait.ErrStopping)
	failed := errors.New("trunk.worker-1: the port is in use")
	err := errors.Join(errors.Join(waiting, failed), wait.ErrStopping)

	var said strings.Builder
	a := &app{stderr: &said, begun: true}
	a.end(err, nil)
	if got, want := strings.Count(said.String(), "kuryrctl: "), 3; got != want {
		t.Errorf("%d lines, want %d:\n%s", got, want, &said)
	}

	said.Reset()
	a.stackName = "demo"
	a.interrupt.seen.Store(true)
	code := a.end(err, []string{"stack", "demo", "-f", "my lab.yaml"})
	want := "kuryrctl: trunk.worker-1: the port is in use\nhint: resume with `kuryrctl stack demo -f 'my lab.yaml'`\n"
	if code != exitInterrupted || said.String() != want {
		t.Errorf("%d and\n%swant\n%s", code, &said, want)
	}
}

func TestAFailedStepTellsNodeStepLogAndTheLastLines(t *testing.T) {
	output := "a line too many\n"
	for i := range 9 {
		output += fmt.Sprintf("[wait] line %d\n", i)
	}
	run := &ssh.RunError{Host: "worker-0", Command: "# run kubeadm, or wait for it\nsecond line", Status: 1, Output: output + "timed out"}
	for _, x := range []struct {
		cause error
		want  string
	}{
		{run, `kuryrctl: on worker-0: running "run kubeadm, or wait for it" on worker-0: exit status 1: timed out (step node.worker-0, log /logs/worker-0.log)
    ` + strings.Join(append(strings.Split(strings.TrimSuffix(output, "\n"), "\n")[1:], "timed out"), "\n    ") + `
kuryrctl: trunk.worker-1: the port is in use
hint: mend what the node says, and run ` + "`kuryrctl stack demo`" + ` again; it goes on from here
`},
		{errors.New("its clock is 40s off"), `kuryrctl: on worker-0: its clock is 40s off (step node.worker-0, log /logs/worker-0.log)
kuryrctl: trunk.worker-1: the port is in use
hint: mend what the node says, and run ` + "`kuryrctl stack demo`" + ` again; it goes on from here
`},
		{&ssh.RunError{Host: "worker-0", Command: "# look", Status: 1, Output: "sudo: a password is required"},
			`kuryrctl: on worker-0: running "look" on worker-0: exit status 1: sudo: a password is required (step node.worker-0, log /logs/worker-0.log)
kuryrctl: trunk.worker-1: the port is in use
hint: kuryrctl works as root on nodes without asking: let the login user use sudo without a password, as cloud images do
`},
	} {
		var said strings.Builder
		a := &app{stderr: &said, begun: true}
		step := &bootstrap.StepError{Node: "worker-0", Step: "node.worker-0", Log: "/logs/worker-0.log", Err: x.cause}
		err := errors.Join(fmt.Errorf("node.worker-0: %w", step), errors.New("trunk.worker-1: the port is in use"))
		if code := a.end(err, []string{"stack", "demo"}); code != exitFailed || said.String() != x.want {
			t.Errorf("%d and\n%swant\n%s", code, &said, x.want)
		}
	}
}

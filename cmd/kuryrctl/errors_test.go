package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

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

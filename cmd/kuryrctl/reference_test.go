package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

var update = flag.Bool("update", false, "write the generated documents instead of comparing them")

// generated compares a document with what it is generated from, or writes it.
func generated(t *testing.T, path, want string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("%s is out of date (%v): run `go test ./cmd/kuryrctl -update`", path, err)
	}
}

func TestTheExitCodesAreDocumented(t *testing.T) {
	generated(t, "../../docs/exit-codes.md", exitCodesText)
	for _, code := range []int{exitDone, exitFailed, exitUsage, exitDiffers, exitNoCloud, exitQuota, exitHeld, exitInterrupted} {
		if !strings.Contains(exitCodesText, fmt.Sprintf("\n| %d | ", code)) {
			t.Errorf("exit code %d is not in exitcodes.md", code)
		}
	}
}

func TestTheReferenceIsUpToDate(t *testing.T) {
	a := &app{stdin: strings.NewReader(""), stdout: new(strings.Builder), stderr: new(strings.Builder)}
	root := a.newRootCommand()
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	var b strings.Builder
	fmt.Fprintf(&b, "# Commands\n\nThis page is generated from the commands themselves, which tell the same with `--help`.\n\n")
	fmt.Fprintf(&b, "All commands have these flags:\n\n```\n%s```\n", root.PersistentFlags().FlagUsages())
	reference(&b, root)
	generated(t, "../../docs/reference/commands.md", b.String())
}

// reference writes one section for each command and those below it. The completions of the shells are cobra's, and explain
// themselves at length.
func reference(b *strings.Builder, cmd *cobra.Command) {
	for _, c := range cmd.Commands() {
		if c.Hidden || c.Name() == "help" || c.IsAdditionalHelpTopicCommand() {
			continue
		}
		c.InitDefaultHelpFlag()
		text := c.Long
		if text == "" || c.Name() == "completion" {
			text = c.Short + "."
		}
		fmt.Fprintf(b, "\n## %s\n\n%s\n\n```\n%s\n```\n", c.CommandPath(), text, c.UseLine())
		if c.Example != "" {
			fmt.Fprintf(b, "\nExamples:\n\n```\n%s\n```\n", c.Example)
		}
		if c.HasAvailableLocalFlags() {
			fmt.Fprintf(b, "\nFlags:\n\n```\n%s```\n", c.LocalNonPersistentFlags().FlagUsages())
		}
		if c.Name() != "completion" {
			reference(b, c)
		}
	}
}

func TestTheChecksOfDoctorAreDocumented(t *testing.T) {
	generated(t, "../../docs/doctor.md", doctorText())
}

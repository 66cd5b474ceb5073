package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/kuryrctl/kuryrctl/stack"
)

func (a *app) newGetKeyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "getkey NAME",
		Short: "Print the private SSH key of a stack, and nothing else",
		Long: `Print the private SSH key of a stack, and nothing else. The key never leaves the machine where the stack was made, and no cloud is asked
for it; --cloud is needed only when stacks of several clouds have this name.`,
		Example: "  kuryrctl getkey demo >demo.pem",
		Args:    names("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := a.findFile(cmd, args[0], stack.FindKey, (*stack.Stack).KeyPath)
			if err != nil {
				return err
			}
			key, err := os.ReadFile(path)
			if err != nil {
				return fmt.Errorf("reading the key of %s: %w", args[0], err)
			}
			_, err = a.stdout.Write(key)
			return err
		},
		ValidArgsFunction: a.completeStacks,
	}
}

// findFile finds a file of a stack on this machine: among all stacks, or that of a cloud which is named.
func (a *app) findFile(cmd *cobra.Command, name string, anywhere func(string) (string, error), of func(*stack.Stack) (string, error)) (string, error) {
	if err := stack.CheckName(name); err != nil {
		return "", usageError{err}
	}
	if a.cloud == "" {
		return anywhere(name)
	}
	_, s, err := a.open(cmd.Context(), name, "")
	if err != nil {
		return "", err
	}
	defer s.Close()
	return of(s)
}

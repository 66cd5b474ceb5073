package main

import (
	_ "embed"

	"github.com/spf13/cobra"
)

// exitCodesText is the one place where the exit codes are described; docs/exit-codes.md is a copy of it, which a test compares.
//
//go:embed exitcodes.md
var exitCodesText string

// newExitCodesTopic is a text that help finds like a command.
func newExitCodesTopic() *cobra.Command {
	return &cobra.Command{Use: "exit-codes", Short: "What each exit code means", Long: exitCodesText}
}

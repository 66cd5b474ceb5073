package main

import "github.com/spf13/cobra"

func newCloudCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "cloud",
		Short: "Run a real OpenStack on this machine, for when you have none",
	}
}

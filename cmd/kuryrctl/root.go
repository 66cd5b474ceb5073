package main

import "github.com/spf13/cobra"

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "kuryrctl",
		Short:         "Kubernetes whose pods live directly on OpenStack's own networks",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(newCloudCommand())
	return root
}

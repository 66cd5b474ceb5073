package main

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/stack"
)

// completing is how long a person who pressed Tab is kept waiting for a cloud. Whatever goes wrong completes to nothing.
const completing = time.Second

func completeClouds(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	names, _, err := openstack.Configured(openstack.Options{})
	if err != nil {
		names = nil
	}
	for _, name := range []string{"lab", "lab-admin"} {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) completeStacks(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completing)
	defer cancel()
	var names []string
	if c, _, err := a.login(ctx, a.cloudName()); err == nil {
		names, _ = stack.List(ctx, c)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) completeNodes(cmd *cobra.Command, args []string, part string) ([]string, cobra.ShellCompDirective) {
	if len(args) != 1 {
		return a.completeStacks(cmd, args, part)
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completing)
	defer cancel()
	var names []string
	if _, s, err := a.open(ctx, args[0], ""); err == nil {
		defer s.Close()
		if v, err := s.Show(ctx); err == nil {
			for _, n := range v.Nodes {
				names = append(names, n.Name)
			}
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

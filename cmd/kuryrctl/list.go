package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kuryrctl/kuryrctl/provision"
	"github.com/kuryrctl/kuryrctl/stack"
)

func (a *app) newListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the stacks of a project",
		Example: "  kuryrctl list\n  kuryrctl list -o value -c name",
		Args:    cobra.NoArgs,
	}
	format := addOutput(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx := cmd.Context()
		c, _, err := a.login(ctx, a.cloudName())
		if err != nil {
			return err
		}
		found, err := stack.List(ctx, c)
		if err != nil {
			return err
		}
		views := []*stack.View{}
		for _, name := range found {
			s, err := stack.Open(c, name, stack.Options{Log: a.log})
			if err != nil {
				return err
			}
			v, err := s.Show(ctx)
			s.Close()
			var gone *provision.NotThere
			if errors.As(err, &gone) {
				continue // since it was listed
			}
			if err != nil {
				return err
			}
			views = append(views, v)
		}
		return format.print(a.stdout, views, listTable(views))
	}
	return cmd
}

func listTable(views []*stack.View) table {
	t := table{columns: []column{{name: "NAME"}, {name: "NODES"}, {name: "FLOATING IP"}, {name: "API"}, {name: "UUID", wide: true}}}
	for _, v := range views {
		active := 0
		for _, n := range v.Nodes {
			if n.Status == serverActive {
				active++
			}
		}
		var floating, api []string
		for _, f := range v.FloatingIPs {
			floating = append(floating, f.Address)
		}
		for _, l := range v.LoadBalancers {
			api = append(api, l.VIP)
		}
		t.add(v.Name, fmt.Sprintf("%d of %d ACTIVE", active, len(v.Nodes)), strings.Join(floating, " "), strings.Join(api, " "), v.UUID)
	}
	return t
}

package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/kuryrctl/kuryrctl/internal/picture"
	"github.com/kuryrctl/kuryrctl/stack"
)

func (a *app) newShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show NAME",
		Short: "Show everything about a stack: nodes, networks, load balancers, addresses",
		Long: `Show everything about a stack as it is in the cloud, in a table, as data, or as a picture of its topology:

  svg   the external network, the router, nodes with their pods, load balancers with what is behind them, floating IPs
  html  a page with that picture, all details on hover, and everything in tables; it is one file and loads nothing
  dot   the same as a graph, for those who have graphviz

Data and pictures tell more than the table: what is on trunks, behind load balancers and floating IPs.`,
		Example: "  kuryrctl show demo\n  kuryrctl show demo -o json | jq -r '.nodes[].address'\n  kuryrctl show demo -o html >demo.html",
		Args:    names("NAME"),

		ValidArgsFunction: a.completeStacks,
	}
	pictures := map[string]func(*stack.View) string{"svg": picture.SVG, "html": picture.HTML, "dot": picture.Dot}
	format := addOutput(cmd, "svg", "html", "dot")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		_, s, err := a.open(cmd.Context(), args[0], "")
		if err != nil {
			return err
		}
		defer s.Close()
		look := s.Describe
		if slices.Contains([]string{"table", "wide", "value"}, format.format) {
			look = s.Show // which says all that a table does, in fewer calls
		}
		v, err := look(cmd.Context())
		if err != nil {
			return err
		}
		if draw, ok := pictures[format.format]; ok {
			_, err := io.WriteString(a.stdout, draw(v))
			return err
		}
		return printView(a.stdout, format, v)
	}
	return cmd
}

// printView prints a stack: as data, or its nodes as a table with the rest under it.
func printView(w io.Writer, o *output, v *stack.View) error {
	nodes := table{columns: []column{{name: "NODE"}, {name: "ROLE"}, {name: "STATUS"}, {name: "ADDRESS"}, {name: "FLOATING IP"}, {name: "SUBPORTS"},
		{name: "LOGIN", wide: true}, {name: "SERVER ID", wide: true}, {name: "PORT ID", wide: true}, {name: "TRUNK ID", wide: true}}}
	for _, n := range v.Nodes {
		subports := ""
		if n.TrunkID != "" {
			subports = fmt.Sprint(n.Subports)
		}
		nodes.add(n.Name, n.Role, n.Status, n.Address, n.FloatingIP, subports, n.Login, n.ServerID, n.PortID, n.TrunkID)
	}
	if err := o.print(w, v, nodes); err != nil {
		return err
	}
	if o.format != "table" && o.format != "wide" || len(o.columns) > 0 {
		return nil
	}
	fmt.Fprintln(w)
	networks := table{columns: []column{{name: "NETWORK"}, {name: "CIDR"}, {name: "GATEWAY"}, {name: "ID", wide: true}, {name: "SUBNET ID", wide: true}}}
	for _, n := range v.Networks {
		networks.add(n.Name, n.CIDR, n.Gateway, n.ID, n.SubnetID)
	}
	if err := o.printTable(w, networks); err != nil {
		return err
	}
	fmt.Fprintln(w)
	balancers := table{columns: []column{{name: "LOAD BALANCER"}, {name: "VIP"}, {name: "STATUS"}, {name: "HEALTH"}, {name: "PROVIDER"}, {name: "ID", wide: true}}}
	for _, l := range v.LoadBalancers {
		balancers.add(l.Name, l.VIP, l.Status, l.Health, l.Provider, l.ID)
	}
	if err := o.printTable(w, balancers); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\nstack %s, uuid %s, project %s of cloud %s\n", v.Name, cmp.Or(v.UUID, "-"), v.Project, v.Cloud)
	return err
}

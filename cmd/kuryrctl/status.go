package main

import (
	"cmp"
	"slices"

	"github.com/spf13/cobra"

	"github.com/kuryrctl/kuryrctl/provision"
	"github.com/kuryrctl/kuryrctl/stack"
)

// serverActive is what Nova and Octavia call something that works.
const serverActive = "ACTIVE"

func (a *app) newStatusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status NAME",
		Short: "Show the state of each object of a stack, whatever was declared",
		Long: `Show the state of each object of a stack, whatever was declared. The exit code is 3 when a server or load balancer is not ACTIVE, or a
node has no server.`,
		Example: "  kuryrctl status demo\n  kuryrctl status demo -o json",
		Args:    names("NAME"),

		ValidArgsFunction: a.completeStacks,
	}
	format := addOutput(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		_, s, err := a.open(ctx, args[0], "")
		if err != nil {
			return err
		}
		defer s.Close()
		v, err := s.Show(ctx)
		if err != nil {
			return err
		}
		r, err := s.Removal(ctx)
		if err != nil {
			return err
		}
		rows := statusRows(v, r)
		t := table{columns: []column{{name: "KIND"}, {name: "NAME"}, {name: "STATUS"}, {name: "DETAIL"}, {name: "ID", wide: true}}}
		ready := true
		for _, row := range rows {
			ready = ready && row.Ready
			t.add(row.Kind, row.Name, row.Status, row.Detail, row.ID)
		}
		if err := format.print(a.stdout, rows, t); err != nil {
			return err
		}
		if !ready {
			return commandExit(exitDiffers)
		}
		return nil
	}
	return cmd
}

// statusRow is the state of one object. Its JSON is stable.
type statusRow struct {
	Kind   string `json:"kind"`
	Name   string `json:"name"`
	ID     string `json:"id,omitempty"`
	Status string `json:"status"` // the cloud's word where it has one, else present, missing or foreign
	Ready  bool   `json:"ready"`
	Detail string `json:"detail,omitempty"`
}

// statusRows lists everything of a stack in the order in which it is made, then what is missing and what is not the stack's.
func statusRows(v *stack.View, r *stack.Removal) []statusRow {
	rows := []statusRow{}
	for _, o := range slices.Backward(r.Objects) { // the order of deletion is the other way round
		row := statusRow{o.Kind, o.Name, o.ID, "present", true, o.Detail}
		for _, n := range v.Nodes {
			if n.ServerID == o.ID {
				row.Status, row.Ready, row.Detail = n.Status, n.Status == serverActive, n.Address
			}
		}
		for _, l := range v.LoadBalancers {
			if l.ID == o.ID {
				row.Status, row.Ready, row.Detail = l.Status, l.Status == serverActive, l.VIP+" "+l.Health
			}
		}
		rows = append(rows, row)
	}
	for _, n := range v.Nodes {
		if n.ServerID == "" {
			rows = append(rows, statusRow{Kind: "server", Name: v.Name + "/" + n.Name, Status: "missing", Detail: "its port is there"})
		}
	}
	for _, o := range r.Foreign {
		rows = append(rows, foreignRow(o))
	}
	return rows
}

// foreignRow is something of somebody else on the stack's networks, which hinders nothing but the stack's removal.
func foreignRow(o provision.Object) statusRow {
	return statusRow{o.Kind, cmp.Or(o.Name, o.ID), o.ID, "foreign", true, o.Detail}
}

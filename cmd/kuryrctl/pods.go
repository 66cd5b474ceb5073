package main

import (
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kuryrctl/kuryrctl/stack"
)

func (a *app) newPodsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pods NAME",
		Short: "List the subports of a stack's workers and the pods that have them",
		Long: `List the subports of a stack's workers: which pod has which port of Neutron, on which node, VLAN and address, and which are free. Pods on
their node's own network have no port and are not listed.`,
		Example: "  kuryrctl pods demo\n  kuryrctl pods demo --node worker-0 -o wide\n  kuryrctl pods demo -o json | jq -r '.[] | select(.state == \"used\") | .port_id'",
		Args:    names("NAME"),

		ValidArgsFunction: a.completeStacks,
	}
	format := addOutput(cmd)
	var filter stack.PodFilter
	cmd.Flags().StringVar(&filter.Node, "node", "", "only those of this worker")
	cmd.Flags().StringVarP(&filter.Namespace, "namespace", "n", "", "only those of pods in this namespace")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		_, s, err := a.open(cmd.Context(), args[0], "")
		if err != nil {
			return err
		}
		defer s.Close()
		pods, err := s.Pods(cmd.Context(), filter)
		if err != nil {
			return err
		}
		t := table{columns: []column{{name: "POD"}, {name: "NODE"}, {name: "ADDRESS"}, {name: "VLAN"}, {name: "STATE"}, {name: "PORT ID"}, {name: "PORT STATUS", wide: true}, {name: "MAC", wide: true}}}
		for _, p := range pods {
			name := ""
			if p.Pod != "" {
				name = p.Namespace + "/" + p.Pod
			}
			t.add(name, p.Node, strings.Join(p.Addresses, " "), strconv.Itoa(p.VLAN), p.State, p.Port, p.Status, p.MAC)
		}
		return format.print(a.stdout, pods, t)
	}
	return cmd
}

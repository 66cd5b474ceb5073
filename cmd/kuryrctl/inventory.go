package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kuryrctl/kuryrctl/stack"
)

func (a *app) newInventoryCommand() *cobra.Command {
	var style, output string
	cmd := &cobra.Command{
		Use:   "inventory NAME",
		Short: "Print a stack's nodes as an inventory for Ansible",
		Long: `Print a stack's nodes as an inventory for Ansible: who is a master, a member of etcd, a worker, and how each is reached with the stack's key,
through the first master, and with no host key but the pinned one. There is no secret in it; keys are named by their paths on this machine.

--style kubespray has the groups kube_control_plane, etcd, kube_node and k8s_cluster. --style openshift has OSEv3 with masters, etcd and nodes, and
the ids of networks that openshift-ansible's Kuryr wants.`,
		Example: "  kuryrctl inventory demo >inventory.ini && ansible -i inventory.ini all -m ping\n  kuryrctl inventory demo --style openshift -o yaml",
		Args:    names("NAME"),

		ValidArgsFunction: a.completeStacks,
	}
	cmd.Flags().StringVar(&style, "style", string(stack.Kubespray), "the groups' names: kubespray or openshift")
	cmd.Flags().StringVarP(&output, "output", "o", "ini", "ini or yaml")
	var styles []string
	for _, s := range stack.AnsibleStyles() {
		styles = append(styles, string(s))
	}
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("style", cobra.FixedCompletions(styles, cobra.ShellCompDirectiveNoFileComp)))
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"ini", "yaml"}, cobra.ShellCompDirectiveNoFileComp)))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if output != "ini" && output != "yaml" {
			return usageError{fmt.Errorf("--output %s: the formats are ini and yaml", output)}
		}
		if style != string(stack.Kubespray) && style != string(stack.OpenShift) {
			return usageError{fmt.Errorf("--style %s: the styles are kubespray and openshift", style)}
		}
		_, s, err := a.open(cmd.Context(), args[0], "")
		if err != nil {
			return err
		}
		defer s.Close()
		v, err := s.Show(cmd.Context())
		if err != nil {
			return err
		}
		inventory, keyless, err := s.Ansible(v, stack.AnsibleStyle(style))
		if err != nil {
			return err
		}
		if keyless {
			a.say("the key of %s is not on this machine: the inventory says nothing of keys", args[0])
		}
		if output == "yaml" {
			return inventory.YAML(a.stdout)
		}
		return inventory.INI(a.stdout)
	}
	return cmd
}

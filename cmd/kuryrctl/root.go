package main

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func (a *app) newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "kuryrctl",
		Short: "Kubernetes whose pods live directly on OpenStack's own networks",
		Long: `kuryrctl turns an OpenStack project into a Kubernetes cluster whose pods and VMs live on the same Neutron networks. It keeps no state
file: what belongs to a stack is marked in the cloud, so every command can be run again. Looking and removing work from any machine; what goes to the nodes needs
the stack's key, which is where it was made.

Every flag can be set by an environment variable too: --public-net is KURYRCTL_PUBLIC_NET. Results go to standard output, talk to
standard error.`,
		Example: `  kuryrctl plan demo -f examples/minimal.yaml
  kuryrctl stack demo -f examples/minimal.yaml
  kuryrctl ssh demo worker-0
  kuryrctl unstack demo`,
		SilenceUsage:      true,
		SilenceErrors:     true,
		PersistentPreRunE: a.begin,
	}
	a.sharedFlags(root.PersistentFlags())
	root.SetGlobalNormalizationFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "os-cloud" { // as the openstack command calls it
			name = "cloud"
		}
		return pflag.NormalizedName(name)
	})
	root.AddGroup(&cobra.Group{ID: life, Title: "A stack's life:"}, &cobra.Group{ID: look, Title: "Looking and entering:"})
	for _, cmd := range []*cobra.Command{a.newPlanCommand(), a.newStackCommand(), a.newScaleCommand(), a.newDNSCommand(), a.newDemoCommand(), a.newUnstackCommand()} {
		cmd.GroupID = life
		root.AddCommand(cmd)
	}
	for _, cmd := range []*cobra.Command{a.newDoctorCommand(), a.newListCommand(), a.newShowCommand(), a.newStatusCommand(), a.newGetKeyCommand(), a.newKubeconfigCommand(), a.newSSHCommand(),
		a.newPodsCommand(), a.newInventoryCommand(), a.newLogsCommand(), a.newDumpCommand()} {
		cmd.GroupID = look
		root.AddCommand(cmd)
	}
	root.AddCommand(newCloudCommand(), a.newBundleCommand(), a.newVersionCommand(), newExitCodesTopic())
	cobra.CheckErr(root.RegisterFlagCompletionFunc("cloud", completeClouds))
	groups(root)
	return root
}

// The groups in which help lists the verbs.
const (
	life = "life"
	look = "look"
)

// groups makes commands that only hold others show their help, and refuse words that are none of those.
func groups(cmd *cobra.Command) {
	for _, c := range cmd.Commands() {
		groups(c)
	}
	if cmd.HasSubCommands() && !cmd.Runnable() {
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		if cmd.HasParent() {
			cmd.Args = cobra.NoArgs // of the root, cobra itself says what was perhaps meant
		}
	}
}

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/kuryrctl/kuryrctl/bootstrap/cloud"
	"github.com/kuryrctl/kuryrctl/internal/graph"
)

func newCloudCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cloud",
		Short: "Run a real OpenStack on this machine, for when you have none",
		Long: `Run a real all-in-one OpenStack (Keystone, Glance, Placement, Nova, Neutron with OVN, Octavia) from Debian's packages, in a root
directory and in namespaces of its own. Nothing else on this machine changes. It needs root.`,
	}
	cmd.AddCommand(newCloudUpCommand(), newCloudStatusCommand(), newCloudDownCommand(), newCloudDestroyCommand(), newCloudExecCommand(), newCloudSuperviseCommand())
	return cmd
}

func newCloudUpCommand() *cobra.Command {
	var opts cloud.UpOptions
	var virt string
	var install bool
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Build what is missing, start the cloud, wait until it works",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch opts.Virt = cloud.Virt(virt); opts.Virt {
			case "", cloud.KVM, cloud.UML, cloud.QEMU:
			default:
				return fmt.Errorf("reading --virt: %q is none of kvm, uml, qemu", virt)
			}
			lab, err := cloud.Default()
			if err != nil {
				return err
			}
			begin := time.Now()
			err = cloudUp(cmd, lab, opts, install)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "kuryrctl: the cloud is up after %.1fs\n", time.Since(begin).Seconds())
			fmt.Fprintf(cmd.OutOrStdout(), "export OS_CLIENT_CONFIG_FILE=%s OS_CLOUD=lab\n", lab.CloudsYAML())
			return nil
		},
	}
	cmd.Flags().StringVar(&virt, "virt", "", "how to run servers: kvm, uml (user-mode Linux) or qemu (emulation); the best that works when not given")
	cmd.Flags().BoolVar(&opts.Fresh, "fresh", false, "forget everything that was made in the cloud and start from the golden root")
	cmd.Flags().BoolVar(&install, "install", false, "install the host's missing packages (mmdebstrap) without asking")
	return cmd
}

// cloudUp starts the lab, and once more after installing what the host lacked.
func cloudUp(cmd *cobra.Command, lab *cloud.Lab, opts cloud.UpOptions, install bool) error {
	narrate := func(e cloud.Event) { printCloudEvent(cmd.ErrOrStderr(), e) }
	err := lab.Up(cmd.Context(), opts, narrate)
	var missing *cloud.MissingError
	if !errors.As(err, &missing) || !(install || agreed(cmd.InOrStdin(), cmd.ErrOrStderr(), missing)) {
		return err
	}
	argv := missing.Command()
	apt := exec.CommandContext(cmd.Context(), argv[0], argv[1:]...)
	apt.Stdout, apt.Stderr = cmd.ErrOrStderr(), cmd.ErrOrStderr()
	if err := apt.Run(); err != nil {
		return fmt.Errorf("installing the missing packages: %w", err)
	}
	return lab.Up(cmd.Context(), opts, narrate)
}

// agreed asks on a terminal; anywhere else the answer is no.
func agreed(stdin io.Reader, stderr io.Writer, missing *cloud.MissingError) bool {
	f, ok := stdin.(*os.File)
	if !ok {
		return false
	}
	if info, err := f.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	fmt.Fprintf(stderr, "kuryrctl: this needs %v on this machine. Install now? [y/N] ", missing.Packages)
	var answer string
	if _, err := fmt.Fscanln(f, &answer); err != nil {
		return false
	}
	return answer == "y" || answer == "yes"
}

func printCloudEvent(w io.Writer, e cloud.Event) {
	switch e.Kind {
	case graph.Started:
		// The services of a start begin and end within seconds: their ends are enough.
		if !strings.Contains(string(e.Key), ".") {
			fmt.Fprintf(w, "kuryrctl: %-30s ...\n", e.Key)
		}
	case graph.Unchanged:
		fmt.Fprintf(w, "kuryrctl: %-30s there already\n", e.Key)
	case graph.Done:
		fmt.Fprintf(w, "kuryrctl: %-30s done %6.1fs %s\n", e.Key, e.Took.Seconds(), e.Detail)
	case graph.Error:
		fmt.Fprintf(w, "kuryrctl: %-30s failed: %v\n", e.Key, e.Err)
	case graph.Skipped:
		fmt.Fprintf(w, "kuryrctl: %-30s skipped %s\n", e.Key, e.Detail)
	}
}

func newCloudStatusCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show whether the cloud works, how it runs servers, and what it takes",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "table" && output != "json" {
				return fmt.Errorf("reading --output: %q is neither table nor json", output)
			}
			lab, err := cloud.Default()
			if err != nil {
				return err
			}
			status, err := lab.Status(cmd.Context())
			if err != nil {
				return err
			}
			if output == "json" {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(status)
			}
			return printCloudStatus(cmd.OutOrStdout(), status)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	return cmd
}

func printCloudStatus(out io.Writer, s cloud.Status) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	state := "down"
	switch {
	case s.Ready:
		state = "up"
	case s.Failure != "":
		state = "failed: " + s.Failure
	case s.Running:
		state = "starting"
	}
	fmt.Fprintf(w, "cloud\t%s\n", state)
	fmt.Fprintf(w, "disk\t%.1f GiB to build again, %.1f GiB of this cloud\n", gibibytes(s.Cache), gibibytes(s.State))
	if s.Running {
		fmt.Fprintf(w, "servers run by\t%s (%s)\n", s.Virt.Kind, s.Virt.Reason)
		fmt.Fprintf(w, "memory\t%.1f GiB\n", gibibytes(s.Memory))
		fmt.Fprintf(w, "uptime\t%s (start took %.1fs)\n", s.Uptime.Round(time.Second), s.StartTook.Seconds())
		fmt.Fprintf(w, "clouds.yaml\t%s\nlogs\t%s\n\nSERVICE\tSTATE\tPID\tRESTARTS\tTOOK\tENDPOINT\n", s.CloudsYAML, s.Logs)
	}
	for _, u := range s.Services {
		pid := ""
		if u.PID != 0 {
			pid = fmt.Sprint(u.PID)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%.1fs\t%s%s\n", u.Name, u.Phase, pid, u.Restarts, u.Took.Seconds(), s.Endpoints[u.Name], u.Detail)
	}
	return w.Flush()
}

func gibibytes(n int64) float64 { return float64(n) / (1 << 30) }

func newCloudDownCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Stop every process of the cloud; what was made in it stays for the next start",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			lab, err := cloud.Default()
			if err != nil {
				return err
			}
			return lab.Down(cmd.Context())
		},
	}
}

func newCloudDestroyCommand() *cobra.Command {
	var opts cloud.DestroyOptions
	cmd := &cobra.Command{
		Use:   "destroy",
		Short: "Stop the cloud and remove every file of it",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			lab, err := cloud.Default()
			if err != nil {
				return err
			}
			return lab.Destroy(cmd.Context(), opts)
		},
	}
	cmd.Flags().BoolVar(&opts.KeepCache, "keep-cache", false, "keep the built root, guest image and kernel for the next `cloud up`")
	return cmd
}

func newCloudExecCommand() *cobra.Command {
	var admin bool
	cmd := &cobra.Command{
		Use:   "exec -- COMMAND [ARGUMENT...]",
		Short: "Run a command inside the cloud, such as openstack or curl, and pass on its exit code",
		Long: `Run a command inside the cloud's root and namespaces, where its APIs and all addresses of its servers can be reached, and pass on
its exit code. OS_CLOUD is kept and is "lab" (user demo) when not set.`,
		Example: "  kuryrctl cloud exec -- openstack server list\n  kuryrctl cloud exec --admin -- openstack hypervisor list",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			lab, err := cloud.Default()
			if err != nil {
				return err
			}
			if admin {
				args = append([]string{"env", "OS_CLOUD=lab-admin"}, args...)
			}
			code, err := lab.Exec(cmd.Context(), args, cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if code != 0 {
				return commandExit(code)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&admin, "admin", false, "use the cloud lab-admin instead of OS_CLOUD")
	return cmd
}

// commandExit is the exit code of a command that has said what it had to say.
type commandExit int

func (c commandExit) Error() string {
	return fmt.Sprintf("the command ended with exit code %d", int(c))
}

// ExitCode is what kuryrctl ends with in turn.
func (c commandExit) ExitCode() int { return int(c) }

// newCloudSuperviseCommand is the first process inside the lab: not for people.
func newCloudSuperviseCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "supervise ORDERS",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE:   func(cmd *cobra.Command, args []string) error { return cloud.Supervise(cmd.Context(), args[0]) },
	}
}

package bootstrap

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/kuryrctl/kuryrctl/bootstrap/ssh"
	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/internal/wait"
	"github.com/kuryrctl/kuryrctl/templates"
)

var systemFiles = []file{
	{"/etc/modules-load.d/kuryrctl.conf", 0o644, templates.NodeFile("modules.conf")},
	{"/etc/sysctl.d/99-kuryrctl.conf", 0o644, templates.NodeFile("sysctl.conf")},
}

// system is the state of a host's own system: its name, clock, kernel and tools.
func (c *Cluster) system(n *Node, needs ...graph.Resource) *step {
	s := &step{key: graph.Key("system." + n.Name), node: n, needs: needs}
	s.look = func(ctx context.Context, client *ssh.Client) (graph.State, error) {
		f, err := n.known(ctx, client)
		if err != nil {
			return graph.State{}, err
		}
		printed, err := look(ctx, client, templates.Script("system-check", systemValues(n, f))+checkFiles(systemFiles))
		if err != nil {
			return graph.State{}, err
		}
		if f.Skew.Abs() > maxSkew {
			printed += fmt.Sprintf("its clock is %v off\n", f.Skew)
		}
		if f.CloudInit == "error" {
			printed += "cloud-init ended with an error\n"
		}
		return found(printed, f.ID+" "+f.Version+" "+f.Arch), nil
	}
	s.do = func(ctx context.Context, client *ssh.Client) error {
		f, err := n.known(ctx, client)
		if err != nil {
			return err
		}
		if f.CloudInit == "error" {
			return errors.New("cloud-init ended with an error: read /var/log/cloud-init.log there, mend what it names, and run `cloud-init clean --reboot` or make the server anew")
		}
		if err := write(ctx, client, systemFiles); err != nil {
			return err
		}
		if _, err := client.Run(ctx, ssh.Command{Line: templates.Script("system", systemValues(n, f)), Sudo: true}); err != nil {
			return err
		}
		return c.waitForClock(ctx, n, client)
	}
	return s
}

func systemValues(n *Node, f *facts) map[string]string {
	return map[string]string{"name": n.Name, "commands": strings.Join(commands, " "), "packages": f.system.packagesFor(commands), "manager": f.system.manager}
}

func (c *Cluster) waitForClock(ctx context.Context, n *Node, client *ssh.Client) error {
	ctx, cancel := context.WithTimeoutCause(ctx, cmp.Or(c.Limits.Clock, 30*time.Second), errors.New("set the clocks of this machine and of the node by NTP"))
	defer cancel()
	return wait.For(ctx, "the clock of "+n.Name, time.Second, func(ctx context.Context) (string, bool, error) {
		f, err := n.look(ctx, client)
		if err != nil {
			return "", false, err
		}
		n.mu.Lock()
		n.facts = f
		n.mu.Unlock()
		return fmt.Sprintf("%v off this machine's", f.Skew), f.Skew.Abs() <= maxSkew, nil
	})
}

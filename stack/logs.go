package stack

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/kuryrctl/kuryrctl/bootstrap/ssh"
	"github.com/kuryrctl/kuryrctl/provision"
)

// LogOptions say what of a log is wanted.
type LogOptions struct {
	Unit   string // of systemd; cloud-init stands for all of its own
	Lines  int    // the last ones; 0 is all
	Follow bool   // go on with what is added, until the context ends
}

// cloudInitUnits are those of every system; newer ones have others beside them.
const cloudInitUnits = "-u cloud-init-local -u cloud-init -u cloud-init-main -u cloud-init-network -u cloud-config -u cloud-final"

func (o LogOptions) command() string {
	units := cloudInitUnits
	if o.Unit != "cloud-init" {
		units = "-u " + ssh.Quote(o.Unit)
	}
	lines := "all"
	if o.Lines > 0 {
		lines = fmt.Sprint(o.Lines)
	}
	return "journalctl --no-pager -n " + lines + " " + units
}

// Logs writes the journal of a node's unit to w as it comes.
func (s *Stack) Logs(ctx context.Context, v *View, node string, o LogOptions, w io.Writer) error {
	client, err := s.Host(ctx, v, node)
	if err != nil {
		return err
	}
	if !o.Follow {
		_, err := client.Run(ctx, ssh.Command{Line: o.command(), Sudo: true, Stdout: w})
		return err
	}
	// What runs as root is not killed with the session: it ends when its input does.
	line := "exec 3<&0\n" + o.command() + " -f 3<&- &\nj=$!\n(cat <&3; kill $j) >/dev/null 2>&1 &\nwait $j"
	for _, n := range v.Nodes {
		if n.Name == node && n.Login != "root" {
			line = "sudo -n -- sh -c " + ssh.Quote(line)
		}
	}
	open, end := io.Pipe()
	defer end.Close()
	var said bytes.Buffer
	status, err := client.Shell(ctx, ssh.Session{Command: line, Stdin: open, Stdout: w, Stderr: &said})
	if err == nil && status != 0 {
		err = fmt.Errorf("following the journal of %s on %s: exit status %d: %s", o.Unit, node, status, strings.TrimSpace(said.String()))
	}
	return err
}

// Console is the end of what a server has written to its console, as far as Nova keeps it. It needs no way to the server.
func (s *Stack) Console(ctx context.Context, v *View, node string, lines int) (string, error) {
	var names []string
	for _, n := range v.Nodes {
		names = append(names, n.Name)
		if n.Name == node && n.ServerID == "" {
			return "", fmt.Errorf("reading the console of %s: it has no server", node)
		}
		if n.Name == node {
			return s.session.Console(ctx, n.ServerID, lines)
		}
	}
	return "", &provision.NotThere{Kind: "node", Name: node, There: "there are: " + strings.Join(names, ", ")}
}

// LocalLog is the end of the log of what kuryrctl ran on a node. It is beside the stack's key, on the machine where the stack was made.
func LocalLog(keyPath, node string, lines int) (string, error) {
	if strings.ContainsAny(node, `/\`) {
		return "", fmt.Errorf("reading the local log: %q is no name of a node", node)
	}
	path := local{filepath.Dir(keyPath)}.logPath(node)
	text, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return "", fmt.Errorf("reading the local log of %s: nothing was run there from this machine (%s is not there)", node, path)
	}
	if err != nil {
		return "", fmt.Errorf("reading the local log of %s: %w", node, err)
	}
	return lastLines(string(text), lines), nil
}

// lastLines are the last n lines of a text; 0 is all.
func lastLines(text string, n int) string {
	if n <= 0 {
		return text
	}
	at := len(strings.TrimSuffix(text, "\n"))
	for ; n > 0 && at >= 0; n-- {
		at = strings.LastIndexByte(text[:at], '\n')
	}
	return text[at+1:]
}

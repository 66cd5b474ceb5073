package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kuryrctl/kuryrctl/bootstrap/ssh"
)

func (a *app) newSSHCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ssh NAME NODE [-- COMMAND [ARGUMENT...]]",
		Short: "Open a shell on a node, or run a command there and pass on its exit code",
		Long: `Open a shell on a node, or run a command there and pass on its exit code. Nodes are reached through the first master; their host keys
were pinned when they were made, so there is no question to answer. The command goes to the node's shell as one line.`,
		Example: "  kuryrctl ssh demo worker-0\n  kuryrctl ssh demo master-0 -- sudo journalctl -u kubelet -n 20",
		Args: func(cmd *cobra.Command, args []string) error {
			own := args
			if dash := cmd.ArgsLenAtDash(); dash >= 0 {
				own = args[:dash]
			}
			return names("NAME", "NODE")(cmd, own)
		},
		ValidArgsFunction: a.completeNodes,
	}
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
		node, err := s.Host(ctx, v, args[1])
		if err != nil {
			return fmt.Errorf("entering %s: %w", args[1], err)
		}
		session := ssh.Session{Command: strings.Join(args[2:], " "), Stdin: a.stdin, Stdout: a.stdout, Stderr: a.stderr}
		if f, ok := a.stdin.(*os.File); ok && session.Command == "" {
			t, restore, err := ssh.RawTerminal(ctx, f)
			if err != nil {
				return err
			}
			defer restore()
			session.Terminal = t
		}
		code, err := node.Shell(ctx, session)
		if err != nil {
			return err
		}
		if code != 0 {
			return commandExit(code)
		}
		return nil
	}
	return cmd
}

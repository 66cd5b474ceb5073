package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/kuryrctl/kuryrctl/bootstrap/dns"
	"github.com/kuryrctl/kuryrctl/stack"
)

func (a *app) newDNSCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dns",
		Short: "Make the names of a stack's nodes and applications resolve",
		Long: `Make the names of a stack resolve: NODE.DOMAIN for each node, at its floating IP if it has one, and *.APPS-DOMAIN for everything that the
router serves. Where they are kept is declared in the lab file: a name server that takes updates signed with TSIG, a zone file for bind, or Designate.`,
	}
	cmd.AddCommand(a.newDNSShowCommand(), a.newDNSSyncCommand(), a.newDNSZoneCommand(), a.newDNSRemoveCommand())
	return cmd
}

// declared is a declaration that only a file or what is remembered of the stack can give.
type declared struct{ labFile }

func addDeclared(cmd *cobra.Command) *declared {
	d := &declared{labFile{flags: cmd.Flags()}}
	d.flags.StringVarP(&d.path, "file", "f", "", "the lab file, - for standard input; without one, what the stack was last declared to be on this machine")
	cobra.CheckErr(cmd.MarkFlagFilename("file", "yaml", "yml"))
	return d
}

// of is the declaration of a stack.
func (d *declared) of(s *stack.Stack, stdin io.Reader) (stack.Config, error) {
	if d.path == "" {
		return s.Declaration()
	}
	return d.load(stdin)
}

// names finds out which names a stack should have.
func (a *app) names(cmd *cobra.Command, s *stack.Stack, d *declared) (c stack.Config, n *stack.Names, err error) {
	if c, err = d.of(s, a.stdin); err != nil {
		return c, nil, err
	}
	if n, err = s.Names(cmd.Context(), c); err != nil {
		return c, nil, err
	}
	if n.Without != "" {
		a.say("*.%s is left out: %s; dns.apps_address in the lab file gives one", n.AppsDomain, n.Without)
	}
	return c, n, nil
}

func (a *app) newDNSShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "show NAME",
		Short:   "Show the names that a stack should have; no name server is asked",
		Example: "  kuryrctl dns show demo\n  kuryrctl dns show demo -o value -c address -c name >>/etc/hosts",
		Args:    names("NAME"),

		ValidArgsFunction: a.completeStacks,
	}
	lab, format := addDeclared(cmd), addOutput(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		_, s, err := a.open(cmd.Context(), args[0], "")
		if err != nil {
			return err
		}
		defer s.Close()
		_, n, err := a.names(cmd, s, lab)
		if err != nil {
			return err
		}
		t := table{columns: []column{{name: "NAME"}, {name: "ADDRESS"}, {name: "OF"}}}
		for _, r := range n.Records {
			t.add(r.Name, r.Address.String(), r.Of)
		}
		return format.print(a.stdout, n, t)
	}
	return cmd
}

func (a *app) newDNSZoneCommand() *cobra.Command {
	var nameserver string
	cmd := &cobra.Command{
		Use:     "zone NAME",
		Short:   "Print a zone file with the names that a stack should have",
		Example: "  kuryrctl dns zone demo --nameserver 192.0.2.53 >/etc/bind/db.demo",
		Args:    names("NAME"),

		ValidArgsFunction: a.completeStacks,
	}
	lab := addDeclared(cmd)
	cmd.Flags().StringVar(&nameserver, "nameserver", "", "name or address of the server that will serve the zone; without one, that of dns.zone in the lab file")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		_, s, err := a.open(cmd.Context(), args[0], "")
		if err != nil {
			return err
		}
		defer s.Close()
		c, n, err := a.names(cmd, s, lab)
		if err != nil {
			return err
		}
		text, err := s.Zone(c, n, nameserver)
		if err != nil {
			return err
		}
		_, err = io.WriteString(a.stdout, text)
		return err
	}
	return cmd
}

func (a *app) newDNSSyncCommand() *cobra.Command {
	o := stack.UpOptions{Verb: "dns"}
	cmd := &cobra.Command{
		Use:   "sync NAME",
		Short: "Make the names resolve, where the lab file says",
		Long: `Make the names that a stack should have resolve where the lab file says (dns.update, dns.zone or dns.designate), and remove those that it has
had and should not have any more. It can be run again at any time; nothing is written when all is as it should be. Names that somebody else has are
never changed: they are told, and nothing is written. The stack is locked while names are written, as by every run that changes it.

A TSIG key comes from the file that is declared, or from KURYRCTL_TSIG_KEY as ALGORITHM:NAME:SECRET. unstack removes the names.`,
		Example: "  kuryrctl dns sync demo -f lab.yaml",
		Args:    names("NAME"),

		ValidArgsFunction: a.completeStacks,
	}
	lab, format := addDeclared(cmd), addOutput(cmd)
	addBreakLock(cmd, &o.BreakLock)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		_, s, err := a.open(cmd.Context(), args[0], "")
		if err != nil {
			return err
		}
		defer s.Close()
		c, n, err := a.names(cmd, s, lab)
		if err != nil {
			return err
		}
		changes, err := s.SyncNames(cmd.Context(), c, n, o)
		if err != nil {
			return err
		}
		return format.print(a.stdout, changes, changedNames(changes))
	}
	return cmd
}

func changedNames(changes []dns.Change) table {
	t := table{columns: []column{{name: " "}, {name: "NAME"}, {name: "ADDRESS"}, {name: "WAS", wide: true}}}
	for _, c := range changes {
		t.add(string(c.Action), c.Name, c.Address.String(), c.Was)
	}
	return t
}

func (a *app) newDNSRemoveCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "remove NAME",
		Short: "Remove the names of a stack, which may be gone already",
		Long: `Remove the names that dns sync made for a stack: those that this machine has made, or with --file those that any machine has made where the lab
file says. The stack may be gone already. An address that somebody else has given one of the names since stays.`,
		Example: "  kuryrctl dns remove demo\n  kuryrctl dns remove demo -f lab.yaml --yes",
		Args:    names("NAME"),

		ValidArgsFunction: a.completeStacks,
	}
	lab, format := addDeclared(cmd), addOutput(cmd)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		_, s, err := a.open(cmd.Context(), args[0], "")
		if err != nil {
			return err
		}
		defer s.Close()
		remove := s.RemoveNames
		at, err := s.NamesAt()
		if err != nil {
			return err
		}
		if lab.path != "" {
			c, err := lab.load(a.stdin)
			if err != nil {
				return err
			}
			at = "as declared in " + lab.path
			remove = func(ctx context.Context) ([]dns.Change, error) { return s.RemoveNamesFrom(ctx, c) }
		}
		if at == "" {
			return fmt.Errorf("this machine has made no names of %s: give the lab file that says where they are with --file", args[0])
		}
		if err := a.consent(cmd.Context(), fmt.Sprintf("Remove the names of %s, %s?", args[0], at), yes); err != nil {
			return err
		}
		changes, err := remove(cmd.Context())
		if err != nil {
			return err
		}
		return format.print(a.stdout, changes, changedNames(changes))
	}
	return cmd
}

package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/kuryrctl/kuryrctl/stack"
)

func (a *app) newPlanCommand() *cobra.Command {
	var showConfig bool
	cmd := &cobra.Command{
		Use:   "plan NAME",
		Short: "Show what stack would create and repair, and change nothing",
		Long: `Show what stack would do about every object that a stack consists of, and change nothing:

  +  it will be created
  ~  it is there, and will be repaired or waited for
  =  it is as declared
  -  it belongs to the stack and is not declared; stack never touches it
  ?  it is on a host that cannot be looked at, and DETAIL says why

The exit code is 3 when anything is not as declared, or not known to be.`,
		Example: "  kuryrctl plan demo\n  kuryrctl plan demo -f examples/superfluidity.yaml --workers 5 -o json",
		Args:    names("NAME"),

		ValidArgsFunction: a.completeStacks,
	}
	lab := addLabFile(cmd)
	format := addOutput(cmd)
	a.addBundle(cmd)
	cmd.Flags().BoolVar(&showConfig, "show-config", false, "print the whole declaration with all defaults, and ask no cloud")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		config, err := lab.load(a.stdin)
		if err != nil {
			return err
		}
		if showConfig {
			return encodeYAML(a.stdout, config)
		}
		_, s, err := a.open(cmd.Context(), args[0], "")
		if err != nil {
			return err
		}
		defer s.Close()
		lab.warn(a, s, config)
		p, err := s.Plan(cmd.Context(), config)
		if err != nil {
			return err
		}
		if err := format.print(a.stdout, p, planTable(p)); err != nil {
			return err
		}
		a.say("%s", summary(p))
		if p.HasChanges() {
			return commandExit(exitDiffers)
		}
		return nil
	}
	return cmd
}

func encodeYAML(w io.Writer, v any) error {
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("writing YAML: %w", err)
	}
	return enc.Close()
}

func planTable(p *stack.Plan) table {
	t := table{columns: []column{{name: " "}, {name: "RESOURCE"}, {name: "FOUND"}, {name: "DETAIL"}, {name: "ID", wide: true}}}
	for _, c := range p.Changes {
		t.add(string(c.Action), c.Key, c.Phase, c.Detail, c.ID)
	}
	return t
}

func summary(p *stack.Plan) string {
	count := map[stack.Action]int{}
	for _, c := range p.Changes {
		count[c.Action]++
	}
	var said []string
	for _, x := range []struct {
		action stack.Action
		what   string
	}{{stack.Create, "to create"}, {stack.Repair, "to repair"}, {stack.Keep, "as declared"}, {stack.Extra, "not declared"}, {stack.Unknown, "unknown"}} {
		if n := count[x.action]; n > 0 {
			said = append(said, fmt.Sprintf("%d %s", n, x.what))
		}
	}
	return p.Stack + ": " + strings.Join(said, ", ")
}

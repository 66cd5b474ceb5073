package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

// output is how a result is printed.
type output struct {
	format  string
	columns []string
	others  []string // formats of this command alone, which it writes itself
}

func formats() []string { return []string{"table", "wide", "json", "yaml", "value"} }

// addOutput gives cmd the flags -o and -c. others are formats that only this command has, and writes itself.
func addOutput(cmd *cobra.Command, others ...string) *output {
	o := &output{others: others}
	known := append(formats(), others...)
	usage := strings.Join(formats(), ", ") + " (values separated by tabs, no header)"
	if len(others) > 0 {
		usage += "; or a picture: " + strings.Join(others, ", ")
	}
	cmd.Flags().StringVarP(&o.format, "output", "o", "table", usage)
	cmd.Flags().StringArrayVarP(&o.columns, "column", "c", nil, "only this column of a table or of values; may be repeated")
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(known, cobra.ShellCompDirectiveNoFileComp)))
	return o
}

// table is a result in rows. Wide columns are left out of a plain table.
type table struct {
	columns []column
	rows    [][]string
}

type column struct {
	name string
	wide bool
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// print writes a result: v as data, or else t. The names in JSON and YAML are the same.
func (o *output) print(w io.Writer, v any, t table) error {
	switch o.format {
	case "json":
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	case "yaml":
		return yamlLikeJSON(w, v)
	case "table", "wide", "value":
		return o.printTable(w, t)
	}
	return usageError{fmt.Errorf("--output %s: the formats are %s", o.format, strings.Join(append(formats(), o.others...), ", "))}
}

func (o *output) printTable(w io.Writer, t table) error {
	shown, err := o.choose(t.columns)
	if err != nil {
		return err
	}
	pick := func(cells []string) string {
		out := make([]string, len(shown))
		for i, at := range shown {
			if out[i] = cells[at]; out[i] == "" && o.format != "value" {
				out[i] = "-"
			}
		}
		return strings.Join(out, "\t")
	}
	if o.format == "value" {
		for _, row := range t.rows {
			fmt.Fprintln(w, pick(row))
		}
		return nil
	}
	header := make([]string, len(t.columns))
	for i, c := range t.columns {
		header[i] = c.name
	}
	var lined strings.Builder
	tw := tabwriter.NewWriter(&lined, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, pick(header))
	for _, row := range t.rows {
		fmt.Fprintln(tw, pick(row))
	}
	tw.Flush() // into memory, which does not fail
	for line := range strings.Lines(lined.String()) {
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

// choose finds the columns to show: those asked for, in that order, or those of the format.
func (o *output) choose(all []column) (shown []int, err error) {
	for _, name := range o.columns {
		at := slices.IndexFunc(all, func(c column) bool { return strings.EqualFold(c.name, name) })
		if at < 0 {
			var known []string
			for _, c := range all {
				known = append(known, c.name)
			}
			return nil, usageError{fmt.Errorf("--column %s: the columns are %s", name, strings.TrimSpace(strings.Join(known, ", ")))}
		}
		shown = append(shown, at)
	}
	if len(o.columns) > 0 {
		return shown, nil
	}
	for i, c := range all {
		if !c.wide || o.format != "table" {
			shown = append(shown, i)
		}
	}
	return shown, nil
}

// yamlLikeJSON writes v as YAML with the names and the order that its JSON has.
func yamlLikeJSON(w io.Writer, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var node yaml.Node
	if err := yaml.Unmarshal(text, &node); err != nil { // JSON is YAML
		return err
	}
	block(&node)
	return encodeYAML(w, &node)
}

// block takes JSON's braces, brackets and quotes away; the encoder puts quotes back where they matter.
func block(n *yaml.Node) {
	if n.Kind != yaml.SequenceNode && n.Kind != yaml.MappingNode || len(n.Content) > 0 {
		n.Style = 0
	}
	for _, c := range n.Content {
		block(c)
	}
}

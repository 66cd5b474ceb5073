package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/kuryrctl/kuryrctl/nodeagent/passage"
	"github.com/kuryrctl/kuryrctl/nodeagent/vif"
)

func runDropTest(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if err := parse(flag.NewFlagSet("droptest", flag.ContinueOnError), args, stderr); err != nil {
		return err
	}
	var t vif.DropTest
	if err := json.NewDecoder(os.Stdin).Decode(&t); err != nil {
		return fmt.Errorf("reading what to test from standard input: %w", err)
	}
	found, err := passage.Run(ctx, t)
	if err == nil {
		_, err = fmt.Fprintln(stdout, found)
	}
	return err
}

package main

import (
	"cmp"
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is what this binary was built from. Its JSON is stable.
type version struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Modified bool   `json:"modified"` // there were changes that the commit does not have
	Go       string `json:"go"`
}

func thisVersion() (version, error) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return version{}, fmt.Errorf("reading the version: this binary was built without it")
	}
	v := version{Version: cmp.Or(info.Main.Version, "(devel)"), Go: info.GoVersion}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Commit = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v, nil
}

func (a *app) newVersionCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "version", Short: "Print the version of this program", Args: cobra.NoArgs}
	format := addOutput(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		v, err := thisVersion()
		if err != nil {
			return err
		}
		t := table{columns: []column{{name: "VERSION"}, {name: "COMMIT"}, {name: "GO"}}}
		t.add(v.Version, v.Commit, v.Go)
		return format.print(a.stdout, v, t)
	}
	return cmd
}

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kuryrctl/kuryrctl/stack"
)

// labFile is a declaration on the command line: a file, and flags for single values of it.
type labFile struct {
	path  string
	flags *pflag.FlagSet
	known func() stack.Config // what is declared without a file; nil is the defaults
}

// addLabFile gives cmd the flags of a declaration.
func addLabFile(cmd *cobra.Command) *labFile {
	l := &labFile{flags: cmd.Flags()}
	f := l.flags
	f.StringVarP(&l.path, "file", "f", "", "the lab file, - for standard input; without one the defaults are declared")
	d := stack.Defaults()
	l.over(&d, func(name, usage string, at any) {
		switch at.(type) {
		case *string:
			f.String(name, "", usage)
		case *int:
			f.Int(name, 0, usage)
		case *bool:
			f.Bool(name, false, usage)
		}
		f.Lookup(name).DefValue = "" // that of the lab file, which is not known here
	})
	cobra.CheckErr(cmd.MarkFlagFilename("file", "yaml", "yml"))
	return l
}

// over visits the values of a declaration that flags stand for.
func (l *labFile) over(c *stack.Config, visit func(name, usage string, at any)) {
	visit("image", "image of the servers: name, id, or properties such as os_distro=debian,os_version=13", &c.Image)
	visit("ssh-user", "login of the image", &c.SSHUser)
	visit("public-net", "external network, name or id; the only one where it is not named", &c.PublicNet)
	visit("dns-domain", "domain of the nodes' names", &c.DNSDomain)
	visit("config-drive", "give servers their metadata on a disk", &c.ConfigDrive)
	visit("octavia-provider", "provider of the load balancers", &c.OctaviaProvider)
	visit("admin-cloud", "cloud in clouds.yaml that may raise the project's quotas", &c.AdminCloud)
	visit("masters", "number of masters, 1 to 3", &c.Masters.Count)
	visit("workers", "number of workers", &c.Workers.Count)
	visit("master-flavor", "flavor of the masters", &c.Masters.Flavor)
	visit("worker-flavor", "flavor of the workers", &c.Workers.Flavor)
	visit("kubernetes", "install Kubernetes on the servers", &c.Kubernetes.Install)
	visit("kubernetes-version", "version of Kubernetes, such as v1.37 or v1.37.1", &c.Kubernetes.Version)
}

// load reads the declaration and refuses one that cannot work.
func (l *labFile) load(stdin io.Reader) (stack.Config, error) {
	c, err := l.read(stdin)
	if err == nil {
		err = c.Validate()
	}
	if err != nil {
		return c, usageError{err}
	}
	return c, nil
}

// read reads the declaration: the defaults, the file over them, the flags over both.
func (l *labFile) read(stdin io.Reader) (stack.Config, error) {
	c := stack.Defaults()
	if l.path == "" && l.known != nil {
		c = l.known()
	}
	if err := l.decode(&c, stdin); err != nil {
		return c, err
	}
	return c, l.apply(&c)
}

// apply sets what flags were given for.
func (l *labFile) apply(c *stack.Config) error {
	var errs []error
	l.over(c, func(name, _ string, at any) {
		if !l.flags.Changed(name) {
			return
		}
		var err error
		switch at := at.(type) {
		case *string:
			*at, err = l.flags.GetString(name)
		case *int:
			*at, err = l.flags.GetInt(name)
		case *bool:
			*at, err = l.flags.GetBool(name)
		}
		errs = append(errs, err)
	})
	return errors.Join(errs...)
}

// warn tells of a lab file that was forgotten: the stack was last declared to be something else, by more than the flags.
func (l *labFile) warn(a *app, s *stack.Stack, c stack.Config) {
	known, err := s.Declaration()
	if l.path != "" || err != nil || l.apply(&known) != nil {
		return
	}
	var before, now strings.Builder
	if encodeYAML(&before, known) == nil && encodeYAML(&now, c) == nil && before.String() != now.String() {
		a.say("no lab file is given (-f): %s is declared by the defaults now, and no longer by what it was last declared to be here", s.Name)
	}
}

func (l *labFile) decode(c *stack.Config, stdin io.Reader) error {
	switch l.path {
	case "":
		return nil
	case "-":
		return c.Decode(stdin, "standard input")
	}
	f, err := os.Open(l.path)
	if err != nil {
		return fmt.Errorf("reading the lab file: %w", err)
	}
	defer f.Close()
	return c.Decode(f, l.path)
}

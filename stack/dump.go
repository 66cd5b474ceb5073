package stack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/kuryrctl/kuryrctl/bootstrap"
	"github.com/kuryrctl/kuryrctl/internal/openstack"
)

// DumpOptions are how a stack is dumped.
type DumpOptions struct {
	Options
	Path    string        // of the archive; what is there is replaced
	Timeout time.Duration // for everything; what is not there by then is left out
	About   any           // the program, as JSON
	On      func(what string)
}

// partLimit is how much of one part goes into an archive, in bytes; it is the end that stays.
const partLimit = 5 << 20

// errDumpTime is the cause of what was cut off.
var errDumpTime = errors.New("the time for the dump was over")

// Dump writes an archive of everything that tells how a stack is: of this machine, the cloud, the nodes and the cluster, as far as each can
// be had. What cannot is named in errors.txt, and is no error of Dump: that is only an archive that cannot be written, or one with nothing
// in it. Secrets are masked in all of it.
func Dump(ctx context.Context, name string, c Config, connect func(context.Context) (*openstack.Cloud, error), o DumpOptions) (missing int, err error) {
	if err := CheckName(name); err != nil {
		return 0, err
	}
	a, err := newArchive(o.Path, "kuryrctl-dump-"+name)
	if err != nil {
		return 0, err
	}
	defer a.abandon()
	d := &dump{name: name, config: c, connect: connect, options: o, archive: a}
	limited, cancel := context.WithTimeoutCause(ctx, o.Timeout, errDumpTime)
	defer cancel()
	d.run(limited)
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	return a.finish()
}

// dump is one dump under way.
type dump struct {
	name    string
	config  Config
	connect func(context.Context) (*openstack.Cloud, error)
	options DumpOptions
	archive *archive
}

func (d *dump) say(what string) {
	if d.options.On != nil {
		d.options.On(what)
	}
}

func (d *dump) json(name string, v any, err error) {
	var text []byte
	if err == nil {
		text, err = json.MarshalIndent(v, "", "  ")
	}
	d.archive.add(name, text, err)
}

func (d *dump) run(ctx context.Context) {
	d.json("version.json", d.options.About, nil)
	text, err := yaml.Marshal(d.config)
	d.archive.add("declaration.yaml", text, err)

	d.say("logging in")
	var s *Stack
	cloud, err := d.connect(ctx)
	if err == nil {
		s, err = Open(cloud, d.name, d.options.Options)
	}
	if err != nil {
		d.archive.add("cloud", nil, err)
		if key, e := FindKey(d.name); e == nil {
			d.local(local{filepath.Dir(key)})
		}
	} else {
		defer s.Close()
		d.local(s.local)
	}
	d.doctor(ctx)
	if s != nil {
		d.stack(ctx, s)
	}
}

// local adds what this machine keeps; its secrets are known from here on, and looked for in everything.
func (d *dump) local(l local) {
	d.say("logs of this machine")
	d.archive.know(l.secrets()...)
	if text, err := os.ReadFile(l.declarationPath()); !errors.Is(err, os.ErrNotExist) {
		d.archive.add("declaration-kept.yaml", text, err)
	}
	logs, err := filepath.Glob(filepath.Join(l.dir, "logs", "*"))
	if err != nil {
		d.archive.add("local", nil, err)
	}
	for _, path := range logs {
		text, err := os.ReadFile(path)
		d.archive.add("local/"+filepath.Base(path), text, err)
	}
}

// secrets are the values that are kept here and nobody else is to see.
func (l local) secrets() (all []string) {
	var c credential
	if text, err := os.ReadFile(l.credentialPath()); err == nil && json.Unmarshal(text, &c) == nil {
		all = append(all, c.Secret)
	}
	for _, path := range []string{l.keyPath(), l.kubeconfigPath()} {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			line = strings.TrimSpace(line)
			if value, ok := strings.CutPrefix(line, "client-key-data: "); ok {
				all = append(all, value)
			} else if path == l.keyPath() && len(line) > 16 && !strings.HasPrefix(line, "-----") {
				all = append(all, line)
			}
		}
	}
	return all
}

func (d *dump) doctor(ctx context.Context) {
	d.say("doctor")
	ctx, cancel := context.WithTimeout(ctx, d.options.Timeout/3) // of a cloud that hangs there is more to tell
	defer cancel()
	found, err := Diagnose(ctx, d.name, d.config, d.connect, DiagnoseOptions{Options: d.options.Options})
	if len(found) > 0 {
		d.json("doctor.json", found, nil)
	}
	if err != nil {
		d.archive.add("doctor.json", nil, err)
	}
}

func (d *dump) stack(ctx context.Context, s *Stack) {
	d.say("what is in the cloud")
	v, err := s.Show(ctx)
	d.json("show.json", v, err)
	if err != nil {
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for _, x := range s.session.Documents(ctx) {
			d.archive.add("openstack/"+x.Name+".json", x.JSON, x.Err)
		}
	})
	for _, n := range v.Nodes {
		wg.Go(func() {
			text, err := s.Console(ctx, v, n.Name, 0)
			d.archive.add("nodes/"+n.Name+"/console.log", []byte(text), err)
		})
		wg.Go(func() { d.node(ctx, s, v, n.Name) })
	}
	wg.Go(func() { d.api(ctx, s, v) })
	wg.Wait()
	d.plan(ctx)
}

func (d *dump) node(ctx context.Context, s *Stack, v *View, name string) {
	reach, cancel := context.WithTimeout(ctx, connectLimit)
	client, err := s.Host(reach, v, name)
	cancel()
	var parts []bootstrap.Part
	if err == nil {
		parts, err = bootstrap.Collect(ctx, client, partLimit)
	}
	for _, p := range parts {
		d.archive.add("nodes/"+name+"/"+p.Name, p.Text, nil)
	}
	if err != nil {
		d.archive.add("nodes/"+name, nil, err)
		return
	}
	d.say("node " + name)
}

func (d *dump) api(ctx context.Context, s *Stack, v *View) {
	ctx, cancel := context.WithTimeoutCause(ctx, 3*apiLimit, fmt.Errorf("it did not answer within %v", 3*apiLimit))
	defer cancel()
	api, err := s.attach(v).API()
	if err != nil {
		d.archive.add("kubernetes", nil, err)
		return
	}
	for _, x := range []struct{ name, path string }{
		{"readyz.txt", "/readyz?verbose"}, {"version.json", "/version"}, {"nodes.json", "/api/v1/nodes"}, {"events.json", "/api/v1/events"}, {"pods.json", "/api/v1/pods"},
	} {
		text, err := api.Raw(ctx, x.path)
		if len(text) > 0 {
			d.archive.add("kubernetes/"+x.name, text, nil)
		}
		if err != nil {
			d.archive.add("kubernetes/"+x.name, nil, err)
		}
		if len(text) == 0 && err != nil {
			return // it does not answer at all, and the reason stays the same
		}
	}
	d.say("the API")
}

// plan is made with connections of its own: designing a stack begins anew.
func (d *dump) plan(ctx context.Context) {
	d.say("plan")
	if err := d.config.Validate(); err != nil {
		d.archive.add("plan.json", nil, err)
		return
	}
	cloud, err := d.connect(ctx)
	if err != nil {
		d.archive.add("plan.json", nil, err)
		return
	}
	s, err := Open(cloud, d.name, d.options.Options)
	if err != nil {
		d.archive.add("plan.json", nil, err)
		return
	}
	defer s.Close()
	p, err := s.Plan(ctx, d.config)
	d.json("plan.json", p, err)
}

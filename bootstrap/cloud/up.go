package cloud

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/templates/lab"
)

// Up builds what is not in the cache, starts the cloud and returns when all of its services work. Killed at any point, it goes
// on from there when it is called again; with the cloud up already it returns at once. on hears of every step; calls to it do
// not overlap.
func (l *Lab) Up(ctx context.Context, opts UpOptions, on func(Event)) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("starting the lab: %w", ErrNotRoot)
	}
	unlock, err := l.lock("up")
	if err != nil {
		return err
	}
	defer unlock()
	u := &up{Lab: l, opts: opts, on: serial(on)}
	if done, err := u.already(ctx); done || err != nil {
		return err
	}
	if opts.Fresh {
		if err := l.forget(); err != nil {
			return err
		}
	}
	if u.base, err = l.readBase(); err != nil {
		return err
	}
	if err := thisHost().check(l, u.base.Bake == "" && !u.built()); err != nil {
		return err
	}
	if err := l.makeNamespace(); err != nil {
		return err
	}
	return u.graph().Apply(ctx, 4, u.on)
}

// up is one run of Up.
type up struct {
	*Lab
	opts UpOptions
	on   func(Event)

	noKernel string      // why there is none, once its step is over
	in       ingredients // complete once the kernel's step is over
	base     base
}

// base is what the overlay in the state directory lies on. An overlay must never be put on another one, so a newer kuryrctl
// goes on with the old base until it is asked for a fresh cloud.
type base struct {
	Root, Bake, Guest, Kernel string // paths; Kernel is empty where none could be had
	ImageID                   string
	NoKernel                  string // why
}

func (l *Lab) baseFile() string { return filepath.Join(l.state, "base.json") }

// readBase returns the zero base where there is no overlay yet, or where its layers have gone.
func (l *Lab) readBase() (base, error) {
	var b base
	data, err := os.ReadFile(l.baseFile())
	if errors.Is(err, os.ErrNotExist) {
		return b, nil
	}
	if err != nil {
		return b, err
	}
	if err := json.Unmarshal(data, &b); err != nil {
		return b, fmt.Errorf("reading %s: %w", l.baseFile(), err)
	}
	for _, dir := range []string{b.Root, b.Bake, b.Guest} {
		if _, err := os.Stat(dir); err != nil {
			return base{}, fmt.Errorf("looking for the layers under this cloud: %w; start a new one with --fresh", err)
		}
	}
	return b, nil
}

// already deals with a process that an earlier Up has begun.
func (u *up) already(ctx context.Context) (done bool, err error) {
	p, ok := u.running()
	if !ok {
		return false, nil
	}
	r, err := readReport(u.reportFile())
	if p.Baking || u.opts.Fresh || (err == nil && r.Failure != "") {
		return false, u.end(ctx, p)
	}
	if u.opts.Virt != "" && err == nil && r.Virt.Kind != "" && r.Virt.Kind != u.opts.Virt {
		return false, fmt.Errorf("starting the lab with %s: it runs with %s; run `kuryrctl cloud down` first", u.opts.Virt, r.Virt.Kind)
	}
	return true, u.follow(ctx, p)
}

func (u *up) layer(kind, key string) layer { return layer{kind: kind, key: key, cache: u.cache} }

func (u *up) kernelLayer() layer { return u.layer("kernel", kernelDigest[:16]) }

// built reports whether the cache holds all layers.
func (u *up) built() bool {
	in, err := newIngredients(kernelDigest)
	return err == nil && u.kernelLayer().exists() && u.layer("root", in.rootKey()).exists() && u.layer("guest", in.guestKey()).exists() && u.layer("bake", in.bakeKey()).exists()
}

// step is one part of the work as a resource: it is ready when done says so.
type step struct {
	key   graph.Key
	needs []graph.Resource
	done  func() bool
	apply func(context.Context) error
}

func (s *step) Key() graph.Key                  { return s.key }
func (s *step) Needs() []graph.Resource         { return s.needs }
func (s *step) Apply(ctx context.Context) error { return s.apply(ctx) }
func (s *step) Observe(context.Context) (graph.State, error) {
	if s.done() {
		return graph.State{Phase: graph.Ready}, nil
	}
	return graph.State{}, nil
}

func (u *up) graph() *graph.Graph {
	g := &graph.Graph{}
	begin := &step{key: "start", done: func() bool { return false }, apply: u.start}
	if u.base.Bake == "" {
		kernel := &step{key: "kernel", done: u.haveKernel, apply: u.fetch}
		root := &step{key: "root", done: func() bool { return u.rootLayer().exists() }, apply: func(ctx context.Context) error { return u.buildRoot(ctx, u.rootLayer()) }}
		guest := &step{key: "guest", needs: []graph.Resource{kernel}, done: func() bool { return u.layer("guest", u.in.guestKey()).exists() }, apply: u.guest}
		bake := &step{key: "bake", needs: []graph.Resource{kernel, root, guest}, done: func() bool { return u.layer("bake", u.in.bakeKey()).exists() }, apply: u.bake}
		g.Add(kernel, root, guest, bake)
		begin.needs = []graph.Resource{bake}
	}
	g.Add(begin)
	return g
}

// rootLayer does not depend on the kernel, so it may be asked for while that is fetched.
func (u *up) rootLayer() layer {
	in, err := newIngredients("none")
	if err != nil {
		panic(err) // the embedded files cannot be read: a broken program
	}
	return u.layer("root", in.rootKey())
}

func (u *up) haveKernel() bool {
	if !u.kernelLayer().exists() {
		return false
	}
	in, err := newIngredients(kernelDigest)
	u.in = in
	return err == nil
}

func (u *up) fetch(ctx context.Context) error {
	err := u.fetchKernel(ctx, u.kernelLayer())
	kernel := kernelDigest
	if errors.Is(err, errNoKernel) && ctx.Err() == nil {
		kernel, u.noKernel, err = "none", err.Error(), nil
	}
	if err != nil {
		return err
	}
	u.in, err = newIngredients(kernel)
	return err
}

func (u *up) kernelDir() string {
	if u.noKernel != "" {
		return ""
	}
	return u.kernelLayer().path()
}

func (u *up) guest(ctx context.Context) error {
	return u.buildGuest(ctx, u.layer("guest", u.in.guestKey()), u.in.imageID(), u.kernelDir())
}

// bake starts the cloud once on an empty overlay to fill its databases, and keeps that overlay as a layer.
func (u *up) bake(ctx context.Context) error {
	to := u.layer("bake", u.in.bakeKey())
	if err := to.begin(); err != nil {
		return err
	}
	b := u.newBase()
	order := start{Secrets: newSecrets(), Virt: u.opts.Virt, Kernel: b.NoKernel, ImageID: b.ImageID, Baking: true}
	var err error
	if order.Filesystem, err = u.filesystem(b, []string{b.Root}, to.partial()); err != nil {
		return err
	}
	p, err := u.begin(order)
	if err != nil {
		return err
	}
	if err := u.follow(ctx, p); err != nil {
		u.kill(p)
		return err
	}
	if err := u.end(ctx, p); err != nil {
		return err
	}
	if r, err := readReport(u.reportFile()); err != nil || !r.Baked {
		return fmt.Errorf("stopping the cloud after baking: it did not end cleanly, see %s", filepath.Join(u.Logs(), "supervisor.log"))
	}
	// The kernel keeps the work directory to itself.
	if err := os.RemoveAll(filepath.Join(to.partial(), "work")); err != nil {
		return err
	}
	return to.complete()
}

func (u *up) newBase() base {
	return base{Root: u.rootLayer().path(), Bake: u.layer("bake", u.in.bakeKey()).path(), Guest: u.layer("guest", u.in.guestKey()).path(),
		Kernel: u.kernelDir(), ImageID: u.in.imageID(), NoKernel: u.noKernel}
}

// filesystem lays an overlay in dir over lower layers.
func (u *up) filesystem(b base, lower []string, dir string) (filesystem, error) {
	fs := filesystem{Lower: lower, Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work"), Root: filepath.Join(u.state, "root"),
		Binds: map[string]string{guestPlace: b.Guest, logPlace: u.Logs(), reportPlace: filepath.Join(u.state, "report")}, Fixed: []string{guestPlace}}
	if b.Kernel != "" {
		fs.Binds[umlPlace] = b.Kernel
		fs.Fixed = append(fs.Fixed, umlPlace)
	}
	for _, d := range []string{fs.Upper, fs.Work, fs.Root, u.Logs(), filepath.Join(u.state, "report")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return fs, err
		}
	}
	return fs, nil
}

// start runs the cloud on its overlay, a new one or the one that is there.
func (u *up) start(ctx context.Context) error {
	if u.base.Bake == "" {
		u.base = u.newBase()
		// What a killed run has put there lies on nothing yet.
		if err := os.RemoveAll(filepath.Join(u.state, "overlay")); err != nil {
			return err
		}
		if err := writeJSON(u.baseFile(), u.base, 0o600); err != nil {
			return err
		}
	}
	secret, err := loadSecrets(filepath.Join(u.state, "secrets.json"))
	if err != nil {
		return err
	}
	clouds, err := lab.CloudsYAML(secret.Cloud)
	if err != nil {
		return err
	}
	if err := writeFile(u.CloudsYAML(), clouds, 0o600); err != nil {
		return err
	}
	order := start{Secrets: secret, Virt: u.opts.Virt, Kernel: u.base.NoKernel, ImageID: u.base.ImageID}
	order.Filesystem, err = u.filesystem(u.base, []string{filepath.Join(u.base.Bake, "upper"), u.base.Root}, filepath.Join(u.state, "overlay"))
	if err != nil {
		return err
	}
	p, err := u.begin(order)
	if err != nil {
		return err
	}
	return u.follow(ctx, p)
}

// follow passes on the progress of the first process until it is ready.
func (u *up) follow(ctx context.Context, p process) error {
	seen := map[string]string{}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		r, err := readReport(u.reportFile())
		if err == nil {
			for _, s := range r.Units {
				if seen[s.Name] != s.Phase {
					seen[s.Name] = s.Phase
					u.unitEvent(s, r)
				}
			}
		}
		switch {
		case r.Ready:
			return nil
		case r.Failure != "":
			return fmt.Errorf("starting the services: %s; the logs are in %s", r.Failure, u.Logs())
		case !p.alive():
			return fmt.Errorf("starting the services: the first process has ended, see %s", filepath.Join(u.Logs(), "supervisor.log"))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (u *up) unitEvent(s UnitStatus, r report) {
	e := Event{Key: graph.Key("start." + s.Name), Took: s.Took, At: time.Now(), Detail: s.Detail}
	switch s.Phase {
	case "started":
		e.Kind = graph.Started
	case "ready", "done":
		e.Kind = graph.Done
		if s.Name == "virt" {
			e.Detail = fmt.Sprintf("%s (%s)", r.Virt.Kind, r.Virt.Reason)
		}
	case "failed":
		e.Kind, e.Err = graph.Error, errors.New(s.Detail)
	case "skipped":
		e.Kind = graph.Skipped
	default:
		return
	}
	u.on(e)
}

// serial makes a listener that may be called from several goroutines.
func serial(on func(Event)) func(Event) {
	if on == nil {
		return func(Event) {}
	}
	var mu sync.Mutex
	return func(e Event) {
		mu.Lock()
		defer mu.Unlock()
		on(e)
	}
}

package cloud

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/templates/lab"
)

// Up builds what is not in the cache, starts the cloud and returns when all of its services work. Killed at any point, it goes
// on from there when it is called again; with the cloud up already it returns at once. A fresh one is built while the old one
// still runs. on hears of every step; calls to it do not overlap.
func (l *Lab) Up(ctx context.Context, opts UpOptions, on func(Event)) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("starting the lab: %w", ErrNotRoot)
	}
	unlock, err := l.lock("up")
	if err != nil {
		return err
	}
	defer unlock()
	// A killed Up may have left one, which would only take the time of this one.
	if err := l.endBakes(ctx); err != nil {
		return err
	}
	u := &up{Lab: l, opts: opts, on: serial(on)}
	if done, err := u.already(ctx); done || err != nil {
		return err
	}
	if !opts.Fresh {
		if u.base, err = l.readBase(); err != nil {
			return err
		}
	}
	if err := thisHost().check(l, demand{building: u.base.Bake == "" && !u.built(), running: l.Running()}); err != nil {
		return err
	}
	g, err := u.graph()
	if err != nil {
		return err
	}
	return g.Apply(ctx, 4, u.on)
}

// up is one run of Up.
type up struct {
	*Lab
	opts UpOptions
	on   func(Event)

	noKernel string      // why there is none, once its step is over
	in       ingredients // complete once the kernel's step is over
	base     base        // zero: a new cloud
}

// already deals with a cloud that runs or was left half-way.
func (u *up) already(ctx context.Context) (done bool, err error) {
	p, ok := u.running()
	if !ok || u.opts.Fresh {
		return false, nil
	}
	r, err := u.report()
	if err == nil && r.Failure != "" {
		return false, u.end(ctx, p)
	}
	if u.opts.Virt != "" && err == nil && r.Virt.Kind != "" && r.Virt.Kind != u.opts.Virt {
		return false, fmt.Errorf("starting the lab with %s: it runs with %s; run `kuryrctl cloud down` first", u.opts.Virt, r.Virt.Kind)
	}
	return true, u.follow(ctx, p, "start.", u.on)
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

func (u *up) graph() (*graph.Graph, error) {
	g := &graph.Graph{}
	begin := &step{key: "start", done: func() bool { return false }, apply: u.start}
	if u.base.Bake == "" {
		in, err := newIngredients("none")
		if err != nil {
			return nil, err
		}
		rootLayer := u.layer("root", in.rootKey()) // does not depend on the kernel
		kernel := &step{key: "kernel", done: u.haveKernel, apply: u.fetch}
		root := &step{key: "root", done: rootLayer.exists, apply: func(ctx context.Context) error { return u.buildRoot(ctx, rootLayer) }}
		guest := &step{key: "guest", needs: []graph.Resource{kernel}, done: func() bool { return u.guestLayer().exists() }, apply: u.guest}
		bake := &step{key: "bake", needs: []graph.Resource{kernel, root, guest}, done: func() bool { return u.bakeLayer().exists() }, apply: u.bake}
		g.Add(kernel, root, guest, bake)
		begin.needs = []graph.Resource{bake}
	}
	g.Add(begin)
	return g, nil
}

func (u *up) layer(kind, key string) layer { return layer{kind: kind, key: key, cache: u.cache} }
func (u *up) kernelLayer() layer           { return u.layer("kernel", kernelDigest[:16]) }
func (u *up) guestLayer() layer            { return u.layer("guest", u.in.guestKey()) }
func (u *up) bakeLayer() layer             { return u.layer("bake", u.in.bakeKey()) }

// built reports whether the cache holds all layers.
func (u *up) built() bool {
	in, err := newIngredients(kernelDigest)
	return err == nil && u.kernelLayer().exists() && u.layer("bake", in.bakeKey()).exists() && u.layer("root", in.rootKey()).exists() && u.layer("guest", in.guestKey()).exists()
}

func (u *up) haveKernel() bool {
	if !u.kernelLayer().exists() {
		return false
	}
	in, err := newIngredients(kernelDigest)
	u.in = in
	return err == nil
}

// fetch gets the user-mode Linux kernel. A lab without one is slow, not impossible.
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

func (u *up) newBase() base {
	b := base{Root: u.layer("root", u.in.rootKey()).path(), Bake: u.bakeLayer().path(), Guest: u.guestLayer().path(),
		ImageID: u.in.imageID(), NoKernel: u.noKernel}
	if u.noKernel == "" {
		b.Kernel = u.kernelLayer().path()
	}
	return b
}

func (u *up) guest(ctx context.Context) error {
	b := u.newBase()
	return u.buildGuest(ctx, u.guestLayer(), b.ImageID, b.Kernel)
}

// baker is a lab of its own, in its own namespace, so that baking disturbs no cloud that runs.
func (l *Lab) baker(dir string) *Lab {
	return &Lab{cache: l.cache, state: dir, namespace: l.namespace + "-bake"}
}

// bake starts the cloud once on an empty overlay to fill its databases, and keeps that overlay as a layer.
func (u *up) bake(ctx context.Context) error {
	to := u.bakeLayer()
	if err := to.begin(); err != nil {
		return err
	}
	baker, b := u.baker(to.partial()), u.newBase()
	order := start{Secrets: newSecrets(), Virt: u.opts.Virt, Kernel: b.NoKernel, ImageID: b.ImageID, Baking: true}
	var err error
	if order.Filesystem, err = baker.overlay(b, []string{b.Root}, to.partial()); err != nil {
		return err
	}
	p, err := baker.begin(order)
	if err != nil {
		return err
	}
	if err := baker.follow(ctx, p, "bake.", u.on); err != nil {
		return errors.Join(err, baker.kill(p), baker.removeNamespace())
	}
	if err := baker.down(ctx); err != nil {
		return err
	}
	if r, err := baker.report(); err != nil || !r.Baked {
		return fmt.Errorf("stopping the cloud after baking: it did not end cleanly, see %s", filepath.Join(baker.Logs(), "supervisor.log"))
	}
	// Only the overlay's upper directory is the layer; the secrets of the bake go, too.
	entries, err := os.ReadDir(to.partial())
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == "upper" {
			continue
		}
		if err := os.RemoveAll(filepath.Join(to.partial(), e.Name())); err != nil {
			return err
		}
	}
	return to.complete()
}

// start runs the cloud on its overlay, a new one or the one that is there.
func (u *up) start(ctx context.Context) error {
	if u.base.Bake == "" {
		if err := u.down(ctx); err != nil {
			return err
		}
		if err := u.forget(); err != nil {
			return err
		}
		u.base = u.newBase()
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
	key, err := lab.NamesKey(secret.names())
	if err != nil {
		return err
	}
	order := start{Secrets: secret, Virt: u.opts.Virt, Kernel: u.base.NoKernel, ImageID: u.base.ImageID}
	order.Filesystem, err = u.overlay(u.base, []string{filepath.Join(u.base.Bake, "upper"), u.base.Root}, filepath.Join(u.state, "overlay"))
	if err != nil {
		return err
	}
	p, err := u.begin(order)
	if err != nil {
		return err
	}
	if err := u.follow(ctx, p, "start.", u.on); err != nil {
		return err
	}
	if err := writeFile(u.NamesKey(), key, 0o600); err != nil {
		return err
	}
	return writeFile(u.CloudsYAML(), clouds, 0o600)
}

// Package daemon gives the subports of one node to its pods. It watches the node's SubportPool, answers the CNI plugin on a unix socket
// without asking anybody, keeps what it decides in a journal, and reports it in the pool's status.
//
// It owns the choice: which pod has which subport, and when a subport may be used again. It refuses to make or remove anything: ports are
// the controller's, interfaces the plugin's. It has no credential of OpenStack's, and needs the API server only to learn of new subports.
//
// Start reading at Daemon.Run; ledger.go is what may be done, journal.go what was done.
package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"k8s.io/client-go/rest"

	"github.com/kuryrctl/kuryrctl/nodeagent/link"
	"github.com/kuryrctl/kuryrctl/nodeagent/socket"
	"github.com/kuryrctl/kuryrctl/nodeagent/vif"
)

// Defaults of Config. A kubelet gives up on a sandbox after four minutes, and the plugin on the daemon after 80 seconds.
const (
	DefaultCooldown = 5 * time.Second
	DefaultPatience = 60 * time.Second
)

// Config is what a daemon is told.
type Config struct {
	Node    string       // name of its node, and of the node's pool
	State   string       // directory of the journal; nobody else writes there but the plugin its tombstones
	Socket  string       // path; its directory is made for root alone
	Metrics string       // HOST:PORT of metrics, health and profiles; empty for none
	Kube    *rest.Config // who speaks to the API server: the node
	Log     *slog.Logger

	Cooldown time.Duration // for which a subport that was given back is not used
	Patience time.Duration // for which a pod waits for a subport
}

// Daemon is one node's. Its methods may be called from several goroutines.
type Daemon struct {
	Config
	lock    *os.File
	metrics metrics

	mu      sync.Mutex
	ledger  *ledger
	journal *journal
	changed chan struct{}                                     // closed, and another one made, when the ledger changes
	waiting map[socket.Attachment]map[*int]context.CancelFunc // those who ask for a subport, so that DEL ends their wait
	server  string                                            // what is wrong with the API server, or empty
}

// Open reads what an earlier daemon has left. It fails when there is another one, or when the journal is damaged.
func Open(c Config) (*Daemon, error) {
	if err := os.MkdirAll(filepath.Join(c.State, "freed"), 0o700); err != nil {
		return nil, fmt.Errorf("making the state directory: %w", err)
	}
	d := &Daemon{Config: c, ledger: newLedger(c.Cooldown), changed: make(chan struct{}), waiting: map[socket.Attachment]map[*int]context.CancelFunc{}}
	var err error
	if d.lock, err = os.OpenFile(filepath.Join(c.State, "lock"), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, fmt.Errorf("locking the state directory: %w", err)
	}
	if err := unix.Flock(int(d.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("locking %s: another daemon is running: %w", c.State, err), d.lock.Close())
	}
	if d.journal, err = openJournal(filepath.Join(c.State, "journal"), d.ledger.apply); err != nil {
		return nil, errors.Join(err, d.lock.Close())
	}
	now := time.Now()
	d.ledger.rewind(now)
	pool, err := d.cached()
	if err != nil {
		c.Log.Warn("the pool as last seen cannot be read; waiting for the API server", "error", err)
	}
	d.ledger.publish(pool, now)
	return d, nil
}

// Close lets go of the state directory. Nothing has to be written: what was decided is on disk.
func (d *Daemon) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return errors.Join(d.journal.close(), d.lock.Close())
}

// Run serves until ctx is done, which is success.
func (d *Daemon) Run(ctx context.Context) error {
	client, err := newClient(d.Kube)
	if err != nil {
		return err
	}
	listener, err := listen(d.Socket)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.serve(ctx, listener) })
	g.Go(func() error { return d.serveMetrics(ctx) })
	g.Go(func() error { return d.tend(ctx) })
	g.Go(func() error { return d.follow(ctx, client) })
	g.Go(func() error { return d.report(ctx, client) })
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// write puts records into the journal, and then into the ledger. The caller holds the lock.
func (d *Daemon) write(records ...record) error {
	if len(records) == 0 {
		return nil
	}
	if err := d.journal.append(d.ledger.records, records...); err != nil {
		d.Log.Error("nothing can be decided", "error", err)
		return err
	}
	for _, r := range records {
		d.ledger.apply(r)
	}
	d.change()
	return nil
}

func (d *Daemon) change() {
	close(d.changed)
	d.changed = make(chan struct{})
}

// add gives a pod a subport, and waits for one if it must. The same attachment gets the same subport until it is given back.
func (d *Daemon) add(ctx context.Context, a socket.Add) (socket.Added, error) {
	ctx, forget := context.WithCancelCause(ctx)
	defer forget(nil)
	patience, cancel := context.WithTimeoutCause(ctx, d.Patience, fmt.Errorf("waited %s", d.Patience))
	defer cancel()
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.exhume(a.Attachment); err != nil {
		return socket.Added{}, err
	}
	me := new(int)
	if d.waiting[a.Attachment] == nil {
		d.waiting[a.Attachment] = map[*int]context.CancelFunc{}
	}
	d.waiting[a.Attachment][me] = func() { forget(errors.New("the sandbox was given up meanwhile")) }
	defer func() {
		if delete(d.waiting[a.Attachment], me); len(d.waiting[a.Attachment]) == 0 {
			delete(d.waiting, a.Attachment)
		}
	}()
	for {
		now := time.Now()
		t, has := d.ledger.taken[a.Attachment]
		if has && t.Add == a {
			return d.ledger.answer(t), nil
		}
		if ctx.Err() != nil { // after DEL nothing may be taken: nobody would give it back
			return socket.Added{}, &socket.Refusal{Code: 503, Reason: context.Cause(ctx).Error()}
		}
		s, ok := t.Subport, has
		if !has {
			s, ok = d.ledger.choose(now)
		}
		if ok {
			t := taking{Add: a, Parent: d.parent(t), Subport: s, Since: now.UTC()}
			if err := d.write(record{Take: &t}); err != nil {
				return socket.Added{}, err
			}
			d.Log.Info("subport taken", "namespace", a.Namespace, "pod", a.Pod, "container", a.Container, "port", s.Port, "vlan", s.VLAN)
			return d.ledger.answer(t), nil
		}
		if patience.Err() != nil {
			return socket.Added{}, &socket.Refusal{Code: 503, Reason: fmt.Sprintf("%s (%v)", d.why(now), context.Cause(patience))}
		}
		_, next := d.ledger.stand(now)
		d.wait(patience, d.changed, next)
	}
}

// parent is the MAC of the trunk's parent: of an allocation that is repeated, or else of the pool.
func (d *Daemon) parent(t taking) string {
	if t.Parent != "" {
		return t.Parent
	}
	return d.ledger.pool.Spec.ParentMAC
}

// wait lets go of the lock until the ledger has changed, next has come or ctx is done.
func (d *Daemon) wait(ctx context.Context, changed <-chan struct{}, next time.Time) {
	d.mu.Unlock()
	defer d.mu.Lock()
	var due <-chan time.Time
	if !next.IsZero() {
		timer := time.NewTimer(time.Until(next))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-changed:
	case <-due:
	case <-ctx.Done():
	}
}

// why says why no subport is free, and whether the API server can say otherwise.
func (d *Daemon) why(now time.Time) string {
	text := d.ledger.why(now)
	if d.server != "" {
		text += "; " + d.server
	}
	return text
}

// del gives a subport back.
func (d *Daemon) del(a socket.Attachment) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.free("given back", a)
}

// free gives subports back, for the reason that the log shows. The caller holds the lock.
func (d *Daemon) free(reason string, attachments ...socket.Attachment) error {
	var records []record
	for _, a := range attachments {
		for _, end := range d.waiting[a] {
			end()
		}
		if t, ok := d.ledger.taken[a]; ok {
			records = append(records, record{Free: &a, At: time.Now().UTC()})
			d.Log.Info("subport "+reason, "namespace", t.Namespace, "pod", t.Pod, "container", t.Container, "port", t.Subport.Port, "vlan", t.Subport.VLAN)
		}
	}
	return d.write(records...)
}

// exhume acts on the word that a plugin has left about an attachment, if it has.
func (d *Daemon) exhume(a socket.Attachment) error {
	words, err := socket.Buried(d.State)
	if err != nil {
		return err
	}
	for _, w := range words {
		if w != a {
			continue
		}
		if err := d.free("given back while no daemon was there", a); err != nil {
			return err
		}
		return socket.Exhume(d.State, a)
	}
	return nil
}

func (d *Daemon) allocation(a socket.Attachment) (link.Interface, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t, ok := d.ledger.taken[a]
	if !ok {
		return link.Interface{}, &socket.Refusal{Code: 404, Reason: fmt.Sprintf("container %s has no subport for %s", a.Container, a.IfName)}
	}
	return d.ledger.answer(t).Interface, nil
}

// gc gives everything back that a network has and that is not valid, and says where it was.
func (d *Daemon) gc(g socket.GC) (socket.Collected, error) {
	valid := map[socket.Attachment]bool{}
	for _, a := range g.Valid {
		valid[a] = true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	c := socket.Collected{Places: []link.Place{}}
	var gone []socket.Attachment
	for _, t := range d.ledger.find(func(t taking) bool { return t.Network == g.Network && !valid[t.Attachment] }) {
		gone = append(gone, t.Attachment)
		c.Places = append(c.Places, link.Place{Netns: t.Netns, Name: t.IfName})
	}
	return c, d.free("collected", gone...)
}

func (d *Daemon) status() socket.Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	// A pool that is exhausted is no reason: a node that is not ready loses its pods. One that has nothing has no pods either.
	if p := d.ledger.pool; p == nil || p.Spec.Min > 0 && len(p.Spec.Subports) == 0 && len(d.ledger.taken) == 0 {
		return socket.Status{NotReady: d.why(time.Now())}
	}
	return socket.Status{ParentMAC: d.ledger.pool.Spec.ParentMAC}
}

// Tending happens this often, and when the ledger changes.
const tendEvery = time.Second

// tend does what nobody asks for: it reads the word of plugins, gives back what dead sandboxes had, and promises retiring subports to
// the controller.
func (d *Daemon) tend(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for ctx.Err() == nil {
		now := time.Now()
		if err := errors.Join(d.readWords(), d.bury(), d.release(now)); err != nil {
			d.Log.Error("tending the subports", "error", err)
		}
		due := now.Add(tendEvery)
		if _, next := d.ledger.stand(now); !next.IsZero() && next.Before(due) {
			due = next
		}
		d.wait(ctx, d.changed, due)
	}
	return nil
}

func (d *Daemon) readWords() error {
	words, err := socket.Buried(d.State)
	if err != nil {
		return err
	}
	for _, a := range words {
		if err := d.free("given back while no daemon was there", a); err != nil {
			return err
		}
		if err := socket.Exhume(d.State, a); err != nil {
			return err
		}
	}
	return nil
}

// bury gives back what sandboxes had whose network namespace is gone: it is there before ADD, and goes only with its sandbox. So a DEL
// that never came, or a node that was switched off, costs nothing.
func (d *Daemon) bury() error {
	var gone []socket.Attachment
	for _, t := range d.ledger.find(func(t taking) bool { return filepath.IsAbs(t.Netns) }) {
		if _, err := os.Stat(t.Netns); errors.Is(err, fs.ErrNotExist) {
			gone = append(gone, t.Attachment)
		}
	}
	return d.free("given back, for its sandbox is gone", gone...)
}

func (d *Daemon) release(now time.Time) error {
	var records []record
	for _, port := range d.ledger.retirable(now) {
		records = append(records, record{Release: port})
	}
	return d.write(records...)
}

func (d *Daemon) cachePath() string { return filepath.Join(d.State, "pool.json") }

// cached is the pool as it was last seen, or nil.
func (d *Daemon) cached() (*vif.SubportPool, error) {
	text, err := os.ReadFile(d.cachePath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var p vif.SubportPool
	if err := json.Unmarshal(text, &p); err != nil {
		return nil, fmt.Errorf("%s: %w", d.cachePath(), err)
	}
	if p.Name != d.Node {
		return nil, fmt.Errorf("%s is of node %s", d.cachePath(), p.Name)
	}
	return &p, nil
}

// publish takes over the pool as the API server has it, nil for none. It is on disk first: what the ledger forgets because the pool no
// longer lists it must not come back from an older copy.
func (d *Daemon) publish(p *vif.SubportPool) error {
	var err error
	if p == nil {
		if err = os.Remove(d.cachePath()); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	} else {
		keep := vif.SubportPool{TypeMeta: p.TypeMeta, Spec: p.Spec}
		keep.Name, keep.UID, keep.Generation = p.Name, p.UID, p.Generation
		var text []byte
		if text, err = json.Marshal(keep); err == nil && !d.same(text) {
			err = socket.Replace(d.cachePath(), text)
		}
	}
	if err != nil {
		return fmt.Errorf("keeping the pool: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ledger.publish(p, time.Now())
	d.change()
	return nil
}

func (d *Daemon) same(text []byte) bool {
	old, err := os.ReadFile(d.cachePath())
	return err == nil && string(old) == string(text)
}

package cloud

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kuryrctl/kuryrctl/internal/graph"
)

// start is the order from Up to the process it begins, which has nothing else to go by.
type start struct {
	Filesystem filesystem `json:"filesystem"`
	Secrets    secrets    `json:"secrets"`
	Virt       Virt       `json:"virt"`   // forced, or empty
	Kernel     string     `json:"kernel"` // why there is no user-mode Linux kernel, or empty
	ImageID    string     `json:"image"`  // of debian-13
	Baking     bool       `json:"baking"`
	Process    string     `json:"process"` // file to write the own identity to
}

// Places inside the lab's root.
const (
	reportPlace = "/run/kuryrctl"
	logPlace    = "/var/log/lab"
	guestPlace  = "/srv/guest"
	umlPlace    = "/srv/uml"
	zonePlace   = "/var/lib/lab-names"
)

const (
	maxRestarts   = 5           // in a row
	restartPause  = time.Second // before the first of them; before each further one twice as long
	settled       = time.Minute // a daemon that ran for this long can run
	readyTimeout  = 4 * time.Minute
	probeInterval = 200 * time.Millisecond
)

type supervisor struct {
	start
	children *children
	reporter *reporter
	began    time.Time
	pause    time.Duration // restartPause

	daemons  sync.WaitGroup
	mu       sync.Mutex
	running  map[string]runningDaemon
	failed   map[string]error // daemons that ended too often
	stopping chan struct{}    // closed by stop
}

type runningDaemon struct {
	pid    int
	exited <-chan struct{}
}

func newSupervisor(c *children, r *reporter) *supervisor {
	return &supervisor{children: c, reporter: r, began: time.Now(), pause: restartPause,
		running: map[string]runningDaemon{}, failed: map[string]error{}, stopping: make(chan struct{})}
}

// Supervise is the first process of the lab. It runs in fresh mount, PID, UTS and IPC namespaces and in the lab's network
// namespace, and takes its orders from the file at path. It returns after SIGTERM, when everything has stopped; the kernel then
// ends what is left.
func Supervise(ctx context.Context, path string) error {
	if os.Getpid() != 1 {
		return errors.New("supervising the lab: this command is run by `kuryrctl cloud up` only")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading the lab's orders: %w", err)
	}
	s := newSupervisor(newChildren(), &reporter{path: filepath.Join(reportPlace, "report.json")})
	if err := json.Unmarshal(data, &s.start); err != nil {
		return fmt.Errorf("reading the lab's orders: %w", err)
	}
	// First of all, so that whoever ended Up in this moment finds what it began.
	self, err := currentProcess()
	if err != nil {
		return err
	}
	if err := writeJSON(s.Process, self, 0o600); err != nil {
		return err
	}
	if err := s.Filesystem.enterRoot(); err != nil {
		return err
	}
	// The reaper outlives ctx: stopping needs it.
	reaping, endReaping := context.WithCancel(context.WithoutCancel(ctx))
	var reaper sync.WaitGroup
	reaper.Go(func() { s.children.reap(reaping) })
	defer reaper.Wait()
	defer endReaping()

	g := s.units()
	s.reporter.change(func(r *report) {
		for _, u := range g.Resources() {
			r.Units = append(r.Units, UnitStatus{Name: string(u.Key()), Phase: "waiting"})
		}
	})
	err = g.Apply(ctx, len(g.Resources()), s.reporter.event)
	s.reporter.change(func(r *report) {
		r.Ready, r.Took = err == nil, time.Since(s.began)
		if err != nil {
			r.Failure = err.Error()
		}
	})
	<-ctx.Done()
	s.stop()
	if !s.Baking {
		return nil
	}
	if err := s.forget(); err != nil {
		return err
	}
	s.reporter.change(func(r *report) { r.Baked = true })
	return nil
}

// prepare makes what the services expect of a booted system.
func (s *supervisor) prepare(ctx context.Context) error {
	if err := unix.Sethostname([]byte("lab")); err != nil {
		return err
	}
	for _, dir := range []struct{ path, owner string }{
		{"/run/lock", ""}, {"/run/mysqld", "mysql"}, {"/run/openvswitch", ""}, {"/run/ovn", ""}, {"/run/libvirt", ""},
		{"/run/octavia", ""}, // without it the driver agent fails, and the API waits 50 s for it
		{"/run/uml", ""}, {"/var/lib/rabbitmq", "rabbitmq"}, {"/var/log/rabbitmq", "rabbitmq"}, {"/var/lib/ovn", ""},
		{"/var/lib/nova/instances", ""}, {"/var/lib/nova/tmp", ""}, {"/var/lib/neutron/tmp", ""}, {"/etc/keystone/fernet-keys", ""},
		{"/etc/keystone/credential-keys", ""}, {"/etc/lab", ""}, {"/etc/openstack", ""},
	} {
		if err := os.MkdirAll(dir.path, 0o755); err != nil {
			return err
		}
		if dir.owner == "" {
			continue
		}
		c, err := credential(dir.owner)
		if err != nil {
			return err
		}
		if err := os.Chown(dir.path, int(c.Uid), int(c.Gid)); err != nil {
			return err
		}
	}
	if err := s.writeConfiguration(); err != nil {
		return err
	}
	for _, argv := range [][]string{{"ip", "link", "set", "lo", "up"}, {"ip", "addr", "replace", Address + "/32", "dev", "lo"}} {
		if err := s.children.run(ctx, s.command("network", argv...)); err != nil {
			return err
		}
	}
	return nil
}

func (s *supervisor) command(log string, argv ...string) command {
	return command{argv: argv, log: filepath.Join(logPlace, log+".log")}
}

// keep starts a daemon and restarts it for as long as the lab lives, and a few times in a row when it does not settle.
func (s *supervisor) keep(name string, cmd command) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isStopping() {
		return errors.New("the lab is stopping")
	}
	pid, exited, err := s.children.start(cmd)
	if err != nil {
		return err
	}
	began, gone := time.Now(), make(chan struct{})
	s.running[name] = runningDaemon{pid, gone}
	s.reporter.unit(name, func(u *UnitStatus) { u.PID = pid })
	s.daemons.Go(func() {
		status := <-exited
		// Its workers, which outlive it: they hold the port that the next one wants.
		syscall.Kill(-pid, syscall.SIGKILL)
		close(gone)
		s.died(name, cmd, status, time.Since(began))
	})
	return nil
}

func (s *supervisor) died(name string, cmd command, status syscall.WaitStatus, lived time.Duration) {
	s.mu.Lock()
	delete(s.running, name)
	s.mu.Unlock()
	if s.isStopping() {
		return
	}
	end := fmt.Errorf("%s, see %s", describe(status), cmd.log)
	restarts := 0
	restart := false
	s.reporter.unit(name, func(u *UnitStatus) {
		u.PID, u.Detail = 0, end.Error()
		if lived >= settled {
			u.Restarts = 0
		}
		if restart = u.Restarts < maxRestarts; restart {
			u.Restarts++
		}
		restarts = u.Restarts
	})
	if restart {
		// What made it end (a port that is still taken, a database that is away) takes its time to pass.
		select {
		case <-time.After(s.pause << (restarts - 1)):
		case <-s.stopping:
			return
		}
		err := s.keep(name, cmd)
		if err == nil {
			return
		}
		end = err
	}
	s.mu.Lock()
	s.failed[name] = end
	s.mu.Unlock()
	s.reporter.unit(name, func(u *UnitStatus) { u.Phase, u.Detail = "failed", end.Error() })
}

func (s *supervisor) givenUp(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed[name]
}

func (s *supervisor) isStopping() bool {
	select {
	case <-s.stopping:
		return true
	default:
		return false
	}
}

// stop ends the services that have something to lose in order, and leaves the others to the kernel.
func (s *supervisor) stop() {
	s.mu.Lock()
	close(s.stopping)
	pids := make(map[string]runningDaemon, len(s.running))
	for name, d := range s.running {
		pids[name] = d
	}
	s.mu.Unlock()
	var stops sync.WaitGroup
	for name, d := range pids {
		stops.Go(func() {
			grace := time.Duration(0)
			if slices.Contains([]string{"mariadb", "ovn-nb", "ovn-sb"}, name) {
				grace = 15 * time.Second
			}
			end(d, grace)
		})
	}
	stops.Wait()
	s.daemons.Wait()
}

func end(d runningDaemon, grace time.Duration) {
	if grace > 0 {
		syscall.Kill(d.pid, syscall.SIGTERM)
		t := time.NewTimer(grace)
		defer t.Stop()
		select {
		case <-d.exited:
			return
		case <-t.C:
		}
	}
	syscall.Kill(-d.pid, syscall.SIGKILL)
	<-d.exited
}

// forget removes what a golden root must not carry over: logins, logs, and the message bus's state with its user.
func (s *supervisor) forget() error {
	for _, pattern := range []string{"/var/lib/rabbitmq/*", "/var/lib/rabbitmq/.erlang.cookie", "/var/log/*/*.log", "/tmp/*", "/etc/openstack/clouds.yaml", "/etc/keystone/*-keys/*"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		for _, path := range paths {
			if strings.HasPrefix(path, logPlace) {
				continue // the caller's own directory
			}
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		}
	}
	syscall.Sync()
	return nil
}

// unit is a step of the start: a task that ends, or a daemon that becomes ready.
type unit struct {
	name  string
	needs []graph.Resource
	apply func(context.Context) error
}

func (u *unit) Key() graph.Key          { return graph.Key(u.name) }
func (u *unit) Needs() []graph.Resource { return u.needs }

// Observe finds nothing: a first process begins with an empty namespace.
func (u *unit) Observe(context.Context) (graph.State, error) { return graph.State{}, nil }

func (u *unit) Apply(ctx context.Context) error { return u.apply(ctx) }

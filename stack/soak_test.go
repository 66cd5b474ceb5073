package stack_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kuryrctl/kuryrctl/internal/labtest"
	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
	"github.com/kuryrctl/kuryrctl/provision"
	"github.com/kuryrctl/kuryrctl/stack"
)

var (
	soakFor  = flag.Duration("soak", 0, "for how long stacks are made and removed on clouds that fail; 0 is a sample")
	soakSeed = flag.Uint64("seed", 1, "of the first of them; the next has the next")
)

// plenty lets a cloud have as many servers as the largest stack here.
var plenty = []openstacktest.Option{openstacktest.Quota("compute", "instances", -1), openstacktest.Quota("compute", "cores", -1), openstacktest.Quota("compute", "ram", -1)}

// clouds are the kinds of clouds that lives are led on.
var clouds = []struct {
	name    string
	options []openstacktest.Option
}{
	{"OVN", nil},
	{"OVS and amphorae", []openstacktest.Option{openstacktest.MechanismOVS(), openstacktest.Provider("amphora")}},
	{"no trees", []openstacktest.Option{openstacktest.RefuseTrees()}},
	{"tags at creation", []openstacktest.Option{openstacktest.TagsAtCreation()}},
}

// life is that of one stack on one cloud, in which everything that may happen happens by the dice.
type life struct {
	t     *testing.T
	seed  uint64
	dice  *rand.Rand
	cloud int
	most  int // workers
	lab   *labtest.Lab
	c     stack.Config
	steps []string // what was done so far
}

// neighbours fills a cloud with what is not the stack's, and looks like it.
func neighbours(t *testing.T, lab *labtest.Lab) {
	t.Helper()
	second := servers()
	second.Networks.VM.CIDR = prefix(t, "10.12.0.0/24")
	second.Workers.Count = 1
	mustUp(t, lab, "demo-2", second)
	admin, err := openstack.Connect(t.Context(), openstack.Options{Cloud: "fake-admin", File: lab.CloudsYAML(), Backoff: time.Millisecond})
	must(t, err)
	network, err := admin.Network()
	must(t, err)
	for path, one := range map[string]string{"networks": "network", "routers": "router", "security-groups": "security_group"} {
		for _, name := range []string{"demo/vm_net", "demo/router", "demo/pod_access"} {
			body := map[string]any{one: map[string]any{"name": name, "description": openstack.Mark("demo")}}
			_, err := network.Post(t.Context(), network.ServiceURL(path), body, nil, nil)
			must(t, err)
		}
	}
	lab.Settle()
}

// newLife begins one.
func newLife(t *testing.T, seed uint64) *life {
	l := &life{t: t, seed: seed, dice: rand.New(rand.NewPCG(seed, 0)), most: 4, c: servers()}
	l.cloud = l.dice.IntN(len(clouds))
	l.c.Masters.Count = 1
	if l.dice.IntN(8) == 0 {
		l.c.Masters.Count, l.most = 3, 10
	}
	l.c.Workers.Count = l.workers()
	l.lab = labtest.NewOf(t, []string{"demo", "demo-2"}, 10, append(slices.Clone(clouds[l.cloud].options), plenty...)...)
	neighbours(t, l.lab)
	return l
}

func (l *life) workers() int {
	if l.most == 10 && l.dice.IntN(2) == 0 {
		return 10
	}
	return 1 + l.dice.IntN(l.most)
}

func (l *life) fail(format string, args ...any) {
	l.t.Helper()
	l.t.Fatalf("%s\non %s: %s\nagain: make soak SEED=%d FOR=1s", fmt.Sprintf(format, args...), clouds[l.cloud].name, strings.Join(l.steps, ", then "), l.seed)
}

// trouble makes one request in so many go wrong. What befalls the third POST of servers of this step does so in every run of the same seed,
// whatever is done beside it. What hangs ends the run: somebody's patience does.
func (l *life) trouble(rate float64, end context.CancelFunc) func(openstacktest.Sent) *openstacktest.Mishap {
	number := numbered()
	step := uint64(len(l.steps))
	return func(s openstacktest.Sent) *openstacktest.Mishap {
		sum := fnv.New64()
		fmt.Fprint(sum, l.seed, step, number(s))
		dice := rand.New(rand.NewPCG(sum.Sum64(), step))
		if dice.Float64() >= rate {
			return nil
		}
		m := mishaps[dice.IntN(len(mishaps))].of(s.Service)
		if m.Hang {
			end()
		}
		return &m
	}
}

// roughly does something while the cloud or the program fails.
func (l *life) roughly(what string, do func(context.Context) error) {
	l.t.Helper()
	// No run takes so long, whatever happens to it.
	ctx, cancel := context.WithTimeout(l.t.Context(), 2*time.Minute)
	defer cancel()
	how := "calmly"
	switch n := 1 + l.dice.IntN(30); l.dice.IntN(6) {
	case 0:
	case 1:
		how = fmt.Sprintf("cut after write %d", n)
		l.lab.CutAfter(n)
	case 2:
		how = fmt.Sprintf("cut in the reply to write %d", n)
		l.lab.CutReply(n)
	case 3:
		how = fmt.Sprintf("killed at write %d", n)
		l.lab.Judge(func(s openstacktest.Sent) *openstacktest.Mishap {
			if s.Method == http.MethodGet {
				return nil
			}
			if n--; n == 0 {
				cancel()
			}
			return nil
		})
	default:
		rate := []float64{0.02, 0.1, 0.3}[l.dice.IntN(3)]
		how = fmt.Sprintf("with trouble at %v", rate)
		l.lab.Judge(l.trouble(rate, cancel))
	}
	l.steps = append(l.steps, what+" "+how)
	err := do(ctx)
	l.lab.Heal()
	if ctx.Err() == context.DeadlineExceeded {
		l.fail("it did not end: %v", err)
	}
	if how == "calmly" && err != nil {
		l.fail("nothing went wrong, and it says %v", err)
	}
	if err != nil {
		l.steps[len(l.steps)-1] += fmt.Sprintf(" (%.200s)", strings.ReplaceAll(err.Error(), "\n", " "))
	}
}

// scale makes the stack what is declared now, more or fewer workers included.
func (l *life) scale(ctx context.Context) error {
	if _, err := os.Stat(l.dir()); os.IsNotExist(err) {
		l.lab.Key("demo") // it was removed to its end; the hosts let no other key in
	}
	s, err := l.open(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	up := stack.UpOptions{Parallel: []int{1, 8, 32}[l.dice.IntN(3)]}
	_, err = s.Scale(ctx, l.c, stack.ScaleOptions{UpOptions: up})
	if missing := (*provision.NotThere)(nil); errors.As(err, &missing) && missing.Kind == "stack" {
		_, err = s.Up(ctx, l.c, up)
	}
	return err
}

// dir is where the stack's secrets are kept.
func (l *life) dir() string { return filepath.Join(l.lab.State, "stacks", l.lab.ProjectID(), "demo") }

func (l *life) unstack(ctx context.Context) error {
	s, err := l.open(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	r, err := s.Removal(ctx)
	if err != nil {
		return err
	}
	return s.Down(ctx, r, stack.UpOptions{Parallel: []int{1, 8, 32}[l.dice.IntN(3)]})
}

func (l *life) open(ctx context.Context) (*stack.Stack, error) {
	cloud, err := openstack.Connect(ctx, openstack.Options{Cloud: "fake", File: l.lab.CloudsYAML(), Backoff: time.Microsecond})
	if err != nil {
		return nil, err
	}
	return stack.Open(cloud, "demo", stack.Options{Dial: l.lab.Dial, State: l.lab.State, Poll: time.Millisecond})
}

// drift breaks something of the stack that can be mended.
func (l *life) drift() {
	type harm struct{ kind, name, field, value string }
	all := []harm{{"loadbalancer", "demo/api-lb", "provisioning_status", "ERROR"}, {"member", "demo/master-0", "", ""}, {"healthmonitor", "demo/api-lb", "", ""},
		{"keypair", "kuryrctl-demo-" + l.lab.ProjectID()[:8], "", ""}}
	for i := range l.most {
		server := fmt.Sprintf("demo/worker-%d", i)
		all = append(all, harm{"server", server, "status", "ERROR"}, harm{"server", server, "status", "SHUTOFF"}, harm{"server", server, "", ""})
	}
	h := all[l.dice.IntN(len(all))]
	switch {
	case !l.lab.Has(h.kind, h.name):
		return
	case h.field == "":
		l.lab.Delete(h.kind, h.name)
	default:
		l.lab.Set(h.kind, h.name, h.field, h.value)
	}
	l.steps = append(l.steps, strings.TrimSpace(fmt.Sprintf("%s %s gone or %s", h.kind, h.name, h.value)))
}

// converge runs without faults: the stack is as declared, nothing is twice, and another run has nothing to write.
func (l *life) converge() {
	l.t.Helper()
	l.steps = append(l.steps, fmt.Sprintf("made to be %d+%d", l.c.Masters.Count, l.c.Workers.Count))
	if err := l.scale(l.t.Context()); err != nil {
		l.fail("a run without faults: %v", err)
	}
	l.lab.ResetLog()
	if err := l.scale(l.t.Context()); err != nil || len(l.lab.Writes()) > 0 {
		l.fail("the run after that: %v, and wrote %v", err, l.lab.Writes())
	}
	if got, want := left(l.lab), l.want(); !slices.Equal(got, want) {
		l.fail("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// wanted is what is in a cloud of some kind after a stack of some size was made in peace.
var wanted sync.Map

func (l *life) want() []string {
	l.t.Helper()
	key := [3]int{l.cloud, l.c.Masters.Count, l.c.Workers.Count}
	if known, ok := wanted.Load(key); ok {
		return known.([]string)
	}
	lab := labtest.NewOf(l.t, []string{"demo", "demo-2"}, 10, append(slices.Clone(clouds[l.cloud].options), plenty...)...)
	neighbours(l.t, lab)
	mustUp(l.t, lab, "demo", l.c)
	known, _ := wanted.LoadOrStore(key, left(lab))
	return known.([]string)
}

// lead leads the whole life.
func (l *life) lead() {
	before := l.lab.Snapshot()
	for range 1 + l.dice.IntN(4) {
		if l.dice.IntN(3) == 0 {
			l.drift()
		}
		l.c.Workers.Count = l.workers()
		l.roughly(fmt.Sprintf("to %d+%d", l.c.Masters.Count, l.c.Workers.Count), l.scale)
		if l.dice.IntN(2) == 0 {
			l.converge()
		}
	}
	if l.dice.IntN(4) > 0 {
		l.converge() // else the mess is removed as it is
	}
	for range l.dice.IntN(3) {
		l.roughly("unstack", l.unstack)
		if l.dice.IntN(4) == 0 {
			l.converge() // somebody has thought better of it
		}
	}
	if l.dice.IntN(4) == 0 {
		l.lab.State = l.t.TempDir() // another machine
	}
	if err := l.unstack(l.t.Context()); err != nil {
		l.fail("unstack without faults: %v", err)
	}
	l.lab.Settle()
	if after := l.lab.Snapshot(); !slices.Equal(before, after) {
		l.fail("before:\n%s\nafter:\n%s", strings.Join(lacking(before, after), "\n"), strings.Join(lacking(after, before), "\n"))
	}
	if _, err := os.Stat(l.dir()); !os.IsNotExist(err) {
		l.fail("secrets of a removed stack are still there (%v)", err)
	}
}

// lacking are the lines that others do not have.
func lacking(lines, others []string) []string {
	return slices.DeleteFunc(slices.Clone(lines), func(s string) bool { return slices.Contains(others, s) })
}

// until does cases one after the other, several at once, until the time is over or one has failed; without a time it does the first of them.
// It says how many there were.
func until(t *testing.T, share time.Duration, sample int, do func(t *testing.T, n int) (more bool)) {
	begun := time.Now()
	var mu sync.Mutex
	next, done := 0, 0
	take := func() (n int, more bool) {
		mu.Lock()
		defer mu.Unlock()
		next++
		return next - 1, !t.Failed() && (*soakFor == 0 && next <= sample || *soakFor > 0 && (next == 1 || time.Since(begun) < share))
	}
	t.Run("all", func(t *testing.T) {
		for range 4 { // they wait as much as they work
			t.Run("at once", func(t *testing.T) {
				t.Parallel()
				for n, more := take(); more; n, more = take() {
					if !do(t, n) {
						return
					}
					mu.Lock()
					done++
					mu.Unlock()
				}
			})
		}
	})
	took := time.Since(begun)
	said := fmt.Sprintf("%s: %d runs in %v, %.0f a minute", t.Name(), done, took.Round(time.Second), float64(done)/took.Minutes())
	if t.Log(said); *soakFor > 0 {
		fmt.Println(said)
	}
}

// Whatever happens to a stack, and to the program in the middle of it: the next run mends it, and nothing of others is touched.
func TestSoak(t *testing.T) {
	if *soakFor == 0 {
		t.Parallel()
	}
	until(t, *soakFor/2, 2, func(t *testing.T, n int) bool {
		seed := *soakSeed + uint64(n)
		return t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { newLife(t, seed).lead() })
	})
}

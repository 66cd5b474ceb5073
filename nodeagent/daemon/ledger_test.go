package daemon

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/kuryrctl/kuryrctl/nodeagent/link"
	"github.com/kuryrctl/kuryrctl/nodeagent/socket"
	"github.com/kuryrctl/kuryrctl/nodeagent/vif"
)

// machine does what a node goes through, with its journal in memory, and knows what pods were told.
type machine struct {
	ledger  *ledger
	disk    []byte
	now     time.Time
	told    map[socket.Attachment]vif.Subport // answered, and not yet given back
	freed   map[int]time.Time                 // by VLAN: when a pod last let go of it
	promise map[string]bool                   // ports the controller was told it may have
	next    int
}

func (m *machine) write(t *rapid.T, cut bool, r record) (acknowledged bool) {
	text, err := encode([]record{r})
	if err != nil {
		t.Fatal(err)
	}
	if cut {
		m.disk = append(m.disk, text[:rapid.IntRange(0, len(text)).Draw(t, "bytes that reach the disk")]...)
		m.reopen(t)
		return false
	}
	m.disk = append(m.disk, text...)
	m.ledger.apply(r)
	return true
}

func (m *machine) reopen(t *rapid.T) {
	l := newLedger(m.ledger.cooldown)
	whole, _, err := replay(m.disk, l.apply)
	if err != nil {
		t.Fatal(err)
	}
	m.disk = m.disk[:whole]
	l.rewind(m.now)
	l.publish(m.ledger.pool, m.now) // from its copy on disk
	m.ledger = l
}

func (m *machine) check(t *rapid.T) {
	ports, vlans := map[string]socket.Attachment{}, map[int]socket.Attachment{}
	for a, s := range m.told {
		if other, ok := ports[s.Port]; ok {
			t.Fatalf("%v and %v have %s", a, other, s.Port)
		}
		if other, ok := vlans[s.VLAN]; ok {
			t.Fatalf("%v and %v have VLAN %d", a, other, s.VLAN)
		}
		ports[s.Port], vlans[s.VLAN] = a, a
		if kept, ok := m.ledger.taken[a]; !ok || kept.Subport.Port != s.Port {
			t.Fatalf("%v was told %s and has %+v", a, s.Port, kept)
		}
	}
}

func TestNothingIsInTwoHandsWhateverHappens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &machine{ledger: newLedger(5 * time.Second), now: time.Unix(1_800_000_000, 0), told: map[socket.Attachment]vif.Subport{},
			freed: map[int]time.Time{}, promise: map[string]bool{}}
		spec := map[int]vif.Subport{}
		cut := func(t *rapid.T) bool { return rapid.IntRange(0, 9).Draw(t, "killed when zero") == 0 }
		t.Repeat(map[string]func(*rapid.T){
			"publish": func(t *rapid.T) {
				for range rapid.IntRange(1, 4).Draw(t, "changes") {
					id := rapid.IntRange(1, 12).Draw(t, "id")
					s, ok := spec[id]
					switch {
					case !ok: // ids are new, VLANs are used again, even ones that a pod still has
						m.next++
						s = subport(m.next)
						s.VLAN = id%6 + 1
						spec[id] = s
					case m.promise[s.Port]:
						delete(spec, id)
					case rapid.Bool().Draw(t, "retire"):
						s.Retiring = true
						spec[id] = s
					default:
						s.Retiring = false
						spec[id] = s
					}
				}
				var list []vif.Subport
				for _, id := range slices.Sorted(maps.Keys(spec)) {
					list = append(list, spec[id])
				}
				m.ledger.publish(pool(list...), m.now)
			},
			"lose the pool": func(*rapid.T) { m.ledger.publish(nil, m.now) },
			"add": func(t *rapid.T) {
				a := attachment(rapid.IntRange(0, 9).Draw(t, "container"))
				if has, ok := m.ledger.taken[a]; ok {
					m.told[a] = has.Subport
					return
				}
				s, ok := m.ledger.choose(m.now)
				if !ok {
					return
				}
				if s.Retiring || m.promise[s.Port] {
					t.Fatalf("%s is handed out, which the controller has", s.Port)
				}
				if at, ok := m.freed[s.VLAN]; ok && m.now.Sub(at) < m.ledger.cooldown {
					t.Fatalf("VLAN %d is used %s after it was freed", s.VLAN, m.now.Sub(at))
				}
				r := record{Take: &taking{Add: socket.Add{Attachment: a, Netns: "/run/netns/x"}, Subport: s, Since: m.now}}
				if m.write(t, cut(t), r) {
					m.told[a] = s
				}
			},
			"del": func(t *rapid.T) {
				a := attachment(rapid.IntRange(0, 9).Draw(t, "container"))
				s, was := m.told[a]
				delete(m.told, a) // the plugin has removed the interface before it says so
				if has, ok := m.ledger.taken[a]; ok {
					s, was = has.Subport, true
					m.write(t, cut(t), record{Free: &a, At: m.now})
				}
				if was {
					m.freed[s.VLAN] = m.now
				}
			},
			"tend": func(t *rapid.T) {
				for _, port := range m.ledger.retirable(m.now) {
					for a, s := range m.told {
						if s.Port == port {
							t.Fatalf("%s is promised to the controller, and %v has it", port, a)
						}
					}
					if !m.write(t, cut(t), record{Release: port}) {
						return
					}
					m.promise[port] = true
				}
			},
			"time": func(t *rapid.T) { m.now = m.now.Add(time.Duration(rapid.IntRange(1, 6).Draw(t, "s")) * time.Second) },
			"kill": m.reopen,
			"compact": func(t *rapid.T) {
				text, err := encode(m.ledger.records())
				if err != nil {
					t.Fatal(err)
				}
				m.disk = text
				m.reopen(t)
			},
			"": m.check,
		})
	})
}

func TestTheOneFreeForLongestIsChosenAndComesWithItsHistory(t *testing.T) {
	l := newLedger(5 * time.Second)
	begin := time.Unix(1_800_000_000, 0)
	l.publish(pool(subport(1), subport(2), subport(3)), begin)
	for n := 1; n <= 3; n++ {
		s, ok := l.choose(begin)
		if !ok || s.VLAN != n {
			t.Fatalf("%d: got %v", n, s)
		}
		l.apply(record{Take: &taking{Add: socket.Add{Attachment: attachment(n), Netns: fmt.Sprint("/run/netns/", n)}, Subport: s}})
	}
	if s, ok := l.choose(begin); ok {
		t.Errorf("%v is handed out twice", s)
	}
	for i, n := range []int{2, 3, 1} {
		a := attachment(n)
		l.apply(record{Free: &a, At: begin.Add(time.Duration(i) * time.Second)})
	}
	if got := l.count(begin.Add(4 * time.Second)); got != (counts{known: 3, cooling: 3}) {
		t.Errorf("got %+v", got)
	}
	if _, next := l.stand(begin.Add(4 * time.Second)); !next.Equal(begin.Add(5 * time.Second)) {
		t.Errorf("the first is free at %v", next)
	}
	s, ok := l.choose(begin.Add(time.Minute))
	if !ok || s.VLAN != 2 {
		t.Errorf("got %v", s)
	}
	if diff := cmp.Diff([]link.Place{{Netns: "/run/netns/2", Name: "eth0"}}, l.stale(s)); diff != "" {
		t.Error(diff)
	}
}

func TestAPoolThatIsGoneForAWhileTakesNoPromiseBack(t *testing.T) {
	l := newLedger(5 * time.Second)
	now := time.Unix(1_800_000_000, 0)
	l.publish(pool(subport(1), subport(2)), now)
	a := attachment(2)
	l.apply(record{Release: "port-1"})
	l.apply(record{Take: &taking{Add: socket.Add{Attachment: a}, Subport: subport(2)}})
	l.apply(record{Free: &a, At: now})
	l.publish(nil, now)
	l.publish(pool(subport(3)), now)
	l.publish(pool(subport(2)), now) // one whose VLAN is warm is not forgotten
	if s, ok := l.choose(now); ok {
		t.Errorf("%v is handed out", s)
	}
	l = newLedger(0)
	l.apply(record{Release: "port-1"})
	l.publish(nil, now)
	l.publish(pool(subport(1)), now)
	if s, ok := l.choose(now); ok {
		t.Errorf("%v is handed out, which the controller has", s)
	}
}

func TestAClockThatWasSetBackFreesNothingEarlyAndNothingNever(t *testing.T) {
	l := newLedger(5 * time.Second)
	now := time.Unix(1_800_000_000, 0)
	a := attachment(1)
	l.apply(record{Take: &taking{Add: socket.Add{Attachment: a}, Subport: subport(1)}})
	l.apply(record{Free: &a, At: now.Add(time.Hour)})
	l.rewind(now)
	l.publish(pool(subport(1)), now)
	if _, ok := l.choose(now.Add(4 * time.Second)); ok {
		t.Error("it is used while it may be cooling down")
	}
	if _, ok := l.choose(now.Add(5 * time.Second)); !ok {
		t.Error("it waits for a future that may not come")
	}
}

func TestTheReasonNamesWhatTheControllerSays(t *testing.T) {
	l := newLedger(0)
	now := time.Now()
	if got := l.why(now); !strings.Contains(got, "has published no subports") {
		t.Error(got)
	}
	l.publish(pool(), now)
	if got := l.why(now); got != "the controller has no subports for this node; the controller gives no reason: look whether kuryr-controller runs on the masters" {
		t.Error(got)
	}
	bad := subport(2)
	bad.IPs[0].Address = "x"
	p := pool(bad)
	p.Status.Conditions = []metav1.Condition{
		{Type: vif.Ready, Status: metav1.ConditionFalse, Message: "growing"},
		{Type: vif.QuotaExceeded, Status: metav1.ConditionTrue, Message: "no more ports"},
		{Type: vif.NoAddresses, Status: metav1.ConditionFalse, Message: "plenty"},
	}
	l.publish(p, now)
	got := l.why(now)
	for _, want := range []string{"of 1, 0 are in use, 0 cool down, 1 are retired", "Ready=False: growing", "QuotaExceeded=True: no more ports", `"x" is not ADDRESS/LENGTH`} {
		if !strings.Contains(got, want) {
			t.Errorf("%q lacks %q", got, want)
		}
	}
	if strings.Contains(got, "plenty") {
		t.Error(got)
	}
}

package stack_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kuryrctl/kuryrctl/internal/labtest"
	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/internal/sshtest"
	"github.com/kuryrctl/kuryrctl/nodeagent/vif"
	"github.com/kuryrctl/kuryrctl/provision"
	"github.com/kuryrctl/kuryrctl/stack"
)

// dropTest makes an active diagnosis, and returns what its test of the firewall says.
func dropTest(ctx context.Context, t *testing.T, lab *labtest.Lab) (stack.Finding, error) {
	t.Helper()
	login := func(ctx context.Context) (*openstack.Cloud, error) {
		return openstack.Connect(ctx, openstack.Options{Cloud: "fake", File: lab.CloudsYAML(), Backoff: time.Millisecond})
	}
	o := stack.DiagnoseOptions{Options: stack.Options{Dial: lab.Dial, State: lab.State, Poll: time.Millisecond}, Active: true}
	all, err := stack.Diagnose(ctx, "demo", stack.Defaults(), login, o)
	if err != nil {
		return stack.Finding{}, err
	}
	return all[len(all)-1], nil
}

// firewall makes worker-0 tell what becomes of a connection in a cloud whose firewall holds security groups on subports.
func firewall(t *testing.T, lab *labtest.Lab, change func(vif.Passage) vif.Passage) {
	lab.Host("demo/worker-0").On("# try a connection*", func(e *sshtest.Exec) int {
		var ask vif.DropTest
		if err := json.NewDecoder(e.Stdin).Decode(&ask); err != nil || !e.Sudo {
			t.Errorf("it was asked by %q, %v", e.Line, err)
			return 1
		}
		passage := vif.Dropped
		if wired(t, lab, ask) {
			passage = vif.Passed
		}
		fmt.Fprintln(e.Stdout, change(passage))
		return 0
	})
}

// wired reports whether a rule lets the connection in, and checks that both ends are subports as they were told.
func wired(t *testing.T, lab *labtest.Lab, ask vif.DropTest) (in bool) {
	network, err := connect(t, lab).Network()
	if err != nil {
		t.Error(err)
		return false
	}
	get := func(path string, into any) {
		if _, err := network.Get(context.Background(), network.ServiceURL(path), into, nil); err != nil {
			t.Error(err)
		}
	}
	var trunks struct {
		Trunks []struct {
			Name     string
			Subports []struct {
				Port string `json:"port_id"`
				VLAN int    `json:"segmentation_id"`
			} `json:"sub_ports"`
		}
	}
	get("trunks", &trunks)
	for _, end := range []vif.Subport{ask.From, ask.To} {
		var p struct {
			Port struct {
				MAC    string `json:"mac_address"`
				Status string
			}
		}
		get("ports/"+end.Port, &p)
		on := false
		for _, x := range trunks.Trunks {
			for _, s := range x.Subports {
				on = on || x.Name == "demo/worker-0" && s.Port == end.Port && s.VLAN == end.VLAN
			}
		}
		if !on || p.Port.Status != "ACTIVE" || p.Port.MAC != end.MAC || end.Problem() != nil || end.VLAN < 4000 {
			t.Errorf("%+v is on its trunk: %v, as %+v, %v", end, on, p, end.Problem())
		}
	}
	var rules struct {
		Rules []struct {
			Direction string
			Min       int    `json:"port_range_min"`
			From      string `json:"remote_ip_prefix"`
		} `json:"security_group_rules"`
	}
	get("security-group-rules", &rules)
	from, _, _ := strings.Cut(ask.From.IPs[0].Address, "/")
	for _, r := range rules.Rules {
		in = in || r.Direction == "ingress" && r.Min == vif.DropTestPort && r.From == from+"/32"
	}
	return in
}

func ofDropTest(all []string) []string {
	return slices.DeleteFunc(all, func(x string) bool { return !strings.Contains(x, "droptest") })
}

func TestAnActiveDiagnosisSeesWhetherSubportsAreFiltered(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	kubernetes(t, lab)
	before := left(lab)
	for _, x := range []struct {
		name    string
		change  func(vif.Passage) vif.Passage
		verdict stack.Verdict
		text    string
	}{
		{"it filters", func(p vif.Passage) vif.Passage { return p }, stack.Good, "is dropped without a rule that lets it in, and passes"},
		{"all is let through", func(vif.Passage) vif.Passage { return vif.Passed }, stack.Bad, "passed, though the security group of the second lets nothing in"},
		{"nothing is", func(vif.Passage) vif.Passage { return vif.Dropped }, stack.Bad, "and is still (dropped) 60 s after a rule was made"},
		{"nothing is wired", func(vif.Passage) vif.Passage { return vif.Unreachable }, stack.Bad, "did not answer to ARP within 30 s"},
	} {
		firewall(t, lab, x.change)
		f, err := dropTest(t.Context(), t, lab)
		if err != nil {
			t.Fatal(err)
		}
		if f.Check != "drop-test" || f.Verdict != x.verdict || !strings.Contains(f.Answer, "worker-0: TCP from 10.10.") || !strings.Contains(f.Answer, x.text) {
			t.Errorf("%s: %+v", x.name, f)
		}
		if x.verdict == stack.Bad && (f.Whose != stack.TheCloud || !strings.Contains(f.Do, "firewall_driver")) {
			t.Errorf("%s: %+v", x.name, f)
		}
		if after := left(lab); !slices.Equal(after, before) {
			t.Errorf("%s: left %v", x.name, ofDropTest(after))
		}
	}

	lab.Host("demo/worker-0").On("# try a connection*", sshtest.Fail(2, "usage: kuryr-node VERB [FLAGS]"))
	if f, err := dropTest(t.Context(), t, lab); err != nil || f.Verdict != stack.Bad || f.Whose != stack.Kuryrctl || !strings.Contains(f.Do, "kuryrctl stack demo") {
		t.Errorf("an older kuryr-node: %+v, %v", f, err)
	}

	ctx, interrupt := context.WithCancelCause(t.Context())
	stop := errors.New("Ctrl-C")
	firewall(t, lab, func(p vif.Passage) vif.Passage { interrupt(stop); return p })
	if _, err := dropTest(ctx, t, lab); !errors.Is(err, stop) {
		t.Errorf("an interrupt ends it with %v", err)
	}
	if after := left(lab); !slices.Equal(after, before) {
		t.Errorf("after an interrupt: left %v", ofDropTest(after))
	}

	if _, active := diagnose(t, lab, "demo", stack.Defaults())["drop-test"]; active {
		t.Error("it is made without being asked for")
	}
}

func TestASecondDropTestIsToldOfTheFirst(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	kubernetes(t, lab)
	before := left(lab)
	var begun atomic.Bool
	var second stack.Finding
	var lock string
	firewall(t, lab, func(p vif.Passage) vif.Passage {
		if !begun.Swap(true) {
			lock = lockIn(lab)
			var err error
			if second, err = dropTest(t.Context(), t, lab); err != nil {
				t.Error(err)
			}
		}
		return p
	})
	first, err := dropTest(t.Context(), t, lab)
	must(t, err)
	if first.Verdict != stack.Good || !strings.Contains(lock, " doctor ") {
		t.Errorf("the first, under %q: %+v", lock, first)
	}
	if second.Verdict != stack.Skipped || !strings.Contains(second.Answer, "demo is being changed on this machine by `kuryrctl doctor`") {
		t.Errorf("the second: %+v", second)
	}
	if after := left(lab); !slices.Equal(after, before) {
		t.Errorf("left %v", ofDropTest(after))
	}
}

func TestWhatAKilledDropTestHasLeftIsRemoved(t *testing.T) {
	t.Parallel()
	lab := labtest.New(t, []string{"demo"})
	mustUp(t, lab, "demo", servers())
	before := left(lab)
	prepare := func() *provision.Session {
		t.Helper()
		cloud, err := openstack.Connect(t.Context(), openstack.Options{Cloud: "fake", File: lab.CloudsYAML(), Backoff: time.Millisecond})
		must(t, err)
		s := provision.NewSession(cloud, "demo")
		s.Poll = time.Millisecond
		_, err = s.Discover(t.Context())
		must(t, err)
		return s
	}
	run := func(s *provision.Session) error {
		test, err := s.BeginDropTest(t.Context(), "worker-1")
		if err == nil {
			err = test.Allow(t.Context(), 7)
		}
		return errors.Join(err, s.EndDropTest(t.Context()))
	}
	s := prepare()
	lab.ResetLog()
	must(t, run(s))
	writes := len(lab.Writes())
	for _, lost := range []bool{false, true} {
		for n := 1; n < writes; n++ {
			s := prepare()
			if lab.CutAfter(n); lost {
				lab.CutReply(n)
			}
			if err := run(s); err == nil {
				t.Errorf("cut after %d writes: it has not noticed", n)
			}
			lab.Heal()
			s = prepare()
			must(t, s.EndDropTest(t.Context()))
			if after := left(lab); !slices.Equal(after, before) {
				t.Errorf("after a cut after %d writes: left %v", n, ofDropTest(after))
			}
		}
	}

	for _, n := range []int{3, 4} { // both are there, and then on the trunk
		s = prepare()
		must(t, s.EndDropTest(t.Context()))
		lab.CutAfter(n)
		_ = run(s)
		lab.Heal()
		found := diagnose(t, lab, "demo", servers())
		leaks := found["leaks"]
		for _, leak := range []string{"secgroup demo/droptest", "port demo/droptest-1", "port demo/droptest-2"} {
			if leaks.Verdict != stack.Warning || !strings.Contains(leaks.Answer, leak+": a drop test that was cut off") || !strings.Contains(leaks.Do, "doctor demo --active") {
				t.Errorf("%+v does not tell %s", leaks, leak)
			}
		}
		if f := found["names"]; f.Verdict != stack.Good {
			t.Errorf("they are the stack's own: %+v", f)
		}
	}
	mustDown(t, lab, "demo")
	empty(t, lab)
}

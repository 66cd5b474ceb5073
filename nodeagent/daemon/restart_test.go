package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kuryrctl/kuryrctl/nodeagent/socket"
	"github.com/kuryrctl/kuryrctl/nodeagent/vif"
)

func TestPodsAreServedWithoutTheAPIServerAlsoAfterARestart(t *testing.T) {
	s := begin(t, pool(subport(1), subport(2), subport(3)))
	s.start()
	s.ready()
	s.add(1)
	s.served(1)
	s.outage()
	if a := s.add(2); a.Interface.Port != "port-2" {
		t.Errorf("got %v", a)
	}
	s.stop()
	s.config.Patience = 50 * time.Millisecond
	s.start()
	if a := s.add(1); a.Interface.Port != "port-1" {
		t.Errorf("after a restart pod-1 has %v", a)
	}
	if a := s.add(3); a.Interface.Port != "port-3" {
		t.Errorf("got %v", a)
	}
	s.until("the API server's absence is given as a reason", func() bool {
		_, err := s.client.Add(t.Context(), request(4))
		return err != nil && strings.Contains(err.Error(), "the API server cannot be asked")
	})
	s.cluster.Intercept(nil)
	s.served(3)
	s.cluster.SetPool(pool(subport(1), subport(2), subport(3), subport(4)))
	s.reported("the pool has grown", func(st vif.SubportPoolStatus) bool { return st.Subports == 4 })
	if a := s.add(4); a.Interface.Port != "port-4" {
		t.Errorf("got %v", a)
	}
}

func TestARestartBeginsCoolingAnew(t *testing.T) {
	s := begin(t, nil)
	s.config.Cooldown = time.Minute
	future := time.Now().Add(time.Hour)
	text, err := encode([]record{{Freed: &freeing{Port: "port-1", VLAN: 1, At: future}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.MkdirAll(s.config.State, 0o700), os.WriteFile(filepath.Join(s.config.State, "journal"), text, 0o600)); err != nil {
		t.Fatal(err)
	}
	d := s.open()
	if at := d.ledger.freed["port-1"].At; !at.Before(future) {
		t.Errorf("it cools down from %v on", at)
	}
}

// A daemon is killed again and again while pods come and go. Whoever was answered keeps what they were told, and nobody else has it.
func TestKilledAtAnyMomentItForgetsNothing(t *testing.T) {
	s := begin(t, pool(subports(40)...))
	told := map[string]socket.Attachment{} // by port
	var mu sync.Mutex
	for round := range 4 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), asProcess+"="+s.dir)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		s.answering()
		for port, a := range told {
			if i, err := s.client.Allocation(t.Context(), a); err != nil || i.Port != port {
				t.Errorf("%v was told %s and has %v, %v: %s", a, port, i, err, &stderr)
			}
		}
		var wg sync.WaitGroup
		answered := make(chan bool, 100)
		for n := range 10 {
			wg.Go(func() {
				r := request(round*10 + n)
				a, err := s.client.Add(t.Context(), r)
				if err != nil {
					return // killed first
				}
				mu.Lock()
				defer mu.Unlock()
				if other, ok := told[a.Interface.Port]; ok {
					t.Errorf("%v and %v have %s", other, r.Attachment, a.Interface.Port)
				}
				told[a.Interface.Port] = r.Attachment
				answered <- true
			})
		}
		for range round*3 + 1 { // killed earlier and later
			<-answered
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		wg.Wait()
	}
	if len(told) < 22 {
		t.Errorf("only %d pods were served", len(told))
	}
	s.start()
	s.reported("all who were told are there", func(st vif.SubportPoolStatus) bool {
		have := map[string]string{}
		for _, a := range st.Allocations {
			have[a.Port] = a.Container
		}
		for port, a := range told {
			if have[port] != a.Container {
				return false
			}
		}
		return true
	})
}

// The copy of the pool has to be as new as the ledger, whatever is cut off.
func TestTheCopyOfThePoolIsReadBack(t *testing.T) {
	s := begin(t, nil)
	d, err := Open(s.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.publish(pool(subport(1))); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if d, err = Open(s.config); err != nil || d.ledger.pool == nil || len(d.ledger.pool.Spec.Subports) != 1 {
		t.Fatalf("got %v, %v", d.ledger.pool, err)
	}
	if err := d.publish(nil); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	other := pool(subport(1))
	other.Name = "worker-1"
	text, err := json.Marshal(other)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", "{", string(text)} { // none, damaged, another node's: no reason not to start
		if err := os.Remove(d.cachePath()); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		if text != "" {
			if err := os.WriteFile(d.cachePath(), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if d, err = Open(s.config); err != nil || d.ledger.pool != nil {
			t.Errorf("%q: got %v, %v", text, d.ledger.pool, err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

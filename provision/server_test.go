package provision

import (
	"sync"
	"testing"
	"time"

	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
)

// Where a list of servers takes longer than the time between two looks, whoever waited for its end needs no list of their own.
func TestAllWhoWaitForAServerShareOneList(t *testing.T) {
	fake := openstacktest.New(t, openstacktest.Latency(50*time.Millisecond))
	s := session(t, fake)
	if _, err := s.listServers(t.Context()); err != nil { // logs in
		t.Fatal(err)
	}
	fake.ResetLog()
	var waiting sync.WaitGroup
	for range 30 {
		waiting.Go(func() {
			if _, err := s.servers.look(t.Context(), s, "somebody's"); err != nil {
				t.Error(err)
			}
		})
	}
	waiting.Wait()
	// One for the first, one for all who came during that; a goroutine may come late.
	if n := len(fake.Reads()); n > 5 {
		t.Errorf("30 who waited asked for %d lists", n)
	}
}

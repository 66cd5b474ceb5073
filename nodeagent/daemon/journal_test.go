package daemon

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/kuryrctl/kuryrctl/nodeagent/socket"
)

func replayed(t interface{ Fatal(...any) }, text []byte) *ledger {
	l := newLedger(5 * time.Second)
	if _, _, err := replay(text, l.apply); err != nil {
		t.Fatal(err)
	}
	return l
}

// However short a journal is cut, what it yields is what was so after some record, and never an error.
func TestAJournalMayEndAnywhere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var text []byte
		l := newLedger(time.Second)
		ends, states := []int{0}, []map[socket.Attachment]taking{{}}
		for i := range rapid.IntRange(1, 5).Draw(t, "records") {
			a := attachment(rapid.IntRange(0, 3).Draw(t, "container"))
			r := record{Free: &a, At: time.Unix(int64(i), 0).UTC()}
			if _, has := l.taken[a]; !has {
				r = record{Take: &taking{Add: socket.Add{Attachment: a}, Subport: subport(i + 1)}}
			}
			line, err := encode([]record{r})
			if err != nil {
				t.Fatal(err)
			}
			text = append(text, line...)
			l.apply(r)
			ends, states = append(ends, len(text)), append(states, maps.Clone(l.taken))
		}
		for n := range len(text) + 1 {
			got := replayed(t, text[:n])
			at := 0
			for at+1 < len(ends) && ends[at+1] <= n {
				at++
			}
			if !maps.EqualFunc(states[at], got.taken, func(a, b taking) bool { return a.Subport.Port == b.Subport.Port }) {
				t.Fatalf("cut at %d of %d: got %v instead of %v", n, len(text), got.taken, states[at])
			}
		}
	})
}

func TestADamagedJournalIsRefused(t *testing.T) {
	good := `{"take":{"container":"c","ifname":"eth0","namespace":"","pod":"","uid":"","netns":"","parentMAC":"","subport":{"port":"p","mac":"","vlan":1,"mtu":0,"ips":null},"since":"2026-11-25T08:00:00Z"}}` + "\n"
	for want, text := range map[string]string{
		"line 2: unexpected EOF":       good + `{"take":` + "\n" + good,
		"line 1: EOF":                  "\n",
		"line 1: it takes nothing":     `{"take":{}}` + "\n",
		"line 1: it frees nothing":     `{"free":{}}` + "\n",
		"line 1: it has freed nothing": `{"freed":{}}` + "\n",
		"line 1: it is no record":      `{}` + "\n",
		"line 2: it is no record":      good + `{"release":"x","free":{"container":"c"}}` + "\n",
		"line 1: it is no record of":   `{"give":{}}` + "\n",
		"there is more on it":          strings.TrimSpace(good) + good,
	} {
		path := filepath.Join(t.TempDir(), "journal")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := openJournal(path, newLedger(0).apply); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v", want, err)
		}
		if after, err := os.ReadFile(path); err != nil || string(after) != text {
			t.Errorf("%s: the damaged journal was changed: %v", want, err)
		}
	}
}

func TestALineThatWasCutOffIsNotContinued(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	first, second := attachment(1), attachment(2)
	text, err := encode([]record{{Take: &taking{Add: socket.Add{Attachment: first}, Subport: subport(1)}}})
	if err != nil {
		t.Fatal(err)
	}
	long := `{"take":{"container":"` + strings.Repeat("x", 2*len(text)) + `"` // longer than the line that takes its place
	if err := os.WriteFile(path, append(text, long...), 0o600); err != nil {
		t.Fatal(err)
	}
	l := newLedger(0)
	j, err := openJournal(path, l.apply)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.append(l.records, record{Take: &taking{Add: socket.Add{Attachment: second}, Subport: subport(2)}}); err != nil {
		t.Fatal(err)
	}
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got := replayed(t, after)
	if !bytes.HasSuffix(after, []byte("\n")) || len(got.taken) != 2 || got.taken[second].Subport.VLAN != 2 {
		t.Errorf("got %v", got.taken)
	}
}

func TestAJournalThatCouldNotBeWrittenIsWrittenAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	l := newLedger(0)
	j, err := openJournal(path, l.apply)
	if err != nil {
		t.Fatal(err)
	}
	take := func(n int) record {
		return record{Take: &taking{Add: socket.Add{Attachment: attachment(n)}, Subport: subport(n)}}
	}
	write := func(n int) error {
		err := j.append(l.records, take(n))
		if err == nil {
			l.apply(take(n))
		}
		return err
	}
	if err := write(1); err != nil {
		t.Fatal(err)
	}
	good := j.file
	if j.file, err = os.Open(path); err != nil { // which nobody can write to, as if the disk were full
		t.Fatal(err)
	}
	if err := write(2); err == nil {
		t.Fatal("a record that could not be written is said to be on disk")
	}
	if _, err := good.WriteAt([]byte(`{"take":{"conta`), j.size); err != nil { // half of it may have come there
		t.Fatal(err)
	}
	if err := write(3); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(l.taken, replayed(t, text).taken); diff != "" {
		t.Error(diff)
	}
	a := attachment(1000)
	many := slices.Repeat([]record{{Free: &a}}, compactAt/4)
	for range 12 { // and it does not grow for ever
		if err := j.append(l.records, many...); err != nil {
			t.Fatal(err)
		}
	}
	if text, err = os.ReadFile(path); err != nil || bytes.Count(text, []byte("\n")) > 2*compactAt {
		t.Errorf("it has %d lines, %v", bytes.Count(text, []byte("\n")), err)
	}
	if diff := cmp.Diff(l.taken, replayed(t, text).taken); diff != "" {
		t.Error(diff)
	}
}

func FuzzJournal(f *testing.F) {
	a := attachment(1)
	text, err := encode([]record{{Take: &taking{Add: socket.Add{Attachment: a}, Subport: subport(1)}}, {Free: &a}, {Release: "port-1"}, {Freed: &freeing{Port: "p"}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add(text[:len(text)-3])
	f.Fuzz(func(t *testing.T, text []byte) {
		l := newLedger(time.Second)
		whole, _, err := replay(text, l.apply)
		if err != nil {
			return
		}
		kept, err := encode(l.records())
		if err != nil {
			t.Fatal(err)
		}
		again := replayed(t, kept)
		if diff := cmp.Diff([]any{l.taken, l.freed, l.released}, []any{again.taken, again.freed, again.released}); diff != "" || whole > int64(len(text)) {
			t.Errorf("written anew it is another:\n%s", diff)
		}
	})
}

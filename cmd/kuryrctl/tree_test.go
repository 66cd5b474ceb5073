package main

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"charm.land/lipgloss/v2"

	"github.com/kuryrctl/kuryrctl/internal/graph"
)

// screen is what a terminal shows after out was written to it, for the few control sequences that a tree uses.
func screen(out string) []string {
	lines := []string{""}
	at := 0
	up := regexp.MustCompile(`^\x1b\[(\d+)A`)
	style := regexp.MustCompile(`^\x1b\[[0-9;]*m`)
	for out != "" {
		if m := up.FindString(out); m != "" {
			for range int(m[2] - '0') { // trees of a test have fewer than ten lines
				at--
			}
			out = out[len(m):]
			continue
		}
		if m := style.FindString(out); m != "" {
			out = out[len(m):]
			continue
		}
		switch {
		case strings.HasPrefix(out, "\r\x1b[J"):
			lines = append(lines[:at], "")
			out = out[len("\r\x1b[J"):]
		case out[0] == '\n':
			if at++; at == len(lines) {
				lines = append(lines, "")
			}
			out = out[1:]
		default:
			lines[at] += out[:1]
			out = out[1:]
		}
	}
	return lines
}

func TestATreeKeepsWhatEndedAndRedrawsWhatGoesOn(t *testing.T) {
	var out strings.Builder
	tr := newTree(&out, "demo") // as wide as a terminal that does not tell, 80 columns
	now := time.Now()
	event := func(key graph.Key, kind graph.EventKind, detail string, err error) {
		tr.event(graph.Event{Key: key, Kind: kind, Detail: detail, Err: err, At: now, Took: 3 * time.Second})
	}
	event("network.vm", graph.Unchanged, "", nil)
	event("server.worker-0", graph.Started, "", nil)
	event("server.worker-1", graph.Started, "", nil)
	event("server.worker-0", graph.Waiting, "server demo/worker-0 to become ACTIVE: BUILD and a text that is far too long for the line of a terminal", nil)
	event("server.worker-1", graph.Done, "", nil)
	tr.mu.Lock()
	now1 := screen(out.String())
	tr.mu.Unlock()
	want := []string{"= network.vm", "✓ server.worker-1  in 3.0s", "demo  1 done  1 there already  1 at work  0.0s", "└─ server.worker-0"}
	for i, line := range want {
		if !strings.HasPrefix(now1[i], line) {
			t.Errorf("line %d is %q, want %q", i, now1[i], line)
		}
		if lipgloss.Width(now1[i]) > 80 {
			t.Errorf("line %d is wider than the terminal: %q", i, now1[i])
		}
	}
	tr.say("a word")
	event("server.worker-0", graph.Error, "", errors.New("the cloud\ncould not"))
	tr.close()
	last := strings.Join(screen(out.String()), "\n")
	for _, line := range []string{"kuryrctl: a word", "✗ server.worker-0  the cloud could not", "demo  1 done  1 there already  1 failed"} {
		if strings.Count(last, line) != 1 {
			t.Errorf("%q is not once in:\n%s", line, last)
		}
	}
	if strings.Contains(last, "└─") {
		t.Errorf("something still goes on:\n%s", last)
	}
}

package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/kuryrctl/kuryrctl/internal/graph"
)

// progress shows a run of a graph while it goes on. Its methods may be called from several goroutines.
type progress interface {
	event(graph.Event)
	say(string) // a line between the events
	close()     // ends the showing; nothing may be called after it
}

func progressModes() []string { return []string{"auto", "tree", "plain", "json"} }

// newProgress makes the progress of that mode. A tree is drawn only where it can be redrawn, and never into a log.
func (a *app) newProgress(mode, title string) (progress, error) {
	if mode == "auto" {
		mode = "tree"
		_, _, terminal := terminalSize(a.stderr)
		if !terminal || a.verbose > 0 || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" || os.Getenv("CI") == "true" {
			mode = "plain"
		}
	}
	switch mode {
	case "tree":
		return newTree(a.stderr, title), nil
	case "plain":
		return &plainProgress{out: a.stderr, begin: time.Now(), seen: map[graph.Key]string{}}, nil
	case "json":
		return &jsonProgress{out: json.NewEncoder(a.stderr)}, nil
	}
	return nil, usageError{fmt.Errorf("--progress %s: the ways are %s", mode, strings.Join(progressModes(), ", "))}
}

// terminalSize is that of the terminal behind w, or a usual one where there is none.
func terminalSize(w io.Writer) (width, height int, terminal bool) {
	if f, ok := w.(*os.File); ok {
		if width, height, err := term.GetSize(int(f.Fd())); err == nil && width > 0 && height > 0 {
			return width, height, true
		}
	}
	return 80, 24, false
}

// outcome is what an event says, in words, besides its key.
func outcome(e graph.Event) string {
	switch e.Kind {
	case graph.Started:
		if strings.HasPrefix(string(e.Key), e.State.Detail) {
			return e.State.Phase.String()
		}
		return e.State.Detail
	case graph.Error:
		return e.Err.Error()
	case graph.Unchanged:
		return cmp.Or(e.State.Detail, e.Detail)
	case graph.Done:
		return strings.TrimSpace("in " + seconds(e.Took) + " " + e.Detail)
	}
	return e.Detail
}

// plainProgress writes one line for each event, for logs and for those who read them.
type plainProgress struct {
	mu    sync.Mutex
	out   io.Writer
	begin time.Time
	seen  map[graph.Key]string // the last wait of each resource; only news are told
}

func (p *plainProgress) event(e graph.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := outcome(e)
	if e.Kind == graph.Waiting {
		if p.seen[e.Key] == text {
			return
		}
		p.seen[e.Key] = text
	}
	fmt.Fprintln(p.out, strings.TrimRight(fmt.Sprintf("%7s  %-9s  %s  %s", seconds(e.At.Sub(p.begin)), e.Kind, e.Key, text), " "))
}

func (p *plainProgress) say(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintln(p.out, "kuryrctl: "+text)
}

func (p *plainProgress) close() {}

// jsonProgress writes one JSON object for each event, for programs.
type jsonProgress struct {
	mu  sync.Mutex
	out *json.Encoder
}

// eventLine is one event in JSON. Its field names are stable.
type eventLine struct {
	Time   time.Time       `json:"time"`
	Key    graph.Key       `json:"key,omitempty"`
	Event  graph.EventKind `json:"event"`
	Detail string          `json:"detail,omitempty"`
	TookMS int64           `json:"took_ms,omitempty"`
	Error  string          `json:"error,omitempty"`
}

func (p *jsonProgress) event(e graph.Event) {
	line := eventLine{Time: e.At, Key: e.Key, Event: e.Kind, Detail: cmp.Or(e.Detail, e.State.Detail), TookMS: e.Took.Milliseconds()}
	if e.Err != nil {
		line.Error = e.Err.Error()
	}
	p.write(line)
}

func (p *jsonProgress) say(text string) {
	p.write(eventLine{Time: time.Now(), Event: "message", Detail: text})
}

func (p *jsonProgress) write(line eventLine) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out.Encode(line) // an event that cannot be told is no reason to stop the run
}

func (p *jsonProgress) close() {}

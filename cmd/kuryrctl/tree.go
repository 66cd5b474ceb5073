package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"charm.land/lipgloss/v2"

	"github.com/kuryrctl/kuryrctl/internal/graph"
)

// tree is the progress on a terminal: what has ended scrolls away above, what is being worked on is redrawn below.
type tree struct {
	out   io.Writer
	title string
	plain bool // without colours
	begin time.Time

	mu     sync.Mutex
	active []branch // in the order of their beginning
	count  map[graph.EventKind]int
	drawn  int // lines on the terminal that the next drawing replaces

	stop chan struct{}
	wg   sync.WaitGroup
}

// branch is a resource that is being worked on.
type branch struct {
	key   graph.Key
	text  string
	begin time.Time
}

// redraw is how often elapsed times change.
const redraw = 200 * time.Millisecond

func newTree(out io.Writer, title string) *tree {
	t := &tree{out: out, title: title, plain: os.Getenv("NO_COLOR") != "", begin: time.Now(), count: map[graph.EventKind]int{}, stop: make(chan struct{})}
	t.wg.Go(func() {
		tick := time.NewTicker(redraw)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				t.mu.Lock()
				t.draw("")
				t.mu.Unlock()
			case <-t.stop:
				return
			}
		}
	})
	return t
}

func (t *tree) close() {
	close(t.stop)
	t.wg.Wait()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.active = nil
	t.draw("")
}

func (t *tree) say(text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.draw("kuryrctl: " + text)
}

func (t *tree) event(e graph.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := slices.IndexFunc(t.active, func(b branch) bool { return b.key == e.Key })
	switch e.Kind {
	case graph.Started, graph.Waiting:
		if at < 0 {
			t.active = append(t.active, branch{key: e.Key, begin: e.At})
			at = len(t.active) - 1
		}
		t.active[at].text = outcome(e)
		t.draw("")
		return
	}
	if at >= 0 {
		t.active = slices.Delete(t.active, at, at+1)
	}
	t.count[e.Kind]++
	t.draw(t.ended(e))
}

// ended is the line that stays of a resource.
func (t *tree) ended(e graph.Event) string {
	glyph, color := "=", "8"
	switch e.Kind {
	case graph.Done:
		glyph, color = "✓", "2"
	case graph.Error:
		glyph, color = "✗", "1"
	case graph.Skipped:
		glyph, color = "-", "3"
	}
	width, _, _ := terminalSize(t.out)
	return t.line(width, color, glyph, fmt.Sprintf("%s  %s", e.Key, outcome(e)))
}

// draw replaces what was drawn before; above, if any, is a line that stays.
func (t *tree) draw(above string) {
	width, height, _ := terminalSize(t.out) // each time: windows are resized
	var b bytes.Buffer
	if t.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", t.drawn)
	}
	b.WriteString("\r\x1b[J")
	if above != "" {
		b.WriteString(above + "\n")
	}
	lines := []string{t.root(width)}
	shown := t.active[:min(len(t.active), max(height-3, 1))]
	for i, x := range shown {
		glyph := "├─"
		if i == len(t.active)-1 {
			glyph = "└─"
		}
		lines = append(lines, t.line(width, "6", glyph, fmt.Sprintf("%s  %s  %s", x.key, seconds(time.Since(x.begin)), x.text)))
	}
	if hidden := len(t.active) - len(shown); hidden > 0 {
		lines = append(lines, fmt.Sprintf("└─ and %d more", hidden))
	}
	b.WriteString(strings.Join(lines, "\n") + "\n")
	t.drawn = len(lines)
	t.out.Write(b.Bytes()) // in one piece, so that nothing flickers
}

func (t *tree) root(width int) string {
	text := t.title
	for _, x := range []struct {
		kind graph.EventKind
		what string
	}{{graph.Done, "done"}, {graph.Unchanged, "there already"}, {graph.Error, "failed"}, {graph.Skipped, "skipped"}} {
		if n := t.count[x.kind]; n > 0 {
			text += fmt.Sprintf("  %d %s", n, x.what)
		}
	}
	if n := len(t.active); n > 0 {
		text += fmt.Sprintf("  %d at work", n)
	}
	text = cut(text+"  "+seconds(time.Since(t.begin)), width)
	if t.plain {
		return text
	}
	return lipgloss.NewStyle().Bold(true).Render(text)
}

// line is a glyph and a text that together fit the terminal: a wrapped line could not be taken back.
func (t *tree) line(width int, color, glyph, text string) string {
	text = cut(strings.ReplaceAll(text, "\n", " "), width-lipgloss.Width(glyph)-1)
	if !t.plain {
		glyph = lipgloss.NewStyle().Foreground(lipgloss.Color(color)).Render(glyph)
	}
	return strings.TrimRight(glyph+" "+text, " ")
}

// cut shortens text to a width in the terminal's columns.
func cut(text string, width int) string {
	if lipgloss.Width(text) <= width {
		return text
	}
	runes := []rune(text)
	for len(runes) > 0 && lipgloss.Width(string(runes)) > width-1 {
		runes = runes[:len(runes)-1]
	}
	return string(runes) + "…"
}

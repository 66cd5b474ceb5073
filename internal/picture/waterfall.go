package picture

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/kuryrctl/kuryrctl/internal/graph"
)

// The measures of a waterfall, in pixels.
const (
	labelWidth = 250
	rowStep    = 18
	barHeight  = 11
	tookWidth  = 130 // right of the longest bar, for its duration
)

// bar is the time of one resource.
type bar struct {
	key      graph.Key
	from, to time.Duration // since the run began
	waits    []wait
	fault    string
	open     bool // the run ended before it did
}

// wait is a time in which a resource only looked at something else, and what that was.
type wait struct {
	what     string
	from, to time.Duration
}

// Waterfall draws where the time of a run went: a bar for each resource that was worked on, from its start to its end, by node, and paler
// where it waited for something. events are the run's own, in their order; what was ready before has no bar.
func Waterfall(title string, begin time.Time, events []graph.Event) string {
	bars, end := measure(begin, events)
	d := &drawing{id: "waterfall", title: clean(title), width: fullWidth}
	end = max(end, time.Millisecond)
	scale := func(t time.Duration) int {
		return margin + labelWidth + int(float64(fullWidth-2*margin-labelWidth-tookWidth)*float64(t)/float64(end))
	}
	d.texts = append(d.texts, text{x: margin, y: 22, s: fit(title, fullWidth-2*margin, bodySize), class: "strong"})
	y := 44
	top := y
	y += 12
	for _, g := range gather(bars) {
		d.texts = append(d.texts, text{x: margin, y: y + 13, s: fit(g.name, labelWidth, bodySize), class: "strong"})
		y += rowStep + 2
		for _, b := range g.bars {
			d.bar(b, y, scale)
			y += rowStep
		}
		y += 6
	}
	for at := time.Duration(0); at <= end; at += tick(end) {
		d.edges = append(d.edges, edge{points: [][2]int{{scale(at), top}, {scale(at), y}}, class: "grid"})
		d.texts = append(d.texts, text{x: scale(at), y: top - 4, s: at.String(), class: "muted"})
	}
	y += 16
	x := margin
	for _, k := range []struct{ class, s string }{{"work", "works"}, {"wait", "waits"}, {"work bad", "failed, or was cut off"}} {
		d.bars = append(d.bars, stripe{x, y - 9, 22, barHeight, k.class, ""})
		d.texts = append(d.texts, text{x: x + 28, y: y, s: k.s, class: "muted"})
		x += 28 + width(k.s, smallSize) + 20
	}
	d.height = y + margin
	d.about = fmt.Sprintf("%s. %s took %s.", clean(title), count(len(bars), "resource"), spell(end))
	slices.SortStableFunc(bars, func(a, b bar) int { return -cmp.Compare(a.to-a.from, b.to-b.from) })
	for _, b := range bars[:min(5, len(bars))] {
		d.about += fmt.Sprintf(" %s took %s from %s on.", clean(string(b.key)), spell(b.to-b.from), spell(b.from))
	}
	return d.svg()
}

// measure makes bars of events. A look is a moment: a wait lasts from its first look to the next thing that is told.
func measure(begin time.Time, events []graph.Event) (bars []bar, end time.Duration) {
	at := map[graph.Key]int{}
	for _, e := range events {
		now := e.At.Sub(begin)
		end = max(end, now)
		i, begun := at[e.Key]
		if e.Kind == graph.Unchanged || e.Kind == graph.Skipped {
			continue
		}
		if !begun {
			i = len(bars)
			at[e.Key] = i
			bars = append(bars, bar{key: e.Key, from: max(now-e.Took, 0), open: true})
		}
		b := &bars[i]
		b.to = now
		if n := len(b.waits); n > 0 {
			b.waits[n-1].to = now
		}
		switch e.Kind {
		case graph.Waiting:
			what, _, _ := strings.Cut(e.Detail, ": ")
			if n := len(b.waits); n == 0 || b.waits[n-1].what != what {
				b.waits = append(b.waits, wait{what, now, now})
			}
		case graph.Done, graph.Error:
			b.open = false
			b.from = min(b.from, max(now-e.Took, 0))
			if e.Err != nil {
				b.fault = e.Err.Error()
			}
		}
	}
	for i := range bars {
		if b := &bars[i]; b.open {
			b.to = end
			if n := len(b.waits); n > 0 {
				b.waits[n-1].to = end
			}
		}
	}
	return bars, end
}

// party is the bars of one node, or those of none.
type party struct {
	name string
	bars []bar
}

// node is at the end of the keys of what belongs to one.
var node = regexp.MustCompile(`\.((?:master|worker)-\d+)$`)

// gather parts bars by node, those of no node first, and orders them by their beginning.
func gather(bars []bar) (all []party) {
	const none = "shared by all nodes"
	for _, b := range bars {
		name := none
		if m := node.FindStringSubmatch(string(b.key)); m != nil {
			name = m[1]
		}
		i := slices.IndexFunc(all, func(p party) bool { return p.name == name })
		if i < 0 {
			i, all = len(all), append(all, party{name: name})
		}
		all[i].bars = append(all[i].bars, b)
	}
	for _, p := range all {
		slices.SortStableFunc(p.bars, func(a, b bar) int { return cmp.Compare(a.from, b.from) })
	}
	rank := func(p party) string {
		if p.name == none {
			return ""
		}
		return fmt.Sprintf("%s %4d", p.name[:6], len(p.name)) + p.name
	}
	slices.SortFunc(all, func(a, b party) int { return cmp.Compare(rank(a), rank(b)) })
	return all
}

func (d *drawing) bar(b bar, y int, scale func(time.Duration) int) {
	class, took := "work", spell(b.to-b.from)
	told := lines(string(b.key), fmt.Sprintf("%s, from %s to %s", took, spell(b.from), spell(b.to)), b.fault)
	if b.fault != "" || b.open {
		class, took = "work bad", took+" ✕"
	}
	waited := time.Duration(0)
	for _, w := range b.waits {
		waited += w.to - w.from
		told += fmt.Sprintf("\nwaited %s for %s", spell(w.to-w.from), w.what)
	}
	if waited >= time.Second {
		took += fmt.Sprintf(", waited %s", spell(waited))
	}
	d.texts = append(d.texts, text{x: margin + labelWidth - 8, y: y + 11, s: fit(string(b.key), labelWidth-8, smallSize), class: "small", end: true, detail: told})
	d.bars = append(d.bars, stripe{scale(b.from), y + 2, max(scale(b.to)-scale(b.from), 2), barHeight, class, told})
	for _, w := range b.waits {
		if n := scale(w.to) - scale(w.from); n > 0 && class == "work" {
			d.bars = append(d.bars, stripe{scale(w.from), y + 2, n, barHeight, "wait", told})
		}
	}
	d.texts = append(d.texts, text{x: scale(b.to) + 6, y: y + 11, s: took, class: "muted"})
}

func spell(t time.Duration) string { return fmt.Sprintf("%.1fs", t.Seconds()) }

// tick is the distance of the marks of time: a round one, of which ten or fewer are needed.
func tick(end time.Duration) time.Duration {
	for _, t := range []time.Duration{100 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 20 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute} {
		if end/t <= 10 {
			return t
		}
	}
	return (end / 10).Truncate(10*time.Minute) + 10*time.Minute
}

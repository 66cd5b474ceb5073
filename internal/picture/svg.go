package picture

import (
	"encoding/xml"
	"fmt"
	"strings"
)

// drawing is a picture in its own coordinates: pixels, from the top left.
type drawing struct {
	id            string // tells its elements from those of another picture on the same page
	title, about  string
	width, height int
	boxes         []box // one that contains another comes before it
	edges         []edge
	bars          []stripe
	texts         []text // those outside of boxes
}

// box is a rectangle with text in it.
type box struct {
	x, y, w, h int
	class      string
	tone       tone
	detail     string // what is told on hover; lines
	address    string // whose it is, if it is about one
	texts      []text
}

func (b box) bottom() int { return b.y + b.h }
func (b box) right() int  { return b.x + b.w }

// stripe is a rectangle that is part of a diagram.
type stripe struct {
	x, y, w, h int
	class      string
	detail     string
}

// text is one line. x is its left end, or with end its right one; y its base line.
type text struct {
	x, y    int
	s       string
	class   string
	end     bool
	tone    tone
	detail  string
	address string // whose it is
	leadsTo string // the address that it is about
}

// edge is a line with corners.
type edge struct {
	points [][2]int
	class  string
	tone   tone
	arrow  bool
	detail string
}

// style is that of all pictures, in the light and in the dark. Colours are written out: not everything that shows SVG knows variables.
const style = `
svg.k{background:#fff;font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono","Liberation Mono",monospace}
.k text{font-size:12px;fill:#1f2328;white-space:pre}
.k .ground{fill:#fff}
.k text.small{font-size:11px}
.k text.muted{font-size:11px;fill:#57606a}
.k text.strong{font-weight:700}
.k rect{fill:#fff;stroke:#8c959f}
.k .lane>rect{fill:#f6f8fa;stroke:#d0d7de}
.k .vm>rect{fill:#eef4ff;stroke:#b6cdf5}
.k .pod>rect{fill:#edf9f0;stroke:#b4dcc0}
.k .service>rect{fill:#fff6e9;stroke:#ecd2a2}
.k .external>rect{fill:#f3effc;stroke:#cdbdf0}
.k .fip>rect{stroke:#8250df}
.k .good>rect{stroke:#1a7f37}.k .busy>rect{stroke:#0969da}.k .down>rect{stroke:#9a6700;stroke-dasharray:5 3}.k .bad>rect{stroke:#cf222e;stroke-width:2}
.k text.good{fill:#116329}.k text.busy{fill:#0550ae}.k text.down{fill:#7d4e00}.k text.bad{fill:#b01c27;font-weight:700}
.k path{fill:none;stroke:#57606a;stroke-width:1.5}
.k path.head{stroke:none;fill:#8250df}
.k path.trunk{stroke-width:5;stroke:#57606a}
.k path.trunk.good{stroke:#1a7f37}.k path.trunk.busy{stroke:#0969da}.k path.trunk.down{stroke:#9a6700}.k path.trunk.bad{stroke:#cf222e}
.k path.public{stroke:#8250df;stroke-dasharray:4 3}
.k path.grid{stroke:#d8dee4;stroke-width:1}
.k rect.work{stroke:none;fill:#0969da}.k rect.wait{stroke:none;fill:#a5cdfb}.k rect.work.bad{fill:#cf222e}
.k .on>rect,.k g.box:hover>rect{stroke-width:3}
.k text.on{text-decoration:underline;font-weight:700}
@media (prefers-color-scheme:dark){
svg.k{background:#0d1117}
.k text{fill:#e6edf3}
.k .ground{fill:#0d1117}
.k text.muted{fill:#9da7b3}
.k rect{fill:#161b22;stroke:#6e7681}
.k .lane>rect{fill:#12161c;stroke:#30363d}
.k .vm>rect{fill:#101c30;stroke:#29466f}
.k .pod>rect{fill:#0f2117;stroke:#27553a}
.k .service>rect{fill:#241c0e;stroke:#5c4a22}
.k .external>rect{fill:#1c1630;stroke:#4a3a78}
.k .fip>rect{stroke:#a98bf0}
.k .good>rect{stroke:#3fb950}.k .busy>rect{stroke:#58a6ff}.k .down>rect{stroke:#d29922}.k .bad>rect{stroke:#f85149}
.k text.good{fill:#56d364}.k text.busy{fill:#79c0ff}.k text.down{fill:#e3b341}.k text.bad{fill:#ff7b72}
.k path{stroke:#9da7b3}
.k path.head{fill:#a98bf0}
.k path.trunk{stroke:#9da7b3}
.k path.trunk.good{stroke:#3fb950}.k path.trunk.busy{stroke:#58a6ff}.k path.trunk.down{stroke:#d29922}.k path.trunk.bad{stroke:#f85149}
.k path.public{stroke:#a98bf0}
.k path.grid{stroke:#272d36}
.k rect.work{fill:#58a6ff}.k rect.wait{fill:#1f4a7d}.k rect.work.bad{fill:#f85149}
}
`

// svg writes the drawing as a document of its own, which can also stand within a page.
func (d *drawing) svg() string {
	b := &writer{}
	b.f(`<svg xmlns="http://www.w3.org/2000/svg" class="k" width="%d" height="%d" viewBox="0 0 %d %d" role="graphics-document document" aria-labelledby="%s-title" aria-describedby="%s-about">`,
		d.width, d.height, d.width, d.height, d.id, d.id)
	b.f("\n<title id=\"%s-title\">%s</title>\n<desc id=\"%s-about\">%s</desc>\n<style>%s</style>\n", d.id, d.title, d.id, d.about, raw(style))
	b.f("<rect class=\"ground\" width=\"%d\" height=\"%d\" style=\"stroke:none\"/>\n", d.width, d.height)
	// Containers first, lines on them, and then what the lines lead to.
	for _, x := range d.boxes {
		if strings.HasPrefix(x.class, "lane") {
			b.box(x)
		}
	}
	for _, e := range d.edges {
		b.edge(e)
	}
	for _, x := range d.boxes {
		if !strings.HasPrefix(x.class, "lane") {
			b.box(x)
		}
	}
	for _, x := range d.bars {
		b.f("<rect class=\"%s\" x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"2\">", x.class, x.x, x.y, x.w, x.h)
		b.detail(x.detail)
		b.f("</rect>\n")
	}
	for _, t := range d.texts {
		b.text(t)
	}
	b.f("</svg>\n")
	return b.String()
}

// writer writes XML. Nothing gets into it unescaped but what is a constant of ours.
type writer struct{ strings.Builder }

// raw is text that is markup already.
type raw string

func (b *writer) f(format string, args ...any) {
	for i, a := range args {
		switch x := a.(type) {
		case string:
			args[i] = escape(x)
		case raw:
			args[i] = string(x)
		}
	}
	fmt.Fprintf(b, format, args...)
}

// escape makes a text safe between tags and within quotes. Line ends stay: they part the lines of a hover.
func escape(s string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(cleanLines(s))) // into memory, which does not fail
	return b.String()
}

func (b *writer) detail(s string) {
	if s != "" {
		b.f("<title>%s</title>", s)
	}
}

func (b *writer) attribute(name, value string) {
	if value != "" {
		b.f(" %s=\"%s\"", raw(name), value)
	}
}

func (b *writer) box(x box) {
	b.f(`<g class="%s"`, strings.TrimSpace("box "+x.class+" "+x.tone.String()))
	b.attribute("data-at", x.address)
	b.f(">")
	b.detail(x.detail)
	b.f("<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"6\"/>\n", x.x, x.y, x.w, x.h)
	for _, t := range x.texts {
		b.text(t)
	}
	b.f("</g>\n")
}

func (b *writer) text(t text) {
	b.f(`<text x="%d" y="%d"`, t.x, t.y)
	class := t.class
	if t.tone != plain {
		class = strings.TrimSpace(class + " " + t.tone.String())
	}
	b.attribute("class", class)
	if t.end {
		b.attribute("text-anchor", "end")
	}
	b.attribute("data-at", t.address)
	b.attribute("data-to", t.leadsTo)
	b.f(">")
	b.detail(t.detail)
	b.f("%s</text>\n", t.s)
}

func (b *writer) edge(e edge) {
	if e.detail != "" {
		b.f("<g>")
		b.detail(e.detail)
	}
	b.f(`<path class="%s" d="`, strings.TrimSpace(e.class+" "+e.tone.String()))
	for i, p := range e.points {
		b.f("%s%d %d", raw("ML"[min(i, 1):][:1]), p[0], p[1])
	}
	b.f("\"/>")
	if e.arrow { // a triangle at its end; a marker would need an id
		last := e.points[len(e.points)-1]
		b.f(`<path class="head" d="M%d %dL%d %dL%d %dZ"/>`, last[0], last[1], last[0]-4, last[1]-7, last[0]+4, last[1]-7)
	}
	if e.detail != "" {
		b.f("</g>")
	}
	b.f("\n")
}

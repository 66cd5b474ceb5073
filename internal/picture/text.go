package picture

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// Sizes of text, in pixels.
const (
	bodySize  = 12
	smallSize = 11
	lineStep  = 17 // from one line of text to the next
)

// clean replaces what a name may contain and no picture can show: control characters, which XML does not have, and those that turn the
// direction of the text around them.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsGraphic(r) || unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Co, r) {
			return unicode.ReplacementChar
		}
		return r
	}, strings.ToValidUTF8(s, string(unicode.ReplacementChar)))
}

// cleanLines is clean for a text of several lines.
func cleanLines(s string) string {
	all := strings.Split(s, "\n")
	for i := range all {
		all[i] = clean(all[i])
	}
	return strings.Join(all, "\n")
}

// cells is the width of a text in those of a monospaced font. Wide scripts take two; what is not certain to take one is taken for wide.
func cells(s string) (n int) {
	for _, r := range s {
		switch {
		case r < 0x0300, r >= 0x2010 && r <= 0x2027, r >= 0x2190 && r <= 0x21ff, r >= 0x25a0 && r <= 0x25ff:
			n++
		default:
			n += 2
		}
	}
	return n
}

// width is that of a text in pixels, with a little to spare, since fonts differ: the monospaced ones in use are 0.55 to 0.61 of their size wide.
func width(s string, size int) int { return (cells(s)*size*62 + 99) / 100 }

// fit shortens a text in its middle until it is at most px wide: names differ at their ends.
func fit(s string, px, size int) string {
	s = clean(s)
	if width(s, size) <= px {
		return s
	}
	r := []rune(s)
	for keep := len(r) - 1; keep > 0; keep-- {
		head := (keep + 1) / 2
		short := string(r[:head]) + "…" + string(r[len(r)-keep+head:])
		if width(short, size) <= px {
			return short
		}
	}
	return ""
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// lines joins what there is to tell, and leaves out what has a name and no value.
func lines(all ...string) string {
	return strings.Join(slices.DeleteFunc(all, func(s string) bool { return s == "" || strings.HasSuffix(s, " ") }), "\n")
}

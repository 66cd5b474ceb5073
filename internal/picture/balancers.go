package picture

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/kuryrctl/kuryrctl/stack"
)

// How load balancers are shown: so many in a row, and of each so much; the rest is counted.
const (
	cardColumns = 2
	memberLines = 5
	listenLines = 6
)

// balancers draws load balancers as cards in rows.
func (t *layout) balancers() {
	lane := t.lane("service_net", "load balancers: one address for many; the API's is kuryrctl's own", leftEdge, rightEdge-leftEdge)
	laneAt := len(t.boxes)
	t.boxes = append(t.boxes, lane)
	if address, ok := t.at("service_net"); ok {
		x, middle := rightEdge+gutter/2, t.router.y+t.router.h/2
		t.edges = append(t.edges, edge{points: [][2]int{{t.router.right(), middle}, {x, middle}, {x, lane.y + laneHead/2}, {lane.right(), lane.y + laneHead/2}}, detail: "the router on service_net"})
		t.texts = append(t.texts, text{x: t.router.right() + 8, y: middle - 6, s: fit(address, 320, smallSize), class: "muted"})
	}
	t.y += laneHead
	w := (lane.w - 2*inset - (cardColumns-1)*rowGap) / cardColumns
	for row := range slices.Chunk(t.view.LoadBalancers, cardColumns) {
		y := t.y // floating IPs of a row hang at one height, where their line passes above all boxes
		for _, l := range row {
			if len(t.leading(l.Name)) > 0 {
				y = t.y + pillSize + drop
			}
		}
		bottom := y
		for i, l := range row {
			x := lane.x + inset + i*(w+rowGap)
			t.lead(l.Name, x, t.y, w)
			b := t.balancer(l, x, y, w)
			t.boxes = append(t.boxes, b)
			bottom = max(bottom, b.bottom())
		}
		t.y = bottom + rowGap
	}
	if len(t.view.LoadBalancers) == 0 {
		t.texts = append(t.texts, text{x: lane.x + inset, y: t.y + 6, s: "no load balancer", class: "muted"})
		t.y += rowGap + 6
	}
	t.boxes[laneAt].h = t.y - lane.y
	t.y += 20
}

func (t *layout) balancer(l stack.LoadBalancerView, x, y, w int) box {
	b := box{x: x, y: y, w: w, class: "balancer", tone: worse(toneOf(l.Status), toneOf(l.Health)), address: l.VIP,
		detail: lines("load balancer "+l.Name, "VIP "+l.VIP, "provider "+l.Provider, "provisioning "+l.Status, "operating "+l.Health, "id "+l.ID)}
	s, end := state(b, y+21, l.Status, l.Health)
	b.texts = append(b.texts, text{x: x + pad, y: y + 21, s: fit(t.short(l.Name), end-x-pad, bodySize), class: "strong"}, s,
		text{x: x + pad, y: y + 39, s: fit("VIP "+l.VIP, w/2-pad, bodySize)},
		text{x: b.right() - pad, y: y + 39, s: fit("provider "+l.Provider, w/2-2*pad, smallSize), class: "muted", end: true})
	at := y + 39
	line := func(left text, words ...string) {
		at += lineStep
		s, end := state(b, at, words...)
		left.y, left.s = at, fit(left.s, end-left.x, smallSize)
		b.texts = append(b.texts, left)
		if s.s != "" {
			b.texts = append(b.texts, s)
		}
	}
	for i, x := range l.Listeners {
		if i == listenLines {
			line(text{x: b.x + pad, s: "and " + count(len(l.Listeners)-i, "more listener"), class: "muted"})
			break
		}
		line(text{x: b.x + pad, s: fmt.Sprintf("%s %s → %s", cmp.Or(x.Protocol, "listener"), portOf(x.Port), count(len(x.Members), "member")), class: "small strong",
			detail: lines("listener "+x.Name, "provisioning "+x.Status, "operating "+x.Health, "id "+x.ID)}, x.Status, x.Health)
		for i, m := range x.Members {
			if i == memberLines && len(x.Members) > memberLines+1 {
				worst := m.Health
				for _, m := range x.Members[i:] {
					if toneOf(m.Health) > toneOf(worst) {
						worst = m.Health
					}
				}
				line(text{x: b.x + 2*pad, s: "and " + count(len(x.Members)-i, "more member"), class: "muted", detail: members(x.Members)}, worst)
				break
			}
			line(text{x: b.x + 2*pad, s: strings.TrimSpace(fmt.Sprintf("%s:%d %s", m.Address, m.Port, t.short(cmp.Or(m.LeadsTo, m.Name)))), class: "small", leadsTo: m.Address,
				detail: lines(cmp.Or(m.LeadsTo, m.Name), fmt.Sprintf("%s:%d", m.Address, m.Port), "provisioning "+m.Status, "operating "+m.Health)}, m.Health)
		}
	}
	if len(l.Listeners) == 0 {
		line(text{x: b.x + pad, s: "no listener", class: "muted"})
	}
	b.h = at - y + pad + 2
	return b
}

func portOf(port int) string {
	if port == 0 {
		return ""
	}
	return fmt.Sprint(port)
}

func members(all []stack.MemberView) string {
	out := make([]string, len(all))
	for i, m := range all {
		out[i] = fmt.Sprintf("%s:%d  %s  %s", m.Address, m.Port, cmp.Or(m.LeadsTo, m.Name), m.Health)
	}
	return lines(out...)
}

package picture

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/kuryrctl/kuryrctl/stack"
)

// branch leads from the floating IPs' line to one of them.
type branch struct {
	y, to  int
	detail string
}

// loose are the floating IPs that lead to no node or load balancer: nowhere, to a pod, or to what is not ours.
func (t *layout) loose() (all []stack.FloatingIPView) {
	for _, f := range t.view.FloatingIPs {
		node := slices.ContainsFunc(t.view.Nodes, func(n stack.NodeView) bool { return n.Name == f.LeadsTo })
		balancer := slices.ContainsFunc(t.view.LoadBalancers, func(l stack.LoadBalancerView) bool { return l.Name == f.LeadsTo })
		if !node && !balancer {
			all = append(all, f)
		}
	}
	return all
}

func (t *layout) leading(to string) (all []stack.FloatingIPView) {
	for _, f := range t.view.FloatingIPs {
		if f.LeadsTo == to {
			all = append(all, f)
		}
	}
	return all
}

// pill is a floating IP, at most px wide. One in the external network tells in words what it leads to.
func (t *layout) pill(f stack.FloatingIPView, x, y, px int) box {
	s := toneOf(f.Status).mark() + " " + f.Address
	if toneOf(f.Status) > good {
		s += " " + f.Status
	}
	if y < t.band || t.band == 0 {
		s += " → " + cmp.Or(t.short(f.LeadsTo), f.FixedIP, "nowhere")
	}
	s = fit(s, px-2*pad, smallSize)
	return box{x: x, y: y, w: width(s, smallSize) + 2*pad, h: pillSize, class: "fip", tone: toneOf(f.Status),
		texts:  []text{{x: x + pad, y: y + 15, s: s, class: "small"}},
		detail: lines("floating IP "+f.Address, "leads to "+cmp.Or(f.LeadsTo, "port "+f.PortID), f.FixedIP, "status "+f.Status, "id "+f.ID)}
}

// lead draws floating IPs above the box that they lead to, which begins at y; they fit in its width, or are counted. It returns where the box
// begins then.
func (t *layout) lead(to string, x, y, w int) int {
	all := t.leading(to)
	if len(all) == 0 {
		return y
	}
	at := x + pad
	for i, f := range all {
		limit := x + w - pad
		if i < len(all)-1 {
			limit -= moreSize
		}
		p := t.pill(f, at, y, limit-x-pad)
		if p.right() > limit && i > 0 { // the first is made to fit
			t.boxes = append(t.boxes, box{x: at, y: y, w: moreSize - 6, h: pillSize, class: "fip", detail: "more floating IPs lead there",
				texts: []text{{x: at + 6, y: y + 15, s: fmt.Sprintf("+%d", len(all)-i), class: "small"}}})
			break
		}
		t.boxes = append(t.boxes, p)
		t.branches = append(t.branches, branch{y + pillSize/2, p.x, p.detail})
		middle := p.x + p.w/2
		t.edges = append(t.edges, edge{points: [][2]int{{middle, p.bottom()}, {middle, y + pillSize + drop}}, class: "public", arrow: true, detail: p.detail})
		at = p.right() + 6 // its branch passes behind the ones before
	}
	return y + pillSize + drop
}

// bus draws the line that floating IPs hang on.
func (t *layout) bus() {
	x := margin + gutter/2
	deepest := 0
	for _, b := range t.branches {
		t.edges = append(t.edges, edge{points: [][2]int{{x, b.y}, {b.to, b.y}}, class: "public", detail: b.detail})
		deepest = max(deepest, b.y)
	}
	if deepest > 0 {
		t.edges = append(t.edges, edge{points: [][2]int{{x, t.band}, {x, deepest}}, class: "public", detail: "addresses of the external network"})
	}
}

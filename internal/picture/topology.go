package picture

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/kuryrctl/kuryrctl/stack"
)

// The measures of a topology, in pixels.
const (
	fullWidth = 1000
	margin    = 14
	gutter    = 30 // beside the networks: floating IPs go down on the left, the router's way to the services on the right
	inset     = 12 // of what is in a network
	pad       = 10 // of text in a box
	vmWidth   = 250
	trunkGap  = 64 // between nodes and pods
	laneHead  = 48 // of a network, with its name
	rowGap    = 12 // between boxes
	pillSize  = 22 // height of a floating IP
	moreSize  = 46 // width of what counts those that have no place
	drop      = 14 // from a floating IP to what it leads to

	leftEdge  = margin + gutter
	rightEdge = fullWidth - margin - gutter
)

// SVG draws a stack's topology.
func SVG(v *stack.View) string { return topology(v).svg() }

// topology is the one layout: the external network with the router under it, then nodes beside their pods, then load balancers. Floating IPs
// come down at the left, so that no line crosses another.
func topology(v *stack.View) *drawing {
	t := &layout{view: v, drawing: &drawing{id: "topology", title: clean("Stack " + v.Name), about: summary(v), width: fullWidth}}
	t.heading()
	t.external()
	t.nodes()
	t.balancers()
	t.others()
	t.bus()
	t.legend()
	t.height = t.y + margin
	return t.drawing
}

// layout is a topology in the making, from its top to its bottom.
type layout struct {
	*drawing
	view *stack.View
	y    int // down to where it is made

	band     int      // bottom of the external network
	router   *box     // nil when there is none
	branches []branch // of the line that floating IPs hang on
}

// short is a name without the stack's, which all have.
func (t *layout) short(name string) string { return strings.TrimPrefix(name, t.view.Name+"/") }

func (t *layout) heading() {
	name := fit(t.view.Name, fullWidth/2, bodySize)
	t.texts = append(t.texts, text{x: margin, y: 22, s: name, class: "strong"},
		text{x: margin + width(name, bodySize) + 10, y: 22, s: fit(fmt.Sprintf("a stack in project %s of cloud %s", t.view.Project, t.view.Cloud), fullWidth/2-3*margin, smallSize), class: "muted"})
	t.y = 34
}

// state is a line of text at the right end of a box, and where it begins.
func state(x box, y int, words ...string) (text, int) {
	worst := plain
	said := slices.DeleteFunc(slices.Clone(words), func(w string) bool { return w == "" })
	for _, w := range said {
		worst = worse(worst, toneOf(w))
	}
	s := fit(worst.mark()+" "+strings.Join(slices.Compact(said), " "), x.w/2, smallSize)
	if len(said) == 0 {
		s = ""
	}
	return text{x: x.right() - pad, y: y, s: s, class: "small", end: true, tone: worst}, x.right() - pad - width(s, smallSize) - pad
}

// external draws the external network and the router below it.
func (t *layout) external() {
	g := t.view.Gateway
	name := "no external network"
	if g != nil && g.ExternalID != "" {
		name = cmp.Or(g.External, g.ExternalID)
	}
	b := box{x: margin, y: t.y, w: fullWidth - 2*margin, h: 46, class: "lane external", detail: "external network " + name}
	b.texts = append(b.texts, text{x: b.x + inset, y: b.y + 20, s: fit(name, b.w/2, bodySize), class: "strong"},
		text{x: b.x + inset, y: b.y + 36, s: "external network: floating IPs are its addresses", class: "muted"})
	loose := t.loose()
	x, y := b.x+inset, b.y+b.h
	var pills []box
	for _, f := range loose {
		p := t.pill(f, x, y, 360)
		if p.right() > b.right()-inset && x > b.x+inset {
			x, y = b.x+inset, y+pillSize+6
			p = t.pill(f, x, y, 360)
		}
		x = p.right() + rowGap
		b.h = y + pillSize + 8 - b.y
		pills = append(pills, p)
	}
	t.boxes = append(append(t.boxes, b), pills...)
	t.band = b.bottom()
	t.y = t.band + 34
	if g == nil {
		return
	}
	r := box{x: leftEdge + vmWidth - 100, y: t.y, w: 200 + trunkGap, h: 46, class: "router", tone: toneOf(g.Status), detail: lines("router "+g.Name, "status "+g.Status, "id "+g.ID)}
	s, end := state(r, r.y+20, g.Status)
	r.texts = append(r.texts, text{x: r.x + pad, y: r.y + 20, s: fit(t.short(g.Name), end-r.x-pad, bodySize), class: "strong"}, s,
		text{x: r.x + pad, y: r.y + 37, s: "joins the networks below", class: "muted"})
	t.boxes = append(t.boxes, r)
	t.router = &r
	if g.ExternalID != "" {
		middle := r.x + r.w/2
		t.edges = append(t.edges, edge{points: [][2]int{{middle, t.band}, {middle, r.y}}, detail: "the router's gateway"})
		t.texts = append(t.texts, text{x: middle + 8, y: r.y - 12, s: fit("gateway "+strings.Join(g.Addresses, " "), rightEdge-middle, smallSize), class: "muted"})
	}
	t.y = r.bottom() + 34
}

// network finds one of the stack's by its role.
func (t *layout) network(role string) *stack.NetworkView {
	for i := range t.view.Networks {
		if t.view.Networks[i].Name == t.view.Name+"/"+role {
			return &t.view.Networks[i]
		}
	}
	return nil
}

// lane is a network, or a place for what should be in one that is missing.
func (t *layout) lane(role, about string, x, w int) box {
	b := box{x: x, y: t.y, w: w, h: laneHead, class: "lane " + strings.TrimSuffix(role, "_net")}
	name, cidr := role+" is missing", ""
	if n := t.network(role); n != nil {
		name, cidr = role, n.CIDR
		b.detail = lines("network "+n.Name, "subnet "+n.CIDR, "gateway "+n.Gateway, "id "+n.ID, "subnet id "+n.SubnetID)
	}
	b.texts = append(b.texts, text{x: x + inset, y: t.y + 20, s: fit(name, w/2, bodySize), class: "strong"},
		text{x: b.right() - inset, y: t.y + 20, s: fit(cidr, w/2-2*inset, bodySize), end: true},
		text{x: x + inset, y: t.y + 37, s: fit(about, w-2*inset, smallSize), class: "muted"})
	return b
}

// at is the router's address on a network.
func (t *layout) at(role string) (string, bool) {
	if t.router == nil {
		return "", false
	}
	for _, i := range t.view.Gateway.Interfaces {
		if i.Network == t.view.Name+"/"+role {
			return i.Address, true
		}
	}
	return "", false
}

// others draws networks with the stack's mark that have no part in the design.
func (t *layout) others() {
	for _, n := range t.view.Networks {
		role := t.short(n.Name)
		if slices.Contains([]string{"vm_net", "pod_net", "service_net"}, role) {
			continue
		}
		b := t.lane(role, "a network of the stack that is none of the above", leftEdge, rightEdge-leftEdge)
		t.boxes = append(t.boxes, b)
		t.y = b.bottom() + rowGap
	}
}

// legend says what marks and lines mean.
func (t *layout) legend() {
	x, y := leftEdge, t.y+8
	for _, k := range []struct {
		tone tone
		s    string
	}{{good, "works"}, {busy, "on its way"}, {down, "down or in part"}, {bad, "error"}} {
		s := k.tone.mark() + " " + k.s
		t.texts = append(t.texts, text{x: x, y: y, s: s, class: "small", tone: k.tone})
		x += width(s, smallSize) + 20
	}
	for _, k := range []struct{ class, s string }{{"trunk", "trunk, with a VLAN for each pod"}, {"public", "floating IP"}, {"", "router"}} {
		t.edges = append(t.edges, edge{points: [][2]int{{x, y - 4}, {x + 26, y - 4}}, class: k.class})
		t.texts = append(t.texts, text{x: x + 34, y: y, s: k.s, class: "muted"})
		x += 34 + width(k.s, smallSize) + 20
	}
	t.y = y
}

// summary says in one sentence what the picture shows, to those who do not see it.
func summary(v *stack.View) string {
	pods, free := 0, 0
	for _, n := range v.Nodes {
		for _, p := range n.TrunkPorts {
			if p.Pod != "" {
				pods++
			} else {
				free++
			}
		}
	}
	s := fmt.Sprintf("Topology of stack %s in project %s of cloud %s: %s, %s with a port each (%d ports are ready for new ones), %s, %s, %s.",
		v.Name, v.Project, v.Cloud, count(len(v.Nodes), "node"), count(pods, "pod"), free, count(len(v.Networks), "network"),
		count(len(v.LoadBalancers), "load balancer"), count(len(v.FloatingIPs), "floating IP"))
	for _, n := range v.Nodes {
		s += fmt.Sprintf(" %s has address %s and is %s.", n.Name, n.Address, cmp.Or(n.Status, "without a server"))
	}
	return clean(s)
}

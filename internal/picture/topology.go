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

// How much of it is shown of each; the rest is counted.
const (
	podLines    = 24 // in the box of a node's pods
	podsByName  = 8  // more pods of a node are grouped
	podColumns  = 2
	vlanColumn  = 80  // where a pod's address begins, in pixels
	nameColumn  = 200 // and its name
	memberLines = 5
	listenLines = 6
	cardColumns = 2
)

// SVG draws a stack's topology.
func SVG(v *stack.View) string { return topology(v).svg() }

// topology is the one layout: the external network with the router under it, then nodes beside their pods, then load balancers. Floating IPs
// come down at the left, so that no line crosses another.
func topology(v *stack.View) *drawing {
	t := &layout{view: v, drawing: &drawing{id: "topology", title: clean("Stack " + v.Name), about: summary(v), width: fullWidth}, address: map[string]string{}}
	for _, n := range v.Nodes {
		t.address[n.Name] = n.Address
	}
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
	view    *stack.View
	y       int               // down to where it is made
	address map[string]string // of nodes

	band     int      // bottom of the external network
	router   *box     // nil when there is none
	branches []branch // of the line that floating IPs hang on
}

// branch leads from the floating IPs' line to one of them.
type branch struct {
	y, to  int
	detail string
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

// nodes draws nodes, each with its pods beside it.
func (t *layout) nodes() {
	vm := t.lane("vm_net", "nodes: one server, one port each", leftEdge, vmWidth)
	pod := t.lane("pod_net", "pods: one port each, on a VLAN of the trunk of their node", leftEdge+vmWidth+trunkGap, rightEdge-leftEdge-vmWidth-trunkGap)
	vmAt, podAt := len(t.boxes), len(t.boxes)+1
	t.boxes = append(t.boxes, vm, pod)
	for _, to := range []struct {
		role string
		x    int
	}{{"vm_net", vm.right() - 60}, {"pod_net", pod.x + 60}} {
		if address, ok := t.at(to.role); ok {
			t.edges = append(t.edges, edge{points: [][2]int{{to.x, t.router.bottom()}, {to.x, t.y}}, detail: "the router on " + to.role})
			t.texts = append(t.texts, text{x: to.x + 8, y: t.y - 12, s: fit(address, trunkGap+2*60-16, smallSize), class: "muted"})
		}
	}
	t.y += laneHead
	for _, n := range t.view.Nodes {
		y := t.lead(n.Name, vm.x+inset, t.y, vm.w-2*inset)
		b := t.node(n, vm.x+inset, y, vm.w-2*inset)
		bottom := b.bottom()
		if n.TrunkID != "" {
			p := t.pods(n, pod.x+inset, y, pod.w-2*inset)
			p.h = max(p.h, b.h)
			middle := b.y + b.h/2
			t.edges = append(t.edges, edge{points: [][2]int{{b.right(), middle}, {p.x, middle}}, class: "trunk", tone: toneOf(n.TrunkStatus),
				detail: lines("trunk of "+n.Name, "status "+n.TrunkStatus, fmt.Sprintf("%d subports", n.Subports), "id "+n.TrunkID)})
			t.texts = append(t.texts, text{x: vm.right() + 14, y: middle - 8, s: "trunk", class: "muted"})
			t.boxes = append(t.boxes, p)
			bottom = max(bottom, p.bottom())
		}
		t.boxes = append(t.boxes, b)
		t.y = bottom + rowGap
	}
	if len(t.view.Nodes) == 0 {
		t.y += rowGap
	}
	t.boxes[vmAt].h, t.boxes[podAt].h = t.y-vm.y, t.y-pod.y
	t.y += 26
}

func (t *layout) node(n stack.NodeView, x, y, w int) box {
	status := cmp.Or(n.Status, "no server")
	b := box{x: x, y: y, w: w, h: 72, class: "node", tone: toneOf(status), address: n.Address,
		detail: lines(n.Role+" "+n.Name, "server "+status, "address "+n.Address, "floating IP "+n.FloatingIP, "server id "+n.ServerID, "port id "+n.PortID, "trunk id "+n.TrunkID)}
	s, end := state(b, y+21, status)
	about := n.Role
	if n.TrunkID != "" {
		about = fmt.Sprintf("%s, trunk with %d subports", n.Role, n.Subports)
	}
	b.texts = append(b.texts, text{x: x + pad, y: y + 21, s: fit(n.Name, end-x-pad, bodySize), class: "strong"}, s,
		text{x: x + pad, y: y + 41, s: fit(n.Address, w-2*pad, bodySize)},
		text{x: x + pad, y: y + 60, s: fit(about, w-2*pad, smallSize), class: "muted"})
	return b
}

// pods is the box of what is on a node's trunk: each pod by its name, or groups of them when there are many, and what is free.
func (t *layout) pods(n stack.NodeView, x, y, w int) box {
	b := box{x: x, y: y, w: w, class: "pods", tone: toneOf(n.TrunkStatus), detail: lines("subports of "+n.Name, "trunk "+n.TrunkStatus)}
	inner := w - 2*pad
	var used, free []stack.SubportView
	for _, p := range n.TrunkPorts {
		if p.Pod != "" {
			used = append(used, p)
		} else {
			free = append(free, p)
		}
	}
	at := y + 21
	add := func(x text) {
		x.y = at
		b.texts = append(b.texts, x)
	}
	next := func() { at += lineStep }
	add(text{x: x + pad, s: fit(fmt.Sprintf("%s, %d ready for new ones", count(len(used), "pod"), len(free)), inner-90, bodySize), class: "strong"})
	if s, _ := state(b, at, n.TrunkStatus); n.TrunkStatus != "" {
		b.texts = append(b.texts, s)
	}
	next()
	last := at + (podLines-2)*lineStep // two lines are left for what is not shown and what is free
	shown := 0
	if len(used) <= podsByName {
		for _, p := range used {
			add(text{x: x + pad, s: fmt.Sprintf("%s VLAN %d", portMark(p), p.VLAN), class: "small", tone: portTone(p)})
			add(text{x: x + pad + vlanColumn, s: fit(firstOf(p.Addresses), nameColumn-vlanColumn-8, smallSize), class: "small"})
			add(text{x: x + pad + nameColumn, s: fit(p.Pod, inner-nameColumn, smallSize), class: "small", detail: subportDetail(p), address: firstOf(p.Addresses)})
			shown++
			next()
		}
	} else {
		for _, g := range groups(used) {
			if at+lineStep > last {
				break
			}
			add(text{x: x + pad, s: fit(fmt.Sprintf("%s… × %d", g.stem, len(g.pods)), inner, smallSize), detail: g.detail(), class: "small strong"})
			next()
			column := inner / podColumns
			for i, p := range g.pods {
				if i > 0 && i%podColumns == 0 {
					next()
				}
				if at > last {
					break
				}
				left := x + pad + i%podColumns*column
				add(text{x: left, s: fmt.Sprintf("%s VLAN %d", portMark(p), p.VLAN), class: "small", tone: portTone(p)})
				rest := firstOf(p.Addresses) + " " + strings.TrimPrefix(p.Pod, g.stem)
				add(text{x: left + vlanColumn, s: fit(rest, column-vlanColumn-8, smallSize), class: "small", detail: subportDetail(p), address: firstOf(p.Addresses)})
				shown++
			}
			next()
		}
	}
	if hidden := len(used) - shown; hidden > 0 {
		add(text{x: x + pad, s: fmt.Sprintf("and %s", count(hidden, "more pod")), class: "muted"})
		next()
	}
	if len(free) > 0 {
		add(text{x: x + pad, s: fit("ready: VLAN "+ranges(free), inner, smallSize), class: "muted"})
		next()
	}
	b.h = at - y - lineStep + pad + 2
	return b
}

// ranges lists VLAN ids, which come sorted, as in 3 5-9.
func ranges(ports []stack.SubportView) string {
	var all []string
	for i := 0; i < len(ports); {
		first, last := ports[i].VLAN, ports[i].VLAN
		for i++; i < len(ports) && ports[i].VLAN == last+1; i++ {
			last++
		}
		if first == last {
			all = append(all, fmt.Sprint(first))
		} else {
			all = append(all, fmt.Sprintf("%d-%d", first, last))
		}
	}
	return strings.Join(all, " ")
}

func firstOf(all []string) string {
	if len(all) == 0 {
		return ""
	}
	return all[0]
}

// portTone leaves out that a port is up: most are.
func portTone(p stack.SubportView) tone {
	if t := toneOf(p.Status); t != good {
		return t
	}
	return plain
}

func portMark(p stack.SubportView) string { return toneOf(p.Status).mark() }

func subportDetail(p stack.SubportView) string {
	return lines(cmp.Or(p.Pod, p.Name), "address "+strings.Join(p.Addresses, " "), fmt.Sprintf("VLAN %d", p.VLAN), "MAC "+p.MAC, "port "+p.Status, "id "+p.PortID)
}

// group is pods whose names differ in the end only: those of one Deployment.
type group struct {
	stem string // with the dash
	pods []stack.SubportView
}

func (g group) detail() string {
	all := make([]string, len(g.pods))
	for i, p := range g.pods {
		all[i] = fmt.Sprintf("%s  %s  VLAN %d  %s", p.Pod, strings.Join(p.Addresses, " "), p.VLAN, p.Status)
	}
	return lines(all...)
}

// groups gathers pods, the most numerous first.
func groups(pods []stack.SubportView) []group {
	var all []group
	for _, p := range pods {
		stem := p.Pod[:strings.LastIndex(p.Pod, "-")+1]
		if stem == "" {
			stem = p.Pod[:strings.Index(p.Pod, "/")+1]
		}
		at := slices.IndexFunc(all, func(g group) bool { return g.stem == stem })
		if at < 0 {
			all, at = append(all, group{stem: stem}), len(all)
		}
		all[at].pods = append(all[at].pods, p)
	}
	slices.SortStableFunc(all, func(a, b group) int { return -cmp.Compare(len(a.pods), len(b.pods)) })
	return all
}

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

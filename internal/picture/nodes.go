package picture

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/kuryrctl/kuryrctl/stack"
)

// What is shown of a node's pods; the rest is counted.
const (
	podLines   = 24 // in their box
	podsByName = 8  // more of them are grouped
	podColumns = 2
	vlanColumn = 80  // where a pod's address begins, in pixels
	nameColumn = 200 // and its name
)

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
			add(vlan(p, x+pad))
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
				add(vlan(p, left))
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

// vlan is a pod's VLAN at x, in the tone of its port's state. One that is up has none: most are.
func vlan(p stack.SubportView, x int) text {
	state := toneOf(p.Status)
	t := text{x: x, s: fmt.Sprintf("%s VLAN %d", state.mark(), p.VLAN), class: "small", tone: state}
	if state == good {
		t.tone = plain
	}
	return t
}

func subportDetail(p stack.SubportView) string {
	return lines(p.Pod, "address "+strings.Join(p.Addresses, " "), fmt.Sprintf("VLAN %d", p.VLAN), "MAC "+p.MAC, "port "+p.Status, "id "+p.PortID)
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

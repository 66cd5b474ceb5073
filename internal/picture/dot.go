package picture

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/kuryrctl/kuryrctl/stack"
)

// Dot writes a stack's topology as a graph in the language of graphviz, every pod and every member in it.
func Dot(v *stack.View) string {
	d := &dot{view: v, at: map[string]string{}}
	d.f("digraph %s {\n  rankdir=LR; compound=true;\n  node [shape=box, style=rounded, fontname=\"monospace\", fontsize=10];\n  edge [fontname=\"monospace\", fontsize=9];\n", v.Name)
	d.f("  label=%s;\n", fmt.Sprintf("stack %s in project %s of cloud %s", v.Name, v.Project, v.Cloud))
	if g := v.Gateway; g != nil {
		d.node("router", g.Status, g.Name, g.Status)
		if g.ExternalID != "" {
			d.f("  %s [shape=ellipse, label=%s];\n", "external", cmp.Or(g.External, g.ExternalID)+"\nexternal network")
			d.edge("external", "router", "gateway "+strings.Join(g.Addresses, " "), "dir=none")
		}
		for _, i := range g.Interfaces {
			d.edge("router", "network "+i.Network, i.Address, "dir=none")
		}
	}
	for _, n := range v.Networks {
		d.f("  %s [shape=hexagon, label=%s];\n", "network "+n.Name, n.Name+"\n"+n.CIDR)
	}
	for _, n := range v.Nodes {
		d.worker(n)
	}
	for _, l := range v.LoadBalancers {
		d.balancer(l)
	}
	for _, f := range v.FloatingIPs {
		d.f("  %s [shape=cds, label=%s, %s];\n", "fip "+f.ID, f.Address+"\n"+f.Status, paint(f.Status))
		if v.Gateway != nil && v.Gateway.ExternalID != "" {
			d.edge("external", "fip "+f.ID, "", "dir=none, style=dashed")
		}
		for _, l := range v.LoadBalancers {
			if l.Name == f.LeadsTo {
				d.edge("fip "+f.ID, "lb "+l.ID, "", "style=dashed")
			}
		}
		if to, ok := d.at[f.FixedIP]; ok {
			d.edge("fip "+f.ID, to, "", "style=dashed")
		}
	}
	d.WriteString("}\n")
	return d.String()
}

type dot struct {
	strings.Builder
	view *stack.View
	at   map[string]string // names of the graph's nodes by address
}

// f writes a line; every text in it becomes a quoted one, but for attributes.
func (d *dot) f(format string, args ...any) {
	for i, a := range args {
		switch x := a.(type) {
		case string:
			args[i] = quote(x)
		case attributes:
			args[i] = string(x)
		}
	}
	fmt.Fprintf(d, format, args...)
}

type attributes string

func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(cleanLines(s)) + `"`
}

func paint(state string) attributes {
	return attributes(`color="` + [...]string{"#57606a", "#1a7f37", "#0969da", "#9a6700", "#cf222e"}[toneOf(state)] + `"`)
}

func (d *dot) node(id, state string, label ...string) {
	d.f("  %s [label=%s, %s];\n", id, lines(label...), paint(state))
}

func (d *dot) edge(from, to, label string, more attributes) {
	d.f("  %s -> %s [label=%s, %s];\n", from, to, label, more)
}

func (d *dot) worker(n stack.NodeView) {
	id, status := "node "+n.Name, cmp.Or(n.Status, "no server")
	d.node(id, status, n.Name, n.Address, status)
	d.at[n.Address] = id
	d.edge("network "+d.view.Name+"/vm_net", id, "", "dir=none")
	free := 0
	for _, p := range n.TrunkPorts {
		if p.Pod == "" {
			free++
			continue
		}
		d.node("port "+p.PortID, p.Status, p.Pod, strings.Join(p.Addresses, " "), p.Status)
		for _, a := range p.Addresses {
			d.at[a] = "port " + p.PortID
		}
		d.edge(id, "port "+p.PortID, fmt.Sprintf("VLAN %d", p.VLAN), "dir=none, penwidth=2")
	}
	if free > 0 {
		d.node("free "+n.Name, "", count(free, "port")+" ready for new pods")
		d.edge(id, "free "+n.Name, "", "dir=none, penwidth=2")
	}
}

func (d *dot) balancer(l stack.LoadBalancerView) {
	id := "lb " + l.ID
	d.node(id, l.Status, l.Name, l.VIP, l.Status+" "+l.Health)
	d.edge("network "+d.view.Name+"/service_net", id, "", "dir=none")
	for _, x := range l.Listeners {
		for _, m := range x.Members {
			to, ok := d.at[m.Address]
			if !ok {
				to = "address " + m.Address
				d.node(to, "", m.Name, m.Address)
				d.at[m.Address] = to
			}
			d.edge(id, to, strings.TrimSpace(fmt.Sprintf("%s %s to %d %s", x.Protocol, portOf(x.Port), m.Port, m.Health)), paint(m.Health))
		}
	}
}

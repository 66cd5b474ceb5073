package picture

import (
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/kuryrctl/kuryrctl/stack"
)

var update = flag.Bool("update", false, "write the pictures anew instead of comparing them")

// golden compares a picture with the one that was looked at, or writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := "testdata/" + name
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil || string(want) != got {
		t.Errorf("%s is another picture now (%v): look at it after `go test ./picture -update`", path, err)
	}
}

// wellFormed reads the whole picture as XML, and returns its texts.
func wellFormed(t interface{ Fatalf(string, ...any) }, svg string) string {
	var texts strings.Builder
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return texts.String()
		}
		if err != nil {
			t.Fatalf("not XML: %v\n%s", err, svg)
		}
		if c, ok := token.(xml.CharData); ok {
			texts.Write(c)
			texts.WriteString("\n")
		}
	}
}

func pod(vlan int, name, status string) stack.SubportView {
	return stack.SubportView{Pod: name, Name: name, Addresses: []string{fmt.Sprintf("10.10.0.%d", vlan)}, VLAN: vlan, MAC: fmt.Sprintf("fa:16:3e:00:00:%02x", vlan), Status: status, PortID: fmt.Sprintf("port-%d", vlan)}
}

// small is a stack with one of everything.
func small() *stack.View {
	worker := stack.NodeView{Name: "worker-0", Role: "worker", Status: "ACTIVE", Address: "10.11.0.20", ServerID: "server-1", PortID: "node-1", TrunkID: "trunk-1", TrunkStatus: "ACTIVE", Subports: 4,
		TrunkPorts: []stack.SubportView{pod(1, "default/web-5d4c-abcde", "ACTIVE"), pod(2, "shop/postgres-0", "DOWN"), pod(3, "", "ACTIVE"), pod(4, "", "ACTIVE")}}
	return &stack.View{
		Name: "demo", UUID: "net-vm", Cloud: "lab", Project: "p", Router: "router-1",
		Nodes: []stack.NodeView{{Name: "master-0", Role: "master", Status: "ACTIVE", Address: "10.11.0.10", FloatingIP: "172.24.4.5", ServerID: "server-0", PortID: "node-0"}, worker,
			{Name: "worker-1", Role: "worker", Address: "10.11.0.21", PortID: "node-2"}},
		Networks: []stack.NetworkView{{Name: "demo/pod_net", ID: "net-pod", CIDR: "10.10.0.0/16", Gateway: "10.10.0.1"}, {Name: "demo/service_net", ID: "net-service", CIDR: "172.30.0.0/16", Gateway: "172.30.255.254"},
			{Name: "demo/vm_net", ID: "net-vm", CIDR: "10.11.0.0/24", Gateway: "10.11.0.1"}},
		Gateway: &stack.RouterView{Name: "demo/router", ID: "router-1", Status: "ACTIVE", External: "public", ExternalID: "net-out", Addresses: []string{"172.24.4.2"},
			Interfaces: []stack.InterfaceView{{Network: "demo/pod_net", Address: "10.10.0.1"}, {Network: "demo/service_net", Address: "172.30.255.254"}, {Network: "demo/vm_net", Address: "10.11.0.1"}}},
		LoadBalancers: []stack.LoadBalancerView{
			{Name: "demo/api-lb", ID: "lb-0", VIP: "172.30.0.1", Provider: "ovn", Status: "ACTIVE", Health: "ONLINE",
				Listeners: []stack.ListenerView{{ID: "l-0", Protocol: "TCP", Port: 443, Status: "ACTIVE", Health: "ONLINE", Members: []stack.MemberView{{Address: "10.11.0.10", Port: 6443, Status: "ACTIVE", Health: "ONLINE", LeadsTo: "master-0"}}}}},
			{Name: "demo/svc/default/web", ID: "lb-1", VIP: "172.30.3.4", Provider: "ovn", Status: "ACTIVE", Health: "DEGRADED",
				Listeners: []stack.ListenerView{{ID: "l-1", Protocol: "TCP", Port: 80, Status: "ACTIVE", Health: "ONLINE", Members: []stack.MemberView{
					{Address: "10.10.0.1", Port: 8080, Status: "ACTIVE", Health: "ONLINE", LeadsTo: "default/web-5d4c-abcde"}, {Name: "gone", Address: "10.10.9.9", Port: 8080, Status: "ACTIVE", Health: "ERROR"}}}}},
		},
		FloatingIPs: []stack.FloatingIPView{{Address: "172.24.4.5", ID: "f-0", PortID: "node-0", Status: "ACTIVE", FixedIP: "10.11.0.10", LeadsTo: "master-0"},
			{Address: "172.24.4.6", ID: "f-1", PortID: "vip", Status: "ACTIVE", FixedIP: "172.30.3.4", LeadsTo: "demo/svc/default/web"}, {Address: "172.24.4.7", ID: "f-2", Status: "DOWN"}},
	}
}

func TestASmallStack(t *testing.T) {
	v := small()
	golden(t, "small.svg", SVG(v))
	golden(t, "small.dot", Dot(v))
	golden(t, "small.html", HTML(v))
	texts := wellFormed(t, SVG(v))
	for _, want := range []string{"master-0", "10.11.0.20", "● ACTIVE", "○ no server", "default/web-5d4c-abcde", "VLAN 2", "ready: VLAN 3-4", "api-lb", "VIP 172.30.0.1", "TCP 443 → 1 member", "10.11.0.10:6443 master-0",
		"svc/default/web", "10.10.9.9:8080 gone", "✕ ERROR", "172.24.4.6", "○ 172.24.4.7 DOWN → nowhere", "gateway 172.24.4.2", "10.11.0.0/24", "public"} {
		if !strings.Contains(texts, want) {
			t.Errorf("the picture does not say %q", want)
		}
	}
	for _, want := range []string{`"fip f-1" -> "lb lb-1"`, `"lb lb-1" -> "port port-1"`, `"fip f-0" -> "node master-0"`, `"node worker-0" -> "port port-2" [label="VLAN 2"`} {
		if !strings.Contains(Dot(v), want) {
			t.Errorf("the graph has no %s", want)
		}
	}
}

func TestALittleOrNothingIsAPictureToo(t *testing.T) {
	for name, v := range map[string]*stack.View{
		"nothing":      {Name: "demo"},
		"no gateway":   {Name: "demo", Gateway: &stack.RouterView{Name: "demo/router"}},
		"more of ours": {Name: "demo", Networks: []stack.NetworkView{{Name: "demo/storage_net", CIDR: "10.9.0.0/24"}}},
	} {
		t.Run(name, func(t *testing.T) {
			wellFormed(t, SVG(v))
			apart(t, topology(v))
			if !strings.Contains(HTML(v), "</html>") || !strings.HasSuffix(Dot(v), "}\n") {
				t.Error("page or graph have no end")
			}
		})
	}
}

// Names come from the cloud, and anybody with the project's credentials can choose them.
func TestNamesAreTextAndNothingElse(t *testing.T) {
	evil := "\"'><script>alert(1)</script>&amp;]]>--><!-- \x00\x1b[31m\u202e\xff\\"
	v := small()
	v.Name, v.Cloud, v.Project = evil, evil, evil
	v.Gateway.External, v.Gateway.Name = evil, evil
	for i := range v.Networks {
		v.Networks[i].Name += evil
	}
	for i := range v.Nodes {
		v.Nodes[i].Name += evil
		v.Nodes[i].Status += evil
		for j := range v.Nodes[i].TrunkPorts {
			v.Nodes[i].TrunkPorts[j].Pod += evil
			v.Nodes[i].TrunkPorts[j].Status = evil
		}
	}
	for i := range v.LoadBalancers {
		v.LoadBalancers[i].Name += evil
		v.LoadBalancers[i].Provider = evil
		for j := range v.LoadBalancers[i].Listeners {
			v.LoadBalancers[i].Listeners[j].Protocol = evil
			for k := range v.LoadBalancers[i].Listeners[j].Members {
				m := &v.LoadBalancers[i].Listeners[j].Members[k]
				m.Name, m.LeadsTo, m.Address, m.Health = evil, evil, m.Address+evil, evil
			}
		}
	}
	for i := range v.FloatingIPs {
		v.FloatingIPs[i].LeadsTo, v.FloatingIPs[i].Status, v.FloatingIPs[i].PortID = evil, evil, evil
	}
	svg, page := SVG(v), HTML(v)
	wellFormed(t, svg)
	for kind, s := range map[string]string{"picture": svg, "page": page, "graph": Dot(v)} {
		for _, bad := range []string{"\x00", "\x1b", "\u202e", "\xff"} {
			if strings.Contains(s, bad) {
				t.Errorf("the %s has %q in it", kind, bad)
			}
		}
	}
	if strings.Contains(svg, "<script") || strings.Count(page, "<script") != 1 || strings.Contains(page, "<!-- ") {
		t.Error("a name became markup")
	}
	for line := range strings.Lines(Dot(v)) {
		for strings.Contains(line, `\\`) {
			line = strings.ReplaceAll(line, `\\`, "")
		}
		if strings.Count(strings.ReplaceAll(line, `\"`, ""), `"`)%2 != 0 {
			t.Errorf("a quote is left open: %s", line)
		}
	}
}

// A page loads nothing: no address of anything but what is said in text.
func TestAPageLoadsNothing(t *testing.T) {
	page := strings.ReplaceAll(HTML(small()), `xmlns="http://www.w3.org/2000/svg"`, "")
	for _, bad := range []string{"http:", "https:", "src=", "href=", "url(", "@import"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page has %q in it", bad)
		}
	}
}

// drawn makes up a stack of any size, with names of any length.
func drawn(t *rapid.T) *stack.View {
	name := rapid.OneOf(rapid.StringMatching(`[a-z0-9-]{1,12}`), rapid.StringMatching(`[a-z]{1,8}/[a-z0-9-]{1,80}`), rapid.StringN(0, 60, -1))
	state := rapid.SampledFrom([]string{"ACTIVE", "ONLINE", "DOWN", "ERROR", "BUILD", "PENDING_UPDATE", "NO_MONITOR", "", "A_VERY_LONG_STATE_THAT_NOBODY_KNOWS"})
	address := rapid.SampledFrom([]string{"10.11.0.1", "172.30.255.254", "2001:0db8:aaaa:bbbb:cccc:dddd:eeee:ffff", ""})
	upTo := func(n int, what string) int { return rapid.IntRange(0, n).Draw(t, what) }
	v := &stack.View{Name: "demo", Cloud: name.Draw(t, "cloud"), Project: name.Draw(t, "project")}
	for _, role := range []string{"vm_net", "pod_net", "service_net", name.Draw(t, "network")} {
		if upTo(4, "missing") > 0 {
			v.Networks = append(v.Networks, stack.NetworkView{Name: "demo/" + role, CIDR: address.Draw(t, "cidr")})
		}
	}
	if upTo(4, "router") > 0 {
		v.Gateway = &stack.RouterView{Name: name.Draw(t, "router"), Status: state.Draw(t, "state"), External: name.Draw(t, "external"), ExternalID: name.Draw(t, "external id"), Addresses: []string{address.Draw(t, "gateway"), address.Draw(t, "gateway")}}
		for _, n := range v.Networks {
			v.Gateway.Interfaces = append(v.Gateway.Interfaces, stack.InterfaceView{Network: n.Name, Address: address.Draw(t, "interface")})
		}
	}
	var targets []string
	for i := range upTo(5, "nodes") {
		n := stack.NodeView{Name: fmt.Sprintf("worker-%d", i) + name.Draw(t, "node"), Role: "worker", Status: state.Draw(t, "state"), Address: address.Draw(t, "address"), TrunkStatus: state.Draw(t, "trunk")}
		if upTo(2, "trunk") > 0 {
			n.TrunkID = "trunk"
			stems := []string{name.Draw(t, "pod"), "default/web-5d4c-", ""}
			for vlan := range upTo(60, "pods") {
				p := pod(vlan, "", state.Draw(t, "port"))
				if stem := stems[upTo(2, "stem")]; stem != "" {
					p.Pod = fmt.Sprint(stem, vlan)
				}
				n.TrunkPorts = append(n.TrunkPorts, p)
			}
		}
		targets = append(targets, n.Name)
		v.Nodes = append(v.Nodes, n)
	}
	for i := range upTo(6, "balancers") {
		l := stack.LoadBalancerView{Name: fmt.Sprintf("demo/%d", i) + name.Draw(t, "balancer"), VIP: address.Draw(t, "vip"), Provider: name.Draw(t, "provider"), Status: state.Draw(t, "state"), Health: state.Draw(t, "health")}
		for range upTo(8, "listeners") {
			x := stack.ListenerView{Protocol: name.Draw(t, "protocol"), Port: upTo(65535, "port"), Status: state.Draw(t, "state"), Health: state.Draw(t, "health")}
			for range upTo(9, "members") {
				x.Members = append(x.Members, stack.MemberView{Name: name.Draw(t, "member"), Address: address.Draw(t, "address"), Port: 80, Health: state.Draw(t, "health")})
			}
			l.Listeners = append(l.Listeners, x)
		}
		targets = append(targets, l.Name)
		v.LoadBalancers = append(v.LoadBalancers, l)
	}
	targets = append(targets, "", name.Draw(t, "target"))
	for range upTo(8, "floating IPs") {
		v.FloatingIPs = append(v.FloatingIPs, stack.FloatingIPView{Address: address.Draw(t, "floating IP"), Status: state.Draw(t, "state"), LeadsTo: rapid.SampledFrom(targets).Draw(t, "to")})
	}
	return v
}

func TestNothingOverlapsWhateverTheSize(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := drawn(t)
		apart(t, topology(v))
		wellFormed(t, SVG(v))
	})
}

// apart says where two things of a drawing are in each other's way.
func apart(t interface{ Errorf(string, ...any) }, d *drawing) {
	isLane := func(b box) bool { return strings.HasPrefix(b.class, "lane") }
	within := func(a, b box) bool {
		return a.x >= b.x && a.y >= b.y && a.right() <= b.right() && a.bottom() <= b.bottom()
	}
	meet := func(a, b box) bool { return a.x < b.right() && b.x < a.right() && a.y < b.bottom() && b.y < a.bottom() }
	page := box{w: d.width, h: d.height}
	all := append([]box{}, d.boxes...)
	for _, x := range d.texts {
		all = append(all, frame(x))
	}
	for i, a := range all {
		if !within(a, page) {
			t.Errorf("%+v is not on the page of %d x %d", a, d.width, d.height)
		}
		for _, b := range all[:i] {
			if inside := isLane(b) && within(a, b); meet(a, b) && !inside {
				t.Errorf("overlap:\n%+v\n%+v", a, b)
			}
		}
	}
	for _, b := range d.boxes {
		for i, x := range b.texts {
			if !within(frame(x), b) {
				t.Errorf("%+v is not within its box %+v", x, b)
			}
			for _, y := range b.texts[:i] {
				if meet(frame(x), frame(y)) {
					t.Errorf("texts overlap: %+v %+v", x, y)
				}
			}
		}
		if isLane(b) {
			for _, a := range all {
				for _, x := range b.texts {
					if !isLane(a) && meet(a, frame(x)) {
						t.Errorf("%+v is on the text of %+v", a, b)
					}
				}
			}
		}
	}
	for _, e := range d.edges {
		for i := 1; i < len(e.points); i++ {
			p, q := e.points[i-1], e.points[i]
			line := box{x: min(p[0], q[0]), y: min(p[1], q[1]), w: abs(p[0] - q[0]), h: abs(p[1] - q[1])}
			if line.w > 0 && line.h > 0 {
				t.Errorf("a line goes askew: %+v", e)
			}
			for _, b := range all {
				if e.class == "public" && b.class == "fip" {
					continue // the line of several passes behind them
				}
				if !isLane(b) && line.x < b.right() && b.x < line.x+line.w+1 && line.y < b.bottom() && b.y < line.y+line.h+1 && !touches(line, b) {
					t.Errorf("a line passes through a box:\n%+v\n%+v", e, b)
				}
			}
		}
	}
}

// touches reports whether a line ends at the border of a box.
func touches(line, b box) bool {
	return line.x >= b.right()-1 || line.x+line.w <= b.x+1 || line.y >= b.bottom()-1 || line.y+line.h <= b.y+1
}

func abs(n int) int { return max(n, -n) }

// frame is what a text takes, from the top of its letters to below its base line.
func frame(x text) box {
	size := bodySize
	if strings.Contains(x.class, "small") || strings.Contains(x.class, "muted") {
		size = smallSize
	}
	b := box{x: x.x, y: x.y - size + 2, w: width(x.s, size), h: size}
	if x.end {
		b.x -= b.w
	}
	return b
}

func TestATextIsShortenedInItsMiddle(t *testing.T) {
	for _, x := range []struct {
		s    string
		px   int
		want string
	}{
		{"default/web-585cbc485c-7t67h", 400, "default/web-585cbc485c-7t67h"},
		{"default/web-585cbc485c-7t67h", 100, "defaul…-7t67h"},
		{"anything", 0, ""},
	} {
		if got := fit(x.s, x.px, bodySize); got != x.want {
			t.Errorf("fit(%q, %d) is %q, want %q", x.s, x.px, got, x.want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		px := rapid.IntRange(0, 300).Draw(t, "px")
		if got := fit(rapid.String().Draw(t, "s"), px, bodySize); width(got, bodySize) > px {
			t.Fatalf("%q is wider than %d", got, px)
		}
	})
}

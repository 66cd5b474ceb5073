//go:build kernel

package hostporttest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kuryrctl/kuryrctl/internal/umltest"
	"github.com/kuryrctl/kuryrctl/templates"
)

func TestMain(m *testing.M) {
	umltest.Network(m, umltest.Machine{Programs: []umltest.Program{
		{Dir: "../../bootstrap/bundle/runtime", Package: "github.com/containernetworking/plugins/plugins/meta/portmap"}}})
}

// A worker (10.1.0.2) and two pods (10.10.0.5 and .6) on two networks of one router, which lets nobody send with an address that is not
// theirs, as Neutron does; behind the router a client (192.0.2.2). The worker is this namespace.
const topology = `
sysctl -qw net.ipv4.ip_forward=1
ip link set lo up
for n in router pod other client; do ip netns add $n; ip -n $n link set lo up; done
ip netns exec router sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=1
join() { # namespace, its address, its interface; the router's address, its interface
	ip -n router link add $5 type veth peer name $3 netns $1
	ip -n router address add $4 dev $5
	ip -n router link set $5 up
	ip -n $1 address add $2 dev $3
	ip -n $1 link set $3 up
	ip -n $1 route add default via ${4%/*}
}
ip netns attach worker $$
join worker 10.1.0.2/24 ens3 10.1.0.1/24 vm
join client 192.0.2.2/24 eth0 192.0.2.1/24 out
ip -n router link add pods type bridge
ip -n router address add 10.10.255.254/16 dev pods
ip -n router link set pods up
for p in "pod 10.10.0.5" "other 10.10.0.6"; do
	set -- $p
	ip -n router link add p$1 type veth peer name eth0 netns $1
	ip -n router link set p$1 master pods up
	ip -n $1 address add $2/16 dev eth0
	ip -n $1 link set eth0 up
	ip -n $1 route add default via 10.10.255.254
done
`

func sh(t *testing.T, script string) string {
	t.Helper()
	out, err := exec.Command("sh", "-ec", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// within calls f on a thread of its own in a namespace; "" is the worker's.
func within(t *testing.T, namespace string, f func() error) error {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
		if namespace != "" {
			ns, err := os.Open("/run/netns/" + namespace)
			if err == nil {
				defer ns.Close()
				err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
			}
			if err != nil {
				done <- err
				return
			}
		}
		done <- f()
	}()
	return <-done
}

// serve answers in the pod with its own name and whom it sees, on TCP and UDP port 80.
func serve(t *testing.T) {
	t.Helper()
	var l net.Listener
	var p net.PacketConn
	err := within(t, "pod", func() (err error) {
		if l, err = net.Listen("tcp4", ":80"); err == nil {
			p, err = net.ListenPacket("udp4", ":80")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); p.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, "pod sees ", c.RemoteAddr())
			c.Close()
		}
	}()
	go func() {
		for b := make([]byte, 100); ; {
			_, from, err := p.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = p.WriteTo([]byte("pod sees "+from.String()), from)
		}
	}()
}

// ask returns the pod's answer to who asks from a namespace.
func ask(t *testing.T, from, network, address string) (answer string, err error) {
	t.Helper()
	return answer, within(t, from, func() error {
		c, err := net.DialTimeout(network, address, 5*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
			return err
		}
		if network == "udp4" {
			if _, err := c.Write([]byte("?")); err != nil {
				return err
			}
			b := make([]byte, 100)
			n, err := c.Read(b)
			answer = string(b[:n])
			return err
		}
		b, err := io.ReadAll(c)
		answer = string(b)
		return err
	})
}

// portmap runs the plugin with what nodes have in their list, and what a runtime adds.
func portmap(t *testing.T, command string) {
	t.Helper()
	var list struct {
		CNIVersion, Name string
		Plugins          []map[string]any
	}
	if err := json.Unmarshal(templates.KuryrFile("conflist.json"), &list); err != nil {
		t.Fatal(err)
	}
	var conf map[string]any
	for _, p := range list.Plugins {
		if p["type"] == "portmap" {
			conf = p
		}
	}
	if conf == nil {
		t.Fatal("the list has no portmap")
	}
	conf["cniVersion"], conf["name"] = list.CNIVersion, list.Name
	conf["runtimeConfig"] = map[string]any{"portMappings": []any{
		map[string]any{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
		map[string]any{"hostPort": 8080, "containerPort": 80, "protocol": "udp"},
	}}
	conf["prevResult"] = map[string]any{"cniVersion": list.CNIVersion,
		"interfaces": []any{map[string]any{"name": "eth0", "sandbox": "/run/netns/pod"}},
		"ips":        []any{map[string]any{"address": "10.10.0.5/16", "gateway": "10.10.255.254", "interface": 0}}}
	stdin, err := json.Marshal(conf)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(umltest.Bin + "/portmap")
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+command, "CNI_CONTAINERID=c1", "CNI_NETNS=/run/netns/pod", "CNI_IFNAME=eth0", "CNI_PATH="+umltest.Bin)
	cmd.Stdin = bytes.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", command, err, out)
	}
}

func TestAPortOfTheWorkerLeadsToThePod(t *testing.T) {
	sh(t, topology)
	serve(t)
	portmap(t, "ADD")
	portmap(t, "CHECK")
	for _, network := range []string{"tcp4", "udp4"} {
		for _, c := range []struct{ who, from, to string }{
			{"a client behind the router", "client", "10.1.0.2"},
			{"the worker itself", "", "10.1.0.2"},
			{"the worker itself, by the loopback", "", "127.0.0.1"},
			{"the router, as load balancers do", "router", "10.1.0.2"},
			{"another pod", "other", "10.1.0.2"},
			{"the pod itself", "pod", "10.1.0.2"},
		} {
			if got, err := ask(t, c.from, network, c.to+":8080"); err != nil || !strings.HasPrefix(got, "pod sees 10.1.0.2:") {
				t.Errorf("%s, by %s: got %q, %v", c.who, network, got, err)
			}
		}
	}
	if got, err := ask(t, "client", "tcp4", "10.10.0.5:80"); err != nil || !strings.HasPrefix(got, "pod sees 192.0.2.2:") {
		t.Errorf("the pod's own address: got %q, %v", got, err)
	}
	for range 2 {
		portmap(t, "DEL")
		if rules := sh(t, "iptables-save"); strings.Contains(rules, "10.10.0.5") || strings.Contains(rules, "8080") || strings.Contains(rules, "CNI-DN-") {
			t.Errorf("DEL leaves\n%s", rules)
		}
	}
	if got, err := ask(t, "client", "tcp4", "10.1.0.2:8080"); err == nil {
		t.Errorf("after DEL: got %q", got)
	}
}

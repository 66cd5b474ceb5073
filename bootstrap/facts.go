package bootstrap

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/kuryrctl/kuryrctl/bootstrap/ssh"
	"github.com/kuryrctl/kuryrctl/templates"
)

// facts are what is to be known of a host before anything is done there.
type facts struct {
	ID, Version string // as in os-release(5)
	Arch        string // as Go and container images call it
	Virt        string // as systemd-detect-virt(1) does
	CloudInit   string // its status; "" where there is none
	Skew        time.Duration
	system      system
}

// system is what distributions differ in.
type system struct {
	id       string
	versions []string
	manager  string            // of packages
	packages map[string]string // command to the package that has it, where the name is not the same
}

// systems are those that can be nodes.
var systems = []system{
	{"debian", []string{"12", "13"}, "apt", debianPackages},
	{"ubuntu", []string{"22.04", "24.04"}, "apt", debianPackages},
	{"rocky", []string{"9", "10"}, "dnf", redhatPackages},
	{"centos", []string{"9", "10"}, "dnf", redhatPackages},
}

var (
	debianPackages = map[string]string{"ip": "iproute2", "tc": "iproute2"}
	redhatPackages = map[string]string{"ip": "iproute", "tc": "iproute-tc", "iptables": "iptables-nft", "conntrack": "conntrack-tools"}
)

// commands are what kubeadm's preflight, kubelet and the CNI plugins call.
var commands = []string{"conntrack", "ethtool", "ip", "iptables", "socat", "tc"}

func findSystem(id, version string) (system, error) {
	var known []string
	major, _, _ := strings.Cut(version, ".")
	for _, s := range systems {
		for _, v := range s.versions {
			if s.id == id && (v == version || v == major) {
				return s, nil
			}
			known = append(known, s.id+" "+v)
		}
	}
	return system{}, fmt.Errorf("its system %s %s is none that can be a node; known are: %s", id, version, strings.Join(known, ", "))
}

// packagesFor are the packages that have the commands, each once.
func (s system) packagesFor(commands []string) string {
	var all []string
	for _, c := range commands {
		name := c
		if p, ok := s.packages[c]; ok {
			name = p
		}
		if len(all) == 0 || all[len(all)-1] != name {
			all = append(all, name)
		}
	}
	return strings.Join(all, " ")
}

// Of a clock that is further off, etcd and certificates begin to complain.
const maxSkew = 5 * time.Second

// look reads the facts of a host.
func (n *Node) look(ctx context.Context, client *ssh.Client) (*facts, error) {
	begin := time.Now()
	out, err := client.Run(ctx, ssh.Command{Line: templates.Script("facts", nil)})
	if err != nil {
		return nil, err
	}
	f := &facts{}
	for line := range strings.Lines(out.Stdout) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch key {
		case "id":
			f.ID = value
		case "version":
			f.Version = value
		case "arch":
			f.Arch = map[string]string{"x86_64": "amd64", "aarch64": "arm64"}[value]
			if f.Arch == "" {
				return nil, fmt.Errorf("its architecture %s is neither x86_64 nor aarch64", value)
			}
		case "virt":
			f.Virt = value
		case "cloudinit":
			f.CloudInit = value
		case "time":
			seconds, err := strconv.ParseFloat(value, 64)
			if err != nil {
				return nil, fmt.Errorf("reading its clock: %w", err)
			}
			middle := begin.Add(time.Since(begin) / 2) // of the question and the answer
			f.Skew = time.UnixMicro(int64(seconds * 1e6)).Sub(middle).Round(10 * time.Millisecond)
		}
	}
	f.system, err = findSystem(f.ID, f.Version)
	return f, err
}

// known returns the facts of a host, read once in a run.
func (n *Node) known(ctx context.Context, client *ssh.Client) (*facts, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.facts != nil {
		return n.facts, nil
	}
	f, err := n.look(ctx, client)
	if err == nil {
		n.facts = f
	}
	return f, err
}

// ignored are the preflight checks of kubeadm that cannot pass on a kind of machine. User-mode Linux has one processor and no
// cpuset controller, and both kubelet and the control plane run there.
func (f *facts) ignored() []string {
	if f.Virt == "uml" {
		return []string{"NumCPU", "SystemVerification"}
	}
	return nil
}

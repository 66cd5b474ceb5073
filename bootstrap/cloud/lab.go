// Package cloud runs a real all-in-one OpenStack on this machine: Debian's own packages in a root directory of their own and in
// namespaces of their own.
//
// It owns that root, its namespaces, its processes and its credentials. It refuses to change anything else on the host: no
// route, no bridge, no interface, no package that its caller did not ask for. What runs inside is OpenStack as released; what
// stacks are made of is package stack's business.
//
// Start reading at Lab.Up; supervisor.go is what runs as the first process inside.
package cloud

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/kuryrctl/kuryrctl/internal/graph"
)

// Address is where the lab's APIs listen. It exists in the lab's network namespace only: reach it through Lab.DialContext.
const Address = "10.99.0.1"

// NameServer is where the lab's bind answers, a neighbour of the external network's gateway: servers reach it as they would the world's, and
// kuryrctl through Lab.DialContext. Zone is what it serves, to be changed by who has the key of Lab.NamesKey.
const (
	NameServer = "172.24.4.2"
	Zone       = "lab.kuryr.test"
)

// namespaceName is the name under /run/netns, so that `ip netns` shows and enters it.
const namespaceName = "kuryrctl-lab"

// Lab is the one OpenStack of this user on this machine, running or not. It is safe for concurrent use: everything it knows is
// on disk and in the kernel, so that any number of processes may look at it.
type Lab struct {
	cache     string // layers that can be built again: the root, the guest image, the kernel
	state     string // what belongs to this one cloud: its overlay, secrets, logs
	namespace string
}

// Default returns the lab below XDG_CACHE_HOME and XDG_STATE_HOME (or ~/.cache and ~/.local/state). It touches nothing.
func Default() (*Lab, error) {
	cache, err := xdg("XDG_CACHE_HOME", ".cache")
	if err != nil {
		return nil, err
	}
	state, err := xdg("XDG_STATE_HOME", ".local/state")
	if err != nil {
		return nil, err
	}
	l := &Lab{cache: filepath.Join(cache, "kuryrctl", "cloud"), state: filepath.Join(state, "kuryrctl", "cloud"), namespace: namespaceName}
	// overlayfs parses its own option string, in which these three mean something.
	if strings.ContainsAny(l.cache+l.state, `:,\`) {
		return nil, fmt.Errorf("choosing directories for the lab: %s and %s must not contain ':', ',' or '\\' (overlayfs)", l.cache, l.state)
	}
	return l, nil
}

// xdg follows the XDG base directory specification: a relative path in the variable counts as unset.
func xdg(variable, fallback string) (string, error) {
	if dir := os.Getenv(variable); filepath.IsAbs(dir) {
		return filepath.Clean(dir), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("finding the lab's directories: set %s or HOME: %w", variable, err)
	}
	return filepath.Join(home, fallback), nil
}

// CloudsYAML is the path of the clouds.yaml with the clouds "lab" (user and project demo) and "lab-admin". The file has mode
// 0600, exists after the first successful Up, and its passwords are this lab's own.
func (l *Lab) CloudsYAML() string { return filepath.Join(l.state, "clouds.yaml") }

// NamesKey is the path of the TSIG key for updates of [Zone], as tsig-keygen writes it. It is made when CloudsYAML is, with the same mode.
func (l *Lab) NamesKey() string { return filepath.Join(l.state, "names.key") }

// Logs is the directory with one log file per service and build step.
func (l *Lab) Logs() string { return filepath.Join(l.state, "log") }

// Running reports whether the lab's first process lives. It does not say that the cloud is ready: Status does.
func (l *Lab) Running() bool {
	_, ok := l.running()
	return ok
}

// Event is one line of progress of Up. Keys are the steps of package documentation ("kernel", "guest", "root", "bake", "start")
// and, while the cloud starts, its services ("start.keystone").
type Event = graph.Event

// Virt is a way to run servers.
type Virt string

// The ways to run servers, best first.
const (
	KVM  Virt = "kvm"
	UML  Virt = "uml"  // user-mode Linux processes, through a Nova driver of this package
	QEMU Virt = "qemu" // emulation
)

// UpOptions changes what Up does. The zero value is the usual start.
type UpOptions struct {
	Virt  Virt // force a way to run servers; empty finds the best that works
	Fresh bool // forget everything that was made in the cloud before
}

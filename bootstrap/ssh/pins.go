package ssh

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
)

// Pin is what is known of one server's identity before anybody speaks to it.
type Pin struct {
	PortID   string `json:"port_id,omitempty"`   // Neutron port the key was made for: it exists before the server does
	ServerID string `json:"server_id,omitempty"` // Nova server the key was given to, once that is known

	// Keys are the accepted ed25519 host keys as authorized_keys lines: one, or during a rotation two, the key in service
	// first and its successor second.
	Keys []string `json:"keys"`

	// Rotated says that the key was generated on the server. A key that is not rotated came with user_data, which the
	// metadata service shows for the server's whole life.
	Rotated bool `json:"rotated"`
}

func (p Pin) clone() Pin {
	p.Keys = slices.Clone(p.Keys)
	return p
}

func (p Pin) validate() error {
	if n := len(p.Keys); n < 1 || n > 2 {
		return fmt.Errorf("%d keys, want 1 or 2", n)
	}
	seen := map[string]bool{}
	for _, line := range p.Keys {
		key, err := parseHostKey(line)
		if err != nil {
			return err
		}
		if seen[marshalKey(key)] {
			return fmt.Errorf("key %q is there twice", line)
		}
		seen[marshalKey(key)] = true
	}
	if p.Rotated && len(p.Keys) != 1 {
		return errors.New("rotated, but two keys are accepted")
	}
	return nil
}

// Pins is the file of pinned host keys of one stack: JSON, mode 0600, replaced atomically. Its methods may be called from
// several goroutines; two processes must not write one file at once.
type Pins struct {
	path  string
	mu    sync.Mutex
	nodes map[string]Pin
}

// pinsVersion is the format of the file. A file of another version is refused, not guessed at.
const pinsVersion = 1

type pinsFile struct {
	Version int            `json:"version"`
	Nodes   map[string]Pin `json:"nodes"`
}

// LoadPins reads the pins at path; a missing file has none. A file that others can write, or with anything in it that is
// not understood, is refused: a damaged pin must not turn into a missing one.
func LoadPins(path string) (*Pins, error) {
	p := &Pins{path: path, nodes: map[string]Pin{}}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading pinned host keys: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("reading pinned host keys: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return nil, fmt.Errorf("reading pinned host keys %s: mode %04o lets others write it; check it and run chmod 600 %s", path, mode, path)
	}
	data, err := readAll(f, info)
	if err == nil {
		p.nodes, err = decodePins(data)
	}
	if err != nil {
		return nil, fmt.Errorf("reading pinned host keys %s: %w", path, err)
	}
	return p, nil
}

func decodePins(data []byte) (map[string]Pin, error) {
	var file pinsFile
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&file); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("something follows the end")
	}
	if file.Version != pinsVersion {
		return nil, fmt.Errorf("version is %d, want %d", file.Version, pinsVersion)
	}
	for _, node := range slices.Sorted(maps.Keys(file.Nodes)) {
		if err := validNode(node, file.Nodes[node]); err != nil {
			return nil, err
		}
	}
	if file.Nodes == nil {
		file.Nodes = map[string]Pin{}
	}
	return file.Nodes, nil
}

func encodePins(nodes map[string]Pin) ([]byte, error) {
	data, err := json.MarshalIndent(pinsFile{Version: pinsVersion, Nodes: nodes}, "", "  ")
	return append(data, '\n'), err
}

// validNode keeps names to those of hosts, so that a name can stand in an error, a file name and a known_hosts alias as it is.
func validNode(node string, pin Pin) error {
	ok := node != "" && len(node) <= 253
	for _, r := range node {
		ok = ok && (r == '-' || r == '.' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z')
	}
	if !ok {
		return fmt.Errorf("node %q: not a host name", node)
	}
	if err := pin.validate(); err != nil {
		return fmt.Errorf("node %s: %w", node, err)
	}
	return nil
}

// Node returns the pin of a node and whether there is one.
func (p *Pins) Node(node string) (Pin, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	pin, ok := p.nodes[node]
	return pin.clone(), ok
}

// Nodes lists the nodes that have pins, sorted.
func (p *Pins) Nodes() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(maps.Keys(p.nodes))
}

// Set pins a node's keys and returns once they are on disk. On error nothing is changed.
func (p *Pins) Set(node string, pin Pin) error {
	if err := validNode(node, pin); err != nil {
		return fmt.Errorf("pinning host key: %w", err)
	}
	return p.change(func(nodes map[string]Pin) { nodes[node] = pin.clone() })
}

// Remove forgets a node, which may be unknown: its server is gone, or was rebuilt on purpose.
func (p *Pins) Remove(node string) error {
	return p.change(func(nodes map[string]Pin) { delete(nodes, node) })
}

func (p *Pins) change(edit func(map[string]Pin)) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	nodes := maps.Clone(p.nodes)
	edit(nodes)
	data, err := encodePins(nodes)
	if err == nil {
		err = writeFile(p.path, data)
	}
	if err != nil {
		return fmt.Errorf("pinning host key: %w", err)
	}
	p.nodes = nodes
	return nil
}

// HostKeyError says that a host showed a key that is not pinned. Trying again does not help, and going on would be wrong.
type HostKeyError struct {
	Node    string
	Address string   // host:port
	Want    []string // SHA256 fingerprints of the pinned keys
	Got     string   // SHA256 fingerprint of the key seen
}

func (e *HostKeyError) Error() string {
	return fmt.Sprintf("host key of %s (%s) is %s, but %s is pinned: another machine answers there, or the server was rebuilt; "+
		"compare with its console log (openstack console log show), and only if it was rebuilt on purpose delete the server "+
		"so that it is made again with a new pinned key",
		e.Node, e.Address, e.Got, strings.Join(e.Want, " or "))
}

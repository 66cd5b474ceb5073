package ssh_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/kuryrctl/kuryrctl/bootstrap/ssh"
)

func hostKey(t testing.TB) string {
	t.Helper()
	pair, err := ssh.NewHostKey()
	if err != nil {
		t.Fatal(err)
	}
	return pair.Public
}

func loadPins(t testing.TB, path string) *ssh.Pins {
	t.Helper()
	pins, err := ssh.LoadPins(path)
	if err != nil {
		t.Fatal(err)
	}
	return pins
}

func TestPinsOnDiskAreThoseInMemory(t *testing.T) {
	keys := []string{hostKey(t), hostKey(t), hostKey(t)}
	rapid.Check(t, func(rt *rapid.T) {
		path := filepath.Join(t.TempDir(), "demo", "pins.json")
		pins, want := loadPins(t, path), map[string]ssh.Pin{}
		for range rapid.IntRange(1, 12).Draw(rt, "changes") {
			node := rapid.SampledFrom([]string{"master-0", "worker-0", "worker-1.demo"}).Draw(rt, "node")
			if rapid.Bool().Draw(rt, "remove") {
				if err := pins.Remove(node); err != nil {
					rt.Fatal(err)
				}
				delete(want, node)
				continue
			}
			pin := ssh.Pin{PortID: rapid.String().Draw(rt, "port"), ServerID: "s", Keys: rapid.SliceOfNDistinct(rapid.SampledFrom(keys), 1, 2, rapid.ID).Draw(rt, "keys")}
			pin.Rotated = len(pin.Keys) == 1 && rapid.Bool().Draw(rt, "rotated")
			pin.PortID = strings.ToValidUTF8(pin.PortID, "")
			if err := pins.Set(node, pin); err != nil {
				rt.Fatal(err)
			}
			want[node] = pin
		}
		for _, p := range []*ssh.Pins{pins, loadPins(t, path)} {
			got := map[string]ssh.Pin{}
			for _, node := range []string{"master-0", "worker-0", "worker-1.demo"} {
				if pin, ok := p.Node(node); ok {
					got[node] = pin
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				rt.Fatal(diff)
			}
		}
	})
}

func TestPinsFileIsPrivateAndLeavesNoTrace(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "demo")
	path := filepath.Join(dir, "pins.json")
	pins := loadPins(t, path)
	for range 3 {
		if err := pins.Set("master-0", ssh.Pin{Keys: []string{hostKey(t)}}); err != nil {
			t.Fatal(err)
		}
	}
	for p, want := range map[string]os.FileMode{path: 0o600, dir: 0o700} {
		if info, err := os.Stat(p); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want %v", p, info.Mode(), err, want)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left over: %v, %v", entries, err)
	}
}

func TestPinsThatCannotBeWrittenAreNotChanged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pins.json")
	pins := loadPins(t, path)
	old := ssh.Pin{Keys: []string{hostKey(t)}}
	if err := pins.Set("master-0", old); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(path, "in the way"), 0o700); err != nil { // rename cannot replace it, even for root
		t.Fatal(err)
	}
	if err := pins.Set("master-0", ssh.Pin{Keys: []string{hostKey(t)}}); err == nil {
		t.Fatal("wrote over a directory")
	}
	if pin, _ := pins.Node("master-0"); !cmp.Equal(pin, old) {
		t.Fatalf("got %+v", pin)
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Fatalf("left over: %v", entries)
	}
}

func TestPinsHandOutCopies(t *testing.T) {
	pins := loadPins(t, filepath.Join(t.TempDir(), "pins.json"))
	given := ssh.Pin{Keys: []string{hostKey(t)}}
	want := given.Keys[0]
	if err := pins.Set("master-0", given); err != nil {
		t.Fatal(err)
	}
	given.Keys[0] = "forged"
	got, _ := pins.Node("master-0")
	got.Keys[0] = "forged"
	if got, _ = pins.Node("master-0"); got.Keys[0] != want {
		t.Fatal("a pin was changed from outside")
	}
}

func TestPinsFromManyGoroutines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pins.json")
	pins, key := loadPins(t, path), hostKey(t)
	nodes := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	var wg sync.WaitGroup
	for _, node := range nodes {
		wg.Go(func() {
			if err := pins.Set(node, ssh.Pin{Keys: []string{key}}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	again := loadPins(t, path)
	for _, node := range nodes {
		if _, ok := again.Node(node); !ok {
			t.Errorf("%s is lost", node)
		}
	}
}

func TestPinsRefuse(t *testing.T) {
	a, b, c := hostKey(t), hostKey(t), hostKey(t)
	for name, pin := range map[string]ssh.Pin{
		"no key":                  {},
		"three keys":              {Keys: []string{a, b, c}},
		"one key twice":           {Keys: []string{a, a + " other comment"}},
		"two keys and rotated":    {Keys: []string{a, b}, Rotated: true},
		"a key with options":      {Keys: []string{"no-pty " + a}},
		"two keys in one line":    {Keys: []string{a + "\n" + b}},
		"no key type":             {Keys: []string{strings.Fields(a)[1]}},
		"a broken key":            {Keys: []string{a[:len(a)-9]}},
		"a known_hosts-like line": {Keys: []string{"worker-0 " + a}},
	} {
		path := filepath.Join(t.TempDir(), "pins.json")
		if err := loadPins(t, path).Set("master-0", pin); err == nil {
			t.Errorf("%s: accepted", name)
		}
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s: written", name)
		}
	}
	for _, node := range []string{"", "a b", "a/b", "a\n", "ä", strings.Repeat("x", 254)} {
		if err := loadPins(t, filepath.Join(t.TempDir(), "pins.json")).Set(node, ssh.Pin{Keys: []string{a}}); err == nil {
			t.Errorf("node %q accepted", node)
		}
	}
}

func TestLoadPinsRefusesWhatItDoesNotUnderstand(t *testing.T) {
	key := hostKey(t)
	good := `{"version":1,"nodes":{"master-0":{"port_id":"p","keys":["` + key + `"],"rotated":false}}}`
	for name, c := range map[string]struct {
		content string
		mode    os.FileMode
	}{
		"writable by the group": {good, 0o620},
		"writable by others":    {good, 0o602},
		"empty":                 {"", 0o600},
		"cut off":               {good[:len(good)-3], 0o600},
		"two documents":         {good + good, 0o600},
		"another version":       {strings.Replace(good, `"version":1`, `"version":2`, 1), 0o600},
		"no version":            {`{"nodes":{}}`, 0o600},
		"an unknown field":      {strings.Replace(good, `"port_id"`, `"trust_all"`, 1), 0o600},
		"a broken key":          {strings.Replace(good, key, key[:40], 1), 0o600},
	} {
		path := filepath.Join(t.TempDir(), "pins.json")
		if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		if _, err := ssh.LoadPins(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	path := filepath.Join(t.TempDir(), "pins.json")
	if err := os.WriteFile(path, []byte(good), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, ok := loadPins(t, path).Node("master-0"); !ok {
		t.Error("the good one has no pin")
	}
}

// FuzzLoadPins: whatever loads has only nodes with one or two keys, and says the same after being written and loaded again.
func FuzzLoadPins(f *testing.F) {
	key, other := hostKey(f), hostKey(f)
	f.Add(`{"version":1,"nodes":{"master-0":{"port_id":"p","server_id":"s","keys":["` + key + `"],"rotated":true}}}`)
	f.Add(`{"version":1,"nodes":{"a":{"keys":["` + key + `","` + other + `"]},"b":{"keys":["` + other + `"]}}}`)
	f.Add(`{"version":1,"nodes":null}`)
	f.Add(`{"version":1,"nodes":{"a":null}}`)
	f.Add(`[]`)
	f.Fuzz(func(t *testing.T, content string) {
		path := filepath.Join(t.TempDir(), "pins.json")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		pins, err := ssh.LoadPins(path)
		if err != nil {
			return
		}
		if err := pins.Set("added", ssh.Pin{Keys: []string{key}}); err != nil {
			t.Fatalf("loaded what cannot be written: %v", err)
		}
		again, err := ssh.LoadPins(path)
		if err != nil {
			t.Fatalf("wrote what cannot be loaded: %v", err)
		}
		for _, node := range slices.Sorted(maps.Keys(nodesIn(content))) {
			pin, ok := pins.Node(node)
			if pin2, ok2 := again.Node(node); ok != ok2 || !cmp.Equal(pin, pin2) {
				t.Fatalf("%s: %+v became %+v", node, pin, pin2)
			}
			if n := len(pin.Keys); ok && (n < 1 || n > 2) {
				t.Fatalf("%s has %d keys", node, n)
			}
		}
	})
}

// nodesIn lists every short word of a document: what a node of it may be called.
func nodesIn(content string) map[string]bool {
	words := map[string]bool{"added": true}
	for _, w := range strings.FieldsFunc(content, func(r rune) bool { return r == '"' }) {
		words[w] = true
	}
	return words
}

// FuzzHostKey: a line that a host says is its key is pinned only if it is one key of our type, which is then found as it was.
func FuzzHostKey(f *testing.F) {
	key := hostKey(f)
	for _, line := range []string{key, key + " root@host", "  " + key, key + "\n" + key, `from="*" ` + key, "# " + key, "@revoked * " + key, key[:len(key)-1], "ssh-rsa AAAAB3NzaC1yc2E=", "",
		strings.Replace(key, "ssh-ed25519", "ssh-rsa", 1), "\x1b[31m" + key} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		path := filepath.Join(t.TempDir(), "pins.json")
		pins, err := ssh.LoadPins(path)
		if err != nil {
			t.Fatal(err)
		}
		if pins.Set("a", ssh.Pin{Keys: []string{line}}) != nil {
			if _, ok := pins.Node("a"); ok {
				t.Fatalf("%q was refused and is pinned", line)
			}
			return
		}
		if kind, rest, ok := strings.Cut(strings.TrimSpace(line), " "); !ok || kind != "ssh-ed25519" || strings.ContainsAny(rest, "\r\n") {
			t.Fatalf("%q was pinned", line)
		}
		again, err := ssh.LoadPins(path)
		if err != nil {
			t.Fatal(err)
		}
		was, _ := pins.Node("a")
		if is, ok := again.Node("a"); !ok || !cmp.Equal(was, is) {
			t.Fatalf("%+v became %+v", was, is)
		}
	})
}

package cloud

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func sampleIngredients() ingredients {
	return ingredients{rootPackages: []string{"nova", "neutron"}, guestPackages: []string{"udev"}, kernel: "abc", files: map[string][]byte{
		"files/nova.conf.tmpl": []byte("a"), "files/qemu-wrapper": []byte("b"), "files/guest/99-lab.cfg": []byte("c"), "files/uml.py": []byte("d"),
	}}
}

// TestKeysFollowIngredients changes one ingredient at a time: exactly the layers that are made from it get another name.
func TestKeysFollowIngredients(t *testing.T) {
	tests := map[string]struct {
		change            func(*ingredients)
		root, guest, bake bool
	}{
		"nothing":          {change: func(*ingredients) {}},
		"a package":        {change: func(in *ingredients) { in.rootPackages = []string{"nova"} }, root: true, bake: true},
		"package borders":  {change: func(in *ingredients) { in.rootPackages = []string{"nova neutron"} }},
		"a guest package":  {change: func(in *ingredients) { in.guestPackages = []string{"udev", "less"} }, guest: true, bake: true},
		"the kernel":       {change: func(in *ingredients) { in.kernel = "none" }, guest: true, bake: true},
		"a template":       {change: func(in *ingredients) { in.files["files/nova.conf.tmpl"] = []byte("x") }, bake: true},
		"the driver":       {change: func(in *ingredients) { in.files["files/uml.py"] = []byte("x") }, bake: true},
		"the QEMU wrapper": {change: func(in *ingredients) { in.files["files/qemu-wrapper"] = []byte("x") }, root: true, bake: true},
		"a guest's file":   {change: func(in *ingredients) { in.files["files/guest/99-lab.cfg"] = []byte("x") }, guest: true, bake: true},
		"a new file":       {change: func(in *ingredients) { in.files["files/new"] = nil }, bake: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			before, after := sampleIngredients(), sampleIngredients()
			after.files = maps.Clone(after.files)
			tt.change(&after)
			for _, key := range []struct {
				kind          string
				before, after string
				changes       bool
			}{
				{"root", before.rootKey(), after.rootKey(), tt.root},
				{"guest", before.guestKey(), after.guestKey(), tt.guest},
				{"bake", before.bakeKey(), after.bakeKey(), tt.bake},
				{"image id", before.imageID(), after.imageID(), tt.guest},
			} {
				if (key.before != key.after) != key.changes {
					t.Errorf("%s: %s -> %s, want a change: %t", key.kind, key.before, key.after, key.changes)
				}
			}
		})
	}
}

func TestLayerIsThereOnlyWhenComplete(t *testing.T) {
	l := layer{kind: "root", key: "k", cache: t.TempDir()}
	if err := l.begin(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(l.partial(), "half"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if l.exists() {
		t.Error("a layer that was begun exists")
	}
	if err := l.begin(); err != nil { // after a kill
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(l.partial(), "half")); !os.IsNotExist(err) {
		t.Errorf("a second begin keeps what the first left: %v", err)
	}
	if err := l.complete(); err != nil {
		t.Fatal(err)
	}
	if !l.exists() {
		t.Error("a complete layer does not exist")
	}
}

func TestDiskUsageCountsBlocksAndEachFileOnce(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a"), []byte(strings.Repeat("x", 1<<20)), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "b")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "sparse"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, "sparse"), 1<<30); err != nil {
		t.Fatal(err)
	}
	got, err := diskUsage(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got < 1<<20 || got > 1<<20+64<<10 {
		t.Errorf("a file of 1 MiB with two names and a sparse one take %d bytes", got)
	}
	if got, err := diskUsage(filepath.Join(dir, "nothing")); got != 0 || err != nil {
		t.Errorf("a directory that is not there: %d, %v", got, err)
	}
}

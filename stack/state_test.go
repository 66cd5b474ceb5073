package stack

import (
	"os"
	"path/filepath"
	"testing"
)

// Who had the file open, or lost power in the middle, sees what it was: what is written is another file.
func TestWhatIsKeptIsReplacedAsAWhole(t *testing.T) {
	t.Parallel()
	l := local{filepath.Join(t.TempDir(), "demo")}
	keep := map[string]func(what string) error{
		l.bundlePath():      l.keepBundle,
		l.credentialPath():  func(what string) error { return l.keepCredential("id", what) },
		l.namesPath():       func(what string) error { return l.keepNames(namesPlace{Domain: what}) },
		l.declarationPath(): func(what string) error { return l.keepDeclaration(Config{Image: what}) },
	}
	for path, write := range keep {
		if err := write("one"); err != nil {
			t.Fatal(err)
		}
		was, err := os.ReadFile(path)
		if err == nil {
			err = os.Chmod(path, 0o644)
		}
		if err == nil {
			err = os.Link(path, path+".other")
		}
		if err == nil {
			err = write("two")
		}
		if err != nil {
			t.Fatal(err)
		}
		if kept, err := os.ReadFile(path + ".other"); err != nil || string(kept) != string(was) {
			t.Errorf("%s was changed in its place: %q, %v", path, kept, err)
		}
		if is, err := os.ReadFile(path); err != nil || string(is) == string(was) {
			t.Errorf("%s is still %q, %v", path, is, err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
	if left, err := os.ReadDir(l.dir); err != nil || len(left) != 2*len(keep) {
		t.Errorf("in the directory: %v, %v", left, err)
	}
}

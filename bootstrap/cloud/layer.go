package cloud

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/kuryrctl/kuryrctl/templates/lab"
)

const (
	suite        = "trixie"
	guestDiskGiB = 4 // as built; each server's own is its flavor's

	// The recipes are part of the keys below. Raise one when the Go code that makes its layer changes what is in it.
	rootRecipe  = 1
	guestRecipe = 2
	bakeRecipe  = 2
)

// kernelVersion is the one user-mode Linux that runs here: 6.12 panics on CPUs with large xstate, 6.1 ends at once.
const (
	kernelSuite   = "sid"
	kernelPackage = "user-mode-linux"
	kernelVersion = "7.2um1"
	kernelDigest  = "f947c9244fd79d481299df2ad68961f6b3b7703bff38c4b0e726f861161da62c"
)

// A layer is a directory in the cache, named by a digest of everything that it is made from and there only when complete.
type layer struct {
	kind, key string
	cache     string
}

func (l layer) path() string    { return filepath.Join(l.cache, l.kind+"-"+l.key) }
func (l layer) partial() string { return l.path() + ".partial" }

func (l layer) exists() bool {
	_, err := os.Stat(l.path())
	return err == nil
}

// begin makes an empty partial directory, in place of what a killed run has left.
func (l layer) begin() error {
	if err := os.RemoveAll(l.partial()); err != nil {
		return err
	}
	return os.MkdirAll(l.partial(), 0o755)
}

// complete gives the layer its name. Its data must have reached the disk first: a name over half a root would last for ever.
func (l layer) complete() error {
	syscall.Sync()
	return os.Rename(l.partial(), l.path())
}

// ingredients are what the layers are made from, apart from Debian's archive.
type ingredients struct {
	rootPackages, guestPackages []string
	kernel                      string // digest of the user-mode Linux package, or "none"
	files                       map[string][]byte
}

func newIngredients(kernel string) (ingredients, error) {
	in := ingredients{rootPackages: rootPackages(), guestPackages: guestPackages(), kernel: kernel, files: map[string][]byte{}}
	err := lab.Digest(func(name string, data []byte) { in.files[name] = data })
	return in, err
}

func (in ingredients) rootKey() string {
	return digest("root", fmt.Sprint(rootRecipe), suite, strings.Join(in.rootPackages, " "), string(in.files["files/qemu-wrapper"]))
}

func (in ingredients) guestKey() string {
	parts := []string{"guest", fmt.Sprint(guestRecipe), suite, strings.Join(in.guestPackages, " "), in.kernel, strings.Join(maskedUnits(), " ")}
	return digest(append(parts, in.selected(func(name string) bool { return strings.HasPrefix(name, "files/guest/") })...)...)
}

func (in ingredients) bakeKey() string {
	parts := []string{"bake", fmt.Sprint(bakeRecipe), in.rootKey(), in.guestKey()}
	return digest(append(parts, in.selected(func(string) bool { return true })...)...)
}

// imageID is the guest's id in Glance: known before the upload, so that Nova's driver finds the raw file of the same guest.
func (in ingredients) imageID() string {
	k := in.guestKey()
	return fmt.Sprintf("%s-%s-4%s-8%s-%s%s", k[:8], k[8:12], k[12:15], k[13:16], k[:8], k[8:12])
}

func (in ingredients) selected(keep func(string) bool) []string {
	var parts []string
	for name, data := range in.files {
		if keep(name) {
			parts = append(parts, name+"\x00"+string(data))
		}
	}
	slices.Sort(parts)
	return parts
}

// digest names a list of strings. Lengths keep neighbours apart.
func digest(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

// diskUsage is the space that a tree takes, in bytes: blocks, not lengths, since the disks in it are sparse. A file with two
// names counts once.
func diskUsage(dir string) (int64, error) {
	var total int64
	seen := map[uint64]bool{}
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			if os.IsNotExist(err) {
				return nil // a running cloud changes under the walk
			}
			return err
		}
		info, err := d.Info()
		if err != nil {
			return nil
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && !seen[st.Ino] {
			seen[st.Ino] = st.Nlink > 1 && !d.IsDir()
			total += st.Blocks * 512
		}
		return nil
	})
	return total, err
}

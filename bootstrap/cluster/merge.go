package cluster

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/kuryrctl/kuryrctl/internal/wait"
)

// UserFile is the kubeconfig that kubectl would write to: the first file of $KUBECONFIG, or ~/.kube/config.
func UserFile() (string, error) {
	for _, path := range filepath.SplitList(os.Getenv(clientcmd.RecommendedConfigPathEnvVar)) {
		if path != "" {
			return path, nil
		}
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("finding your kubeconfig: %w; name it with %s", err, clientcmd.RecommendedConfigPathEnvVar)
	}
	return filepath.Join(home, ".kube", "config"), nil
}

// MergeOptions says how far [Merge] may go.
type MergeOptions struct {
	Switch bool // make it the current context; without it that happens only where there is none
	Force  bool // replace entries of the same name that belong to another cluster
}

// MergeResult says what [Merge] did.
type MergeResult struct {
	Name    string // of the cluster, the user and the context
	Backup  string // path of what the file was before; "" when there was no file, or nothing to change
	Changed bool
	Current string // the current context as it is now
}

// Merge puts the current context of a kubeconfig, as [Rename] made it, into the file at path, which is made when there is none. An
// entry of that name is replaced when it is of the same server and CA, and else refused.
//
// The file is locked as kubectl does it, and replaced in one step by one of mode 0600; a symbolic link stays one. What it was is
// kept beside it, in PATH.kuryrctl-backup. Everything of others stays as far as kubectl itself would keep it: entries, extensions
// and relative paths do, comments and fields that client-go does not know do not. A file that cannot be read is refused.
func Merge(ctx context.Context, path string, kubeconfig []byte, o MergeOptions) (r MergeResult, err error) {
	e, err := parse(kubeconfig)
	if err != nil {
		return r, err
	}
	r.Name = e.name
	r.Changed, r.Backup, err = edit(ctx, path, func(c *api.Config) error {
		if what := e.foreign(c); what != "" && !o.Force {
			return fmt.Errorf("it has %s %s already that is not of this cluster (server and CA): rename that, or force this to replace it", what, e.name)
		}
		if o.Force && !e.is(c.Clusters[e.name]) {
			delete(c.Contexts, e.name) // with a namespace and extensions of somebody else
		}
		e.into(c)
		if o.Switch || c.CurrentContext == "" {
			c.CurrentContext = e.name
		}
		r.Current = c.CurrentContext
		return nil
	})
	if err != nil {
		return r, fmt.Errorf("adding %s to kubeconfig %s: %w", e.name, path, err)
	}
	return r, nil
}

// is reports whether a cluster of somebody's file is this one.
func (e entry) is(c *api.Cluster) bool {
	return c != nil && c.Server == e.cluster.Server && bytes.Equal(c.CertificateAuthorityData, e.cluster.CertificateAuthorityData)
}

// foreign names the first entry that has our name and is not ours. A user entry alone does not say whose it is; its cluster does.
func (e entry) foreign(c *api.Config) string {
	ours := e.is(c.Clusters[e.name])
	context := c.Contexts[e.name]
	switch {
	case c.Clusters[e.name] != nil && !ours:
		return "a cluster"
	case context != nil && (!ours || context.Cluster != e.name || context.AuthInfo != e.name):
		return "a context"
	case c.AuthInfos[e.name] != nil && !ours:
		return "a user"
	}
	return ""
}

// Unmerge takes out what [Merge] put in for the same kubeconfig, and the choice of it as current context. It reports whether there
// was anything: entries of the name that belong to another server or CA are left alone, and so are contexts of other names.
func Unmerge(ctx context.Context, path string, kubeconfig []byte) (removed bool, err error) {
	e, err := parse(kubeconfig)
	if err != nil {
		return false, err
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	removed, _, err = edit(ctx, path, func(c *api.Config) error {
		if !e.is(c.Clusters[e.name]) {
			return nil
		}
		delete(c.Clusters, e.name)
		delete(c.AuthInfos, e.name)
		if context := c.Contexts[e.name]; context != nil && context.Cluster == e.name {
			delete(c.Contexts, e.name)
			if c.CurrentContext == e.name {
				c.CurrentContext = ""
			}
		}
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("removing %s from kubeconfig %s: %w", e.name, path, err)
	}
	return removed, nil
}

// edit changes the file at path under kubectl's lock, unless change leaves it as it is or fails.
func edit(ctx context.Context, path string, change func(*api.Config) error) (changed bool, backup string, err error) {
	unlock, err := lock(ctx, path)
	if err != nil {
		return false, "", err
	}
	defer func() { err = cmp.Or(err, unlock()) }()
	target, err := follow(path)
	if err != nil {
		return false, "", err
	}
	info, err := os.Stat(target)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, "", err
	}
	var former []byte
	if info != nil {
		if former, err = os.ReadFile(target); err != nil {
			return false, "", err
		}
	}
	c, err := clientcmd.Load(former)
	if err != nil {
		return false, "", fmt.Errorf("%w; it is left as it is: mend it, or name another file with %s", err, clientcmd.RecommendedConfigPathEnvVar)
	}
	before, err := clientcmd.Write(*c)
	if err != nil {
		return false, "", err
	}
	if err := change(c); err != nil {
		return false, "", err
	}
	after, err := clientcmd.Write(*c)
	if err != nil || bytes.Equal(before, after) {
		return false, "", err
	}
	if info != nil {
		backup = path + ".kuryrctl-backup"
		if err := replace(backup, former, info); err != nil {
			return false, "", fmt.Errorf("keeping what it was: %w", err)
		}
	}
	return true, backup, replace(target, after, info)
}

// lockPatience is how long a lock is waited for. kubectl holds it for milliseconds.
const lockPatience = 10 * time.Second

var errLocked = errors.New("if no kubectl and no kuryrctl is running, one that was killed left it: remove it")

// lock takes the file's lock the way kubectl does, by making PATH.lock.
func lock(ctx context.Context, path string) (unlock func() error, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	name := path + ".lock"
	ctx, cancel := context.WithTimeoutCause(ctx, lockPatience, errLocked)
	defer cancel()
	err = wait.For(ctx, "lock "+name, 20*time.Millisecond, func(context.Context) (string, bool, error) {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL, 0)
		if err == nil {
			return "", true, f.Close()
		}
		if !errors.Is(err, fs.ErrExist) {
			return "", false, err
		}
		if info, err := os.Stat(name); err == nil {
			return fmt.Sprintf("held for %s", time.Since(info.ModTime()).Round(time.Second)), false, nil
		}
		return "held", false, nil
	})
	if err != nil {
		return nil, err
	}
	return func() error { return os.Remove(name) }, nil
}

// follow resolves path as far as it is itself a symbolic link, also to a file that is not there yet.
func follow(path string) (string, error) {
	for range 40 { // as the kernel
		dir, base := filepath.Split(path)
		dir, err := filepath.EvalSymlinks(cmp.Or(dir, ".")) // the words of a path alone do not say where a ".." leads
		if err != nil {
			return "", err
		}
		path = filepath.Join(dir, base)
		to, err := os.Readlink(path)
		if err != nil {
			return path, nil // not a link, or not there: reading it tells
		}
		if !filepath.IsAbs(to) {
			to = dir + string(filepath.Separator) + to
		}
		path = to
	}
	return "", fmt.Errorf("too many symbolic links at %s", path)
}

// replace puts data at path in one step: after a crash there is the old content or the new. It belongs to whom the
// former file belonged, which is another when root works on a user's.
func replace(path string, data []byte, former fs.FileInfo) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // CreateTemp gives 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name()) // nothing to add when this fails too
		}
	}()
	_, err = f.Write(data)
	if former != nil && err == nil {
		if owner, ok := former.Sys().(*syscall.Stat_t); ok && int(owner.Uid) != os.Geteuid() {
			err = f.Chown(int(owner.Uid), int(owner.Gid))
		}
	}
	if err == nil {
		err = f.Sync()
	}
	if err = cmp.Or(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir) // a rename lives in the directory
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

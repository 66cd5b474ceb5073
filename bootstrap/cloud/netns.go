package cloud

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// makeNamespace makes the lab's network namespace, which nothing else may be using.
func (l *Lab) makeNamespace() error {
	path := l.namespacePath()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	// Whatever is there under this name is empty or in the way; an empty one is not trusted to be clean.
	if users, err := l.namespaceUsers(); err != nil {
		return err
	} else if len(users) > 0 {
		return fmt.Errorf("making network namespace %s: %w by process %s", l.namespace, ErrNamespaceInUse, strings.Join(users, ", "))
	}
	if err := l.removeNamespace(); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return err
	}
	f.Close()
	made := make(chan error, 1)
	onOwnThread(func() { // the thread ends, the mount keeps its namespace
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
		}
		made <- err
	})
	if err := <-made; err != nil {
		return fmt.Errorf("making network namespace %s: %w", l.namespace, errors.Join(err, os.Remove(path)))
	}
	return nil
}

// ErrNamespaceInUse says that processes which are not the lab's live in a namespace of its name.
var ErrNamespaceInUse = errors.New("it is in use")

func (l *Lab) removeNamespace() error {
	path := l.namespacePath()
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && err != unix.ENOENT && err != unix.EINVAL {
		return fmt.Errorf("removing network namespace %s: %w", l.namespace, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing network namespace %s: %w", l.namespace, err)
	}
	return nil
}

// namespaceUsers lists the processes in the lab's network namespace.
func (l *Lab) namespaceUsers() ([]string, error) {
	var want unix.Stat_t
	if err := unix.Stat(l.namespacePath(), &want); err != nil {
		return nil, nil //nolint:nilerr // no namespace, no users
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var users []string
	for _, e := range entries {
		var st unix.Stat_t
		if e.Name()[0] < '0' || e.Name()[0] > '9' || unix.Stat("/proc/"+e.Name()+"/ns/net", &st) != nil {
			continue
		}
		if st.Ino == want.Ino && st.Dev == want.Dev {
			users = append(users, e.Name())
		}
	}
	return users, nil
}

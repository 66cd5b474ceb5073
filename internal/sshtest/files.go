package sshtest

import (
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/pkg/sftp"
)

// files serves a host's directory over SFTP, and nothing outside it. Everybody's files can be read; writing is for the user's
// home, /tmp, and the directories that chown gave to the user, because SFTP on a real host runs without sudo.
type files struct {
	h    *Host
	root *os.Root
}

// name turns an absolute path of the host into one below the root.
func name(p string) string {
	if p = strings.TrimPrefix(path.Clean("/"+p), "/"); p == "" {
		return "."
	}
	return p
}

func (f *files) writable(paths ...string) error {
	dirs := append(f.h.owned(), "/tmp", "/home/"+User)
	for _, p := range paths {
		p = path.Clean("/" + p)
		if !slices.ContainsFunc(dirs, func(dir string) bool { return strings.HasPrefix(p, dir+"/") }) {
			return sftp.ErrSSHFxPermissionDenied // of Go's errors, only those of the system get their own code
		}
	}
	return nil
}

func (f *files) Fileread(r *sftp.Request) (io.ReaderAt, error) {
	return f.root.Open(name(r.Filepath))
}

func (f *files) Filewrite(r *sftp.Request) (io.WriterAt, error) {
	return f.OpenFile(r)
}

func (f *files) OpenFile(r *sftp.Request) (sftp.WriterAtReaderAt, error) {
	if err := f.writable(r.Filepath); err != nil {
		return nil, err
	}
	flags, mode := r.Pflags(), os.O_RDWR
	for _, flag := range []struct {
		set  bool
		mode int
	}{{flags.Creat, os.O_CREATE}, {flags.Trunc, os.O_TRUNC}, {flags.Excl, os.O_EXCL}} {
		if flag.set {
			mode |= flag.mode
		}
	}
	file, err := f.root.OpenFile(name(r.Filepath), mode, 0o644)
	if err != nil {
		return nil, err
	}
	return limited{file, f.h}, nil
}

// limited is a file on a disk that may be full.
type limited struct {
	*os.File
	h *Host
}

func (l limited) WriteAt(p []byte, at int64) (int, error) {
	if !l.h.take(int64(len(p))) {
		return 0, syscall.ENOSPC
	}
	return l.File.WriteAt(p, at)
}

// FillDisk leaves so many bytes free on the host's disk; what is written over SFTP after that fails. In a shell each command
// finds that room anew, on a copy of the files whose changes are there when the command has ended, and lost if it is killed.
func (h *Host) FillDisk(free int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.full, h.free = true, free
}

func (h *Host) take(n int64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.free -= n
	return !h.full || h.free >= 0
}

func (f *files) StatVFS(*sftp.Request) (*sftp.StatVFS, error) {
	f.h.mu.Lock()
	defer f.h.mu.Unlock()
	const block = 512
	free := uint64(1 << 40)
	if f.h.full {
		free = uint64(max(0, f.h.free))
	}
	return &sftp.StatVFS{Bsize: block, Frsize: block, Blocks: 1 << 40 / block, Bfree: free / block, Bavail: free / block, Namemax: 255}, nil
}

func (f *files) Filecmd(r *sftp.Request) error {
	if err := f.writable(r.Filepath); err != nil {
		return err
	}
	p := name(r.Filepath)
	switch r.Method {
	case "Setstat":
		return f.setstat(p, r)
	case "Rename":
		if _, err := f.root.Lstat(name(r.Target)); err == nil {
			return fs.ErrExist // SFTP's own rename does not replace
		}
		return f.PosixRename(r)
	case "Mkdir":
		return f.root.Mkdir(p, 0o755)
	case "Rmdir", "Remove":
		return f.root.Remove(p)
	}
	return sftp.ErrSSHFxOpUnsupported
}

func (f *files) PosixRename(r *sftp.Request) error {
	if err := f.writable(r.Filepath, r.Target); err != nil {
		return err
	}
	return f.root.Rename(name(r.Filepath), name(r.Target))
}

func (f *files) setstat(p string, r *sftp.Request) error {
	flags, attrs := r.AttrFlags(), r.Attributes()
	if flags.Size {
		file, err := f.root.OpenFile(p, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer file.Close()
		if err := file.Truncate(int64(attrs.Size)); err != nil {
			return err
		}
	}
	if flags.Permissions {
		return f.root.Chmod(p, attrs.FileMode().Perm())
	}
	return nil
}

func (f *files) Filelist(r *sftp.Request) (sftp.ListerAt, error) {
	p := name(r.Filepath)
	switch r.Method {
	case "Stat":
		info, err := f.root.Stat(p)
		return infos{info}, err
	case "List":
		entries, err := fs.ReadDir(f.root.FS(), p)
		if err != nil {
			return nil, err
		}
		var list infos
		for _, entry := range entries {
			info, err := entry.Info()
			if err != nil {
				return nil, err
			}
			list = append(list, info)
		}
		return list, nil
	}
	return nil, sftp.ErrSSHFxOpUnsupported
}

type infos []fs.FileInfo

func (l infos) ListAt(into []fs.FileInfo, offset int64) (int, error) {
	if offset >= int64(len(l)) {
		return 0, io.EOF
	}
	n := copy(into, l[offset:])
	if n < len(into) {
		return n, io.EOF
	}
	return n, nil
}

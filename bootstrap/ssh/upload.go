package ssh

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/pkg/sftp"
)

const (
	// packets is how many writes of 32 KiB are under way at once: together they fill a channel's window, and more do not help.
	// One at a time moves 32 KiB per round trip, which is 3 minutes and more for a bundle of 300 MiB at 20 ms.
	packets = 64

	// abandoned is for how many minutes nobody has written to a temporary file that is taken for one of a killed run. A run
	// whose host does not answer gives up much sooner (see keepaliveMisses); the rest is for fsync and digest on a slow disk.
	abandoned = 5
)

// Upload is one file to be on a host.
type Upload struct {
	Path   string // absolute, in a directory that the login user may write
	Mode   fs.FileMode
	Size   int64
	SHA256 string // hex, of the content that Open gives
	Open   func() (io.ReadCloser, error)
}

func (u Upload) check() error {
	digest, err := hex.DecodeString(u.SHA256)
	switch {
	case !path.IsAbs(u.Path) || path.Clean(u.Path) != u.Path || u.Path == "/" || strings.ContainsRune(u.Path, 0):
		return fmt.Errorf("%q is no absolute path of a file", u.Path)
	case err != nil || len(digest) != sha256.Size || strings.ToLower(u.SHA256) != u.SHA256:
		return fmt.Errorf("%q is no SHA-256 digest in lower-case hex", u.SHA256)
	case u.Size < 0 || u.Mode&^fs.ModePerm != 0:
		return fmt.Errorf("size %d or mode %v is none of a regular file", u.Size, u.Mode)
	}
	return nil
}

// Put makes the host have the file; sent tells whether its content went over the wire, which it does not when the digest of
// what is there is right already. The file appears under its name complete and checked on the host, or not at all: until then
// it has a temporary name beside it. Several Puts may run at once, also of the same path, from any number of processes: the
// last one to finish wins. All those of a client share one SFTP session.
//
// When the context ends, Put returns at once, and what has begun is given up behind its back. A connection that ends gives
// [ErrLost]. What such an end left on the host is removed by a later Put of the same path.
func (c *Client) Put(ctx context.Context, u Upload) (sent bool, err error) {
	begin := time.Now()
	if err = u.check(); err == nil {
		sent, err = c.put(ctx, u)
	}
	c.log.Debug("put", "path", u.Path, "size", u.Size, "sent", sent, "took", time.Since(begin), "err", err)
	c.recordPut(begin, u, sent, err)
	if err != nil {
		return sent, fmt.Errorf("uploading %s to %s: %w", u.Path, c.cfg.Node, err)
	}
	return sent, nil
}

// lookScript tells whether the file is there already, and on the way removes what killed runs left. A file that cannot be read
// is not there: the one that takes its place can be.
const lookScript = `set -eu
if ! [ -d "$dir" ]; then echo 'no directory'; exit 0; fi
find "$dir" -maxdepth 1 -type f -name "$left" -mmin +"$age" -exec rm -f {} +
if [ -f "$file" ] && sum=$(sha256sum <"$file" 2>/dev/null) && [ "${sum%% *}" = "$want" ]; then
	if [ "$(stat -L -c %a "$file")" != "$mode" ]; then chmod "$mode" "$file"; fi
	echo same
else
	echo other
fi
`

func (c *Client) put(ctx context.Context, u Upload) (sent bool, err error) {
	dir := path.Dir(u.Path)
	name := sha256.Sum256([]byte(u.Path)) // a name made of the path may be too long
	temp := fmt.Sprintf("%s/.kuryrctl-%x-", strings.TrimSuffix(dir, "/"), name[:8])
	out, err := c.run(ctx, Command{Line: fmt.Sprintf("# look for %s\nfile=%s dir=%s left=%s age=%d want=%s mode=%o\n%s",
		oneLine(u.Path), Quote(u.Path), Quote(dir), Quote(path.Base(temp)+"*"), abandoned, u.SHA256, u.Mode, lookScript)})
	if err != nil {
		return false, err
	}
	switch answer := strings.TrimSpace(out.Stdout); answer {
	case "same":
		return false, nil
	case "other":
	case "no directory":
		return false, fmt.Errorf("the host has no directory %s: make it first, with rights for %s", dir, c.cfg.User)
	default:
		return false, fmt.Errorf("the host's shell answers %q to a plain script: see what the login files of %s print", answer, c.cfg.User)
	}
	session, err := c.sftp(ctx)
	if err != nil {
		return false, err
	}
	done := make(chan error, 1)
	if err := c.spawn(func() { done <- c.transfer(ctx, session, u, temp+rand.Text()) }); err != nil {
		return false, err
	}
	select {
	case err = <-done:
	case <-ctx.Done():
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return err == nil, err
}

// transfer writes to temp and renames it. A call of SFTP ends with its answer or the connection, whatever the context says.
func (c *Client) transfer(ctx context.Context, session *sftpSession, u Upload, temp string) error {
	local, err := u.Open()
	if err != nil {
		return fmt.Errorf("opening the local content: %w", err)
	}
	closeLocal := sync.OnceFunc(func() { local.Close() })
	defer closeLocal()
	defer context.AfterFunc(ctx, closeLocal)() // it may be a pipe
	server := session.server
	if free, known := space(server, path.Dir(u.Path)); known && free < uint64(u.Size) {
		return noSpace(u, free)
	}
	f, err := server.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return c.whyNot(session, u, err)
	}
	src := &source{over: func() error { return context.Cause(ctx) }, r: local, sum: sha256.New(), limit: u.Size}
	err = f.Chmod(u.Mode) // while it is empty: the content may be for few eyes
	if err == nil {
		_, err = f.ReadFromWithConcurrency(src, packets)
	}
	if _, ok := server.HasExtension("fsync@openssh.com"); err == nil && ok {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	switch {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case src.err != nil:
		err = src.err
	case err != nil:
		err = c.whyNot(session, u, err)
	default:
		if err = src.verify(u); err == nil {
			err = c.verifyThere(ctx, u, temp)
		}
		if err == nil {
			if err = server.PosixRename(temp, u.Path); err != nil {
				err = c.whyNot(session, u, err)
			}
		}
	}
	if err != nil {
		server.Remove(temp) // if this fails too, a later Put does it
	}
	return err
}

func oneLine(s string) string { return strings.ReplaceAll(s, "\n", " ") }

// verifyThere asks the host for the digest: of many writes under way any one may have failed or been cut short by a full disk,
// and then there are holes.
func (c *Client) verifyThere(ctx context.Context, u Upload, temp string) error {
	out, err := c.run(ctx, Command{Line: fmt.Sprintf("# check what came of %s\nsha256sum <%s", oneLine(u.Path), Quote(temp))})
	if err != nil {
		return err
	}
	if got, _, _ := strings.Cut(out.Stdout, " "); got != u.SHA256 {
		return fmt.Errorf("what arrived has digest %q in the place of %s: it was damaged on its way or by the host's disk; try again", got, u.SHA256)
	}
	return nil
}

// whyNot says what the user can do about an answer of SFTP, which has few words: a full disk is a "failure".
func (c *Client) whyNot(session *sftpSession, u Upload, err error) error {
	status := (*sftp.StatusError)(nil)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("user %s may not write there (%w): name a directory of that user, or move the file with sudo afterwards", c.cfg.User, err)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("the file or its directory was removed meanwhile: %w", err)
	case errors.As(err, &status):
		free, known := space(session.server, path.Dir(u.Path))
		switch {
		case known && free < uint64(u.Size):
			return noSpace(u, free)
		case known:
			return fmt.Errorf("%w (%d bytes are free on the host, the file has %d: look for a quota, or a directory of that name)", err, free, u.Size)
		}
		return fmt.Errorf("%w (the disk of the host may be full: the file has %d bytes)", err, u.Size)
	}
	if errors.Is(err, sftp.ErrSSHFxConnectionLost) {
		session.server.Wait()
		c.forget(session) // now, not a moment later: the next Put may follow at once
		return c.orLost(fmt.Errorf("the SFTP session ended: %w", err))
	}
	return c.orLost(err)
}

// ErrNoSpace is in the error of a Put for which the host's disk has no room.
var ErrNoSpace = errors.New("no space left on the host")

func noSpace(u Upload, free uint64) error {
	return fmt.Errorf("%w: %d bytes are free in %s, the file has %d: remove something there, or use a larger disk",
		ErrNoSpace, free, path.Dir(u.Path), u.Size)
}

// space is how many bytes an ordinary user can still write, where the server tells.
func space(server *sftp.Client, dir string) (free uint64, known bool) {
	if _, ok := server.HasExtension("statvfs@openssh.com"); !ok {
		return 0, false
	}
	s, err := server.StatVFS(dir)
	if err != nil {
		return 0, false
	}
	return s.Bavail * s.Frsize, true
}

// source is the local content on its way.
type source struct {
	over  func() error // why to stop, if so
	r     io.Reader
	sum   hash.Hash
	limit int64 // a source that has more, or no end, is not sent any further
	n     int64
	err   error // of the source, not of the host
}

func (s *source) Read(p []byte) (int, error) {
	if s.err = s.over(); s.err != nil {
		return 0, s.err
	}
	n, err := s.r.Read(p)
	s.sum.Write(p[:n])
	if s.n += int64(n); s.n > s.limit {
		err = fmt.Errorf("more than %d bytes", s.limit)
	}
	if err != nil && err != io.EOF {
		s.err = fmt.Errorf("reading the local content: %w", err)
		err = s.err
	}
	return n, err
}

func (s *source) verify(u Upload) error {
	if got := hex.EncodeToString(s.sum.Sum(nil)); s.n != u.Size || got != u.SHA256 {
		return fmt.Errorf("the local content is not what was promised: %d bytes with digest %s in the place of %d with %s; make it again",
			s.n, got, u.Size, u.SHA256)
	}
	return nil
}

// sftpSession is the client's one, being opened until ready is closed.
type sftpSession struct {
	ready  chan struct{}
	server *sftp.Client
	err    error
}

// sftp returns the SFTP session that all share. One that failed or ended is opened anew by whoever needs it next.
func (c *Client) sftp(ctx context.Context) (*sftpSession, error) {
	c.mu.Lock()
	s, first := c.files, false
	if s == nil {
		s, first = &sftpSession{ready: make(chan struct{})}, true
		c.files = s
	}
	c.mu.Unlock()
	if first {
		err := c.spawn(func() {
			s.server, s.err = c.openSFTP()
			close(s.ready)
			if s.err == nil {
				s.server.Wait()
			}
			c.forget(s)
		})
		if err != nil {
			s.err = err
			close(s.ready)
		}
	}
	select {
	case <-s.ready:
		return s, s.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// forget makes room for a new session when this one, or the attempt to open one, is over.
func (c *Client) forget(s *sftpSession) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.files == s {
		c.files = nil
	}
}

func (c *Client) openSFTP() (*sftp.Client, error) {
	const mend = `the host offers no SFTP: its /etc/ssh/sshd_config needs "Subsystem sftp internal-sftp" and sshd a restart`
	s, err := c.conn.NewSession()
	if err != nil {
		return nil, c.orLost(fmt.Errorf("opening session: %w", err))
	}
	stdin, err := s.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := s.StdoutPipe()
	if err != nil {
		return nil, err
	}
	var server *sftp.Client
	if err = s.RequestSubsystem("sftp"); err == nil {
		server, err = sftp.NewClientPipe(stdout, stdin, sftp.MaxConcurrentRequestsPerFile(packets))
	}
	if err != nil {
		s.Close()
		if err = c.orLost(err); !errors.Is(err, ErrLost) {
			err = fmt.Errorf("%s (%w)", mend, err)
		}
		return nil, err
	}
	return server, nil
}

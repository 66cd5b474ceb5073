package ssh_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kuryrctl/kuryrctl/bootstrap/ssh"
	"github.com/kuryrctl/kuryrctl/internal/sshtest"
)

// shellHost is a host that really runs what Put runs.
func shellHost(hosts *sshtest.Net, name string) *sshtest.Host {
	h := hosts.Host(name)
	h.Shell(sshtest.Debian13)
	return h
}

func content(size int) []byte {
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i>>16) ^ byte(i>>8) ^ byte(i)
	}
	return data
}

func upload(path string, data []byte) ssh.Upload {
	sum := sha256.Sum256(data)
	return ssh.Upload{Path: path, Mode: 0o640, Size: int64(len(data)), SHA256: hex.EncodeToString(sum[:]),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }}
}

// onlyFile fails the test if there is anything but this file, with this content, in its directory.
func onlyFile(t *testing.T, h *sshtest.Host, u ssh.Upload, want []byte) {
	t.Helper()
	path := filepath.Join(h.Dir, u.Path)
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d bytes, not the right %d, %v", len(got), len(want), err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != u.Mode {
		t.Fatalf("got %v, %v", info.Mode(), err)
	}
	nothingBut(t, h, filepath.Base(path))
}

func nothingBut(t *testing.T, h *sshtest.Host, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(h.Dir, "tmp"))
	if err != nil {
		t.Fatal(err)
	}
	found := []string{}
	for _, e := range entries {
		found = append(found, e.Name())
	}
	if strings.Join(found, " ") != strings.Join(names, " ") {
		t.Fatalf("in the directory: %q", found)
	}
}

func TestPutSendsWhatIsNotThere(t *testing.T) {
	hosts := sshtest.New(t, "master-0")
	h := shellHost(hosts, "master-0")
	c := dial(t, config(hosts, "master-0"))
	for i, size := range []int{5 << 20, 0, 1, 32 << 10, 5<<20 + 1} {
		data := content(size)
		u := upload("/tmp/it's a bundle", data)
		if sent, err := c.Put(t.Context(), u); !sent || err != nil {
			t.Fatalf("%d bytes: sent %v, %v", size, sent, err)
		}
		onlyFile(t, h, u, data)
		u.Open = func() (io.ReadCloser, error) { t.Error("opened for nothing"); return nil, io.EOF }
		u.Mode = 0o755 - fs.FileMode(i)
		if sent, err := c.Put(t.Context(), u); sent || err != nil {
			t.Fatalf("again: sent %v, %v", sent, err)
		}
		onlyFile(t, h, u, data)
	}
}

func TestPutHasManyWritesUnderWay(t *testing.T) {
	hosts := sshtest.New(t, "master-0")
	shellHost(hosts, "master-0")
	cfg := config(hosts, "master-0")
	mute := &muted{answers: make(chan struct{})}
	cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		mute.Conn = conn
		return mute, err
	}
	c := dial(t, cfg)
	data := content(4 << 20)
	u := upload("/tmp/bundle", data)
	u.Open = func() (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(first(mute.hold), bytes.NewReader(data))), nil
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Second, errors.New("a write waits for the answer to another"))
	defer cancel()
	if _, err := c.Put(ctx, u); err != nil {
		t.Fatal(err)
	}
}

// first is an empty reader that does something when it is read.
type first func()

func (f first) Read([]byte) (int, error) { f(); return 0, io.EOF }

// muted holds the host's answers back until a MiB and more is on its way.
type muted struct {
	net.Conn
	holding atomic.Bool
	sent    atomic.Int64
	answers chan struct{}
}

func (m *muted) hold() { m.holding.Store(true) }

func (m *muted) Read(p []byte) (int, error) {
	n, err := m.Conn.Read(p)
	if m.holding.Load() && err == nil {
		<-m.answers
	}
	return n, err
}

func (m *muted) Write(p []byte) (int, error) {
	if m.holding.Load() {
		before := m.sent.Add(int64(len(p))) - int64(len(p))
		if before < 1<<20 && before+int64(len(p)) >= 1<<20 {
			close(m.answers)
		}
	}
	return m.Conn.Write(p)
}

func (m *muted) Close() error {
	if m.sent.Load() < 1<<20 {
		close(m.answers)
		m.sent.Store(1 << 20)
	}
	return m.Conn.Close()
}

func TestPutRefusesBadUploads(t *testing.T) {
	hosts := sshtest.New(t, "master-0")
	h := shellHost(hosts, "master-0")
	c := dial(t, config(hosts, "master-0"))
	for what, edit := range map[string]func(*ssh.Upload){
		"a relative path":     func(u *ssh.Upload) { u.Path = "bundle" },
		"a path that climbs":  func(u *ssh.Upload) { u.Path = "/tmp/../etc/x" },
		"a directory's path":  func(u *ssh.Upload) { u.Path = "/tmp/" },
		"no digest":           func(u *ssh.Upload) { u.SHA256 = "" },
		"a digest in capital": func(u *ssh.Upload) { u.SHA256 = strings.ToUpper(u.SHA256) },
		"a directory's mode":  func(u *ssh.Upload) { u.Mode |= fs.ModeDir },
	} {
		u := upload("/tmp/bundle", []byte("x"))
		edit(&u)
		if sent, err := c.Put(t.Context(), u); sent || err == nil {
			t.Errorf("%s: got %v, %v", what, sent, err)
		}
	}
	if ran := h.Commands(); len(ran) != 0 {
		t.Errorf("ran %q", ran)
	}
}

func TestPutNamesABadLocalSource(t *testing.T) {
	hosts := sshtest.New(t, "master-0")
	h := shellHost(hosts, "master-0")
	c := dial(t, config(hosts, "master-0"))
	data := content(3 << 20)
	broken := errors.New("disk error")
	for what, open := range map[string]func() (io.ReadCloser, error){
		"shorter": func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data[1:])), nil },
		"endless": func() (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(bytes.NewReader(data), zeros{})), nil
		},
		"other content": func() (io.ReadCloser, error) { return io.NopCloser(io.LimitReader(zeros{}, 3<<20)), nil },
		"unreadable": func() (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(bytes.NewReader(data[:2<<20]), failing{broken})), nil
		},
		"absent": func() (io.ReadCloser, error) { return nil, broken },
	} {
		u := upload("/tmp/bundle", data)
		u.Open = open
		if sent, err := c.Put(t.Context(), u); sent || err == nil || !strings.Contains(err.Error(), "the local content") {
			t.Errorf("%s: got %v, %v", what, sent, err)
		}
		nothingBut(t, h)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestPutChecksOnTheHost(t *testing.T) {
	hosts := sshtest.New(t, "master-0")
	h := shellHost(hosts, "master-0")
	c := dial(t, config(hosts, "master-0"))
	old := upload("/tmp/bundle", []byte("old"))
	if _, err := c.Put(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	h.On("# check*", sshtest.Text("0123  -\n")) // as if one of many writes had come to nothing
	if sent, err := c.Put(t.Context(), upload("/tmp/bundle", []byte("new"))); sent || err == nil || !strings.Contains(err.Error(), "0123") {
		t.Fatalf("got %v, %v", sent, err)
	}
	onlyFile(t, h, old, []byte("old"))
}

func TestPutSaysWhatTheHostLacks(t *testing.T) {
	hosts := sshtest.New(t, "master-0")
	h := shellHost(hosts, "master-0")
	c := dial(t, config(hosts, "master-0"))
	big := content(1 << 20)
	refuse := func(u ssh.Upload, wants ...string) error {
		t.Helper()
		sent, err := c.Put(t.Context(), u)
		if sent || err == nil {
			t.Fatalf("got %v, %v", sent, err)
		}
		for _, want := range append(wants, "master-0", u.Path) {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("no %q in %v", want, err)
			}
		}
		return err
	}
	refuse(upload("/srv/none/bundle", big), "no directory /srv/none", sshtest.User)
	if err := refuse(upload("/etc/bundle", big), "user "+sshtest.User+" may not write there"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("got %v", err)
	}
	if err := os.Mkdir(filepath.Join(h.Dir, "tmp/dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	refuse(upload("/tmp/dir", big), "a directory of that name")
	h.FillDisk(1000)
	if err := refuse(upload("/tmp/bundle", big), "512 bytes are free in /tmp", "1048576"); !errors.Is(err, ssh.ErrNoSpace) {
		t.Errorf("got %v", err)
	}
	nothingBut(t, h, "dir")
	h.On("# look*", sshtest.Text("Welcome!\nother\n"))
	refuse(upload("/tmp/bundle", big), "Welcome")
}

func TestPutMeetsADiskThatFillsUp(t *testing.T) {
	hosts := sshtest.New(t, "master-0")
	h := shellHost(hosts, "master-0")
	c := dial(t, config(hosts, "master-0"))
	data := content(4 << 20)
	u := upload("/tmp/bundle", data)
	u.Open = func() (io.ReadCloser, error) {
		fill := first(func() { h.FillDisk(0) })
		return io.NopCloser(io.MultiReader(bytes.NewReader(data[:2<<20]), fill, bytes.NewReader(data[2<<20:]))), nil
	}
	if sent, err := c.Put(t.Context(), u); sent || !errors.Is(err, ssh.ErrNoSpace) {
		t.Fatalf("got %v, %v", sent, err)
	}
	nothingBut(t, h)
}

func TestPutNeedsSFTPAndFindsItAgain(t *testing.T) {
	hosts := sshtest.New(t, "master-0")
	h := shellHost(hosts, "master-0")
	c := dial(t, config(hosts, "master-0"))
	data := content(4 << 20)
	u := upload("/tmp/bundle", data)
	h.SFTP(false)
	if sent, err := c.Put(t.Context(), u); sent || err == nil || !strings.Contains(err.Error(), "Subsystem sftp") {
		t.Fatalf("got %v, %v", sent, err)
	}
	h.SFTP(true)
	cut := u
	cut.Open = func() (io.ReadCloser, error) {
		end := first(func() { h.SFTP(false) })
		return io.NopCloser(io.MultiReader(bytes.NewReader(data[:2<<20]), end, bytes.NewReader(data[2<<20:]))), nil
	}
	if sent, err := c.Put(t.Context(), cut); sent || err == nil || errors.Is(err, ssh.ErrLost) || !strings.Contains(err.Error(), "SFTP session ended") {
		t.Fatalf("got %v, %v", sent, err)
	}
	h.SFTP(true)
	if sent, err := c.Put(t.Context(), u); !sent || err != nil {
		t.Fatalf("got %v, %v", sent, err)
	}
}

func TestPutRemovesWhatKilledRunsLeft(t *testing.T) {
	hosts := sshtest.New(t, "master-0")
	h := shellHost(hosts, "master-0")
	data := content(4 << 20)
	u := upload("/tmp/bundle", data)
	killed := u
	killed.Open = func() (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(bytes.NewReader(data[:2<<20]), first(h.Disconnect), bytes.NewReader(data[2<<20:]))), nil
	}
	if sent, err := dial(t, config(hosts, "master-0")).Put(t.Context(), killed); sent || !errors.Is(err, ssh.ErrLost) {
		t.Fatalf("got %v, %v", sent, err)
	}
	left, err := filepath.Glob(filepath.Join(h.Dir, "tmp/.kuryrctl-*"))
	if err != nil || len(left) != 1 {
		t.Fatalf("left %q, %v", left, err)
	}
	other := filepath.Join(h.Dir, "tmp/.kuryrctl-0123456789abcdef-X") // of another path
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := dial(t, config(hosts, "master-0"))
	if _, err := c.Put(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left[0]); err != nil {
		t.Fatalf("a file that somebody may be writing is gone: %v", err)
	}
	long := time.Now().Add(-time.Hour)
	for _, file := range []string{left[0], other} {
		if err := os.Chtimes(file, long, long); err != nil {
			t.Fatal(err)
		}
	}
	if sent, err := c.Put(t.Context(), u); sent || err != nil {
		t.Fatalf("got %v, %v", sent, err)
	}
	nothingBut(t, h, filepath.Base(other), "bundle")
}

func TestPutsOfOnePathDoNotMeet(t *testing.T) {
	hosts := sshtest.New(t, "master-0")
	h := shellHost(hosts, "master-0")
	clients := []*ssh.Client{dial(t, config(hosts, "master-0")), dial(t, config(hosts, "master-0"))}
	versions := map[string]bool{}
	var wg sync.WaitGroup
	for i := range 6 {
		data := append(content(1<<20), byte(i/2))
		u := upload("/tmp/bundle", data)
		versions[u.SHA256] = true
		wg.Go(func() {
			if _, err := clients[i%2].Put(t.Context(), u); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	got, err := os.ReadFile(filepath.Join(h.Dir, "tmp/bundle"))
	if sum := sha256.Sum256(got); err != nil || !versions[hex.EncodeToString(sum[:])] {
		t.Fatalf("none of them, %v", err)
	}
	nothingBut(t, h, "bundle")
}

func TestPutEndsWithTheContext(t *testing.T) {
	hosts := sshtest.New(t, "master-0")
	h := shellHost(hosts, "master-0")
	c := dial(t, config(hosts, "master-0"))
	data := content(4 << 20)

	t.Run("with a host that answers", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		u := upload("/tmp/bundle", data)
		u.Open = func() (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(bytes.NewReader(data[:2<<20]), first(cancel), bytes.NewReader(data[2<<20:]))), nil
		}
		if sent, err := c.Put(ctx, u); sent || !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v, %v", sent, err)
		}
		eventually(t, "the rest to be removed", func() bool {
			entries, err := os.ReadDir(filepath.Join(h.Dir, "tmp"))
			return err == nil && len(entries) == 0
		})
	})
	t.Run("with a source that blocks", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		r, w := io.Pipe()
		defer w.Close()
		u := upload("/tmp/bundle", data)
		u.Open = func() (io.ReadCloser, error) { cancel(); return r, nil }
		if sent, err := c.Put(ctx, u); sent || !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v, %v", sent, err)
		}
	})
	t.Run("with a host that hangs", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		u := upload("/tmp/bundle", data)
		u.Open = func() (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(first(func() { h.Hang(sshtest.Everywhere) }), bytes.NewReader(data))), nil
		}
		if sent, err := c.Put(ctx, u); sent || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v, %v", sent, err)
		}
		c.Close() // ends what goes on behind
	})
}

// far makes every byte take a while each way.
func far(cfg ssh.Config, rtt time.Duration) ssh.Config {
	cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err != nil || rtt == 0 {
			return conn, err
		}
		near, end := net.Pipe()
		go delay(conn, end, rtt/2)
		go delay(end, conn, rtt/2)
		return near, nil
	}
	return cfg
}

func delay(to, from net.Conn, by time.Duration) {
	type piece struct {
		at   time.Time
		data []byte
	}
	pieces := make(chan piece, 1<<16)
	go func() {
		defer close(pieces)
		for {
			buf := make([]byte, 64<<10)
			n, err := from.Read(buf)
			if n > 0 {
				pieces <- piece{time.Now().Add(by), buf[:n]}
			}
			if err != nil {
				return
			}
		}
	}()
	for p := range pieces {
		time.Sleep(time.Until(p.at))
		if _, err := to.Write(p.data); err != nil {
			from.Close()
		}
	}
	to.Close()
}

func BenchmarkPut(b *testing.B) {
	data := content(64 << 20)
	for _, rtt := range []time.Duration{0, 5 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond} {
		for _, jump := range []bool{false, true} {
			b.Run(fmt.Sprintf("rtt=%s/jump=%v", rtt, jump), func(b *testing.B) {
				hosts := sshtest.New(b, "jump", "worker-0")
				h := shellHost(hosts, "worker-0")
				cfg := config(hosts, "worker-0")
				if jump {
					through, err := ssh.Dial(b.Context(), far(config(hosts, "jump"), rtt))
					if err != nil {
						b.Fatal(err)
					}
					defer through.Close()
					cfg.Address, cfg.Via = h.Inside, through
				} else {
					cfg = far(cfg, rtt)
				}
				c, err := ssh.Dial(b.Context(), cfg)
				if err != nil {
					b.Fatal(err)
				}
				defer c.Close()
				u := upload("/tmp/bundle", data)
				b.SetBytes(u.Size)
				for b.Loop() {
					if err := os.RemoveAll(filepath.Join(h.Dir, "tmp/bundle")); err != nil {
						b.Fatal(err)
					}
					if sent, err := c.Put(b.Context(), u); !sent || err != nil {
						b.Fatal(sent, err)
					}
				}
			})
		}
	}
}

package ssh_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/kuryrctl/kuryrctl/bootstrap/ssh"
	"github.com/kuryrctl/kuryrctl/internal/sshtest"
	"github.com/kuryrctl/kuryrctl/internal/wait"
)

func config(hosts *sshtest.Net, name string) ssh.Config {
	h := hosts.Host(name)
	return ssh.Config{Node: name, Address: h.Addr, User: sshtest.User, Signer: hosts.UserKey, HostKeys: []string{h.HostKey()}}
}

func dial(t *testing.T, cfg ssh.Config) *ssh.Client {
	t.Helper()
	c, err := ssh.Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// eventually waits for what another goroutine does.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := wait.For(ctx, what, time.Millisecond, func(context.Context) (string, bool, error) { return "not", done(), nil }); err != nil {
		t.Fatal(err)
	}
}

func TestDialProvesBothSides(t *testing.T) {
	hosts := sshtest.New(t, "master-0")
	c := dial(t, config(hosts, "master-0"))
	if c.HostKey() != hosts.Host("master-0").HostKey() {
		t.Fatalf("host key %s", c.HostKey())
	}
}

func TestDialAcceptsEitherOfTwoPinnedKeys(t *testing.T) {
	hosts := sshtest.New(t, "master-0", "other")
	cfg := config(hosts, "master-0")
	cfg.HostKeys = []string{hosts.Host("other").HostKey(), cfg.HostKeys[0] + " a comment"}
	if c := dial(t, cfg); c.HostKey() != hosts.Host("master-0").HostKey() {
		t.Fatalf("host key %s", c.HostKey())
	}
}

func TestAWrongHostKeyIsNeverAccepted(t *testing.T) {
	hosts := sshtest.New(t, "master-0")
	h := hosts.Host("master-0")
	cfg := config(hosts, "master-0")
	h.SetHostKey(nil)
	_, err := ssh.Dial(t.Context(), cfg)
	wrong := (*ssh.HostKeyError)(nil)
	if !errors.As(err, &wrong) {
		t.Fatalf("got %v", err)
	}
	if h.Logins() != 0 {
		t.Fatal("logged in to a stranger")
	}
	if len(wrong.Want) != 1 || wrong.Want[0] == wrong.Got {
		t.Fatalf("got %+v", wrong)
	}
	for _, want := range []string{"master-0", wrong.Want[0], wrong.Got, "SHA256:", "openstack console log show"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
}

func TestDialRefusesAnIncompleteConfig(t *testing.T) {
	hosts := sshtest.New(t, "master-0")
	rsa := "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAQQDTbFUJ4wzFZbGVdWPxVKoqlfUvzhyWaVQ2Y7FVyEyHvA8dhhxgEPaSLrRoCJhLBAbWTiTKVUsWMF3LPXySMpAx"
	for what, edit := range map[string]func(*ssh.Config){
		"no pinned key":    func(c *ssh.Config) { c.HostKeys = nil },
		"a broken pin":     func(c *ssh.Config) { c.HostKeys = []string{"ssh-ed25519 AAAA"} },
		"another key type": func(c *ssh.Config) { c.HostKeys = []string{rsa} },
		"no user key":      func(c *ssh.Config) { c.Signer = nil },
		"no address":       func(c *ssh.Config) { c.Address = netip.AddrPort{} },
	} {
		cfg := config(hosts, "master-0")
		edit(&cfg)
		if _, err := ssh.WaitReady(t.Context(), cfg, time.Hour); err == nil {
			t.Errorf("%s: connected", what)
		}
	}
	if n := hosts.Host("master-0").Logins(); n != 0 {
		t.Fatalf("%d logins", n)
	}
}

func TestAHangingHandshakeEndsWithTheContext(t *testing.T) {
	for name, at := range map[string]sshtest.HangPoint{"before the banner": sshtest.BeforeBanner, "after it": sshtest.InHandshake, "frozen": sshtest.Everywhere} {
		t.Run(name, func(t *testing.T) {
			hosts := sshtest.New(t, "jump", "master-0")
			hosts.Host("master-0").Hang(at)
			jump := dial(t, config(hosts, "jump"))
			direct := config(hosts, "master-0")
			via := config(hosts, "master-0")
			via.Address, via.Via = hosts.Host("master-0").Inside, jump
			for _, cfg := range []ssh.Config{direct, via} {
				ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
				defer cancel()
				_, err := ssh.Dial(ctx, cfg)
				if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "handshake") {
					t.Errorf("got %v", err)
				}
				cfg.Timeout = 50 * time.Millisecond
				if _, err := ssh.Dial(t.Context(), cfg); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("own timeout: got %v", err)
				}
			}
		})
	}
}

func TestAHangingJumpHostHoldsNobody(t *testing.T) {
	hosts := sshtest.New(t, "jump", "master-0")
	cfg := config(hosts, "master-0")
	cfg.Address, cfg.Via = hosts.Host("master-0").Inside, dial(t, config(hosts, "jump"))
	inner := dial(t, cfg)
	hosts.Host("jump").Hang(sshtest.Everywhere)

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := ssh.Dial(ctx, cfg); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("new connection: got %v", err)
	}
	inner.Close() // returns although the jump host does not answer
	if _, err := inner.Run(t.Context(), ssh.Command{Line: "true"}); !errors.Is(err, ssh.ErrLost) {
		t.Errorf("command on a closed connection: got %v", err)
	}
}

func TestDialThroughAJumpHost(t *testing.T) {
	hosts := sshtest.New(t, "jump", "worker-0")
	w := hosts.Host("worker-0")
	w.On("hostname", sshtest.Text("worker-0\n"))
	jump := dial(t, config(hosts, "jump"))
	cfg := config(hosts, "worker-0")
	cfg.Address, cfg.Via = w.Inside, jump
	c := dial(t, cfg)
	if out, err := c.Run(t.Context(), ssh.Command{Line: "hostname"}); err != nil || out.Stdout != "worker-0\n" {
		t.Fatalf("got %q, %v", out.Stdout, err)
	}

	t.Run("which cannot reach the host yet", func(t *testing.T) {
		w.Down()
		defer w.Up()
		if _, err := ssh.Dial(t.Context(), cfg); err == nil || errors.Is(err, ssh.ErrLost) {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("which is lost", func(t *testing.T) {
		hosts.Host("jump").Disconnect()
		if _, err := ssh.WaitReady(t.Context(), cfg, time.Hour); !errors.Is(err, ssh.ErrLost) {
			t.Fatalf("got %v", err)
		}
		if _, err := c.Run(t.Context(), ssh.Command{Line: "hostname"}); !errors.Is(err, ssh.ErrLost) {
			t.Fatalf("got %v", err)
		}
	})
}

func TestDialUsesTheGivenDialer(t *testing.T) {
	hosts := sshtest.New(t, "master-0")
	cfg := config(hosts, "master-0")
	real := cfg.Address.String()
	cfg.Address = hosts.Host("master-0").Inside
	asked := ""
	cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		asked = network + " " + addr
		return (&net.Dialer{}).DialContext(ctx, network, real)
	}
	dial(t, cfg)
	if asked != "tcp 192.0.2.1:22" {
		t.Fatalf("asked for %q", asked)
	}
}

func TestHTTPThroughTheConnection(t *testing.T) {
	hosts := sshtest.New(t, "jump")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hang" {
			<-r.Context().Done()
			return
		}
		io.Copy(w, io.LimitReader(zeros{}, 8<<20))
	}))
	defer server.Close()
	c := dial(t, config(hosts, "jump"))
	client := &http.Client{Transport: &http.Transport{DialContext: c.DialContext}}
	defer client.CloseIdleConnections()
	resp, err := client.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if n, err := io.Copy(io.Discard, resp.Body); n != 8<<20 || err != nil {
		t.Fatalf("read %d bytes, %v", n, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", server.URL+"/hang", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Do(req); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestKeepalivesFindADeadHost(t *testing.T) {
	hosts := sshtest.New(t, "master-0")
	h := hosts.Host("master-0")
	h.On("sleep", sshtest.Hang)
	cfg := config(hosts, "master-0")
	cfg.Keepalive = 5 * time.Millisecond
	c := dial(t, cfg)
	errs := make(chan error, 1)
	go func() {
		_, err := c.Run(t.Context(), ssh.Command{Line: "sleep"})
		errs <- err
	}()
	eventually(t, "a healthy connection to outlive its keepalives", func() bool { return h.Keepalives() > 10 && len(h.Commands()) == 1 })
	select {
	case err := <-errs:
		t.Fatalf("lost while the host answered: %v", err)
	default:
	}
	h.Hang(sshtest.Everywhere)
	if err := <-errs; !errors.Is(err, ssh.ErrLost) || !strings.Contains(err.Error(), "keepalives") {
		t.Fatalf("got %v", err)
	}
}

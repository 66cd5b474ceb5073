package ssh_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/kuryrctl/kuryrctl/bootstrap/ssh"
	"github.com/kuryrctl/kuryrctl/internal/sshtest"
	"github.com/kuryrctl/kuryrctl/internal/wait"
)

// look makes step happen after the n-th time somebody looked in vain.
func look(ctx context.Context, n int, step func()) context.Context {
	looks := 0
	var with context.Context
	_ = wait.In(ctx, &wait.Place{Seen: func(_, _ string) {
		if looks++; looks == n {
			step()
		}
	}}, func(ctx context.Context) error { with = ctx; return nil })
	return with
}

func TestWaitReadyOutlastsABootingHost(t *testing.T) {
	for name, c := range map[string]struct {
		before, after func(*sshtest.Host)
	}{
		"refused":           {(*sshtest.Host).Down, (*sshtest.Host).Up},
		"silent":            {func(h *sshtest.Host) { h.Hang(sshtest.BeforeBanner) }, func(h *sshtest.Host) { h.Hang(sshtest.Nowhere) }},
		"stuck":             {func(h *sshtest.Host) { h.Hang(sshtest.InHandshake) }, func(h *sshtest.Host) { h.Hang(sshtest.Nowhere) }},
		"not knowing us":    {func(h *sshtest.Host) { h.RefuseAuth(1000) }, func(h *sshtest.Host) { h.RefuseAuth(0) }},
		"dropping early on": {func(h *sshtest.Host) { h.Hang(sshtest.InHandshake) }, func(h *sshtest.Host) { h.Disconnect(); h.Hang(sshtest.Nowhere) }},
	} {
		t.Run(name, func(t *testing.T) {
			hosts := sshtest.New(t, "worker-0")
			h := hosts.Host("worker-0")
			c.before(h)
			cfg := config(hosts, "worker-0")
			cfg.Timeout = 500 * time.Millisecond
			booted := false
			ctx := look(t.Context(), 2, func() { c.after(h); booted = true })
			client, err := ssh.WaitReady(ctx, cfg, time.Millisecond)
			if err != nil {
				t.Fatal(err)
			}
			client.Close()
			if !booted {
				t.Fatal("ready before the host was")
			}
		})
	}
}

func TestWaitReadyStopsAtAWrongHostKey(t *testing.T) {
	hosts := sshtest.New(t, "worker-0")
	h := hosts.Host("worker-0")
	cfg := config(hosts, "worker-0")
	h.Down()
	ctx := look(t.Context(), 1, func() { h.SetHostKey(nil); h.Up() })
	_, err := ssh.WaitReady(ctx, cfg, time.Millisecond)
	if wrong := (*ssh.HostKeyError)(nil); !errors.As(err, &wrong) {
		t.Fatalf("got %v", err)
	}
}

func TestWaitReadySaysWhatItSaw(t *testing.T) {
	hosts := sshtest.New(t, "worker-0")
	hosts.Host("worker-0").Down()
	ctx, cancel := context.WithCancelCause(t.Context())
	late := errors.New("too late")
	_, err := ssh.WaitReady(look(ctx, 2, func() { cancel(late) }), config(hosts, "worker-0"), time.Millisecond)
	if !errors.Is(err, late) || !strings.Contains(err.Error(), "connection refused") || !strings.Contains(err.Error(), "SSH on worker-0") {
		t.Fatalf("got %v", err)
	}
}

package ssh

import (
	"context"
	"errors"
	"time"

	"github.com/kuryrctl/kuryrctl/internal/wait"
)

// WaitReady connects to a host that may still be booting, trying again at the given interval until it authenticates with a
// pinned key or the context ends. Refused or silent connections and refused logins (cloud-init has not yet put our key there)
// pass with time; a wrong host key, a lost jump host and an incomplete cfg do not and end the wait at once.
func WaitReady(ctx context.Context, cfg Config, every time.Duration) (*Client, error) {
	var client *Client
	err := wait.For(ctx, "SSH on "+cfg.Node, every, func(ctx context.Context) (string, bool, error) {
		if err := cfg.check(); err != nil {
			return "", false, err
		}
		c, err := Dial(ctx, cfg)
		if err == nil {
			client = c
			return "", true, nil
		}
		wrong := (*HostKeyError)(nil)
		if errors.As(err, &wrong) || errors.Is(err, ErrLost) {
			return "", false, err
		}
		if inner := errors.Unwrap(err); inner != nil {
			err = inner // the wait names the host already
		}
		return err.Error(), false, nil
	})
	if err != nil {
		return nil, err
	}
	return client, nil
}

package ssh

import (
	"context"
	"fmt"
	"io"
	"net"
)

// DialContext connects to addr as seen from the host. It fits http.Transport and [Config.Dial], and is what [Config.Via] uses.
// Deadlines work on the connection, and Close ends a blocked Read at once even when the host no longer answers.
func (c *Client) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	opened := make(chan error, 1)
	near, far := net.Pipe()
	err := c.spawn(func() {
		ch, err := c.conn.Dial(network, addr)
		if err != nil {
			opened <- c.orLost(err)
			far.Close()
			return
		}
		opened <- nil
		// A channel of x/crypto has no deadlines, and its Close waits for the peer; the pipe has neither fault.
		if err := c.spawn(func() {
			io.Copy(ch, far) // ends when near is closed
			ch.Close()
		}); err != nil {
			ch.Close()
		}
		io.Copy(far, ch) // ends with the channel, or when near is closed
		far.Close()
		ch.Close()
	})
	if err != nil {
		return nil, fmt.Errorf("dialing %s: %w", addr, err)
	}
	select {
	case err := <-opened:
		if err == nil {
			return near, nil
		}
		return nil, fmt.Errorf("dialing %s through %s: %w", addr, c.cfg.Node, err)
	case <-ctx.Done():
		near.Close() // a channel that opens after this ends at once
		return nil, fmt.Errorf("dialing %s through %s: %w", addr, c.cfg.Node, context.Cause(ctx))
	}
}

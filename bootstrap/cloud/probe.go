package cloud

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/kuryrctl/kuryrctl/internal/wait"
)

// probe looks once whether a service answers.
type probe func(context.Context) error

// await waits for a daemon's probe, for as long as the daemon has not been given up.
func (s *supervisor) await(ctx context.Context, name string, p probe) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	return wait.For(ctx, name+" to work", probeInterval, func(ctx context.Context) (string, bool, error) {
		if err := s.givenUp(name); err != nil {
			return "", false, err
		}
		look, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		if err := p(look); err != nil {
			return err.Error(), false, nil
		}
		return "", true, nil
	})
}

// listening is for services that open their socket last.
func listening(network, address string) probe {
	return func(ctx context.Context) error {
		var d net.Dialer
		conn, err := d.DialContext(ctx, network, address)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}

// present is for a service whose socket must not be tried: octavia-driver-agent reads from a connection that was closed without a
// word for ever, and takes a whole core for it (_recv in octavia/api/drivers/driver_agent/driver_listener.py knows no end of file).
func present(path string) probe {
	return func(context.Context) error {
		_, err := os.Stat(path)
		return err
	}
}

// answering is for web services: uWSGI opens its port long before the application behind it is loaded. What they answer to a
// request for nothing is their own business.
func answering(url string) probe {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return err
		}
		if resp.StatusCode >= http.StatusInternalServerError {
			return fmt.Errorf("%s answers %s", url, resp.Status)
		}
		return nil
	}
}

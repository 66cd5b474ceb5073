package stack

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/kuryrctl/kuryrctl/bootstrap/cluster"
)

// answerOf asks a pod from one of the stack's servers.
func (d *demo) answerOf(ctx context.Context, from string, p cluster.Pod) (string, error) {
	said, err := d.ask(ctx, from, fmt.Sprintf("%s:%d", p.Address, demoPort))
	if err == nil && said != p.Name+greeting {
		err = fmt.Errorf("it said %q", said)
	}
	if err != nil {
		return "", d.blame(ctx, fmt.Errorf("asking pod %s from %s: %w", p.Name, from, err), d.podHops(p))
	}
	return fmt.Sprintf("%s answered %s", p.Address, from), nil
}

// ask sends an HTTP request from a server, until there is an answer.
func (d *demo) ask(ctx context.Context, from, address string) (said string, err error) {
	host, err := d.Host(ctx, d.view, from)
	if err != nil {
		return "", err
	}
	return d.get(ctx, host.DialContext, address)
}

// get asks a host for its first page, by connections of dial, until there is an answer.
func (d *demo) get(ctx context.Context, dial Dialer, host string) (said string, err error) {
	client := &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}, Timeout: 5 * time.Second}
	err = d.until(ctx, host+" to answer", func(ctx context.Context) (string, error) {
		var wrong error
		status := 0
		if status, said, wrong = get(ctx, client, "http://"+host+"/"); wrong == nil && status != http.StatusOK {
			wrong = fmt.Errorf("it answered %d %s", status, http.StatusText(status))
		}
		return "", wrong
	})
	return said, err
}

func get(ctx context.Context, client *http.Client, url string) (status int, said string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	return resp.StatusCode, strings.TrimSpace(string(text)), err
}

// resolver asks the server that the stack's names are kept on, over TCP; nil when none is declared.
func (s *Stack) resolver(c Config) (r *net.Resolver, at string, err error) {
	switch dns := c.DNS; {
	case dns.Designate:
		return net.DefaultResolver, "this machine's resolver", nil
	case dns.Update != (DNSUpdate{}):
		at = dns.Update.Server
	case dns.Zone != (DNSZone{}):
		at = zoneFile(c.DNSDomain, dns.Zone).Nameserver
	default:
		return nil, "", nil
	}
	at, err = hostPort(at, dnsPort)
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) { return s.dialer()(ctx, "tcp", at) }}, at, err
}

// dialer connects from where kuryrctl runs.
func (s *Stack) dialer() Dialer {
	if s.dial != nil {
		return s.dial
	}
	return new(net.Dialer).DialContext
}

// Package ssh reaches hosts: it owns their pinned identity, connections (also through a jump host), commands, uploads and sessions on
// them, and the rotation of the host key a server was born with. x/crypto/ssh and SFTP live only here.
//
// It never accepts a host key that is not pinned: there is no first use to trust and no switch to turn the check off. It does
// not know what is done on hosts, nor how OpenStack makes them. The key comes in through cloud-init; for a server that was
// made without us it can be read from the console log (between BEGIN and END SSH HOST KEY KEYS), which the cloud
// authenticates; that is a person's work, whose result goes into [Pins].
//
// Start reading at [Dial], then [Client.Run], [Client.Put], [WaitReady], [Rotate].
package ssh

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	cryptossh "golang.org/x/crypto/ssh"
)

const (
	// connectTimeout bounds the TCP connection. A host that is booting drops packets, and after a few lost ones the kernel's
	// next attempt is 4 s and more away: a new connection is sooner.
	connectTimeout = 5 * time.Second

	// keepaliveMisses is how many keepalives may go unanswered in a row before the connection counts as lost.
	keepaliveMisses = 3

	keepaliveRequest = "keepalive@openssh.com"
)

// ErrLost is in the error of a call whose connection ended under it. Whether a command had its effect is then not known.
var ErrLost = errors.New("connection lost")

// Config says how to reach one host.
type Config struct {
	Node     string         // name in errors and logs
	Address  netip.AddrPort // as seen from this machine, or from Via
	User     string
	Signer   Signer   // our key
	HostKeys []string // accepted host keys, as in [Pin.Keys]; at least one

	// Via is a connection to another host to go through. It must outlive this one.
	Via *Client

	// Dial, if set, makes the TCP connection: a cloud on this machine is dialed from inside its network namespace. It is not
	// used together with Via.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)

	Timeout   time.Duration // for connecting, handshake and authentication together; 0 is 30 s
	Keepalive time.Duration // between two keepalives; 0 is 10 s
	Log       *slog.Logger  // nil logs nothing

	// Transcript, if set, keeps what was done on the host: of every [Client.Run] time, script, outputs, exit status and
	// duration, of every [Client.Put] what was put. What goes to standard input never comes there. Each record is one Write, and
	// there is one at a time; a Write that fails is logged.
	Transcript io.Writer
}

func (c Config) withDefaults() Config {
	c.Timeout = cmp.Or(c.Timeout, 30*time.Second)
	c.Keepalive = cmp.Or(c.Keepalive, 10*time.Second)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// check finds what no later attempt can mend.
func (c Config) check() error {
	switch {
	case len(c.HostKeys) == 0:
		return fmt.Errorf("no host key is pinned for %s", c.Node)
	case c.Signer == nil:
		return fmt.Errorf("no key to log in to %s with", c.Node)
	case !c.Address.IsValid():
		return fmt.Errorf("no address of %s", c.Node)
	case c.Via != nil && c.Dial != nil:
		return fmt.Errorf("%s is to be reached both through %s and by a dialer", c.Node, c.Via.cfg.Node)
	}
	for _, line := range c.HostKeys {
		if _, err := parseHostKey(line); err != nil {
			return err
		}
	}
	return nil
}

// Client is an authenticated connection to one host. One per host is enough: commands, forwardings and transfers share it, and
// a handshake costs four round trips. Its methods may be called from several goroutines.
type Client struct {
	cfg     Config
	log     *slog.Logger
	conn    *cryptossh.Client
	hostKey string

	dead chan struct{} // closed when the connection has ended
	lost error         // why; written before dead is closed

	mu     sync.Mutex
	closed bool
	files  *sftpSession // nil until the first transfer
	wg     sync.WaitGroup

	recording sync.Mutex
}

// Dial connects and authenticates. The context (and cfg.Timeout) covers name, TCP, banner, key exchange and authentication,
// which x/crypto's own timeout does not; it does not bound the life of the connection, [Client.Close] ends that. A wrong host
// key gives a [HostKeyError].
func Dial(ctx context.Context, cfg Config) (*Client, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	raw, err := connect(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", cfg.Node, err)
	}
	c := &Client{cfg: cfg, log: cfg.Log.With("node", cfg.Node), dead: make(chan struct{})}
	stop := context.AfterFunc(ctx, func() { raw.Close() }) // the only way to end a handshake
	err = c.handshake(raw)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		raw.Close()
		if ctx.Err() != nil {
			err = fmt.Errorf("the host accepted the connection but did not finish the handshake: %w", context.Cause(ctx))
		}
		return nil, fmt.Errorf("connecting to %s (%s): %w", cfg.Node, cfg.Address, err)
	}
	c.wg.Go(c.watch)
	c.wg.Go(c.keepalive)
	c.log.Debug("connected", "address", cfg.Address, "host_key", c.hostKey)
	return c, nil
}

func connect(ctx context.Context, cfg Config) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	addr := cfg.Address.String()
	switch {
	case cfg.Via != nil:
		return cfg.Via.DialContext(ctx, "tcp", addr)
	case cfg.Dial != nil:
		return cfg.Dial(ctx, "tcp", addr)
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
}

func (c *Client) handshake(raw net.Conn) error {
	var wrong *HostKeyError
	verify := func(_ string, _ net.Addr, key cryptossh.PublicKey) error {
		seen := marshalKey(key)
		e := &HostKeyError{Node: c.cfg.Node, Address: c.cfg.Address.String(), Got: cryptossh.FingerprintSHA256(key)}
		for _, line := range c.cfg.HostKeys {
			pinned, err := parseHostKey(line)
			if err != nil {
				return err
			}
			if marshalKey(pinned) == seen {
				c.hostKey = seen
				return nil
			}
			e.Want = append(e.Want, cryptossh.FingerprintSHA256(pinned))
		}
		wrong = e
		return e
	}
	conn, chans, reqs, err := cryptossh.NewClientConn(raw, c.cfg.Address.String(), &cryptossh.ClientConfig{
		Config: cryptossh.Config{
			KeyExchanges: []string{cryptossh.KeyExchangeMLKEM768X25519, cryptossh.KeyExchangeCurve25519},
			Ciphers: []string{cryptossh.CipherAES128GCM, cryptossh.CipherAES256GCM, cryptossh.CipherChaCha20Poly1305,
				cryptossh.CipherAES256CTR, cryptossh.CipherAES128CTR},
			MACs: []string{cryptossh.HMACSHA256ETM, cryptossh.HMACSHA512ETM},
		},
		User:              c.cfg.User,
		Auth:              []cryptossh.AuthMethod{cryptossh.PublicKeys(c.cfg.Signer)},
		HostKeyCallback:   verify,
		HostKeyAlgorithms: []string{cryptossh.KeyAlgoED25519},
		ClientVersion:     "SSH-2.0-kuryrctl",
	})
	if wrong != nil {
		return wrong
	}
	if err != nil {
		return err
	}
	c.conn = cryptossh.NewClient(conn, chans, reqs)
	return nil
}

// Lost reports whether the connection has ended.
func (c *Client) Lost() bool {
	select {
	case <-c.dead:
		return true
	default:
		return false
	}
}

// HostKey is the key the host proved to have, as an authorized_keys line.
func (c *Client) HostKey() string { return c.hostKey }

// Close ends the connection and everything running over it, and returns when all of it has ended. Closing twice is fine.
func (c *Client) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.conn.Close()
	c.wg.Wait()
}

// spawn runs f in a goroutine that Close waits for.
func (c *Client) spawn(f func()) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return fmt.Errorf("%w: closed", ErrLost)
	}
	c.wg.Go(f)
	return nil
}

func (c *Client) watch() {
	err := c.conn.Wait()
	c.mu.Lock()
	if c.lost == nil {
		c.lost = err
	}
	c.mu.Unlock()
	close(c.dead)
}

// keepalive notices a host that is gone without a word, which TCP alone does after a quarter of an hour. Any answer counts,
// and OpenSSH's is a refusal.
func (c *Client) keepalive() {
	tick := time.NewTicker(c.cfg.Keepalive)
	defer tick.Stop()
	answered := make(chan struct{}, 1)
	waiting, missed := false, 0
	for {
		select {
		case <-c.dead:
			return
		case <-answered:
			waiting, missed = false, 0
		case <-tick.C:
			if !waiting {
				waiting = true
				c.wg.Go(func() { // ends with the answer or the connection; this goroutine keeps the group from being empty
					c.conn.SendRequest(keepaliveRequest, true, nil)
					answered <- struct{}{}
				})
				continue
			}
			if missed++; missed == keepaliveMisses {
				c.mu.Lock()
				c.lost = fmt.Errorf("no answer to keepalives for %s", keepaliveMisses*c.cfg.Keepalive)
				c.mu.Unlock()
				c.conn.Close()
				return
			}
		}
	}
}

// orLost returns err, or what became of the connection when that is why err happened: x/crypto ends channels before it tells
// why, so the host is asked.
func (c *Client) orLost(err error) error {
	if _, _, gone := c.conn.SendRequest(keepaliveRequest, true, nil); gone == nil {
		return err
	}
	c.conn.Close() // what cannot be written to may still look open for reading
	<-c.dead
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Errorf("%w: %w", ErrLost, c.lost)
}

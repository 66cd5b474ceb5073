package sshtest

import (
	"bytes"
	"errors"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

// connection is one client's.
type connection struct {
	h    *Host
	conn net.Conn
	wg   sync.WaitGroup
}

func (h *Host) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return // Down
		}
		c := &connection{h: h, conn: conn}
		h.mu.Lock()
		down := h.listener != l
		if !down {
			h.conns[conn] = c
		}
		h.mu.Unlock()
		if down {
			conn.Close()
			return
		}
		h.wg.Go(func() {
			c.serve()
			conn.Close()
			c.wg.Wait()
			h.mu.Lock()
			delete(h.conns, conn)
			h.mu.Unlock()
		})
	}
}

func (c *connection) serve() {
	h := c.h
	h.mu.Lock()
	hang, key := h.hang, h.key
	h.mu.Unlock()
	switch hang {
	case InHandshake:
		io.WriteString(c.conn, "SSH-2.0-sshtest\r\n")
		fallthrough
	case BeforeBanner:
		io.Copy(io.Discard, c.conn) // until the client gives up
		return
	}
	config := &ssh.ServerConfig{ServerVersion: "SSH-2.0-sshtest", MaxAuthTries: -1, PublicKeyCallback: h.authenticate, AuthLogCallback: h.count}
	config.AddHostKey(key)
	conn, channels, requests, err := ssh.NewServerConn(icy{c.conn, h}, config)
	if err != nil {
		return
	}
	c.wg.Go(func() { h.refuseRequests(requests) })
	for ch := range channels {
		switch ch.ChannelType() {
		case "session":
			c.wg.Go(func() { c.session(ch) })
		case "direct-tcpip":
			c.wg.Go(func() { c.jump(ch) })
		default:
			ch.Reject(ssh.UnknownChannelType, ch.ChannelType())
		}
	}
	conn.Close()
}

// refuseRequests answers keepalives as OpenSSH does: by refusing them, which is an answer.
func (h *Host) refuseRequests(requests <-chan *ssh.Request) {
	for req := range requests {
		if req.Type == "keepalive@openssh.com" {
			h.mu.Lock()
			h.keepalives++
			h.mu.Unlock()
		}
		if req.WantReply {
			req.Reply(false, nil)
		}
	}
}

func (h *Host) authenticate(meta ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.refuse > 0 {
		h.refuse--
		return nil, errors.New("no such key yet")
	}
	if meta.User() != User || !bytes.Equal(key.Marshal(), h.net.UserKey.PublicKey().Marshal()) {
		return nil, errors.New("no such user or key")
	}
	return nil, nil
}

// count sees the outcome of each attempt before the client does.
func (h *Host) count(_ ssh.ConnMetadata, _ string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil {
		h.logins++
	}
}

// icy is a connection of a host that can freeze: reads then wait for better days.
type icy struct {
	net.Conn
	h *Host
}

func (i icy) Read(p []byte) (int, error) {
	n, err := i.Conn.Read(p)
	i.h.mu.Lock()
	frozen := i.h.frozen
	i.h.mu.Unlock()
	if frozen != nil {
		<-frozen
	}
	return n, err
}

func (c *connection) jump(ch ssh.NewChannel) {
	var to struct {
		Host     string
		Port     uint32
		FromHost string
		FromPort uint32
	}
	if err := ssh.Unmarshal(ch.ExtraData(), &to); err != nil {
		ch.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	addr := net.JoinHostPort(to.Host, strconv.Itoa(int(to.Port)))
	c.h.mu.Lock()
	if forward, ok := c.h.forwards[addr]; ok {
		addr = forward
	}
	c.h.mu.Unlock()
	addr, err := c.h.net.at(addr)
	if err != nil {
		ch.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	target, err := net.Dial("tcp", addr)
	if err != nil {
		ch.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	channel, requests, err := ch.Accept()
	if err != nil {
		target.Close()
		return
	}
	c.wg.Go(func() { ssh.DiscardRequests(requests) })
	c.wg.Go(func() {
		io.Copy(target, channel)
		target.Close()
	})
	io.Copy(channel, target)
	channel.Close()
	target.Close()
}

func (c *connection) session(ch ssh.NewChannel) {
	channel, requests, err := ch.Accept()
	if err != nil {
		return
	}
	e := &Exec{Host: c.h, Stdin: channel, Stdout: channel, Stderr: channel.Stderr(), conn: c, channel: channel, done: make(chan struct{})}
	for req := range requests {
		ok, start := e.request(req)
		if req.WantReply {
			req.Reply(ok, nil) // before it starts: what is over quickly closes the channel
		}
		if start != nil {
			e.started = true
			c.wg.Go(func() {
				start()
				channel.Close()
			})
		}
	}
	close(e.done)
}

// request answers one request on a session; start is what the request asks to run.
func (e *Exec) request(req *ssh.Request) (ok bool, start func()) {
	h := e.Host
	switch req.Type {
	case "pty-req":
		return e.setTerminal(req.Payload), nil
	case "window-change":
		return e.setSize(req.Payload), nil
	case "signal":
		return e.signal(req.Payload), nil
	}
	if e.started {
		return false, nil
	}
	switch req.Type {
	case "exec":
		var exec struct{ Line string }
		if err := ssh.Unmarshal(req.Payload, &exec); err != nil {
			return false, nil
		}
		return true, func() { h.run(e, exec.Line) }
	case "shell":
		return true, func() { h.run(e, "") }
	case "subsystem":
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.noSFTP || !bytes.Equal(req.Payload, ssh.Marshal(struct{ Name string }{"sftp"})) {
			return false, nil
		}
		h.transfers[e.channel] = true
		f := &files{h: h, root: h.root}
		server := sftp.NewRequestServer(e.channel, sftp.Handlers{FileGet: f, FilePut: f, FileCmd: f, FileList: f})
		return true, func() {
			server.Serve() // ends when the client is gone
			h.mu.Lock()
			defer h.mu.Unlock()
			delete(h.transfers, e.channel)
		}
	}
	return false, nil
}

// Commands lists the command lines that ran or are running, in order, without sudo.
func (h *Host) Commands() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.ran)
}

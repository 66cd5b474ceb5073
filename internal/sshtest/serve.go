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
	config := &ssh.ServerConfig{ServerVersion: "SSH-2.0-sshtest", MaxAuthTries: -1, PublicKeyCallback: h.authenticate}
	config.AddHostKey(key)
	conn, channels, requests, err := ssh.NewServerConn(icy{c.conn, h}, config)
	if err != nil {
		return
	}
	h.mu.Lock()
	h.logins++
	h.mu.Unlock()
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
	addr, err := c.h.net.at(net.JoinHostPort(to.Host, strconv.Itoa(int(to.Port))))
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
	over := make(chan struct{}) // the reply has returned
	started := false
	for req := range requests {
		ok := false
		switch req.Type {
		case "pty-req":
			ok = e.setTerminal(req.Payload)
		case "window-change":
			ok = e.setSize(req.Payload)
		case "exec", "shell":
			var line struct{ Line string }
			if ok = !started && (req.Type == "shell" || ssh.Unmarshal(req.Payload, &line) == nil); ok {
				started = true
				c.wg.Go(func() {
					defer close(over)
					c.h.run(e, line.Line)
					channel.Close()
				})
			}
		case "subsystem":
			ok = !started && bytes.Equal(req.Payload, ssh.Marshal(struct{ Name string }{"sftp"}))
			if ok {
				started = true
				c.wg.Go(func() {
					defer close(over)
					files := &files{root: c.h.root}
					sftp.NewRequestServer(channel, sftp.Handlers{FileGet: files, FilePut: files, FileCmd: files, FileList: files}).Serve()
					channel.Close()
				})
			}
		case "signal":
			var sig struct{ Name string }
			if ok = ssh.Unmarshal(req.Payload, &sig) == nil; ok {
				e.signal(sig.Name)
			}
		}
		if req.WantReply {
			req.Reply(ok, nil)
		}
	}
	close(e.done)
	if started {
		<-over
	}
}

// Commands lists the command lines that ran or are running, in order, without sudo.
func (h *Host) Commands() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.ran)
}

// Package socket is what the CNI plugin and the daemon of a node say to each other: HTTP and JSON over a unix socket, whose file mode says
// who may speak.
//
// It owns the messages, the plugin's side of the conversation, and the files by which a plugin tells a daemon that is not there. It
// refuses opinions: which subport is chosen and what becomes of it is the daemon's, what the kernel is told the plugin's.
package socket

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/kuryrctl/kuryrctl/nodeagent/link"
)

// Defaults of the daemon and of the plugin.
const (
	DefaultPath  = "/run/kuryr/cni.sock"
	DefaultState = "/var/lib/kuryr"
)

// Attachment is one interface of one sandbox, by which CNI knows it.
type Attachment struct {
	Container string `json:"container"`
	IfName    string `json:"ifname"`
}

// Add asks for a subport.
type Add struct {
	Attachment
	Network   string `json:"network"` // its name in the CNI configuration
	Namespace string `json:"namespace"`
	Pod       string `json:"pod"`
	UID       string `json:"uid"`
	Netns     string `json:"netns"` // path
}

// Added is the subport, the same for the same attachment until it is given back.
type Added struct {
	Interface link.Interface `json:"interface"`
	Stale     []link.Place   `json:"stale,omitempty"` // where earlier holders had the subport
}

// GC names the attachments to a network that are there; all others to it are given back.
type GC struct {
	Network string       `json:"network"`
	Valid   []Attachment `json:"valid"`
}

// Collected says where the attachments were that GC has given back.
type Collected struct {
	Places []link.Place `json:"places"`
}

// Status is how the daemon is.
type Status struct {
	NotReady  string `json:"notReady,omitempty"` // why no pod can be served, or empty
	ParentMAC string `json:"parentMAC,omitempty"`
}

// Problem is the body of an answer that is no success.
type Problem struct {
	Reason string `json:"reason"`
}

// Refusal is the daemon's no.
type Refusal struct {
	Code   int // of HTTP: 503 for later, 404 for unknown
	Reason string
}

func (r *Refusal) Error() string { return r.Reason }

// Client speaks to the daemon.
type Client struct {
	path string
	http http.Client
}

// NewClient returns a client of the daemon at this socket. It connects when it is used.
func NewClient(path string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	return &Client{path: path, http: http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

// Add asks for a subport. When there is none before the daemon's patience ends, the error is a Refusal with code 503.
func (c *Client) Add(ctx context.Context, a Add) (r Added, err error) {
	return r, c.call(ctx, http.MethodPost, "/add", a, &r)
}

// Del gives a subport back. An attachment that has none is success.
func (c *Client) Del(ctx context.Context, a Attachment) error {
	return c.call(ctx, http.MethodPost, "/del", a, &struct{}{})
}

// Allocation returns the subport of an attachment; when it has none, a Refusal with code 404.
func (c *Client) Allocation(ctx context.Context, a Attachment) (i link.Interface, err error) {
	query := url.Values{"container": {a.Container}, "ifname": {a.IfName}}
	return i, c.call(ctx, http.MethodGet, "/allocation?"+query.Encode(), nil, &i)
}

// GC gives back what is not valid.
func (c *Client) GC(ctx context.Context, g GC) (r Collected, err error) {
	return r, c.call(ctx, http.MethodPost, "/gc", g, &r)
}

// Status asks how the daemon is.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	return s, c.call(ctx, http.MethodGet, "/status", nil, &s)
}

func (c *Client) call(ctx context.Context, method, path string, body, into any) error {
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return err
		}
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://daemon"+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	resp, err := c.http.Do(r)
	if err != nil {
		var outer *url.Error
		if errors.As(err, &outer) {
			err = outer.Err // without the made-up URL
		}
		return fmt.Errorf("asking the node's daemon at %s: %w", c.path, err)
	}
	defer resp.Body.Close()
	text, err = io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("reading the answer of the node's daemon: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		var p Problem
		if json.Unmarshal(text, &p) != nil || p.Reason == "" {
			p.Reason = fmt.Sprintf("the node's daemon answered %s", resp.Status)
		}
		return &Refusal{Code: resp.StatusCode, Reason: p.Reason}
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("reading the answer of the node's daemon: %w", err)
	}
	return nil
}

// Bury leaves word, for a daemon that is not there, that an attachment is gone. The word is on disk when it returns.
func Bury(state string, a Attachment) error {
	text, err := json.Marshal(a)
	if err != nil {
		return err
	}
	dir := filepath.Join(state, "freed")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("leaving word for the daemon: %w", err)
	}
	if err := Replace(tombstone(state, a), text); err != nil {
		return fmt.Errorf("leaving word for the daemon: %w", err)
	}
	return nil
}

// tombstone is named after what it says, so that saying it twice is saying it once. CNI allows neither name a slash.
func tombstone(state string, a Attachment) string {
	return filepath.Join(state, "freed", url.PathEscape(a.Container)+"@"+url.PathEscape(a.IfName))
}

// Buried lists what word was left. A file that is no such word is passed over: it was cut off, and then DEL was no success either.
func Buried(state string) (all []Attachment, err error) {
	dir := filepath.Join(state, "freed")
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the word plugins have left: %w", err)
	}
	for _, f := range files {
		if strings.HasPrefix(f.Name(), ".") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			return nil, fmt.Errorf("reading the word plugins have left: %w", err)
		}
		var a Attachment
		if json.Unmarshal(text, &a) == nil && a.Container != "" {
			all = append(all, a)
		}
	}
	return all, nil
}

// Exhume takes word back that was acted upon. Word that is not there is success.
func Exhume(state string, a Attachment) error {
	if err := os.Remove(tombstone(state, a)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("taking back the word of a plugin: %w", err)
	}
	return nil
}

// Replace writes a file so that it is there as a whole or not at all, and on disk when it returns.
func Replace(path string, text []byte) error {
	dir, name := filepath.Split(path)
	f, err := os.CreateTemp(dir, "."+name+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	d, err := os.Open(filepath.Clean(dir))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

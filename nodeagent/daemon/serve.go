package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/kuryrctl/kuryrctl/nodeagent/socket"
)

// longest is how many bytes of a question are read: GC names every sandbox of a node.
const longest = 1 << 20

// listen makes the socket, for root alone from its first moment: the directory lets nobody else in.
func listen(path string) (net.Listener, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the socket's directory: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a daemon that was killed; there is only one
		return nil, fmt.Errorf("removing an old socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listening for the plugin: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("listening for the plugin: %w", err), l.Close())
	}
	return l, nil
}

func (d *Daemon) serve(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /add", answer(func(r *http.Request, a socket.Add) (socket.Added, error) {
		if a.Container == "" || a.IfName == "" {
			return socket.Added{}, &socket.Refusal{Code: 400, Reason: "a container and an interface are needed"}
		}
		begin := time.Now()
		added, err := d.add(r.Context(), a)
		d.metrics.added(time.Since(begin), err)
		if err != nil {
			d.Log.Warn("no subport", "namespace", a.Namespace, "pod", a.Pod, "container", a.Container, "error", err)
		}
		return added, err
	}))
	mux.HandleFunc("POST /del", answer(func(_ *http.Request, a socket.Attachment) (struct{}, error) {
		begin := time.Now()
		err := d.del(a)
		if err == nil {
			d.metrics.deleted(time.Since(begin))
		}
		return struct{}{}, err
	}))
	mux.HandleFunc("POST /gc", answer(func(_ *http.Request, g socket.GC) (socket.Collected, error) { return d.gc(g) }))
	mux.HandleFunc("GET /allocation", func(w http.ResponseWriter, r *http.Request) {
		i, err := d.allocation(socket.Attachment{Container: r.FormValue("container"), IfName: r.FormValue("ifname")})
		reply(w, i, err)
	})
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { reply(w, d.status(), nil) })
	return serveUntil(ctx, l, mux)
}

// serveUntil serves until ctx is done; then it ends, and so does the context of every request.
func serveUntil(ctx context.Context, l net.Listener, h http.Handler) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &http.Server{Handler: h, BaseContext: func(net.Listener) context.Context { return ctx }, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	if err := s.Serve(l); ctx.Err() == nil {
		return fmt.Errorf("serving %s: %w", l.Addr(), err)
	}
	return nil
}

func answer[Q, A any](f func(*http.Request, Q) (A, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var q Q
		text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, longest))
		if err == nil {
			err = json.Unmarshal(text, &q)
		}
		if err != nil {
			reply(w, nil, &socket.Refusal{Code: 400, Reason: "reading the question: " + err.Error()})
			return
		}
		a, err := f(r, q)
		reply(w, a, err)
	}
}

func reply(w http.ResponseWriter, body any, err error) {
	code := 200
	if err != nil {
		code, body = 500, socket.Problem{Reason: err.Error()}
		var no *socket.Refusal
		if errors.As(err, &no) {
			code = no.Code
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body) // a plugin that is gone will ask again, or give back
}

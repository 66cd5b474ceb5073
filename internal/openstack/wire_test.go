package openstack

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// piped makes a transport whose connections end in serve, without a network, so that time can be synctest's.
func piped(serve func(net.Conn)) *transport {
	return newTransport(Options{Dial: func(context.Context, string, string) (net.Conn, error) {
		near, far := net.Pipe()
		go serve(far) // ends when the transport closes its end
		return near, nil
	}}, nil)
}

func TestAServerThatSaysNothingIsGivenAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := piped(func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
		begin := time.Now()
		_, err := tr.RoundTrip(request(t.Context(), "POST", ports, `{}`))
		if err == nil || !strings.Contains(err.Error(), "timeout awaiting response headers") || time.Since(begin) != time.Minute || !IsAmbiguous(err) {
			t.Errorf("after %s: %v", time.Since(begin), err)
		}
	})
}

func TestAKeptConnectionIsClosedBeforeTheServerDoesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		closed := make(chan time.Duration, 1)
		tr := piped(func(c net.Conn) {
			in := bufio.NewReader(c)
			if _, err := http.ReadRequest(in); err != nil {
				t.Error(err)
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
			begin := time.Now()
			_, _ = in.ReadByte()
			closed <- time.Since(begin)
		})
		if _, err := tr.RoundTrip(request(t.Context(), "GET", ports, "")); err != nil {
			t.Fatal(err)
		}
		if after := <-closed; after < time.Second || after >= 5*time.Second {
			t.Errorf("closed after %s, want a while but less than Apache's 5s", after)
		}
	})
}

func TestParallelRequestsKeepTheirConnections(t *testing.T) {
	const parallel = 8
	var opened atomic.Int32
	var round sync.WaitGroup
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		round.Done()
		round.Wait() // until all of the round are here
		_, _ = io.WriteString(w, "{}")
	}))
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			opened.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	tr := newTransport(Options{Parallel: parallel}, nil)
	for range 3 {
		round.Add(parallel)
		var group sync.WaitGroup
		for range parallel {
			group.Go(func() {
				if _, err := tr.RoundTrip(request(t.Context(), "GET", server.URL+"/v2.0/ports", "")); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
	}
	if opened.Load() != parallel {
		t.Errorf("%d connections for three rounds of %d requests", opened.Load(), parallel)
	}
}

package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

func TestAPodSaysItsName(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	const greeting = "demo-1: HELLO, I AM ALIVE!!!\n"
	go func() { ended <- serve(ctx, greeting, listener, packets) }()

	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	for path, want := range map[string]string{"/": greeting, "/any": greeting, "/healthz": "ok\n"} {
		resp, err := client.Get("http://" + listener.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || string(text) != want {
			t.Errorf("%s: %d, %q, %v", path, resp.StatusCode, text, err)
		}
	}
	conn, err := net.Dial("udp", packets.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := conn.Write([]byte("anybody there?")); err != nil {
			t.Fatal(err)
		}
		reply := make([]byte, 100)
		if n, err := conn.Read(reply); err != nil || string(reply[:n]) != greeting {
			t.Errorf("by UDP: %q, %v", reply[:n], err)
		}
	}

	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", listener.Addr().String()); err == nil {
		t.Error("it listens after its end")
	}
}

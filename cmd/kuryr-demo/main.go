// Command kuryr-demo is what is deployed to see that a cluster works: every pod of it says its own name, over HTTP and UDP, so that
// a caller sees which of several answered. It is the one image of kuryrctl's own.
//
// It refuses to be more: it reads nothing but its host name and keeps nothing.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	at := flag.String("listen", ":8080", "the `address` to answer at, by HTTP (TCP) and to every datagram (UDP)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *at); err != nil {
		fmt.Fprintln(os.Stderr, "kuryr-demo:", err)
		os.Exit(1)
	}
}

// run listens until the context ends.
func run(ctx context.Context, at string) error {
	pod, err := os.Hostname() // that of a pod is its name
	if err != nil {
		return err
	}
	packets, err := net.ListenPacket("udp", at)
	if err != nil {
		return err
	}
	defer packets.Close()
	listener, err := net.Listen("tcp", at)
	if err != nil {
		return err
	}
	return serve(ctx, pod+": HELLO, I AM ALIVE!!!\n", listener, packets)
}

// drain is how long requests may go on after the context's end: a pod is given thirty seconds.
const drain = 10 * time.Second

func serve(ctx context.Context, greeting string, listener net.Listener, packets net.PacketConn) error {
	go echo(greeting, packets)
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, greeting) })
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	ended := make(chan error, 1)
	go func() {
		<-ctx.Done()
		over, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
		defer cancel()
		ended <- errors.Join(server.Shutdown(over), packets.Close())
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-ended
}

// echo answers every datagram until there are no more.
func echo(greeting string, packets net.PacketConn) {
	var unread [1]byte
	for {
		_, from, err := packets.ReadFrom(unread[:])
		if err != nil {
			return
		}
		packets.WriteTo([]byte(greeting), from) // who is not reached may ask again
	}
}

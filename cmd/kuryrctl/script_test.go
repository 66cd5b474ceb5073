package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kuryrctl/kuryrctl/bootstrap/bundle"
	"github.com/kuryrctl/kuryrctl/internal/dnstest"
	"github.com/kuryrctl/kuryrctl/internal/labtest"
)

// TestMain makes kuryrctl a command of the scripts: the program as it is, but for looking more often and for reaching hosts
// through the test, in which they are.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"kuryrctl": func() {
		signals := make(chan os.Signal, 2)
		signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
		a := &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, dial: dialThrough(os.Getenv("TEST_SWITCHBOARD")), poll: time.Millisecond}
		if site := os.Getenv("TEST_UPSTREAM"); site != "" {
			a.upstream = bundle.Source{Kubernetes: site, GitHub: site, Registry: strings.TrimPrefix(site, "http://"), DockerHub: strings.TrimPrefix(site, "http://"), Stall: time.Minute}
		}
		os.Exit(a.run(context.Background(), os.Args[1:], signals))
	}})
}

// dialThrough returns a dialer that asks a switchboard for its connections.
func dialThrough(board string) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, board)
		if err != nil {
			return nil, err
		}
		if _, err := fmt.Fprintln(conn, addr); err != nil {
			conn.Close()
			return nil, err
		}
		return conn, nil
	}
}

// switchboard connects every caller to the address on its first line, as the lab knows it.
func switchboard(t *testing.T, lab *labtest.Lab) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		l.Close()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { connect(ctx, lab, conn) })
		}
	})
	return l.Addr().String()
}

func connect(ctx context.Context, lab *labtest.Lab, caller net.Conn) {
	defer caller.Close()
	r := bufio.NewReader(caller)
	addr, err := r.ReadString('\n')
	if err != nil {
		return
	}
	callee, err := lab.Dial(ctx, "tcp", strings.TrimSpace(addr))
	if err != nil {
		return
	}
	defer callee.Close()
	defer context.AfterFunc(ctx, func() { caller.Close(); callee.Close() })()
	var wg sync.WaitGroup
	wg.Go(func() {
		io.Copy(callee, r)
		callee.Close()
	})
	io.Copy(caller, callee)
	caller.Close()
	wg.Wait()
}

func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("finding the scripts: %v, %v", files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { runScript(t, file) })
	}
}

// runScript gives a script a lab of its own, in which stacks demo and demo-2 can be made.
func runScript(t *testing.T, file string) {
	lab := labtest.New(t, []string{"demo", "demo-2"})
	board := switchboard(t, lab)
	names := dnstest.New(t, "lab.test", "mail.lab.test. 300 IN A 192.0.2.25")
	examples, err := filepath.Abs("../../examples")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Files:               []string{file},
		RequireExplicitExec: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"cloud": func(ts *testscript.TestScript, neg bool, args []string) { cloudCommand(ts, lab, neg, args) },
			"host":  func(ts *testscript.TestScript, _ bool, args []string) { hostCommand(ts, lab, args) },
			"names": func(ts *testscript.TestScript, neg bool, args []string) { namesCommand(ts, t, names, neg, args) },
			"json":  jsonCommand,
			"code":  codeCommand,

			"interrupt": interruptCommand,
			"upstream":  func(ts *testscript.TestScript, _ bool, args []string) { upstreamCommand(ts, t, args) },
		},
		Setup: func(e *testscript.Env) error {
			e.Setenv("TEST_SWITCHBOARD", board)
			e.Setenv("XDG_STATE_HOME", filepath.Join(e.WorkDir, "state"))
			e.Setenv("EXAMPLES", examples)
			e.Setenv("NAME_SERVER", names.Address)
			e.Setenv("OS_CLIENT_CONFIG_FILE", lab.CloudsYAML())
			e.Setenv("OS_CLOUD", "fake")
			e.Setenv("KURYRCTL_TIMEOUT", "1m")       // of what would never end
			e.Setenv("KURYRCTL_KUBERNETES", "false") // the hosts of this lab run nothing
			e.Setenv("GORACE", "atexit_sleep_ms=0")  // else every command of a race test ends with a second of sleep
			e.Setenv("AUTH_URL", lab.AuthURL())
			if err := os.Mkdir(filepath.Join(e.WorkDir, "state"), 0o700); err != nil {
				return err
			}
			return os.Symlink(lab.State, filepath.Join(e.WorkDir, "state", "kuryrctl"))
		},
	})
}

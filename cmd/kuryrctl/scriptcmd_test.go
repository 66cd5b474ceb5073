package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kuryrctl/kuryrctl/internal/dnstest"
	"github.com/kuryrctl/kuryrctl/internal/labtest"
	"github.com/kuryrctl/kuryrctl/internal/sshtest"
	"github.com/kuryrctl/kuryrctl/internal/upstreamtest"
)

// cloudCommand is the fake cloud as scripts see it:
//
//	cloud writes [N]        forget the requests so far, or expect N writes since then
//	cloud [empty]           expect that nothing is left
//	cloud has KIND NAME     expect a thing (! cloud has: expect none)
//	cloud set KIND NAME FIELD VALUE | cloud delete KIND NAME
//	cloud fail "METHOD PATH" TIMES STATUS BODY
//	cloud cut N | cloud heal
func cloudCommand(ts *testscript.TestScript, lab *labtest.Lab, neg bool, args []string) {
	number := func(i int) int {
		n, err := strconv.Atoi(args[i])
		ts.Check(err)
		return n
	}
	switch verb := args[0]; verb {
	case "writes":
		if len(args) == 1 {
			lab.ResetLog()
		} else if got := lab.Writes(); len(got) != number(1) {
			ts.Fatalf("%d writes: %v", len(got), got)
		}
	case "empty":
		if left := lab.Left(); len(left) > 0 {
			ts.Fatalf("left in the cloud:\n%s", strings.Join(left, "\n"))
		}
	case "has":
		if lab.Has(args[1], args[2]) == neg {
			ts.Fatalf("has %s %s: %t", args[1], args[2], !neg)
		}
	case "set":
		lab.Set(args[1], args[2], args[3], args[4])
	case "delete":
		lab.Delete(args[1], args[2])
	case "fail":
		lab.Fail(args[1], number(2), number(3), args[4], http.Header{"Content-Type": {"application/json"}})
	case "cut":
		lab.CutAfter(number(1))
	case "heal":
		lab.Heal()
	default:
		ts.Fatalf("cloud has no %q", verb)
	}
}

// hostCommand makes hosts misbehave or answer: host hang|thaw|newkey NODE, host says NODE COMMAND TEXT, host exits NODE COMMAND STATUS,
// host hangs NODE COMMAND.
func hostCommand(ts *testscript.TestScript, lab *labtest.Lab, args []string) {
	h := lab.Host(args[1])
	switch args[0] {
	case "hang":
		h.Hang(sshtest.BeforeBanner)
	case "hangs":
		h.On(args[2], sshtest.Hang)
	case "thaw":
		h.Hang(sshtest.Nowhere)
	case "newkey":
		h.SetHostKey(nil)
	case "says":
		h.On(args[2], sshtest.Text(args[3]+"\n"))
	case "exits":
		status, err := strconv.Atoi(args[3])
		ts.Check(err)
		h.On(args[2], sshtest.Fail(status, ""))
	default:
		ts.Fatalf("host has no %q", args[0])
	}
}

// namesCommand is the name server of lab.test as scripts see it:
//
//	names has PATTERN       expect a record, as "name type value" (! names has: expect none)
//	names count N           expect so many records
//	names key FILE          write the server's TSIG key to a file
//	names add RECORD        put a record there by another hand
func namesCommand(ts *testscript.TestScript, t *testing.T, server *dnstest.Server, neg bool, args []string) {
	switch verb := args[0]; verb {
	case "has":
		pattern := regexp.MustCompile("^" + args[1] + "$")
		if slices.ContainsFunc(server.Records(), pattern.MatchString) == neg {
			ts.Fatalf("has %s: %t, of\n%s", args[1], neg, strings.Join(server.Records(), "\n"))
		}
	case "count":
		if all := server.Records(); fmt.Sprint(len(all)) != args[1] {
			ts.Fatalf("%d records:\n%s", len(all), strings.Join(all, "\n"))
		}
	case "key":
		ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(dnstest.Key), 0o600))
	case "add":
		server.Add(t, args[1])
	default:
		ts.Fatalf("names has no %q", verb)
	}
}

// jsonCommand expects the values at paths of JSON: json FILE PATH VALUE [PATH VALUE]..., where a path is as in nodes.0.name, and
// # is the length of a list.
func jsonCommand(ts *testscript.TestScript, _ bool, args []string) {
	var root any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &root))
	for i := 1; i+1 < len(args); i += 2 {
		at := root
		for step := range strings.SplitSeq(args[i], ".") {
			switch x := at.(type) {
			case map[string]any:
				at = x[step]
			case []any:
				if step == "#" {
					at = len(x)
				} else if n, err := strconv.Atoi(step); err == nil && n < len(x) {
					at = x[n]
				} else {
					ts.Fatalf("%s: nothing at %s", args[i], step)
				}
			default:
				ts.Fatalf("%s: nothing at %s", args[i], step)
			}
		}
		if got := fmt.Sprint(at); got != args[i+1] {
			ts.Fatalf("%s is %s, want %s", args[i], got, args[i+1])
		}
	}
}

// codeCommand runs a command and expects its exit code: code 3 kuryrctl plan demo.
func codeCommand(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	if err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if got != args[0] {
		ts.Fatalf("the exit code is %s, want %s", got, args[0])
	}
}

// interruptCommand interrupts a program once, or twice, when a line of its standard error matches, and expects its exit code:
//
//	interrupt once 130 'waiting  server' kuryrctl stack demo
//
// The second comes when the program has spoken of it. It must end soon after the last, and its standard error is left in the file stderr.
func interruptCommand(ts *testscript.TestScript, _ bool, args []string) {
	pattern := regexp.MustCompile(args[2])
	again := regexp.MustCompile("interrupt again")
	cmd := exec.Command(args[3], args[4:]...)
	cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"PATH", "HOME", "TEST_SWITCHBOARD", "XDG_STATE_HOME", "GORACE", "OS_CLIENT_CONFIG_FILE", "OS_CLOUD", "KURYRCTL_KUBERNETES"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	stderr, err := cmd.StderrPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	limit := time.AfterFunc(30*time.Second, func() { cmd.Process.Kill() })
	defer limit.Stop()
	var said strings.Builder
	left := 1
	if args[0] == "twice" {
		left = 2
	}
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		fmt.Fprintln(&said, lines.Text())
		if left > 0 && pattern.MatchString(lines.Text()) {
			if left--; left == 0 {
				limit.Reset(5 * time.Second)
			}
			pattern = again
			ts.Check(cmd.Process.Signal(os.Interrupt))
		}
	}
	cmd.Wait() // its exit code tells
	ts.Check(os.WriteFile(ts.MkAbs("stderr"), []byte(said.String()), 0o600))
	if got := fmt.Sprint(cmd.ProcessState.ExitCode()); got != args[1] || left > 0 {
		ts.Fatalf("exit code %s with %d interrupts not sent, want %s\n%s", got, left, args[1], said.String())
	}
}

// upstreamCommand starts sites that publish a Kubernetes release for amd64, with the images that are named:
//
//	upstream VERSION IMAGE...
func upstreamCommand(ts *testscript.TestScript, t *testing.T, args []string) {
	up := upstreamtest.New(t, args[0], "amd64", args[1:]...)
	ts.Setenv("TEST_UPSTREAM", up.URL)
}

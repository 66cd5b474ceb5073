// Command kuryrctl turns an OpenStack project into a Kubernetes cluster whose pods and VMs live on the same Neutron networks.
//
// The package owns flags, terminal output, hints and exit codes, and nothing else: what a stack is lives in package stack,
// OpenStack in package provision, the lab's own cloud in package bootstrap/cloud. There is one file for each verb; what verbs share
// is in app.go, how they end in errors.go.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	signals := make(chan os.Signal, 2) // a person's first and second interrupt, should they come at once
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	a := &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}
	os.Exit(a.run(context.Background(), os.Args[1:], signals))
}

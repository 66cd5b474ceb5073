package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/kuryrctl/kuryrctl/nodeagent/daemon"
	"github.com/kuryrctl/kuryrctl/nodeagent/socket"
)

func runDaemon(ctx context.Context, args []string, _, stderr io.Writer) error {
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("asking for this host's name: %w", err)
	}
	c := daemon.Config{Log: slog.New(slog.NewTextHandler(stderr, nil))}
	flags := flag.NewFlagSet("daemon", flag.ContinueOnError)
	kubeconfig := flags.String("kubeconfig", "/etc/kubernetes/kubelet.conf", "`file` that says how this node speaks to the API server")
	flags.StringVar(&c.Node, "node", host, "`name` of this node in Kubernetes")
	flags.StringVar(&c.State, "state", socket.DefaultState, "`directory` for what must survive the daemon")
	flags.StringVar(&c.Socket, "socket", socket.DefaultPath, "`path` of the socket for the CNI plugin")
	flags.StringVar(&c.Metrics, "metrics", "127.0.0.1:9655", "`address` of metrics, health and profiles; empty for none")
	flags.DurationVar(&c.Cooldown, "cooldown", daemon.DefaultCooldown, "time for which a subport that was given back is not used")
	flags.DurationVar(&c.Patience, "patience", daemon.DefaultPatience, "time for which a pod waits for a subport")
	if err := parse(flags, args, stderr); err != nil {
		return err
	}
	if c.Kube, err = clientcmd.BuildConfigFromFlags("", *kubeconfig); err != nil {
		return fmt.Errorf("reading the kubeconfig: %w", err)
	}
	c.Kube.UserAgent = "kuryr-node/" + version
	d, err := daemon.Open(c)
	if err != nil {
		return err
	}
	return errors.Join(d.Run(ctx), d.Close())
}

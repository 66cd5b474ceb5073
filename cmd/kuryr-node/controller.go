package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/nodeagent/controller"
	"github.com/kuryrctl/kuryrctl/nodeagent/lbaas"
)

func runController(ctx context.Context, args []string, _, stderr io.Writer) error {
	o := controller.Options{Log: slog.New(slog.NewTextHandler(stderr, nil))}
	flags := flag.NewFlagSet("controller", flag.ContinueOnError)
	kubeconfig := flags.String("kubeconfig", "", "kubeconfig `file`; without it, the service account of the pod it runs in")
	clouds := flags.String("clouds-file", "/etc/kuryr/clouds.yaml", "clouds.yaml with the login; an application credential is enough")
	cloud := flags.String("cloud", "kuryr", "`name` in the clouds.yaml")
	listen := flags.String("listen", "127.0.0.1:9656", "`address` of /metrics, /healthz, /readyz and /debug/pprof/")
	flags.StringVar(&o.Stack, "stack", os.Getenv("KURYR_STACK"), "`name` of the stack whose nodes these are (KURYR_STACK)")
	flags.StringVar(&o.PodNetwork, "pod-network", "", "`name` of the network of the pods (default STACK/pod_net)")
	flags.StringVar(&o.SecurityGroup, "security-group", "", "`name` of the security group of the pods (default STACK/pod_access)")
	flags.IntVar(&o.Min, "min", 3, "free subports to keep on each worker")
	flags.IntVar(&o.Max, "max", 50, "subports of a worker at most")
	flags.IntVar(&o.Batch, "batch", 5, "subports made at once")
	flags.DurationVar(&o.TTL, "ttl", 10*time.Minute, "how long subports may be idle")
	flags.StringVar(&o.LeaseNamespace, "lease-namespace", "kube-system", "`namespace` of the Lease by which one controller works")
	if err := parse(flags, args, stderr); err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("asking for this host's name: %w", err)
	}
	o.Identity = fmt.Sprintf("%s_%d_%d", host, os.Getpid(), time.Now().UnixNano())
	if o.Kube, err = clientcmd.BuildConfigFromFlags("", *kubeconfig); err != nil {
		return fmt.Errorf("reading the kubeconfig: %w", err)
	}
	if o.Cloud, err = openstack.Connect(ctx, openstack.Options{File: *clouds, Cloud: *cloud, Log: o.Log, UserAgent: "kuryr-controller/" + version}); err != nil {
		return err
	}
	services, err := lbaas.New(lbaas.Options{Kube: o.Kube, Cloud: o.Cloud, Stack: o.Stack, Identity: o.Identity, Log: o.Log})
	if err != nil {
		return err
	}
	o.Beside = services.Lead
	c, err := controller.New(o)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return fmt.Errorf("listening for health checks: %w", err)
	}
	own := c.Handler()
	mux := http.NewServeMux()
	mux.Handle("/", own)
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		own.ServeHTTP(w, r)
		services.Metrics(w)
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	err = c.Run(ctx)
	if closing := errors.Join(server.Close(), ignoreClosed(<-served)); err == nil {
		err = closing
	}
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return nil
	}
	return err
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Command controlplane is a control plane in one binary, told apart by the name it is called by: the API server, controller
// manager, scheduler and etcd. The four images that kubeadm asks for share one layer with it; each still runs as a process
// of its own and is upstream's command, flags and all.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	_ "time/tzdata" // the images have nothing but this binary, and CronJobs have time zones

	"go.etcd.io/etcd/etcdctl/v3/ctlv3"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	manager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

func main() {
	switch name := filepath.Base(os.Args[0]); name {
	case "kube-apiserver":
		os.Exit(cli.Run(apiserver.NewAPIServerCommand()))
	case "kube-controller-manager":
		os.Exit(cli.Run(manager.NewControllerManagerCommand()))
	case "kube-scheduler":
		os.Exit(cli.Run(scheduler.NewSchedulerCommand()))
	case "etcd":
		etcdmain.Main(os.Args)
	case "etcdctl":
		ctlv3.MustStart()
	default:
		fmt.Fprintf(os.Stderr, "this is kube-apiserver, kube-controller-manager, kube-scheduler, etcd and etcdctl, not %s: call it by one of these names\n", name)
		os.Exit(2)
	}
}

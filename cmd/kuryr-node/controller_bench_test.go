package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kuryrctl/kuryrctl/internal/clustertest"
	"github.com/kuryrctl/kuryrctl/internal/labtest"
	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
	"github.com/kuryrctl/kuryrctl/nodeagent/vif"
)

// The controller as masters have it, against a cloud and an API server that answer at once: pods come to every node at the same moment, and the time
// until all have subports is taken, with the requests to OpenStack and what the process then has in memory. The pods' names and the
// annotations that tell their ports are not in it: they follow an allocation by a daemon, of which there is none.
func BenchmarkController(b *testing.B) {
	for _, size := range []struct{ nodes, pods int }{{20, 50}, {50, 100}, {1000, 50}} {
		b.Run(fmt.Sprintf("%d-nodes-of-%d-pods", size.nodes, size.pods), func(b *testing.B) {
			program := buildNode(b)
			for b.Loop() {
				fill(b, program, size.nodes, size.pods)
			}
		})
	}
}

// fill is one run.
func fill(b *testing.B, program string, nodes, pods int) {
	b.StopTimer()
	var names []string
	for i := range nodes {
		names = append(names, fmt.Sprintf("worker-%d", i))
	}
	cloud := openstacktest.New(b, openstacktest.Polls(0), openstacktest.Quota("network", "port", -1), openstacktest.Quota("network", "trunk", -1))
	labtest.Workers(b, cloud, "demo", names...)
	cluster := clustertest.New(b)
	for _, n := range names {
		cluster.AddNode(corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n}})
		for i := range pods {
			name := fmt.Sprintf("web-%s-%d", n, i)
			cluster.AddPod(corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("uid-" + name)}, Spec: corev1.PodSpec{NodeName: n}})
		}
	}
	kubeconfig := filepath.Join(b.TempDir(), "kubeconfig")
	if err := os.WriteFile(kubeconfig, cluster.Kubeconfig(), 0o600); err != nil {
		b.Fatal(err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	listen := free.Addr().String()
	free.Close()
	controller := exec.Command(program, "controller", "-kubeconfig", kubeconfig, "-clouds-file", cloud.CloudsYAML(), "-cloud", "fake", "-stack", "demo",
		"-max", strconv.Itoa(pods+10), "-listen", listen)
	var said strings.Builder
	controller.Stderr = &said
	b.StartTimer()
	begin := time.Now()
	if err := controller.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() {
		_ = controller.Process.Kill()
		_ = controller.Wait()
	}()
	left := names
	for limit := time.Now().Add(10 * time.Minute); len(left) > 0; {
		changed := cluster.Changed()
		for len(left) > 0 {
			var p vif.SubportPool
			cluster.Object(vif.Group+"/"+vif.Version+"/"+vif.Resource+"/"+left[0], &p)
			if len(p.Spec.Subports) < pods {
				break
			}
			left = left[1:]
		}
		if len(left) == 0 {
			break
		}
		select {
		case <-changed:
		case <-time.After(time.Until(limit)):
			b.Fatalf("%d of %d nodes have no subports yet\n%s", len(left), nodes, said.String())
		}
	}
	took := time.Since(begin)
	b.StopTimer()
	resident, own, cpu := process(b, controller.Process.Pid)
	all := float64(nodes * pods)
	b.ReportMetric(took.Seconds(), "s-to-fill")
	b.ReportMetric(float64(len(cloud.Writes()))/all, "writes/pod")
	b.ReportMetric(float64(len(cloud.Reads())), "reads")
	b.ReportMetric(resident, "resident-MiB")
	b.ReportMetric(own, "own-MiB")
	b.ReportMetric(cpu, "cpu-s")
	b.StartTimer()
}

// process is the memory of a process in MiB, all that is resident of it and what is its own, and the processor time that it has used, in seconds.
func process(b *testing.B, pid int) (resident, own, cpu float64) {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		var kb float64
		if n, _ := fmt.Sscanf(line, "VmRSS: %f kB", &kb); n == 1 {
			resident = kb / 1024
		}
		if n, _ := fmt.Sscanf(line, "RssAnon: %f kB", &kb); n == 1 {
			own = kb / 1024
		}
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+2:])) // from the third on: see proc_pid_stat(5)
	const perSecond = 100                                                               // sysconf(_SC_CLK_TCK) on Linux
	for _, i := range []int{11, 12} {
		ticks, err := strconv.ParseFloat(fields[i], 64)
		if err != nil {
			b.Fatal(err)
		}
		cpu += ticks / perSecond
	}
	return resident, own, cpu
}

// buildNode builds kuryr-node as it is on nodes.
func buildNode(b *testing.B) string {
	b.Helper()
	program := filepath.Join(b.TempDir(), "kuryr-node")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	return program
}

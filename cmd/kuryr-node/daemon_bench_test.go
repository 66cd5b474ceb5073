package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kuryrctl/kuryrctl/internal/clustertest"
	"github.com/kuryrctl/kuryrctl/nodeagent/socket"
	"github.com/kuryrctl/kuryrctl/nodeagent/vif"
)

// The daemon as nodes have it, asked over its socket: its choice and its journal, with an fsync for each answer. Afterwards a full node asks at once,
// and what the daemon then has in memory is looked up.
func BenchmarkDaemon(b *testing.B) {
	const pods = 110
	dir, err := os.MkdirTemp("", "kuryr") // a socket's path must be short
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	program, kubeconfig := buildNode(b), filepath.Join(dir, "kubeconfig")
	cluster := clustertest.New(b)
	pool := vif.SubportPool{TypeMeta: metav1.TypeMeta{APIVersion: vif.GroupVersion.String(), Kind: vif.Kind}, ObjectMeta: metav1.ObjectMeta{Name: "worker-0"},
		Spec: vif.SubportPoolSpec{Trunk: "trunk", ParentMAC: "fa:16:3e:00:00:00", Min: 1, Max: pods, Batch: 1}}
	for n := range pods {
		pool.Spec.Subports = append(pool.Spec.Subports, vif.Subport{Port: fmt.Sprintf("2c24bc4c-cb67-42ff-b73b-%012d", n), MAC: fmt.Sprintf("fa:16:3e:00:01:%02x", n),
			VLAN: n + 1, MTU: 1442, IPs: []vif.IP{{Address: fmt.Sprintf("10.10.0.%d/16", n+1), Gateway: "10.10.255.254"}}})
	}
	cluster.SetPool(&pool)
	if err := os.WriteFile(kubeconfig, cluster.Kubeconfig(), 0o600); err != nil {
		b.Fatal(err)
	}
	daemon := exec.Command(program, "daemon", "-kubeconfig", kubeconfig, "-node", "worker-0", "-state", filepath.Join(dir, "state"), "-socket", filepath.Join(dir, "s"),
		"-metrics", "127.0.0.1:0", "-cooldown", "1ms")
	daemon.Env = append(os.Environ(), environment(b)...)
	if err := daemon.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = daemon.Process.Kill(); _ = daemon.Wait() })
	client := socket.NewClient(filepath.Join(dir, "s"))
	for end := time.Now().Add(30 * time.Second); ; {
		if s, err := client.Status(b.Context()); err == nil && s.NotReady == "" {
			break
		} else if time.Now().After(end) {
			b.Fatal(s, err)
		}
	}
	request := func(n int) socket.Add {
		a := socket.Attachment{Container: fmt.Sprintf("%064x", n), IfName: "eth0"}
		return socket.Add{Attachment: a, Network: "kuryr", Namespace: "default", Pod: fmt.Sprint("demo-6d88c76459-", n), UID: "64cc58cf-6017-4413-b476-5e3fab1321d3"}
	}
	var adds, dels []time.Duration
	for b.Loop() {
		begin := time.Now()
		if _, err := client.Add(b.Context(), request(0)); err != nil {
			b.Fatal(err)
		}
		between := time.Now()
		if err := client.Del(b.Context(), request(0).Attachment); err != nil {
			b.Fatal(err)
		}
		adds, dels = append(adds, between.Sub(begin)), append(dels, time.Since(between))
	}
	report(b, "add", adds)
	report(b, "del", dels)
	begin := time.Now()
	var g errgroup.Group
	for n := range pods {
		g.Go(func() error {
			_, err := client.Add(b.Context(), request(n))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(time.Since(begin).Milliseconds()), "110-at-once-ms")
	for reported := false; !reported; {
		changed := cluster.Changed()
		cluster.Pool("worker-0", &pool)
		if reported = len(pool.Status.Allocations) == pods; !reported {
			<-changed
		}
	}
	resident, own, _ := process(b, daemon.Process.Pid)
	b.ReportMetric(resident, "resident-MiB")
	b.ReportMetric(own, "own-MiB")
}

// environment is what the unit of the daemon says.
func environment(b *testing.B) (all []string) {
	b.Helper()
	text, err := os.ReadFile("../../templates/files/kuryr/kuryr-daemon.service.tmpl")
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if words, ok := strings.CutPrefix(strings.TrimSpace(line), "Environment="); ok {
			all = append(all, strings.Fields(words)...)
		}
	}
	return all
}

func report(b *testing.B, what string, all []time.Duration) {
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, what+"-p50-ms")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, what+"-p99-ms")
}

//go:build e2e && reliability

package e2e

import (
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kuryrctl/kuryrctl/bootstrap/bundle"
	"github.com/kuryrctl/kuryrctl/bootstrap/cloud"
	"github.com/kuryrctl/kuryrctl/templates"
)

var (
	trouble = flag.Duration("trouble", 15*time.Minute, "for how long things are killed")
	seed    = flag.Uint64("seed", 1, "of what is chosen at random")
)

// Deployments and Services come, grow, shrink and go while everything that keeps them is killed at random. In the end the cloud has nothing
// that it did not have before, and what was not touched has not noticed.
func TestReliability(t *testing.T) {
	const stack = "reliability"
	lab := func(args ...string) []string { return append([]string{"--cloud", "lab"}, args...) }
	t.Cleanup(func() { // with a limit: unstack waits for a load balancer that stays PENDING
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
		defer cancel()
		exec.CommandContext(ctx, kuryrctl(t), lab("unstack", stack, "--yes")...).Run()
	})
	run(t, 0, lab("stack", stack, "-f", "../../examples/minimal.yaml", "--bundle", bundleOf(t), "--progress", "plain")...)
	s := &siege{t: t, stack: stack, api: operate(t, stack), took: map[string][]time.Duration{}, killed: map[string]int{}}

	// Two pods, and their address outside: nobody touches them.
	calm := s.deploy("calm", 2, corev1.ServiceTypeLoadBalancer)
	before, pods := s.things(), s.pods("calm")
	ctx, stop := context.WithCancel(t.Context())
	var hands, watch sync.WaitGroup
	watch.Go(func() { s.watch(ctx, calm) })
	began := time.Now()
	end := began.Add(*trouble)
	for i := range 3 {
		hands.Go(func() { s.work(fmt.Sprintf("busy-%d", i), rand.New(rand.NewPCG(*seed, uint64(i+1))), end) })
	}
	s.trouble(rand.New(rand.NewPCG(*seed, 0)), end)
	hands.Wait()
	stop()
	watch.Wait()

	expectOutlived(t, pods, s.pods("calm"))
	recovery := time.Now()
	expectPoolsInNeutron(t, stack, s.api, 0)
	eventually(t, "the cloud to have what it had before", 5*time.Minute, func() string {
		s.freed += freeLoadBalancers(s.t, s.stack, time.Minute)
		now := s.things()
		for _, x := range now {
			if !slices.Contains(before, x) {
				return "left over: " + x
			}
		}
		for _, x := range before {
			if !slices.Contains(now, x) {
				return "lost: " + x
			}
		}
		return ""
	})
	t.Logf("settled %v after the last step; %v in all\n%s", time.Since(recovery).Round(time.Second), time.Since(began).Round(time.Second), s.report())
	for victim := range victims {
		if s.killed[victim] == 0 && *trouble >= 15*time.Minute {
			t.Errorf("%s was not killed once", victim)
		}
	}
	if s.unheard > 0 {
		t.Errorf("pods that nobody touched did not answer %d of %d times", s.unheard, s.asked)
	}
	run(t, 0, lab("unstack", stack, "--yes")...)
	if left := openstackNames(t, stack); len(left) > 0 {
		t.Errorf("left in the cloud:\n%s", strings.Join(left, "\n"))
	}
}

// siege is one run of it. Its maps are guarded by mu.
type siege struct {
	t     *testing.T
	stack string
	api   *operator

	mu             sync.Mutex
	took           map[string][]time.Duration // by step
	killed         map[string]int             // by victim
	freed          int                        // load balancers
	asked, unheard int                        // of what was not touched
	silence        time.Duration              // the longest
}

// step does something until it is done, however often it fails, and notes how long that took.
func (s *siege) step(what, name string, lacks func() string) {
	began := time.Now()
	eventually(s.t, name+": "+what, 6*time.Minute, lacks)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.took[what] = append(s.took[what], time.Since(began))
}

func text(err error) string {
	if err != nil {
		return err.Error()
	}
	return ""
}

// deploy makes a deployment with a Service and returns the address at which it answers: inside of the cluster, or outside.
func (s *siege) deploy(name string, replicas int, kind corev1.ServiceType) string {
	manifest, err := templates.Demo(templates.DemoData{Namespace: name, Name: name, Image: bundle.DemoImage, Replicas: replicas, Port: 8080})
	if err != nil {
		s.t.Error(err)
	}
	s.step("apply", name, func() string { return text(s.api.Apply(s.t.Context(), manifest)) })
	if kind == corev1.ServiceTypeLoadBalancer {
		s.step("ask for an address outside", name, func() string {
			_, err := s.api.CoreV1().Services(name).Patch(s.t.Context(), name, types.MergePatchType, []byte(`{"spec":{"type":"LoadBalancer"}}`), metav1.PatchOptions{})
			return text(err)
		})
	}
	s.ready(name, replicas)
	if kind != corev1.ServiceTypeLoadBalancer {
		return ""
	}
	address := ""
	s.step("answer outside", name, func() string {
		all, err := s.api.External(s.t.Context(), name, name)
		if err != nil || len(all) == 0 {
			return fmt.Sprintf("its addresses are %v, %v", all, err)
		}
		address = all[0]
		return text(ask(s.t.Context(), address))
	})
	return address
}

// ready waits until exactly so many pods are there, each ready and with an address.
func (s *siege) ready(name string, replicas int) {
	s.step("be ready", name, func() string {
		pods, err := s.api.Pods(s.t.Context(), name)
		if err != nil {
			return err.Error()
		}
		ready := 0
		for _, p := range pods {
			if p.Ready && !p.Ending && p.Address != "" {
				ready++
			}
		}
		if ready != replicas || len(pods) != replicas {
			return fmt.Sprintf("of %d pods %d are ready, want %d", len(pods), ready, replicas)
		}
		return ""
	})
}

func (s *siege) pods(namespace string) (all []pod) {
	s.t.Helper()
	s.step("be listed", namespace, func() string {
		pods, err := s.api.Pods(s.t.Context(), namespace)
		all = nil
		for _, p := range pods {
			all = append(all, pod{p.Name, p.Node, p.Address})
		}
		return text(err)
	})
	return all
}

// work makes a deployment, scales it, and deletes it, until the time is over. What is begun is brought to its end.
func (s *siege) work(name string, random *rand.Rand, end time.Time) {
	for time.Now().Before(end) && !s.t.Failed() {
		kind := []corev1.ServiceType{corev1.ServiceTypeClusterIP, corev1.ServiceTypeLoadBalancer}[random.IntN(2)]
		s.deploy(name, 1+random.IntN(4), kind)
		for range 1 + random.IntN(2) {
			replicas := 1 + random.IntN(6)
			s.step("scale", name, func() string {
				_, err := s.api.AppsV1().Deployments(name).Patch(s.t.Context(), name, types.MergePatchType, fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas), metav1.PatchOptions{})
				return text(err)
			})
			s.ready(name, replicas)
		}
		s.step("be gone", name, func() string {
			there, err := s.api.HasNamespace(s.t.Context(), name)
			if err != nil || there {
				return fmt.Sprintf("it is there: %v, %v, %v", there, err, s.api.DeleteNamespace(s.t.Context(), name))
			}
			return ""
		})
	}
}

// victims are killed without a warning, and come back by what keeps them: systemd, the kubelet, the lab's first process. The kubelet waits
// longer after each end of the same container, up to five minutes, which is why the API server has its turn seldom.
var victims = map[string]string{
	"kuryr-controller": "systemctl kill --signal=KILL kuryr-controller",
	"kuryr-daemon":     "systemctl kill --signal=KILL kuryr-daemon",
	"kube-apiserver":   "kill -9 $(pidof kube-apiserver)",
	"neutron":          "",
	"octavia":          "",
}

// trouble kills one victim after another.
func (s *siege) trouble(random *rand.Rand, end time.Time) {
	spared := time.Now() // the API server
	for {
		time.Sleep(5*time.Second + time.Duration(random.Int64N(int64(10*time.Second))))
		if time.Now().After(end) || s.t.Failed() {
			return
		}
		s.freed += freeLoadBalancers(s.t, s.stack, time.Minute)
		victim := slices.Sorted(maps.Keys(victims))[random.IntN(len(victims))]
		if victim == "kube-apiserver" && time.Since(spared) < 3*time.Minute {
			continue
		}
		node := "master-0"
		switch victim {
		case "kube-apiserver":
			spared = time.Now()
		case "kuryr-daemon":
			node = fmt.Sprintf("worker-%d", random.IntN(2))
		}
		line := victims[victim]
		if line == "" {
			if killService(s.t, victim) {
				s.killed[victim]++
			}
		} else {
			// Fails while Neutron, where the node is looked up, is still down: then nothing was killed.
			out, _ := exec.CommandContext(s.t.Context(), kuryrctl(s.t), "--cloud", "lab", "ssh", s.stack, node, "--", "sudo sh -c "+quote(killing(line))).Output()
			if strings.TrimSpace(string(out)) == "killed" {
				s.killed[victim]++
			}
		}
	}
}

// killing is a command that says whether it killed anything: what is just being started has no process yet.
func killing(line string) string { return "if " + line + "; then echo killed; fi" }

// freeLoadBalancers does what only the cloud's operator can: when the OVN provider cannot tell Octavia what became of a change (it was killed, or its
// driver agent's socket takes no more connections), the load balancer stays PENDING, and takes neither a change nor its deletion. It returns how many
// there were for that long.
func freeLoadBalancers(t *testing.T, stack string, after time.Duration) int {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), kuryrctl(t), "cloud", "exec", "--", "mariadb", "octavia", "-sNe", fmt.Sprintf("update load_balancer set provisioning_status='ERROR' "+
		"where name like '%s/%%' and provisioning_status like 'PENDING%%' and coalesce(updated_at, created_at) < utc_timestamp() - interval %d second; select row_count()",
		stack, int(after.Seconds()))).Output()
	if err != nil {
		t.Errorf("freeing load balancers: %v", err)
		return 0
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Errorf("freeing load balancers: %v", err)
	}
	return n
}

// ask sends one request from outside of the cloud's networks.
func ask(ctx context.Context, address string) error {
	lab, err := cloud.Default()
	if err != nil {
		return err
	}
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialContext: lab.DialContext, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(body), "I AM ALIVE") {
		return fmt.Errorf("%s: %q, %v", resp.Status, body, err)
	}
	return nil
}

// watch asks what nobody touches each second.
func (s *siege) watch(ctx context.Context, address string) {
	for heard := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
		err := ask(ctx, address)
		if ctx.Err() != nil {
			return
		}
		s.mu.Lock()
		s.asked++
		if err != nil {
			s.unheard++
			s.silence = max(s.silence, time.Since(heard))
			s.t.Logf("what nobody touched did not answer: %v", err)
		} else {
			heard = time.Now()
		}
		s.mu.Unlock()
	}
}

// things are what the cloud has for the stack but for the ports of pods, which the pools account for: all that has a name, the ports of virtual
// addresses, and the rules that let clients in.
func (s *siege) things() (all []string) {
	for _, name := range openstackNames(s.t, s.stack) {
		if !strings.HasPrefix(name, "port list") {
			all = append(all, name)
		}
	}
	for _, list := range []string{"port list --network " + s.stack + "/service_net", "security group rule list " + s.stack + "/pod_access"} {
		out, _ := run(s.t, 0, append([]string{"cloud", "exec", "--", "openstack"}, append(strings.Fields(list), "-f", "value", "-c", "ID")...)...)
		for _, id := range strings.Fields(out) {
			all = append(all, list+": "+id)
		}
	}
	return all
}

// report is a table of what was done and how long it took.
func (s *siege) report() string {
	var b strings.Builder
	for _, victim := range slices.Sorted(maps.Keys(s.killed)) {
		fmt.Fprintf(&b, "killed %-18s %3d times\n", victim, s.killed[victim])
	}
	fmt.Fprintf(&b, "freed load balancers that were PENDING for a minute: %d\n", s.freed)
	fmt.Fprintf(&b, "what nobody touched answered %d of %d times; it was silent for %v at most\n", s.asked-s.unheard, s.asked, s.silence.Round(time.Second))
	for _, what := range slices.Sorted(maps.Keys(s.took)) {
		d := slices.Sorted(slices.Values(s.took[what]))
		at := func(share float64) time.Duration {
			return d[int(share*float64(len(d)-1))].Round(100 * time.Millisecond)
		}
		fmt.Fprintf(&b, "%-26s %4d times, median %6v, 95%% %6v, longest %6v\n", what, len(d), at(0.5), at(0.95), at(1))
	}
	return b.String()
}

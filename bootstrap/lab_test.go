package bootstrap_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kuryrctl/kuryrctl/bootstrap"
	"github.com/kuryrctl/kuryrctl/bootstrap/bundle"
	"github.com/kuryrctl/kuryrctl/bootstrap/ssh"
	"github.com/kuryrctl/kuryrctl/internal/clustertest"
	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/internal/sshtest"
)

const release = "v1.37.1"

// lab is hosts, and the API server that they get when kubeadm is through. What is declared may be changed between runs.
type lab struct {
	t     *testing.T
	hosts *sshtest.Net
	api   *clustertest.Server
	dir   string // of this machine

	masters, workers int
	version          string
	bundle           string
	limits           bootstrap.Limits
	limit            int // how much is done at once
	keepalive        time.Duration
	keys             map[string]string // host keys that are pinned
	addons           *addons           // nil has no row of them
	lean             bool              // the bundle has no images of add-ons
}

// addons are what comes with a cluster, as declared.
type addons struct {
	registry bootstrap.RegistryOptions
	router   bootstrap.RouterOptions
}

// newLab starts hosts that nothing was done on yet.
func newLab(t *testing.T, system sshtest.OS, masters, workers int) *lab {
	t.Helper()
	l := &lab{t: t, api: clustertest.New(t), dir: t.TempDir(), limit: 8, masters: masters, workers: workers, version: release, keys: map[string]string{}}
	var names []string
	for i := range masters {
		names = append(names, fmt.Sprintf("master-%d", i))
	}
	for i := range workers {
		names = append(names, fmt.Sprintf("worker-%d", i))
	}
	l.hosts = sshtest.New(t, names...)
	l.bundle = l.pack(release, "amd64")
	data := regexp.MustCompile(`certificate-authority-data: (\S+)`).FindSubmatch(l.api.Kubeconfig())
	ca, err := base64.StdEncoding.DecodeString(string(data[1]))
	l.must(err)
	block, _ := pem.Decode(ca)
	cert, err := x509.ParseCertificate(block.Bytes)
	l.must(err)
	for _, name := range names {
		h := l.hosts.Host(name)
		h.Shell(system)
		for _, p := range []struct{ name, command string }{{"iproute2", "tc"}, {"iproute-tc", "tc"}, {"iptables-nft", "iptables"}} {
			h.OnInstall(p.name, "printf '#!/bin/sh\n' >/usr/sbin/"+p.command+" && chmod 755 /usr/sbin/"+p.command)
		}
		l.keys[name] = h.HostKey()
		l.write(name, "srv/cluster/admin.conf", string(l.api.Kubeconfig()))
		l.write(name, "srv/cluster/ca.crt", string(ca))
		l.write(name, "srv/cluster/ca.key", string(l.api.AuthorityKey()))
		l.write(name, "srv/cluster/hash", fmt.Sprintf("sha256:%x\n", sha256.Sum256(cert.RawSubjectPublicKeyInfo)))
		started, err := os.ReadFile("testdata/kubelet.start")
		l.must(err)
		h.OnStart("kubelet.service", string(started))
		etcd := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/readyz" || !l.has(name, "etc/kubernetes/manifests/etcd.yaml") || l.read(name, "var/lib/sshtest/active/kubelet.service") != "active\n" {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		}))
		t.Cleanup(etcd.Close)
		h.Forward("127.0.0.1:2381", strings.TrimPrefix(etcd.URL, "http://"))
	}
	l.api.Intercept(func(http.ResponseWriter, *http.Request) bool {
		l.register()
		return false
	})
	return l
}

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// register makes nodes of the kubelets that have asked for it.
func (l *lab) register() {
	for name := range l.keys {
		file := filepath.Join(l.hosts.Host(name).Dir, "srv/cluster/register")
		as, err := os.ReadFile(file)
		if err != nil || os.Remove(file) != nil {
			continue
		}
		node := corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: strings.TrimSpace(string(as))}}
		node.Status.NodeInfo.KubeletVersion = release
		if _, known := l.api.Node(node.Name); !known {
			l.api.AddNode(node)
		}
	}
}

// packed are the bundles that were made, since the same one is always the same.
var packed sync.Map

// pack makes a bundle whose programs are scripts.
func (l *lab) pack(version, arch string) string {
	l.t.Helper()
	path := filepath.Join(l.dir, fmt.Sprintf("bundle-%s-%s-%v.tar", version, arch, l.lean))
	if made, ok := packed.Load(filepath.Base(path)); ok {
		l.must(os.WriteFile(path, made.([]byte), 0o600))
		return path
	}
	dir := l.t.TempDir()
	b, err := bundle.NewBuilder(filepath.Join(dir, "scratch"), version, arch)
	l.must(err)
	program := func(name string) bundle.File {
		from := "testdata/" + name
		if _, err := os.Stat(from); err != nil {
			from = filepath.Join(dir, name)
			l.must(os.WriteFile(from, []byte("#!/bin/sh\necho "+name+" "+version+"\n"), 0o600))
		}
		return bundle.File{Path: "usr/local/bin/" + name, From: from}
	}
	ctx := l.t.Context()
	l.must(b.AddArchive(ctx, "runtime", []bundle.File{program("containerd"), program("ctr"), program("runc")}))
	l.must(b.AddArchive(ctx, "kubernetes", []bundle.File{program("kubeadm"), program("kubelet"), program("kubectl")}))
	image := func(name, tag string, part bundle.Part) {
		l.must(b.AddPrograms(ctx, []bundle.File{program(name)}, bundle.Program{Ref: "registry.k8s.io/" + name + ":" + tag, Part: part}))
	}
	image("pause", "3.10.2", bundle.EveryNode)
	for _, name := range []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler"} {
		image(name, version, bundle.ControlPlane)
	}
	image("etcd", "3.7.0-0", bundle.ControlPlane)
	if !l.lean {
		for ref, part := range map[string]bundle.Part{bundle.RegistryImage: bundle.Registry, bundle.RouterImage: bundle.Router} {
			l.must(b.AddPrograms(ctx, []bundle.File{program(string(part))}, bundle.Program{Ref: ref, Part: part}))
		}
	}
	l.must(b.Write(ctx, path))
	made, err := os.ReadFile(path)
	l.must(err)
	packed.Store(filepath.Base(path), made)
	return path
}

func (l *lab) path(host, name string) string { return filepath.Join(l.hosts.Host(host).Dir, name) }

func (l *lab) write(host, name, text string) {
	l.t.Helper()
	l.must(os.MkdirAll(filepath.Dir(l.path(host, name)), 0o755))
	l.must(os.WriteFile(l.path(host, name), []byte(text), 0o600))
}

func (l *lab) read(host, name string) string {
	text, err := os.ReadFile(l.path(host, name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.t.Error(err)
	}
	return string(text)
}

func (l *lab) has(host, name string) bool {
	_, err := os.Stat(l.path(host, name))
	return err == nil
}

func (l *lab) log(host string) string { return filepath.Join(l.dir, host+".log") }

// hostResource is a host that is reached, or not.
type hostResource struct{ node *bootstrap.Node }

func (h hostResource) Key() graph.Key          { return graph.Key("host." + h.node.Name) }
func (h hostResource) Needs() []graph.Resource { return nil }
func (h hostResource) Apply(ctx context.Context) error {
	_, err := h.node.Connect(ctx)
	return err
}
func (h hostResource) Observe(ctx context.Context) (graph.State, error) {
	if _, err := h.node.Connect(ctx); err != nil {
		return graph.State{Phase: graph.Drifted}, nil
	}
	return graph.State{Phase: graph.Ready}, nil
}

// result is what came of a run.
type result struct {
	err    error
	events map[graph.Key]graph.EventKind // the last of each resource
	found  map[graph.Key]string          // what was not as it should be
	errs   map[graph.Key]error
}

// run is one run of the program, with connections of its own.
func (l *lab) run(ctx context.Context) result {
	l.t.Helper()
	var g graph.Graph
	b, err := bundle.Open(l.bundle)
	l.must(err)
	defer b.Close()
	endpoint := netip.MustParseAddrPort(strings.TrimPrefix(l.api.URL, "https://"))
	c := &bootstrap.Cluster{
		Name: "demo", Version: l.version, Bundle: func() (*bundle.Bundle, error) { return b, nil }, Endpoint: endpoint, Public: endpoint.Addr,
		ServiceCIDR: netip.MustParsePrefix("172.30.0.0/17"), DNSDomain: "cluster.local", Kubeconfig: filepath.Join(l.dir, "kubeconfig"), Limits: l.limits,
	}
	defer c.Close()
	nodes := map[string]*bootstrap.Node{}
	prepared := map[string][]graph.Resource{}
	add := func(name string, master bool) *bootstrap.Node {
		n := &bootstrap.Node{Name: name, Address: l.hosts.Host(name).Inside.Addr, Connect: l.connections(name), Log: l.log(name)}
		host := hostResource{n}
		g.Add(host)
		var parts []bundle.Part
		if master {
			parts = append(parts, bundle.ControlPlane)
		} else if l.addons != nil && l.addons.registry.Enabled && !l.lean {
			parts = append(parts, bundle.Registry)
		}
		nodes[name], prepared[name] = n, c.Prepare(n, parts, host, host)
		g.Add(prepared[name]...)
		return n
	}
	for i := range l.masters {
		add(fmt.Sprintf("master-%d", i), true)
	}
	for i := range l.workers {
		add(fmt.Sprintf("worker-%d", i), false)
	}
	c.Entrance = nodes["master-0"]
	first := nodes["master-0"]
	var etcd []*bootstrap.Node
	if l.masters == 2 {
		first = nodes["master-1"]
	}
	needs := prepared[first.Name]
	if l.masters == 2 {
		made := c.Etcd(nodes["master-0"], prepared["master-0"]...)
		g.Add(made)
		etcd, needs = []*bootstrap.Node{nodes["master-0"]}, append(needs, made)
	}
	init := c.Init(first, etcd, needs...)
	admin := c.Admin(first, init)
	g.Add(init, admin)
	if l.masters == 2 {
		g.Add(c.JoinEtcd(etcd[0], first, append(prepared["master-0"], admin)...))
	}
	before := admin
	for i := 1; i < l.masters && l.masters > 2; i++ {
		name := fmt.Sprintf("master-%d", i)
		before = c.JoinControlPlane(nodes[name], first, append(prepared[name], before)...)
		g.Add(before)
	}
	joined := []graph.Resource{admin}
	for i := range l.workers {
		name := fmt.Sprintf("worker-%d", i)
		join := c.Join(nodes[name], first, append(prepared[name], admin)...)
		g.Add(join)
		joined = append(joined, join)
	}
	if a := l.addons; a != nil {
		o := a.registry
		o.Storage = nodes["worker-0"]
		registry := c.Registry(first, o, joined...)
		g.Add(registry, c.Router(first, a.router, joined...))
		for name, n := range nodes {
			if o.Enabled {
				g.Add(c.RegistryClient(n, o.Insecure, registry, prepared[name]...))
			}
		}
	}

	r := result{events: map[graph.Key]graph.EventKind{}, found: map[graph.Key]string{}, errs: map[graph.Key]error{}}
	r.err = g.Apply(ctx, l.limit, func(e graph.Event) {
		r.events[e.Key] = e.Kind
		switch e.Kind {
		case graph.Started:
			r.found[e.Key] = e.State.Detail
		case graph.Error:
			r.errs[e.Key] = e.Err
		}
	})
	return r
}

// connections is a way to a host by one connection at a time, which ends with the test at the latest.
func (l *lab) connections(name string) func(context.Context) (*ssh.Client, error) {
	var mu sync.Mutex
	var client *ssh.Client
	transcript, err := os.OpenFile(l.log(name), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	l.must(err)
	l.t.Cleanup(func() {
		if client != nil {
			client.Close()
		}
		transcript.Close()
	})
	h := l.hosts.Host(name)
	return func(ctx context.Context) (*ssh.Client, error) {
		mu.Lock()
		defer mu.Unlock()
		if client != nil && !client.Lost() {
			return client, nil
		}
		made, err := ssh.Dial(ctx, ssh.Config{Node: name, Address: h.Addr, User: sshtest.User, Signer: l.hosts.UserKey, HostKeys: []string{l.keys[name]},
			Transcript: transcript, Keepalive: l.keepalive})
		if err == nil {
			client = made
		}
		return made, err
	}
}

// up wants a run to succeed.
func (l *lab) up() result {
	l.t.Helper()
	r := l.run(l.t.Context())
	if r.err != nil {
		l.t.Fatal(r.err)
	}
	return r
}

// fails wants a run to fail at one resource with an error that says where, of which step, and these words.
func (l *lab) fails(key graph.Key, words ...string) *bootstrap.StepError {
	l.t.Helper()
	r := l.run(l.t.Context())
	err := r.errs[key]
	if err == nil {
		l.t.Fatalf("%s ended as %s: %v", key, r.events[key], r.err)
	}
	var step *bootstrap.StepError
	if !errors.As(err, &step) {
		l.t.Fatalf("not of a step: %v", err)
	}
	_, node, _ := strings.Cut(string(key), ".")
	if step.Node != node || step.Step != string(key) || step.Log != l.log(node) || !strings.HasPrefix(err.Error(), "on "+node+": ") {
		l.t.Errorf("%s says node %q, step %q, log %q: %v", key, step.Node, step.Step, step.Log, err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			l.t.Errorf("%q is not in: %v", w, err)
		}
	}
	return step
}

// ended is what kubeadm did on a host, in order.
func (l *lab) ended(host string) string {
	return strings.Join(strings.Split(strings.TrimSuffix(l.read(host, "srv/kubeadm.log"), "\n"), "\n"), ", ")
}

// files are a host's files that nodes are made of: mode and digest by path.
func (l *lab) files(host string) map[string]string {
	all := map[string]string{}
	root := l.hosts.Host(host).Dir
	for _, dir := range []string{"etc", "usr/local", "var/lib", "var/log", "opt", "root", "home"} {
		l.must(filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			name, _ := filepath.Rel(root, path)
			if name == "var/lib/sshtest" {
				return fs.SkipDir
			}
			info, err := d.Info()
			if err != nil || !info.Mode().IsRegular() {
				all[name] = info.Mode().String()
				return err
			}
			text, err := os.ReadFile(path)
			all[name] = fmt.Sprintf("%v %x", info.Mode(), sha256.Sum256(bytes.TrimSpace(text)))
			return err
		}))
	}
	return all
}

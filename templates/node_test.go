package templates_test

import (
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/kuryrctl/kuryrctl/templates"
)

func TestContainerdConfig(t *testing.T) {
	got, err := templates.ContainerdConfig("registry.k8s.io/pause:3.10.2")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "containerd.toml", got)
}

func TestKubeadmInit(t *testing.T) {
	d := templates.KubeadmInitData{
		Node:        templates.Registration{Name: "master-0", Address: netip.MustParseAddr("10.11.0.5")},
		Cluster:     "demo",
		Version:     "v1.37.1",
		Endpoint:    netip.MustParseAddrPort("172.30.0.1:443"),
		APIPort:     6443,
		SANs:        []string{"172.24.4.9"},
		ServiceCIDR: netip.MustParsePrefix("172.30.0.0/17"),
		ClusterDNS:  netip.MustParseAddr("172.30.0.10"),
		DNSDomain:   "cluster.local",
		EtcdTag:     "3.6.5-0",
		Token:       "abcdef.0123456789abcdef",
	}
	for name, change := range map[string]func(){
		"kubeadm-init.yaml": func() {},
		"kubeadm-init-external-etcd.yaml": func() {
			d.EtcdEndpoints = []string{"https://10.11.0.6:2379"}
			d.Node.Ignore = []string{"NumCPU", "SystemVerification"}
		},
	} {
		change()
		got, err := templates.KubeadmInit(d)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name, got)
		documents(t, got, "InitConfiguration", "ClusterConfiguration", "KubeletConfiguration")
		d.EtcdEndpoints, d.Node.Ignore = nil, nil
	}
}

func TestKubeadmJoin(t *testing.T) {
	d := templates.KubeadmJoinData{
		Node:     templates.Registration{Name: "worker-0", Address: netip.MustParseAddr("10.11.0.7")},
		Endpoint: netip.MustParseAddrPort("172.30.0.1:443"),
		Token:    "abcdef.0123456789abcdef",
		CAHash:   "sha256:0011",
		APIPort:  6443,
	}
	for name, change := range map[string]func(*templates.KubeadmJoinData){
		"kubeadm-join.yaml":               func(*templates.KubeadmJoinData) {},
		"kubeadm-join-control-plane.yaml": func(d *templates.KubeadmJoinData) { d.ControlPlane = true },
		"kubeadm-join-etcd.yaml":          func(d *templates.KubeadmJoinData) { d.Node.Taints = []string{"node-role.kubernetes.io/etcd"} },
	} {
		d := d
		change(&d)
		got, err := templates.KubeadmJoin(d)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name, got)
		documents(t, got, "JoinConfiguration")
	}
}

// documents checks that a text is YAML documents of these kinds, in this order.
func documents(t *testing.T, text []byte, kinds ...string) {
	t.Helper()
	var got []string
	for _, part := range strings.Split(string(text), "\n---\n") {
		var d struct{ Kind string }
		if err := yaml.Unmarshal([]byte(part), &d); err != nil {
			t.Errorf("%v in\n%s", err, part)
		}
		got = append(got, d.Kind)
	}
	if strings.Join(got, " ") != strings.Join(kinds, " ") {
		t.Errorf("documents of kinds %v, want %v", got, kinds)
	}
}

func TestScriptsAreShell(t *testing.T) {
	scripts, err := filepath.Glob("files/node/*.sh")
	if err != nil || len(scripts) == 0 {
		t.Fatal(scripts, err)
	}
	for _, path := range scripts {
		name := strings.TrimSuffix(filepath.Base(path), ".sh")
		cmd := exec.Command("sh", "-n")
		cmd.Stdin = strings.NewReader(templates.Script(name, map[string]string{"job": "x"}))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

func TestScriptTakesValuesAsTheyAre(t *testing.T) {
	value := "it's $HOME `id` \\ \n end"
	script := templates.Script("store", map[string]string{"store": value})
	title, _, _ := strings.Cut(script, "\n")
	if title != "# make room for uploads" {
		t.Errorf("the first line is %q", title)
	}
	head, _, _ := strings.Cut(script, "set -eu")
	cmd := exec.Command("sh", "-c", head+`printf %s "$store"`)
	out, err := cmd.Output()
	if err != nil || string(out) != value {
		t.Errorf("the shell has %q, %v", out, err)
	}
}

func TestNodeFilesAreYAMLWhereTheySaySo(t *testing.T) {
	err := fs.WalkDir(os.DirFS("files/node"), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".yaml") {
			return err
		}
		var v map[string]any
		if err := yaml.Unmarshal(templates.NodeFile(path), &v); err != nil || len(v) == 0 {
			t.Errorf("%s: %v", path, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

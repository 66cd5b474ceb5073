package cni

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"

	"github.com/kuryrctl/kuryrctl/nodeagent/link"
	"github.com/kuryrctl/kuryrctl/nodeagent/socket"
)

func code(t *testing.T, err error) uint {
	t.Helper()
	var e *types.Error
	if !errors.As(err, &e) {
		t.Fatalf("%v is no error of CNI", err)
	}
	return e.Code
}

func TestTheConfigurationHasDefaultsAndIsChecked(t *testing.T) {
	c, err := parseConf([]byte(`{"cniVersion":"1.1.0","name":"kuryr","type":"kuryr-cni"}`))
	if err != nil || c.Socket != socket.DefaultPath || c.State != socket.DefaultState {
		t.Errorf("got %+v, %v", c, err)
	}
	c, err = parseConf([]byte(`{"socket":"/a","state":"/b","cni.dev/valid-attachments":[{"containerID":"c","ifname":"eth0"}]}`))
	if err != nil || c.Socket != "/a" || c.State != "/b" || len(c.ValidAttachments) != 1 {
		t.Errorf("got %+v, %v", c, err)
	}
	for text, want := range map[string]uint{
		`{`:              types.ErrDecodingFailure,
		`{"socket":7}`:   types.ErrDecodingFailure,
		`{"socket":"a"}`: types.ErrInvalidNetworkConfig,
		`{"state":"./"}`: types.ErrInvalidNetworkConfig,
	} {
		if _, err := parseConf([]byte(text)); code(t, err) != want {
			t.Errorf("%s: got %v", text, err)
		}
	}
}

func TestArgsNameThePod(t *testing.T) {
	p, err := parseArgs("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=demo;K8S_POD_INFRA_CONTAINER_ID=abc;K8S_POD_UID=u=1")
	if want := (pod{"default", "demo", "u=1"}); err != nil || p != want {
		t.Errorf("got %+v, %v", p, err)
	}
	for _, args := range []string{"", "K8S_POD_NAME=a", "K8S_POD_NAMESPACE=a", "K8S_POD_NAMESPACE=a;K8S_POD_NAME=b;c"} {
		if _, err := parseArgs(args); code(t, err) != types.ErrInvalidEnvironmentVariables {
			t.Errorf("%q: got %v", args, err)
		}
	}
}

func TestTheResultSaysAllInEveryVersion(t *testing.T) {
	i := link.Interface{MAC: "fa:16:3e:00:00:05", MTU: 1400, Addresses: []link.Address{
		{Prefix: netip.MustParsePrefix("10.10.0.5/16"), Gateway: netip.MustParseAddr("10.10.0.1")},
		{Prefix: netip.MustParsePrefix("fd00::5/64"), Gateway: netip.MustParseAddr("fd00::1")},
		{Prefix: netip.MustParsePrefix("192.0.2.5/32")},
	}}
	for _, v := range Versions().SupportedVersions() {
		r, err := result(i, link.Place{Netns: "/run/netns/a", Name: "eth0"}).GetAsVersion(v)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := r.PrintTo(&b); err != nil {
			t.Fatal(err)
		}
		var got struct {
			CNIVersion string
			Interfaces []map[string]any
			IPs        []struct {
				Address, Gateway string
				Interface        int
			}
			Routes []map[string]any
		}
		if err := json.Unmarshal(b.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		want := got
		want.CNIVersion = v
		want.Interfaces = []map[string]any{{"name": "eth0", "mac": "fa:16:3e:00:00:05", "sandbox": "/run/netns/a"}}
		if v >= "1.0.0" { // the library does not take it away
			want.Interfaces[0]["mtu"] = 1400.
		}
		want.IPs = []struct {
			Address, Gateway string
			Interface        int
		}{{"10.10.0.5/16", "10.10.0.1", 0}, {"fd00::5/64", "fd00::1", 0}, {"192.0.2.5/32", "", 0}}
		want.Routes = []map[string]any{{"dst": "0.0.0.0/0", "gw": "10.10.0.1"}, {"dst": "::/0", "gw": "fd00::1"}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s:\n%s", v, diff)
		}
	}
}

func stdin(t *testing.T, dir string) []byte {
	t.Helper()
	text, err := json.Marshal(map[string]string{"cniVersion": "1.1.0", "name": "kuryr", "socket": filepath.Join(dir, "cni.sock"), "state": dir})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// A node without a trunk has no daemon: it says why it takes no pods, and is in no pod's way.
func TestANodeThatRefusesPods(t *testing.T) {
	f, out := Funcs(new(bytes.Buffer)), []byte(`{"cniVersion":"1.1.0","name":"kuryr","refuse":"this node has no trunk"}`)
	a := &skel.CmdArgs{ContainerID: "c1", IfName: "eth0", StdinData: out, Args: "K8S_POD_NAMESPACE=a;K8S_POD_NAME=b"}
	if err := f.Add(a); code(t, err) != types.ErrPluginNotAvailable || !strings.Contains(err.Error(), "this node has no trunk") {
		t.Errorf("ADD: got %v", err)
	}
	for name, do := range map[string]func(*skel.CmdArgs) error{"DEL": f.Del, "GC": f.GC, "STATUS": f.Status} {
		if err := do(a); err != nil {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestWithoutADaemonOnlyDeletingWorks(t *testing.T) {
	f := Funcs(new(bytes.Buffer))
	dir := t.TempDir()
	a := &skel.CmdArgs{ContainerID: "c1", IfName: "eth0", StdinData: stdin(t, dir), Args: "K8S_POD_NAMESPACE=a;K8S_POD_NAME=b"}
	if err := f.Add(a); code(t, err) != types.ErrTryAgainLater || !strings.Contains(err.Error(), "cni.sock") {
		t.Errorf("ADD: got %v", err)
	}
	if err := f.Check(a); code(t, err) != types.ErrTryAgainLater {
		t.Errorf("CHECK: got %v", err)
	}
	if err := f.GC(a); code(t, err) != types.ErrInvalidNetworkConfig {
		t.Errorf("GC that names nothing: got %v", err)
	}
	collect := *a
	collect.StdinData = bytes.Replace(a.StdinData, []byte("{"), []byte(`{"cni.dev/valid-attachments":null,`), 1)
	if err := f.GC(&collect); code(t, err) != types.ErrTryAgainLater {
		t.Errorf("GC: got %v", err)
	}
	if err := f.Status(a); code(t, err) != types.ErrPluginNotAvailable {
		t.Errorf("STATUS: got %v", err)
	}
	for range 2 {
		if err := f.Del(a); err != nil {
			t.Errorf("DEL: got %v", err)
		}
	}
	words, err := socket.Buried(dir)
	if diff := cmp.Diff([]socket.Attachment{{Container: "c1", IfName: "eth0"}}, words); diff != "" || err != nil {
		t.Errorf("left word: %v\n%s", err, diff)
	}
	// Where not even word can be left, the runtime must come again.
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.Del(a); code(t, err) != types.ErrIOFailure {
		t.Errorf("DEL: got %v", err)
	}
}

func FuzzConf(f *testing.F) {
	f.Add([]byte(`{"cniVersion":"1.1.0","name":"kuryr","type":"kuryr-cni","socket":"/a","state":"/b"}`))
	f.Add([]byte(`{"cni.dev/valid-attachments":[{"containerID":"c","ifname":"eth0"}],"prevResult":{}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := parseConf(text)
		if err == nil && (!filepath.IsAbs(c.Socket) || !filepath.IsAbs(c.State)) {
			t.Errorf("%q: %+v", text, c)
		}
		if err != nil {
			code(t, err)
		}
	})
}

func FuzzArgs(f *testing.F) {
	f.Add("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=demo")
	f.Fuzz(func(t *testing.T, args string) {
		p, err := parseArgs(args)
		if err == nil && (p.namespace == "" || p.name == "" || strings.Contains(p.namespace+p.name+p.uid, ";")) {
			t.Errorf("%q: %+v", args, p)
		}
		if err != nil {
			code(t, err)
		}
	})
}

package kuryrctl_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/kuryrctl/kuryrctl"

// rooms says where each third-party library may be used: one place each, so that replacing one is the change of one room.
var rooms = map[string][]string{
	"github.com/spf13/cobra":                 {"cmd/kuryrctl"},
	"github.com/spf13/viper":                 {"cmd/kuryrctl"},
	"charm.land/lipgloss/v2":                 {"cmd/kuryrctl"},
	"golang.org/x/crypto/ssh":                {"bootstrap/ssh", "internal/sshtest", "internal/labtest"},
	"golang.org/x/crypto/bcrypt":             {"bootstrap", "bootstrap/cloud"},
	"github.com/pkg/sftp":                    {"bootstrap/ssh", "internal/sshtest"},
	"github.com/gophercloud/gophercloud/v2":  {"internal/openstack", "provision", "stack", "bootstrap/cloud", "bootstrap/dns", "nodeagent/subport", "nodeagent/lbaas", "internal/labtest"}, // stack: the type of an image; cloud: its first users and networks
	"github.com/hashicorp/go-multierror":     {"stack"},
	"k8s.io/client-go":                       {"bootstrap/cluster", "nodeagent/controller", "nodeagent/lbaas", "nodeagent/daemon", "cmd/kuryr-node"},
	"k8s.io/api":                             {"bootstrap/cluster", "internal/clustertest", "nodeagent/controller", "nodeagent/lbaas"},
	"k8s.io/apimachinery":                    {"bootstrap/cluster", "internal/clustertest", "nodeagent/controller", "nodeagent/lbaas", "nodeagent/daemon", "nodeagent/vif"},
	"k8s.io/klog":                            {"bootstrap/cluster"},
	"github.com/vishvananda/netlink":         {"nodeagent/link"},
	"github.com/vishvananda/netns":           {"nodeagent/link"},
	"github.com/containernetworking/cni":     {"nodeagent/cni", "cmd/kuryr-cni"},
	"github.com/miekg/dns":                   {"bootstrap/dns", "internal/dnstest"},
	"github.com/google/go-containerregistry": {"bootstrap/bundle", "internal/upstreamtest", "internal/makebundle", "internal/conformance", "internal/e2e"},
}

// floors says which of our packages each may import; what is not listed may be imported by anybody.
var floors = map[string][]string{
	"stack":                {"cmd/kuryrctl", "internal/picture"}, // picture: what it draws
	"internal/picture":     {"cmd/kuryrctl"},
	"provision":            {"stack", "cmd/kuryrctl"},
	"bootstrap":            {"stack", "cmd/kuryrctl"}, // kuryrctl: what a step's error says
	"bootstrap/payload":    {"bootstrap", "stack", "cmd/kuryrctl"},
	"bootstrap/ssh":        {"bootstrap", "bootstrap/dns", "stack", "cmd/kuryrctl"},
	"bootstrap/dns":        {"stack", "cmd/kuryrctl"},
	"bootstrap/cloud":      {"cmd/kuryrctl"},
	"bootstrap/cluster":    {"bootstrap", "stack", "cmd/kuryrctl"},
	"templates":            {"bootstrap", "stack"},
	"templates/lab":        {"bootstrap/cloud"},
	"nodeagent/vif":        {"bootstrap", "bootstrap/cluster", "stack", "nodeagent/subport", "nodeagent/controller", "nodeagent/daemon", "nodeagent/passage", "cmd/kuryr-node"},
	"nodeagent/link":       {"nodeagent/cni", "nodeagent/daemon", "nodeagent/socket", "nodeagent/passage"},
	"nodeagent/socket":     {"nodeagent/cni", "nodeagent/daemon", "cmd/kuryr-node"},
	"nodeagent/cni":        {"cmd/kuryr-cni"},
	"nodeagent/daemon":     {"cmd/kuryr-node"},
	"nodeagent/passage":    {"cmd/kuryr-node"},
	"bootstrap/bundle":     {"bootstrap", "bootstrap/payload", "stack", "cmd/kuryrctl", "internal/makebundle", "internal/conformance"},
	"nodeagent/subport":    {"nodeagent/controller"},
	"nodeagent/controller": {"cmd/kuryr-node"},
	"nodeagent/lbaas":      {"cmd/kuryr-node"},
}

type goPackage struct {
	ImportPath string
	Name       string
	Doc        string
	Imports    []string
}

func packages(t *testing.T) (all []goPackage) {
	t.Helper()
	out, err := exec.Command("go", "list", "-json", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func TestImportsKeepToTheirFloorsAndRooms(t *testing.T) {
	for _, p := range packages(t) {
		from := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		for _, imported := range p.Imports {
			if ours, ok := strings.CutPrefix(imported, module+"/"); ok {
				if allowed, kept := floors[ours]; kept && !slices.Contains(allowed, from) {
					t.Errorf("%s imports %s; only %v may", from, ours, allowed)
				}
				if strings.HasSuffix(ours, "test") && !strings.HasSuffix(from, "test") {
					t.Errorf("%s imports %s outside its tests", from, ours)
				}
				continue
			}
			for library, allowed := range rooms {
				if (imported == library || strings.HasPrefix(imported, library+"/")) && !slices.Contains(allowed, from) {
					t.Errorf("%s imports %s; only %v may", from, imported, allowed)
				}
			}
		}
	}
}

func TestEveryPackageSaysWhatItIsAndHasANameThatSaysSomething(t *testing.T) {
	for _, p := range packages(t) {
		if p.Doc == "" && p.ImportPath != module {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
		if slices.Contains([]string{"util", "utils", "common", "helper", "helpers", "misc", "shared"}, path.Base(p.ImportPath)) {
			t.Errorf("%s is named for nothing", p.ImportPath)
		}
	}
}

package templates_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/kuryrctl/kuryrctl/templates"
)

var update = flag.Bool("update", false, "write what is rendered to testdata")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (go test -update ./templates accepts it):\n%s", path, diff)
	}
}

const (
	private = "-----BEGIN OPENSSH PRIVATE KEY-----\nbm90IGEga2V5\n-----END OPENSSH PRIVATE KEY-----\n"
	public  = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG5vdCBhIGtleSBub3QgYSBrZXkgbm90IGEga2V5ISEh"
)

func worker() templates.CloudInitData {
	return templates.CloudInitData{Hostname: "worker-0", FQDN: "worker-0.demo.example.org", HostKeyPrivate: private, HostKeyPublic: public}
}

// cloudConfig is all that a server may be told; anything else fails to decode.
type cloudConfig struct {
	Hostname       string            `yaml:"hostname"`
	FQDN           string            `yaml:"fqdn"`
	PreferFQDN     *bool             `yaml:"prefer_fqdn_over_hostname"`
	ManageEtcHosts string            `yaml:"manage_etc_hosts"`
	DeleteKeys     bool              `yaml:"ssh_deletekeys"`
	GenKeyTypes    []string          `yaml:"ssh_genkeytypes"`
	Keys           map[string]string `yaml:"ssh_keys"`
}

func decode(data []byte) (c cloudConfig, err error) {
	err = yaml.NewDecoder(bytes.NewReader(data), yaml.Strict()).Decode(&c)
	return c, err
}

func TestCloudInit(t *testing.T) {
	got, err := templates.CloudInit(worker())
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "cloudinit.yaml", got)
	config, err := decode(got)
	if err != nil {
		t.Fatal(err)
	}
	no := false
	want := cloudConfig{Hostname: "worker-0", FQDN: "worker-0.demo.example.org", PreferFQDN: &no, ManageEtcHosts: "localhost", DeleteKeys: true,
		GenKeyTypes: []string{"ed25519"}, Keys: map[string]string{"ed25519_private": private, "ed25519_public": public}}
	if diff := cmp.Diff(want, config); diff != "" {
		t.Error(diff)
	}
	if !bytes.HasPrefix(got, []byte("#cloud-config\n")) {
		t.Error("cloud-init would not know it for cloud-config")
	}
}

func TestCloudInitWithoutADomain(t *testing.T) {
	d := worker()
	d.FQDN = ""
	got, err := templates.CloudInit(d)
	if err != nil {
		t.Fatal(err)
	}
	if config, err := decode(got); err != nil || config.FQDN != "" || config.Hostname != "worker-0" || bytes.Contains(got, []byte("fqdn:")) {
		t.Errorf("got %s, %v", got, err)
	}
}

// Whatever is accepted comes out of YAML as it went in and is small.
func TestCloudInitKeepsValuesAsTheyAre(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := worker()
		d.Hostname = rapid.OneOf(rapid.StringMatching(`[a-z0-9-]{1,63}`), rapid.String()).Draw(t, "hostname")
		d.FQDN = d.Hostname + "." + rapid.StringMatching(`([a-z0-9]{1,30}\.){0,5}[a-z0-9]{1,30}`).Draw(t, "domain")
		d.HostKeyPrivate += rapid.StringMatching(`[ -~\n\t]{0,400}`).Draw(t, "private")
		d.HostKeyPublic += rapid.StringMatching(`[ -~]{0,40}`).Draw(t, "public")
		got, err := templates.CloudInit(d)
		if err != nil {
			return
		}
		config, err := decode(got)
		if err != nil {
			t.Fatalf("%v in\n%s", err, got)
		}
		if config.Hostname != d.Hostname || config.FQDN != d.FQDN || config.Keys["ed25519_private"] != d.HostKeyPrivate || config.Keys["ed25519_public"] != d.HostKeyPublic {
			t.Fatalf("%+v became %+v", d, config)
		}
		if len(got) > 4<<10 {
			t.Fatalf("%d bytes", len(got))
		}
	})
}

func TestCloudInitRefuses(t *testing.T) {
	for name, edit := range map[string]func(*templates.CloudInitData){
		"no hostname":             func(d *templates.CloudInitData) { d.Hostname, d.FQDN = "", "" },
		"a hostname with a dot":   func(d *templates.CloudInitData) { d.Hostname = "worker-0.demo" },
		"capitals":                func(d *templates.CloudInitData) { d.Hostname, d.FQDN = "Worker-0", "" },
		"a long hostname":         func(d *templates.CloudInitData) { d.Hostname, d.FQDN = strings.Repeat("x", 64), "" },
		"a second line":           func(d *templates.CloudInitData) { d.Hostname, d.FQDN = "worker-0\nruncmd: [reboot]", "" },
		"another host's FQDN":     func(d *templates.CloudInitData) { d.FQDN = "worker-1.demo" },
		"no private key":          func(d *templates.CloudInitData) { d.HostKeyPrivate = "" },
		"a hidden private key":    func(d *templates.CloudInitData) { d.HostKeyPrivate = "[redacted]" },
		"a public key of RSA":     func(d *templates.CloudInitData) { d.HostKeyPublic = "ssh-rsa AAAA" },
		"the private key as such": func(d *templates.CloudInitData) { d.HostKeyPublic = d.HostKeyPrivate },
	} {
		d := worker()
		edit(&d)
		if got, err := templates.CloudInit(d); err == nil {
			t.Errorf("%s: rendered\n%s", name, got)
		} else if strings.Contains(err.Error(), "BEGIN") {
			t.Errorf("%s: the error tells the key: %v", name, err)
		}
	}
}

package lab

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

func sampleCloud() Cloud {
	return Cloud{
		Address: "192.0.2.1", AdminPassword: "ADMIN-SECRET", DemoPassword: "DEMO-SECRET", RabbitPassword: "RABBIT-SECRET", MetadataSecret: "METADATA-SECRET",
		HeartbeatSecret: "HEARTBEAT-SECRET", ServicePasswords: map[string]string{"glance": "GLANCE-SECRET", "neutron": "NEUTRON-SECRET",
			"nova": "NOVA-SECRET", "octavia": "OCTAVIA-SECRET", "placement": "PLACEMENT-SECRET"},
	}
}

func sampleNames() Names {
	return Names{Address: "192.0.2.2", Zone: "lab.example", KeyName: "kuryrctl", Secret: "TkFNRVMtU0VDUkVU"}
}

func TestGoldens(t *testing.T) {
	c := sampleCloud()
	of := func(render func(Cloud) ([]byte, error)) func() ([]byte, error) {
		return func() ([]byte, error) { return render(c) }
	}
	for name, render := range map[string]func() ([]byte, error){
		"keystone.conf": of(KeystoneConf), "glance-api.conf": of(GlanceConf), "placement.conf": of(PlacementConf), "nova.conf": of(NovaConf),
		"neutron.conf": of(NeutronConf), "ml2_conf.ini": of(ML2Conf), "neutron_ovn_metadata_agent.ini": of(MetadataAgentConf),
		"octavia.conf": of(OctaviaConf), "rabbitmq.conf": of(RabbitConf), "clouds.yaml": of(CloudsYAML),
		"nova-compute-uml.conf": func() ([]byte, error) {
			return UMLComputeConf(UMLCompute{Kernel: "/k/linux.uml", RawImages: "/images"})
		},
		"nova-compute-kvm.conf": func() ([]byte, error) {
			return LibvirtComputeConf(LibvirtCompute{VirtType: "kvm", CPUMode: "host-passthrough"})
		},
		"nova-compute-qemu.conf": func() ([]byte, error) {
			return LibvirtComputeConf(LibvirtCompute{VirtType: "qemu", CPUMode: "none", TranslationCacheMiB: 256})
		},
		"glance.ini": func() ([]byte, error) {
			return UWSGIConf(WSGI{Name: "glance", Address: c.Address, Port: 9292, Application: "/a", Processes: 1, Threads: 1, ChunkedBodies: true})
		},
		"named.conf": func() ([]byte, error) { return NamedConf(sampleNames()) },
		"names.zone": func() ([]byte, error) { return NamesZone(sampleNames()) },
		"names.key":  func() ([]byte, error) { return NamesKey(sampleNames()) },
		"neutron.ini": func() ([]byte, error) {
			return UWSGIConf(WSGI{Name: "neutron", Address: c.Address, Port: 9696, Application: "/b", Processes: 2, Threads: 1, StartTime: true})
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := render()
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s differs from %s:\n%s", name, golden, got)
			}
		})
	}
}

// TestSecretsGoWhereTheyBelong finds a password in a file of somebody else's.
func TestSecretsGoWhereTheyBelong(t *testing.T) {
	c := sampleCloud()
	for name, tt := range map[string]struct {
		render func(Cloud) ([]byte, error)
		want   []string
	}{
		"keystone":  {KeystoneConf, nil},
		"glance":    {GlanceConf, []string{"GLANCE"}},
		"placement": {PlacementConf, []string{"PLACEMENT"}},
		"nova":      {NovaConf, []string{"NOVA", "NEUTRON", "PLACEMENT", "RABBIT", "METADATA"}},
		"neutron":   {NeutronConf, []string{"NEUTRON", "NOVA", "PLACEMENT", "RABBIT"}},
		"metadata":  {MetadataAgentConf, []string{"METADATA"}},
		"octavia":   {OctaviaConf, []string{"OCTAVIA", "RABBIT", "HEARTBEAT"}},
		"rabbitmq":  {RabbitConf, []string{"RABBIT"}},
		"clouds":    {CloudsYAML, []string{"DEMO", "ADMIN"}},
	} {
		got, err := tt.render(c)
		if err != nil {
			t.Fatal(err)
		}
		for _, who := range []string{"ADMIN", "DEMO", "RABBIT", "METADATA", "HEARTBEAT", "GLANCE", "NEUTRON", "NOVA", "OCTAVIA", "PLACEMENT"} {
			want := false
			for _, w := range tt.want {
				want = want || w == who
			}
			if strings.Contains(string(got), who+"-SECRET") != want {
				t.Errorf("%s: the secret of %s is there: %t", name, who, !want)
			}
		}
	}
}

func TestAServiceWithoutAPasswordIsAnError(t *testing.T) {
	c := sampleCloud()
	c.ServicePasswords = nil
	if conf, err := GlanceConf(c); err == nil || !strings.Contains(err.Error(), "no password for glance") {
		t.Errorf("a login without a password gives %v:\n%s", err, conf)
	}
}

func TestDigestSeesEveryFile(t *testing.T) {
	seen := map[string]bool{}
	if err := Digest(func(name string, data []byte) { seen[name] = len(data) > 0 }); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"files/uml.py", "files/qemu-wrapper", "files/guest/99-lab.cfg", "files/nova.conf.tmpl", "files/auth.tmpl"} {
		if !seen[name] {
			t.Errorf("%s is not in the digest", name)
		}
	}
}

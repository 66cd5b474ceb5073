// Package lab holds the files of the lab's own OpenStack, and one typed render function for each that depends on anything.
//
// It owns their text. It refuses logic: which addresses, passwords and limits go in is decided by package bootstrap/cloud.
package lab

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"
	"text/template"
)

//go:embed files
var files embed.FS

// Cloud is what the services' files have in common. Every secret is this one cloud's own.
type Cloud struct {
	Address         string // of all APIs
	AdminPassword   string
	DemoPassword    string
	RabbitPassword  string
	MetadataSecret  string // shared by Neutron's metadata agent and Nova
	HeartbeatSecret string // Octavia insists on one, its OVN provider does not use it
	// ServicePasswords are the Keystone passwords of the services, by user name.
	ServicePasswords map[string]string
}

// Transport is the URL of the message bus.
func (c Cloud) Transport() string {
	return "rabbit://openstack:" + c.RabbitPassword + "@127.0.0.1:5672/"
}

// Login is how the service named user authenticates. A service without a password is an error: it would fail much later.
func (c Cloud) Login(user string) (Login, error) {
	password := c.ServicePasswords[user]
	if password == "" {
		return Login{}, fmt.Errorf("no password for %s", user)
	}
	return Login{Address: c.Address, User: user, Password: password}, nil
}

// Login is one service's account in Keystone.
type Login struct{ Address, User, Password string }

// KeystoneConf renders /etc/keystone/keystone.conf.
func KeystoneConf(c Cloud) ([]byte, error) { return render("keystone.conf", c) }

// GlanceConf renders /etc/glance/glance-api.conf.
func GlanceConf(c Cloud) ([]byte, error) { return render("glance-api.conf", c) }

// PlacementConf renders /etc/placement/placement.conf.
func PlacementConf(c Cloud) ([]byte, error) { return render("placement.conf", c) }

// NovaConf renders /etc/nova/nova.conf, which all of Nova's services read.
func NovaConf(c Cloud) ([]byte, error) { return render("nova.conf", c) }

// NeutronConf renders /etc/neutron/neutron.conf.
func NeutronConf(c Cloud) ([]byte, error) { return render("neutron.conf", c) }

// ML2Conf renders /etc/neutron/plugins/ml2/ml2_conf.ini.
func ML2Conf(c Cloud) ([]byte, error) { return render("ml2_conf.ini", c) }

// MetadataAgentConf renders /etc/neutron/neutron_ovn_metadata_agent.ini.
func MetadataAgentConf(c Cloud) ([]byte, error) { return render("neutron_ovn_metadata_agent.ini", c) }

// OctaviaConf renders /etc/octavia/octavia.conf.
func OctaviaConf(c Cloud) ([]byte, error) { return render("octavia.conf", c) }

// RabbitConf renders /etc/rabbitmq/rabbitmq.conf. RabbitMQ makes the user when it starts with an empty database.
func RabbitConf(c Cloud) ([]byte, error) { return render("rabbitmq.conf", c) }

// CloudsYAML renders a clouds.yaml with the clouds lab (user demo) and lab-admin.
func CloudsYAML(c Cloud) ([]byte, error) { return render("clouds.yaml", c) }

// UMLCompute is Nova's compute configuration for servers that are user-mode Linux processes.
type UMLCompute struct {
	Kernel    string // path of the user-mode Linux kernel
	RawImages string // directory with raw copies of images, named by image id; spares a download and a conversion
}

// UMLComputeConf renders /etc/nova/nova-compute.conf for user-mode Linux.
func UMLComputeConf(c UMLCompute) ([]byte, error) { return render("nova-compute-uml.conf", c) }

// LibvirtCompute is Nova's compute configuration for servers that are QEMU processes.
type LibvirtCompute struct {
	VirtType            string // libvirt's: kvm or qemu
	CPUMode             string // host-passthrough with KVM, none with emulation
	TranslationCacheMiB int    // of emulation; 0 leaves QEMU's default, 1 GiB of each guest
}

// LibvirtComputeConf renders /etc/nova/nova-compute.conf for libvirt.
func LibvirtComputeConf(c LibvirtCompute) ([]byte, error) {
	return render("nova-compute-libvirt.conf", c)
}

// WSGI is one API under uWSGI.
type WSGI struct {
	Name, Address string
	Port          int
	Application   string // path of the WSGI program
	Processes     int
	Threads       int  // in each process
	ChunkedBodies bool // accept requests without a length (Glance)
	StartTime     bool // pass the start time (Neutron's OVN driver)
}

// UWSGIConf renders the uWSGI file of one API.
func UWSGIConf(w WSGI) ([]byte, error) { return render("uwsgi.ini", w) }

// Names is the lab's name server and its one zone.
type Names struct {
	Address string // that it listens at
	Zone    string // without the final dot
	KeyName string // of the TSIG key whose owner may change the zone
	Secret  string // of that key, base64
}

// NamedConf renders /etc/bind/named.conf.
func NamedConf(n Names) ([]byte, error) { return render("named.conf", n, "names.key") }

// NamesZone renders the zone as it is before anybody changes it.
func NamesZone(n Names) ([]byte, error) { return render("names.zone", n) }

// NamesKey renders the TSIG key as tsig-keygen does.
func NamesKey(n Names) ([]byte, error) { return render("names.key", n) }

// Static returns a file that depends on nothing, by its path below files: libvirtd.conf, qemu.conf, qemu-wrapper, uml.py and
// guest/*.
func Static(name string) ([]byte, error) { return files.ReadFile("files/" + name) }

// Digest feeds every embedded file to write, in a stable order, so that what is built from them can be named by content.
func Digest(write func(name string, data []byte)) error {
	return fs.WalkDir(files, "files", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := files.ReadFile(path)
		if err == nil {
			write(path, data)
		}
		return err
	})
}

func render(name string, data any, parts ...string) ([]byte, error) {
	patterns := []string{"files/auth.tmpl", "files/" + name + ".tmpl"}
	for _, p := range parts {
		patterns = append(patterns, "files/"+p+".tmpl")
	}
	t, err := template.New(name).Option("missingkey=error").ParseFS(files, patterns...)
	if err != nil {
		return nil, fmt.Errorf("parsing the template of %s: %w", name, err)
	}
	var out bytes.Buffer
	if err := t.ExecuteTemplate(&out, name+".tmpl", data); err != nil {
		return nil, fmt.Errorf("rendering %s: %w", name, err)
	}
	return out.Bytes(), nil
}

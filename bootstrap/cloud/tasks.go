package cloud

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/kuryrctl/kuryrctl/templates/lab"
)

// writeConfiguration renders every service's files with this cloud's secrets.
func (s *supervisor) writeConfiguration() error {
	c := s.Secrets.Cloud
	type rendered func(lab.Cloud) ([]byte, error)
	for path, render := range map[string]rendered{
		"/etc/keystone/keystone.conf":                 lab.KeystoneConf,
		"/etc/glance/glance-api.conf":                 lab.GlanceConf,
		"/etc/placement/placement.conf":               lab.PlacementConf,
		"/etc/nova/nova.conf":                         lab.NovaConf,
		"/etc/neutron/neutron.conf":                   lab.NeutronConf,
		"/etc/neutron/plugins/ml2/ml2_conf.ini":       lab.ML2Conf,
		"/etc/neutron/neutron_ovn_metadata_agent.ini": lab.MetadataAgentConf,
		"/etc/octavia/octavia.conf":                   lab.OctaviaConf,
		"/etc/rabbitmq/rabbitmq.conf":                 lab.RabbitConf,
		"/etc/openstack/clouds.yaml":                  lab.CloudsYAML,
	} {
		data, err := render(c)
		if err != nil {
			return err
		}
		// The services run as root in here, RabbitMQ alone does not.
		mode := os.FileMode(0o600)
		if strings.HasPrefix(path, "/etc/rabbitmq/") {
			mode = 0o644
		}
		if err := writeFile(path, data, mode); err != nil {
			return err
		}
	}
	for _, w := range apis() {
		w.Address = Address
		data, err := lab.UWSGIConf(w)
		if err != nil {
			return err
		}
		if err := writeFile(wsgiFile(w.Name), data, 0o600); err != nil {
			return err
		}
	}
	for path, text := range map[string]string{
		"/etc/hosts":                      "127.0.0.1 localhost\n" + Address + " lab\n",
		"/etc/rabbitmq/enabled_plugins":   "[].\n",
		"/etc/keystone/fernet-keys/0":     s.Secrets.FernetKey,
		"/etc/keystone/fernet-keys/1":     s.Secrets.FernetKey,
		"/etc/keystone/credential-keys/0": s.Secrets.CredentialKey,
		"/etc/keystone/credential-keys/1": s.Secrets.CredentialKey,
	} {
		mode := os.FileMode(0o644)
		if strings.Contains(path, "-keys/") {
			mode = 0o600
		}
		if err := writeFile(path, []byte(text), mode); err != nil {
			return err
		}
	}
	for name, place := range map[string]string{
		"libvirtd.conf": "/etc/libvirt/libvirtd.conf",
		"qemu.conf":     "/etc/libvirt/qemu.conf",
		"uml.py":        "/usr/lib/python3/dist-packages/nova/virt/uml.py", // Nova imports drivers from nowhere else
	} {
		if err := putStatic("/", name, place, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// writeZone configures bind. The zone itself is bind's own once it is there: it has been changed since, and the changes are in a journal.
func (s *supervisor) writeZone(context.Context) error {
	if err := os.MkdirAll(zonePlace, 0o755); err != nil {
		return err
	}
	conf, err := lab.NamedConf(s.Secrets.names())
	if err != nil {
		return err
	}
	if err := writeFile("/etc/bind/named.conf", conf, 0o600); err != nil {
		return err
	}
	path := filepath.Join(zonePlace, Zone+".zone")
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	zone, err := lab.NamesZone(s.Secrets.names())
	if err != nil {
		return err
	}
	return writeFile(path, zone, 0o644)
}

// names starts bind, which a cloud does not have that was made before bind was one of its packages.
func (s *supervisor) names(ctx context.Context) error {
	if _, err := lookPath("named"); err != nil {
		return nil
	}
	if err := s.keep("named", s.command("named", "named", "-g", "-n", "1", "-c", "/etc/bind/named.conf")); err != nil {
		return err
	}
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(NameServer, "53"))
	}}
	return s.await(ctx, "named", func(ctx context.Context) error {
		_, err := r.LookupNS(ctx, Zone+".")
		return err
	})
}

// sql runs statements with MariaDB's own client and returns what it prints.
func (s *supervisor) sql(ctx context.Context, statements string) (string, error) {
	out, err := os.CreateTemp("/run", "sql-")
	if err != nil {
		return "", err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	cmd := command{argv: []string{"mariadb", "--no-defaults", "--skip-column-names", "--socket=" + mariadbSocket}, in: statements, log: out.Name()}
	failed := s.children.run(ctx, cmd)
	printed, err := io.ReadAll(out)
	if err != nil {
		return "", err
	}
	if failed != nil {
		return "", fmt.Errorf("asking MariaDB: %w: %s", failed, printed)
	}
	return strings.TrimSpace(string(printed)), nil
}

func (s *supervisor) sqlAnswers(ctx context.Context) error {
	_, err := s.sql(ctx, "SELECT 1;")
	return err
}

// novaReports is true once a service of Nova's has reported since this start: rows of an earlier one say "up" falsely.
func (s *supervisor) novaReports(binary string) probe {
	return func(ctx context.Context) error {
		reports, err := s.sql(ctx, fmt.Sprintf("SELECT COUNT(*) FROM nova.services WHERE `binary` = '%s' AND deleted = 0 AND "+
			"last_seen_up >= FROM_UNIXTIME(%d);", binary, s.began.Unix()))
		if err == nil && reports == "0" {
			err = errors.New("no report yet")
		}
		return err
	}
}

// setPasswords gives Keystone's users this cloud's passwords in place of the ones that the golden root was made with.
func (s *supervisor) setPasswords(ctx context.Context) error {
	passwords := map[string]string{"admin": s.Secrets.Cloud.AdminPassword, "demo": s.Secrets.Cloud.DemoPassword}
	for name, password := range s.Secrets.Cloud.ServicePasswords {
		passwords[name] = password
	}
	var statements strings.Builder
	for name, password := range passwords {
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			return err
		}
		fmt.Fprintf(&statements, "UPDATE keystone.password p JOIN keystone.local_user u ON p.local_user_id = u.id SET p.password_hash = '%s' WHERE u.name = '%s';\n", hash, name)
	}
	_, err := s.sql(ctx, statements.String())
	return err
}

func (s *supervisor) createDatabases(ctx context.Context) error {
	var statements strings.Builder
	for _, name := range []string{"keystone", "glance", "placement", "nova_api", "nova", "nova_cell0", "neutron", "octavia"} {
		fmt.Fprintf(&statements, "CREATE DATABASE %s CHARACTER SET utf8mb4;\n", name)
	}
	_, err := s.sql(ctx, statements.String())
	return err
}

func (s *supervisor) schemaKeystone(ctx context.Context) error {
	url := fmt.Sprintf("http://%s:5000/v3/", Address)
	bootstrap := s.command("schema-keystone", "keystone-manage", "bootstrap", "--bootstrap-admin-url", url, "--bootstrap-internal-url", url,
		"--bootstrap-public-url", url, "--bootstrap-region-id", "RegionOne")
	bootstrap.env = []string{"OS_BOOTSTRAP_PASSWORD=" + s.Secrets.Cloud.AdminPassword}
	return s.runAll(ctx, s.command("schema-keystone", "keystone-manage", "db_sync"), bootstrap)
}

func (s *supervisor) schemas(ctx context.Context) error {
	var cmds []command
	for _, line := range []string{
		"neutron-db-manage --config-file /etc/neutron/neutron.conf --config-file /etc/neutron/plugins/ml2/ml2_conf.ini upgrade head",
		"nova-manage api_db sync", "nova-manage cell_v2 map_cell0",
		// A template, filled from nova.conf: the row would keep the password of the bake otherwise.
		"nova-manage cell_v2 create_cell --name cell1 --transport-url {scheme}://{username}:{password}@{hostname}:{port}/", "nova-manage db sync",
		"placement-manage db sync", "glance-manage db_sync", "octavia-db-manage upgrade head",
	} {
		cmds = append(cmds, s.command("schemas", strings.Fields(line)...))
	}
	return s.runAll(ctx, cmds...)
}

func (s *supervisor) runAll(ctx context.Context, cmds ...command) error {
	for _, cmd := range cmds {
		if err := s.children.run(ctx, cmd); err != nil {
			return err
		}
	}
	return nil
}

func (s *supervisor) createOVSDB(ctx context.Context, file, schema string) error {
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return s.children.run(ctx, s.command("ovsdb", "ovsdb-tool", "create", file, schema))
}

func (s *supervisor) configureSwitch(ctx context.Context) error {
	vsctl := []string{"ovs-vsctl", "--no-wait"}
	return s.runAll(ctx, s.command("ovsdb", append(vsctl, "init")...), s.command("ovsdb", append(vsctl, "set", "Open_vSwitch", ".",
		"external_ids:system-id=lab", "external_ids:hostname=lab", "external_ids:ovn-remote=unix:/run/ovn/ovnsb_db.sock",
		"external_ids:ovn-encap-type=geneve", "external_ids:ovn-encap-ip="+Address, "external_ids:ovn-bridge-datapath-type=netdev",
		"external_ids:ovn-bridge-mappings=physnet1:br-ex", "external_ids:ovn-cms-options=enable-chassis-as-gw")...))
}

func (s *supervisor) createBridges(ctx context.Context) error {
	return s.runAll(ctx, s.command("ovsdb", "ovs-vsctl", "--timeout=30", "--may-exist", "add-br", "br-ex", "--", "set", "bridge", "br-ex", "datapath_type=netdev", "fail_mode=standalone",
		"--", "--may-exist", "add-br", "br-int", "--", "set", "bridge", "br-int", "datapath_type=netdev", "fail_mode=secure"),
		s.command("network", "ip", "link", "set", "br-ex", "up"),
		s.command("network", "ip", "addr", "replace", publicGateway+"/24", "dev", "br-ex"),
		s.command("network", "ip", "addr", "replace", NameServer+"/32", "dev", "br-ex"))
}

// libvirt runs only where servers are QEMU processes.
func (s *supervisor) libvirt(ctx context.Context) error {
	if s.reporter.virt().Kind == UML {
		return nil
	}
	cmd := s.command("libvirt", "libvirtd")
	if err := s.keep("libvirt", cmd); err != nil {
		return err
	}
	return s.await(ctx, "libvirt", listening("unix", "/run/libvirt/libvirt-sock"))
}

// compileBytecode runs what a first user would otherwise wait for: Python compiles what it imports, into the golden root.
func (s *supervisor) compileBytecode(ctx context.Context) error {
	var cmds []command
	for _, line := range []string{"openstack server list", "openstack network list", "openstack loadbalancer list",
		"python3 -m compileall -q /usr/lib/python3/dist-packages/nova/virt /usr/lib/python3/dist-packages/vif_plug_ovs /usr/lib/python3/dist-packages/os_vif"} {
		cmd := s.command("bytecode", strings.Fields(line)...)
		cmd.env = []string{"OS_CLIENT_CONFIG_FILE=/etc/openstack/clouds.yaml", "OS_CLOUD=lab"}
		cmds = append(cmds, cmd)
	}
	return s.runAll(ctx, cmds...)
}

// findVirt chooses how servers run and configures Nova's compute service for it.
func (s *supervisor) findVirt(ctx context.Context) error {
	v, err := chooseVirt(ctx, s.Virt, []virtProbe{{KVM, s.bootsKVM}, {UML, s.bootsUML}, {QEMU, func(context.Context) error { return nil }}})
	if err != nil {
		return err
	}
	s.reporter.change(func(r *report) { r.Virt = v })
	var conf []byte
	switch v.Kind {
	case UML:
		conf, err = lab.UMLComputeConf(lab.UMLCompute{Kernel: filepath.Join(umlPlace, "linux.uml"), RawImages: guestPlace})
	case KVM:
		conf, err = lab.LibvirtComputeConf(lab.LibvirtCompute{VirtType: "kvm", CPUMode: "host-passthrough"})
	case QEMU:
		conf, err = lab.LibvirtComputeConf(lab.LibvirtCompute{VirtType: "qemu", CPUMode: "none", TranslationCacheMiB: 256})
	}
	if err != nil {
		return err
	}
	return writeFile("/etc/nova/nova-compute.conf", conf, 0o600)
}

// virtProbe is one way to run servers and what proves that it works here.
type virtProbe struct {
	kind  Virt
	boots func(context.Context) error
}

// chooseVirt takes the first that boots, or the forced one if it boots, and says why.
func chooseVirt(ctx context.Context, forced Virt, probes []virtProbe) (VirtStatus, error) {
	var reasons []string
	for _, p := range probes {
		if forced != "" && p.kind != forced {
			continue
		}
		look, cancel := context.WithTimeout(ctx, 8*time.Second)
		err := p.boots(look)
		cancel()
		if err == nil {
			if forced != "" {
				reasons = []string{"asked for"}
			}
			return VirtStatus{Kind: p.kind, Reason: strings.Join(append(reasons, string(p.kind)+" boots a guest"), "; ")}, nil
		}
		reasons = append(reasons, fmt.Sprintf("%s: %v", p.kind, err))
	}
	return VirtStatus{}, fmt.Errorf("finding a way to run servers: %s", strings.Join(reasons, "; "))
}

// bootsKVM starts a kernel under KVM: a /dev/kvm that is there and does not run guests is common in nested machines.
func (s *supervisor) bootsKVM(ctx context.Context) error {
	if _, err := os.Stat("/dev/kvm"); err != nil {
		return errors.New("no /dev/kvm")
	}
	return s.boots(ctx, "virt-kvm", "Linux version", "/usr/bin/qemu-system-x86_64.real", "-accel", "kvm", "-cpu", "host", "-m", "256", "-nodefaults", "-display", "none",
		"-no-reboot", "-serial", "stdio", "-kernel", filepath.Join(guestPlace, "vmlinuz"), "-append", "console=ttyS0 earlyprintk=serial panic=-1")
}

// bootsUML starts the user-mode kernel on the lab's own root until it would run its init.
func (s *supervisor) bootsUML(ctx context.Context) error {
	if s.Kernel != "" {
		return errors.New(s.Kernel)
	}
	// A PID namespace of its own, because the kernel's helpers leave its process group.
	defer os.RemoveAll("/run/uml/probe")
	return s.boots(ctx, "virt-uml", "Run /bin/true as init process", "unshare", "--pid", "--fork", "--kill-child", "--mount-proc", filepath.Join(umlPlace, "linux.uml"), "mem=64M", "root=/dev/root", "rootfstype=hostfs", "rootflags=/",
		"init=/bin/true", "con=null", "con0=null,fd:1", "seccomp=on", "uml_dir=/run/uml/", "umid=probe", "panic=-1", "noreboot")
}

// boots runs a guest until its console shows what proves that it runs.
func (s *supervisor) boots(ctx context.Context, log, proof string, argv ...string) error {
	cmd := s.command(log, argv...)
	cmd.env = []string{"TMPDIR=/dev/shm"}
	if err := os.RemoveAll(cmd.log); err != nil {
		return err
	}
	return s.children.watch(ctx, cmd, func() bool {
		console, err := os.ReadFile(cmd.log)
		return err == nil && strings.Contains(string(console), proof)
	})
}

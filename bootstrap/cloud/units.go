package cloud

import (
	"context"
	"fmt"
	"strings"

	"github.com/kuryrctl/kuryrctl/internal/graph"
	"github.com/kuryrctl/kuryrctl/templates/lab"
)

const (
	mariadbSocket = "/run/mysqld/mysqld.sock"
	ovsSocket     = "/run/openvswitch/db.sock"
)

// apis are the services under uWSGI. Threads are for requests that wait for other services: Keystone is asked by all. A second
// process of Neutron halves what eight parallel lists or deletes take, for 0.1 GiB; threads made single requests slower.
func apis() []lab.WSGI {
	return []lab.WSGI{
		{Name: "keystone", Port: 5000, Application: "/usr/bin/keystone-wsgi-public", Processes: 1, Threads: 4},
		{Name: "placement", Port: 8778, Application: "/usr/bin/placement-api", Processes: 1, Threads: 2},
		{Name: "glance", Port: 9292, Application: "/usr/bin/glance-wsgi-api", Processes: 1, Threads: 1, ChunkedBodies: true},
		{Name: "nova-api", Port: 8774, Application: "/usr/bin/nova-api-wsgi", Processes: 1, Threads: 1},
		{Name: "nova-metadata", Port: 8775, Application: "/usr/bin/nova-metadata-wsgi", Processes: 1, Threads: 1},
		{Name: "neutron", Port: 9696, Application: "/usr/bin/neutron-api", Processes: 2, Threads: 1, StartTime: true},
		{Name: "octavia", Port: 9876, Application: "/usr/bin/octavia-wsgi", Processes: 1, Threads: 1},
	}
}

// units is the whole start: who runs, and who waits for whom. A baking start also fills the databases.
func (s *supervisor) units() *graph.Graph {
	g := &graph.Graph{}
	task := func(name string, apply func(context.Context) error, needs ...graph.Resource) graph.Resource {
		u := &unit{name: name, needs: needs, apply: apply}
		g.Add(u)
		return u
	}
	daemon := func(name string, cmd command, p probe, needs ...graph.Resource) graph.Resource {
		return task(name, func(ctx context.Context) error {
			if err := s.keep(name, cmd); err != nil {
				return err
			}
			return s.await(ctx, name, p)
		}, needs...)
	}
	baking := func(name string, apply func(context.Context) error, needs ...graph.Resource) []graph.Resource {
		if !s.Baking {
			return nil
		}
		return []graph.Resource{task(name, apply, needs...)}
	}

	system := task("system", s.prepare)
	virt := task("virt", s.findVirt, system)
	mariadb := daemon("mariadb", s.mariadb(), s.sqlAnswers, system)
	memcached := daemon("memcached", s.command("memcached", "memcached", "-u", "memcache", "-l", "127.0.0.1", "-m", "32", "-t", "1"),
		listening("tcp", "127.0.0.1:11211"), system)
	rabbit := daemon("rabbitmq", s.rabbit(), listening("tcp", "127.0.0.1:5672"), system)
	ovn := s.network(task, daemon, system)
	task("named", s.names, task("zone", s.writeZone, system), ovn)

	var keystoneData, schemas []graph.Resource
	if s.Baking {
		databases := task("databases", s.createDatabases, mariadb)
		keystoneData = []graph.Resource{task("schema-keystone", s.schemaKeystone, databases)}
		// One chain beside Keystone's: two cores have no use for more.
		schemas = []graph.Resource{task("schemas", s.schemas, databases)}
	} else {
		keystoneData = []graph.Resource{task("passwords", s.setPasswords, mariadb)}
	}

	api := map[string]graph.Resource{}
	addAPI := func(name string, needs ...graph.Resource) {
		for _, w := range apis() {
			if w.Name == name {
				cmd := s.command(name, "uwsgi_python3", "--ini", wsgiFile(name))
				api[name] = daemon(name, cmd, answering(fmt.Sprintf("http://%s:%d/", Address, w.Port)), needs...)
			}
		}
	}
	addAPI("keystone", append(keystoneData, memcached)...)
	identity := append(baking("identity", s.populateIdentity, api["keystone"]), api["keystone"])
	ready := append(append(schemas, identity...), mariadb)
	addAPI("placement", ready...)
	addAPI("neutron", append(ready, rabbit, ovn)...)
	addAPI("nova-api", append(ready, rabbit)...)
	addAPI("glance", ready...)

	conductor := daemon("nova-conductor", s.command("nova-conductor", "nova-conductor"), s.novaReports("nova-conductor"), append(ready, rabbit)...)
	daemon("nova-scheduler", s.command("nova-scheduler", "nova-scheduler"), s.novaReports("nova-scheduler"), conductor, api["placement"])
	// A compute service that starts before the conductor listens loses 10 s.
	computeNeeds := []graph.Resource{conductor, api["placement"], virt, ovn}
	compute := daemon("nova-compute", s.command("nova-compute", "nova-compute", "--config-file", "/etc/nova/nova.conf", "--config-file", "/etc/nova/nova-compute.conf"),
		s.novaReports("nova-compute"), append(computeNeeds, task("libvirt", s.libvirt, virt))...)
	daemon("octavia-driver-agent", s.command("octavia-driver-agent", "octavia-driver-agent"), present("/run/octavia/status.sock"), append(ready, ovn)...)
	addAPI("octavia", append(ready, rabbit, ovn)...)
	addAPI("nova-metadata", append(ready, rabbit)...)
	daemon("neutron-metadata-agent", s.command("neutron-metadata-agent", "neutron-ovn-metadata-agent", "--config-file", "/etc/neutron/neutron.conf",
		"--config-file", "/etc/neutron/neutron_ovn_metadata_agent.ini"), listening("unix", "/var/lib/neutron/metadata_proxy"), ovn, rabbit)

	baking("cell", func(ctx context.Context) error {
		return s.children.run(ctx, s.command("schemas", "nova-manage", "cell_v2", "discover_hosts"))
	}, compute)
	images := baking("images", s.populateImages, api["glance"])
	baking("flavors", s.populateFlavors, api["nova-api"])
	baking("public-network", s.populateNetwork, api["neutron"], api["nova-api"])
	baking("bytecode", s.compileBytecode, append(images, compute, api["octavia"])...)
	return g
}

func (s *supervisor) mariadb() command {
	// No account and no network: the socket lies in a directory that only the lab's own root knows. Nothing has to survive a
	// power cut of the host, so nothing is flushed.
	cmd := s.command("mariadb", "mariadbd", "--no-defaults", "--datadir=/var/lib/mysql", "--socket="+mariadbSocket, "--pid-file=/run/mysqld/mysqld.pid",
		"--user=mysql", "--skip-grant-tables", "--skip-networking", "--innodb-flush-method=nosync", "--innodb-flush-log-at-trx-commit=0",
		"--innodb-doublewrite=0", "--performance-schema=0", "--innodb-buffer-pool-size=128M", "--max-connections=400",
		"--character-set-server=utf8mb4", "--collation-server=utf8mb4_general_ci", "--tmpdir=/var/tmp")
	return cmd
}

func (s *supervisor) rabbit() command {
	cmd := s.command("rabbitmq", "/usr/lib/rabbitmq/bin/rabbitmq-server")
	cmd.user = "rabbitmq"
	cmd.env = []string{
		"HOME=/var/lib/rabbitmq", "RABBITMQ_NODENAME=rabbit@localhost", "RABBITMQ_NODE_IP_ADDRESS=127.0.0.1", "ERL_EPMD_ADDRESS=127.0.0.1",
		// One scheduler that does not spin: Erlang's busy waiting would take a core of the guests'.
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none",
	}
	return cmd
}

type addTask func(name string, apply func(context.Context) error, needs ...graph.Resource) graph.Resource
type addDaemon func(name string, cmd command, p probe, needs ...graph.Resource) graph.Resource

// network starts Open vSwitch on its userspace datapath, which needs no kernel module, and OVN.
func (s *supervisor) network(task addTask, daemon addDaemon, system graph.Resource) graph.Resource {
	quiet := []string{"-vconsole:info", "-vsyslog:off", "-vfile:off"}
	database := func(name, file, schema, socket string) graph.Resource {
		created := task(name+"-file", func(ctx context.Context) error { return s.createOVSDB(ctx, file, schema) }, system)
		argv := append([]string{"ovsdb-server", file, "--remote=punix:" + socket, "--unixctl=" + strings.TrimSuffix(socket, ".sock") + ".ctl"}, quiet...)
		return daemon(name, s.command(name, argv...), listening("unix", socket), created)
	}
	// The switch's own database is made anew at every start, in a tmpfs: the ports in it belong to processes that are gone.
	ovsdb := database("ovsdb", "/run/openvswitch/conf.db", "/usr/share/openvswitch/vswitch.ovsschema", ovsSocket)
	nb := database("ovn-nb", "/var/lib/ovn/ovnnb_db.db", "/usr/share/ovn/ovn-nb.ovsschema", "/run/ovn/ovnnb_db.sock")
	sb := database("ovn-sb", "/var/lib/ovn/ovnsb_db.db", "/usr/share/ovn/ovn-sb.ovsschema", "/run/ovn/ovnsb_db.sock")
	configured := task("ovs-settings", s.configureSwitch, ovsdb)
	vswitchd := daemon("ovs-vswitchd", s.command("ovs-vswitchd", append([]string{"ovs-vswitchd", "unix:" + ovsSocket, "--disable-system",
		"--pidfile=/run/openvswitch/ovs-vswitchd.pid", "--unixctl=/run/openvswitch/ovs-vswitchd.ctl"}, quiet...)...), listening("unix", "/run/openvswitch/ovs-vswitchd.ctl"), configured)
	bridges := task("bridges", s.createBridges, vswitchd)
	northd := daemon("ovn-northd", s.command("ovn-northd", append([]string{"ovn-northd", "--ovnnb-db=unix:/run/ovn/ovnnb_db.sock",
		"--ovnsb-db=unix:/run/ovn/ovnsb_db.sock", "--unixctl=/run/ovn/ovn-northd.ctl"}, quiet...)...), listening("unix", "/run/ovn/ovn-northd.ctl"), nb, sb)
	return daemon("ovn-controller", s.command("ovn-controller", append([]string{"ovn-controller", "unix:" + ovsSocket,
		"--unixctl=/run/ovn/ovn-controller.ctl"}, quiet...)...), listening("unix", "/run/ovn/ovn-controller.ctl"), bridges, sb, northd)
}

func wsgiFile(name string) string { return "/etc/lab/" + name + ".ini" }

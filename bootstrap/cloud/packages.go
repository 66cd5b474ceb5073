package cloud

// rootPackages are the Debian packages of the cloud itself.
func rootPackages() []string {
	return []string{
		"dbus", "systemd", // libvirt's and udev's dependencies want one; it never runs
		"mariadb-server", "python3-pymysql", "rabbitmq-server", "memcached", "python3-memcache",
		"keystone", "placement-api", "glance-api",
		"nova-api", "nova-conductor", "nova-scheduler", "nova-compute", "nova-compute-kvm",
		"neutron-api", "neutron-rpc-server", "neutron-ovn-metadata-agent", "haproxy",
		"ovn-central", "ovn-host", "openvswitch-switch", "python3-openvswitch",
		"octavia-api", "octavia-driver-agent", "python3-ovn-octavia-provider",
		"python3-openstackclient", "python3-octaviaclient",
		"libvirt-daemon-system", "libvirt-clients", "qemu-system-x86", "qemu-utils", "genisoimage",
		"uwsgi-core", "uwsgi-plugin-python3", "bind9", "bind9-dnsutils",
		"ca-certificates", "curl", "ethtool", "iproute2", "iputils-ping", "openssh-client", "procps", "tcpdump", "arping", "netcat-openbsd",
	}
}

// guestPackages are the Debian packages of the servers' image: what a cloud image has, and what a Kubernetes node wants from
// its distribution, so that nothing has to be fetched into a cloud without a way out.
func guestPackages() []string {
	return []string{
		"systemd-sysv", "dbus", "udev", "kmod", "linux-image-cloud-amd64", "initramfs-tools", "zstd",
		"openssh-server", "cloud-init", "sudo", "ca-certificates", "curl", "iproute2", "iputils-ping", "netbase", "procps", "less",
		"netcat-openbsd", "python3-minimal", "tcpdump", "util-linux", "mount", "e2fsprogs", "libnss-myhostname",
		"iptables", "nftables", "conntrack", "ethtool", "socat", "ebtables",
	}
}

// maskedUnits would cost a throw-away guest its first seconds and give it nothing.
func maskedUnits() []string {
	return []string{
		"apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer",
		"man-db.timer", "dev-hugepages.mount", "dev-mqueue.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount",
		"sys-kernel-config.mount", "sys-fs-fuse-connections.mount", "systemd-binfmt.service", "getty@tty1.service",
		"systemd-update-utmp.service", "systemd-journal-flush.service", "systemd-timesyncd.service", "systemd-pcrphase.service",
		"systemd-networkd-wait-online.service", "sshd-keygen.service", "ldconfig.service", "systemd-journal-catalog-update.service",
		"systemd-update-done.service", "systemd-hwdb-update.service", "modprobe@drm.service", "modprobe@efi_pstore.service",
		"systemd-network-generator.service", "systemd-pcrmachine.service", "systemd-tpm2-setup.service", "systemd-tpm2-setup-early.service",
		"systemd-pstore.service", "systemd-hibernate-clear.service", "systemd-firstboot.service", "systemd-udev-load-credentials.service",
		"proc-sys-fs-binfmt_misc.automount",
	}
}

# prepare the system for Kubernetes
set -eu
if [ "$(hostname)" != "$name" ]; then hostnamectl set-hostname "$name"; fi
getent hosts "$name" >/dev/null || echo "127.0.1.1 $name" >>/etc/hosts
swapoff -a
if grep -qsE '^[^#]\S*\s+\S+\s+swap\s' /etc/fstab; then sed -i.kuryrctl -E '/^[^#]\S*\s+\S+\s+swap\s/s/^/# swapped off for kubelet: /' /etc/fstab; fi
missing=
for command in $commands; do
	command -v "$command" >/dev/null || missing="$missing $command"
done
if [ -n "$missing" ]; then
	echo "installing $packages for$missing"
	case $manager in
	apt) export DEBIAN_FRONTEND=noninteractive; apt-get -qq update && apt-get -qq -oDPkg::Lock::Timeout=300 install -y --no-install-recommends $packages ;;
	dnf) dnf -q -y install $packages ;;
	esac || {
		echo "cannot install$missing: give the node a way to its distribution's packages, or use an image that has them" >&2
		exit 1
	}
fi
for module in overlay br_netfilter 8021q; do
	modprobe "$module"
done
sysctl -q -p /etc/sysctl.d/99-kuryrctl.conf
if timedatectl show -p CanNTP --value 2>/dev/null | grep -q yes; then timedatectl set-ntp true; fi

# look at the state of the node
# A line for each fact, as key=value, all of them judged elsewhere; with few processes, since some machines start them slowly.
echo "hostname=$(hostname)"
echo "time=$(date +%s.%N)"
if [ -e /run/cloud-init/result.json ]; then
	echo "cloudinit=$(tr -d '\n' </run/cloud-init/result.json)"
elif [ -e /run/cloud-init/status.json ]; then
	echo "cloudinit=running"
fi
while read -r name _; do [ "$name" = Filename ] || echo "swap=$name"; done </proc/swaps
while read -r name value _; do
	case $name in MemTotal: | MemAvailable:) echo "${name%:}=$value" ;; esac
done </proc/meminfo
store=/var/lib/containerd
[ -d $store ] || store=
df -Pk / $store | while read -r _ size _ free _ at; do
	case $size in *[!0-9]*) ;; *) echo "disk=$size $free $at" ;; esac
done
loaded=' '
while read -r name _; do loaded="$loaded$name "; done </proc/modules
for module in $modules; do
	case $loaded in *" $module "*) continue ;; esac
	[ -d "/sys/module/$module" ] || grep -qs "/$module\.ko" "/lib/modules/$(uname -r)/modules.builtin" || echo "unloaded=$module"
done
[ -e /sys/fs/cgroup/cgroup.controllers ] && echo cgroup=2
sysctl -e $sysctls 2>/dev/null | while read -r line; do echo "sysctl=$line"; done
while read -r word server _; do
	[ "$word" = nameserver ] || continue
	# For the servers of the root, which each knows.
	timeout 2 bash -c 'exec 3<>"/dev/udp/$0/53" && printf "\113\103\1\0\0\1\0\0\0\0\0\0\0\0\2\0\1" >&3 && head -c 1 <&3 >/dev/null' "$server" 2>/dev/null
	echo "nameserver=$server $?"
done </etc/resolv.conf
while read -r device to _; do
	[ "$to" = 00000000 ] || continue
	read -r mtu <"/sys/class/net/$device/mtu" && echo "default=$device $mtu"
	break
done </proc/net/route
if [ -d /run/NetworkManager ]; then
	cat /usr/lib/NetworkManager/conf.d/*.conf /run/NetworkManager/conf.d/*.conf /etc/NetworkManager/NetworkManager.conf /etc/NetworkManager/conf.d/*.conf \
		2>/dev/null | while read -r line; do
		case $line in unmanaged-devices* | match-device*) echo "nmrule=$line" ;; esac
	done
fi
read -r uptime _ </proc/uptime
echo "uptime=$uptime"
systemctl show --property=Id,ActiveState,SubState,NRestarts,ActiveEnterTimestampMonotonic containerd.service kubelet.service NetworkManager.service |
	while read -r line; do echo "unit.${line:-end=}"; done
echo unit.end=
if command -v ctr >/dev/null; then
	if images=$(timeout 10 ctr -n k8s.io images ls -q 2>&1); then
		for image in $(cat /etc/kubernetes/manifests/*.yaml /etc/containerd/config.toml 2>/dev/null | tr -d "\"'" |
			while read -r name value rest; do
				case $name in image:) echo "$value" ;; sandbox) echo "$rest" ;; esac
			done); do
			case "
$images
" in *"
$image
"*) ;; *) echo "noimage=$image" ;; esac
		done
		echo "ctr=answers"
	else
		echo "ctr=$images"
	fi
fi
if ! systemctl is-active --quiet kubelet.service || [ "$(systemctl show --property=NRestarts kubelet.service)" != NRestarts=0 ]; then
	journalctl -u kubelet.service -n 40 -o cat --no-pager 2>/dev/null | while read -r line; do echo "kubeletlog=$line"; done
fi
for file in /etc/cni/net.d/*; do
	case $file in *.conf | *.conflist | *.json) echo "cni=${file##*/}" ;; esac
done
certs=
for file in /var/lib/kubelet/pki/kubelet-client-current.pem /etc/kubernetes/pki/*.crt /etc/kubernetes/pki/etcd/*.crt; do
	[ ! -e "$file" ] || certs="$certs $file"
done
[ -z "$certs" ] || awk 'FNR == 1 { print "cert=" FILENAME } /BEGIN CERTIFICATE/ { on = 1 } on { print } /END CERTIFICATE/ { on = 0 }' $certs
echo looked=yes

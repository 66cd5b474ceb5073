# collect what tells how the node is
# Each part begins with a line of the boundary and its name, and is as long as its limit at most.
part() {
	printf '\n%s %s\n' "$boundary" "$1"
	shift
	"$@" 2>&1 | tail -c "$limit"
}
system() {
	cat /etc/os-release /proc/version /proc/uptime /proc/loadavg /proc/meminfo /proc/swaps /proc/mounts /proc/modules /etc/resolv.conf /etc/hosts
	df -P
	ip -d address
	ip route
	systemctl --no-pager --failed
}
part system.txt system
part processes.txt ps -eo pid,ppid,user,rss,etimes,stat,comm
for unit in kubelet containerd; do
	part "journal-$unit.log" journalctl --no-pager -n 20000 -u "$unit"
done
part journal-cloud-init.log journalctl --no-pager -n 5000 -u 'cloud-*'
part journal-kernel.log journalctl --no-pager -n 5000 -k
part containers.txt ctr -n k8s.io containers ls
part tasks.txt ctr -n k8s.io tasks ls
part images.txt ctr -n k8s.io images ls
if command -v crictl >/dev/null; then
	part pods.txt crictl pods
	part crictl.txt crictl ps -a
fi
for file in /etc/kubernetes/manifests/*.yaml /var/lib/kubelet/config.yaml /etc/containerd/config.toml /var/log/kuryrctl/*.log /var/log/pods/*/*/*.log; do
	if [ -f "$file" ]; then part "${file#/}" tail -c "$limit" "$file"; fi
done
printf '\n%s .\n' "$boundary"

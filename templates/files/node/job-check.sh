# look how far kubeadm got
if systemctl is-active --quiet "kuryrctl-$job.service"; then
	echo "$job is still going on"
elif ! [ -f "/var/lib/kuryrctl/$job.done" ]; then
	echo none
	if [ -e "/var/lib/kuryrctl/$job.sh" ]; then echo "$job was not finished"; fi
elif ! systemctl is-active --quiet kubelet.service; then
	echo "kubelet does not run"
fi

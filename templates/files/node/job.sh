# run kubeadm, or wait for it
unit=kuryrctl-$job.service
log=/var/log/kuryrctl/$job.log
end=/var/lib/kuryrctl/$job.done
mkdir -p /var/log/kuryrctl /var/lib/kuryrctl
chmod 700 /var/log/kuryrctl
if ! systemctl is-active --quiet "$unit" && ! [ -f "$end" ]; then
	systemctl reset-failed "$unit" 2>/dev/null
	rm -f "$log"
	printf '%s\ntouch %s\nsync %s\n' "$work" "$end" "$end" >/var/lib/kuryrctl/$job.sh
	systemd-run --quiet --unit="$unit" --property=StandardOutput=append:"$log" --property=StandardError=append:"$log" --setenv=HOME=/root \
		--setenv=PATH=/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin /bin/sh -eu /var/lib/kuryrctl/$job.sh || exit
fi
while systemctl is-active --quiet "$unit"; do sleep 0.2; done
cat "$log" 2>/dev/null
if ! [ -f "$end" ]; then exit 1; fi
if ! systemctl is-active --quiet kubelet.service; then
	systemctl enable --quiet kubelet.service
	systemctl restart kubelet.service
fi

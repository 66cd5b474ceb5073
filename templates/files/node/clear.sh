# clear what an unfinished attempt has left
set -eu
if systemctl is-active --quiet "kuryrctl-$job.service" || [ -f "/var/lib/kuryrctl/$job.done" ]; then
	echo begun
	exit 0
fi
if [ "$keep" = etcd ]; then
	# A reset would take etcd and its data along.
	rm -f /etc/kubernetes/kubelet.conf /etc/kubernetes/bootstrap-kubelet.conf /etc/kubernetes/pki/ca.crt
elif [ -e /etc/kubernetes/kubelet.conf ] || [ -e /etc/kubernetes/pki/ca.crt ] || [ -e /etc/kubernetes/bootstrap-kubelet.conf ]; then
	kubeadm reset --force --cri-socket unix:///run/containerd/containerd.sock >&2
fi

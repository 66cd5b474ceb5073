# kubeadm join
if [ -e /etc/systemd/system/kubelet.service.d/20-etcd.conf ]; then
	rm /etc/systemd/system/kubelet.service.d/20-etcd.conf
	systemctl daemon-reload
	systemctl stop kubelet.service
fi
kubeadm join --config /etc/kubernetes/kuryrctl/join.yaml
rm -f /etc/kubernetes/kuryrctl/join.yaml

# make etcd
config=/etc/kubernetes/kuryrctl/etcd.yaml
for part in etcd-ca etcd-server etcd-peer etcd-healthcheck-client apiserver-etcd-client; do
	kubeadm init phase certs $part --config $config
done
kubeadm init phase etcd local --config $config
rm -f $config
systemctl daemon-reload
systemctl restart kubelet.service

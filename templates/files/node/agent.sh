# start the agent
set -eu
if [ -z "$unit" ]; then exit 0; fi
if [ "$unit" = kuryr-controller ] && ! [ -s /etc/kubernetes/kuryr-controller.conf ]; then
	umask 077
	config=/etc/kubernetes/kuryr-controller
	kubectl --kubeconfig /etc/kubernetes/admin.conf -n kube-system get configmap kubeadm-config -o 'jsonpath={.data.ClusterConfiguration}' >$config.yaml
	kubeadm kubeconfig user --config $config.yaml --client-name kuryr-controller >$config.new
	mv $config.new $config.conf
	rm $config.yaml
fi
systemctl daemon-reload
systemctl enable --quiet "$unit.service"
systemctl restart "$unit.service"

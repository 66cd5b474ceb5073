systemctl is-active --quiet containerd.service || echo "containerd does not run"
for unit in containerd.service kubelet.service; do
	systemctl is-enabled --quiet "$unit" || echo "$unit would not start at boot"
done

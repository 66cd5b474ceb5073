# look at the container runtime
systemctl is-active --quiet containerd.service || echo "containerd does not run"
[ "$(systemctl is-enabled containerd.service kubelet.service 2>/dev/null)" = "enabled
enabled" ] || echo "containerd or kubelet would not start at boot"

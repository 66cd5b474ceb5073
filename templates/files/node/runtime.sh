# start the container runtime
set -eu
systemctl daemon-reload
systemctl enable kubelet.service containerd.service
systemctl restart containerd.service

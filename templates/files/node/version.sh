# look which version the control plane is
sed -n 's|.*image: .*/kube-apiserver:||p' /etc/kubernetes/manifests/kube-apiserver.yaml

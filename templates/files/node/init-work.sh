# kubeadm init
kubeadm init --config /etc/kubernetes/kuryrctl/init.yaml --skip-token-print --skip-certificate-key-print
rm -f /etc/kubernetes/kuryrctl/init.yaml

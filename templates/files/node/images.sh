# import images
set -eu
ctr -n k8s.io images import --label io.cri-containerd.image=managed "$archive"
rm -f "$archive"

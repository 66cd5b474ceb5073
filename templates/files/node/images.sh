# import images
set -eu
for archive in $archives; do
	ctr -n k8s.io images import --label io.cri-containerd.image=managed "$store/$archive"
	rm -f "$store/$archive"
done
rm -rf "$store"

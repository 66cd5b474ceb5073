# look at the images
have=$(ctr -n k8s.io images ls 2>&1) || echo "images cannot be listed: $have"
have="
$(echo "$have" | awk '{ print $1 "@" $3 }')
"
for image in $images; do
	case $have in
	*"
$image
"*) ;;
	*) echo "${image%@*} is not there" ;;
	esac
done

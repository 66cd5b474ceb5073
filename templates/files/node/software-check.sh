# look at the software
# What a cluster runs is not replaced: an upgrade has an order of its own.
runs=$version
for job in etcd init join; do
	if [ -f /var/lib/kuryrctl/$job.done ] && [ -s /var/lib/kuryrctl/version ]; then read -r runs </var/lib/kuryrctl/version; fi
done
if [ -n "$version" ] && [ "$runs" != "$version" ]; then echo "in a cluster of $runs"; fi
missing=none
for archive in $archives; do
	list=/var/lib/kuryrctl/$archive.list
	if ! [ -f "$list" ]; then
		echo "archive $archive is not unpacked"
		continue
	fi
	missing=
	while read -r path; do
		[ -s "/$path" ] || echo "/$path is missing"
	done <"$list"
done
echo $missing

# look at the software
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

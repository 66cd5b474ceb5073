# install software
set -eu
for archive in $archives; do
	list=/var/lib/kuryrctl/$archive.list
	rm -f "$list"
	tar -xzf "$store/$archive" -C / --no-same-owner --no-overwrite-dir
	tar -tzf "$store/$archive" >"$list.new"
	sync /usr/local/bin
	mv "$list.new" "$list"
	rm -f "$store/$archive"
done
if command -v restorecon >/dev/null; then restorecon -R /usr/local/bin /opt/cni; fi

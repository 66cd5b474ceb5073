# install software
set -eu
for archive in $archives; do
	list=/var/lib/kuryrctl/$archive.list
	rm -f "$list"
	tar -xvzf "$store/$archive" -C / --no-same-owner --no-overwrite-dir >"$list.new"
	# The list says that all of it is there; a host that loses its power a moment later must not be left with empty files.
	(cd / && tr '\n' '\0' <"$list.new" | xargs -0 sync)
	sync "$list.new"
	mv "$list.new" "$list"
	rm -f "$store/$archive"
done
if [ -n "$version" ]; then echo "$version" >/var/lib/kuryrctl/version; fi
# With what uploads that were cut off have left.
rm -rf "$store"
if command -v restorecon >/dev/null; then restorecon -R /usr/local/bin /opt/cni; fi

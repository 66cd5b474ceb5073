# look at the system
# Forks are few: on a slow machine they are what a look costs.
[ "$(uname -n)" = "$name" ] || echo "its hostname is $(uname -n)"
getent hosts "$name" >/dev/null || echo "its own name does not resolve"
{ read -r _; read -r swap _; } </proc/swaps && [ -n "$swap" ] && echo "it swaps to $swap"
modules="
$(cat /proc/modules)"
for module in overlay br_netfilter 8021q; do
	case $modules in
	*"
$module "*) ;;
	*) grep -qs "/$module\.ko" "/lib/modules/$(uname -r)/modules.builtin" || echo "kernel module $module is not loaded" ;;
	esac
done
# The shell reads byte by byte, and a number below /proc/sys can only be read at once; hence one cat for all.
paths= values=
while read -r key equals value; do
	if [ "$equals" != = ]; then continue; fi
	path=/proc/sys rest=$key
	while [ -n "$rest" ]; do
		path=$path/${rest%%.*}
		case $rest in
		*.*) rest=${rest#*.} ;;
		*) rest= ;;
		esac
	done
	paths="$paths $path" values="$values$value
"
done 2>/dev/null </etc/sysctl.d/99-kuryrctl.conf
if [ "$(cat $paths 2>&1)
" != "$values" ]; then
	for path in $paths; do
		[ "$(cat $path 2>/dev/null)" = "${values%%"
"*}" ] || echo "$path is not ${values%%"
"*}"
		values=${values#*"
"}
	done
fi
for command in $commands; do
	command -v "$command" >/dev/null || echo "it lacks $command"
done

loaded() { lsmod | grep -q "^$1 " || grep -qs "/$1\.ko" "/lib/modules/$(uname -r)/modules.builtin"; }
[ "$(hostname)" = "$name" ] || echo "its hostname is $(hostname)"
getent hosts "$name" >/dev/null || echo "its own name does not resolve"
[ -z "$(swapon --show=NAME --noheadings)" ] || echo "swap is on"
for module in overlay br_netfilter 8021q; do
	loaded "$module" || echo "kernel module $module is not loaded"
done
grep -v '^#' /etc/sysctl.d/99-kuryrctl.conf 2>/dev/null | while read -r key _ value; do
	[ "$(sysctl -n "$key" 2>&1)" = "$value" ] || echo "$key is not $value"
done
for command in $commands; do
	command -v "$command" >/dev/null || echo "it lacks $command"
done

# look what kind of host it is
. /etc/os-release
echo "id=$ID"
echo "version=${VERSION_ID:-}"
echo "arch=$(uname -m)"
echo "virt=$(systemd-detect-virt 2>/dev/null)"
echo "kernel=$(uname -r)"
echo "machine=$(cat /etc/machine-id)"
echo "time=$(date +%s.%N)"
if command -v cloud-init >/dev/null; then cloud-init status 2>/dev/null | sed -n 's/^status: /cloudinit=/p'; fi

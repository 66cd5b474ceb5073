# make room for uploads
set -eu
mkdir -p "$store"
chmod 755 /var/lib/kuryrctl "$store"
chown "${SUDO_USER:-root}" "$store"

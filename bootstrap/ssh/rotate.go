package ssh

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kuryrctl/kuryrctl/internal/wait"
)

const (
	// rotateLimit bounds the wait for sshd to serve a key that is installed. It takes a second; when it never comes, the
	// host keeps another key than we think it does, and somebody should look.
	rotateLimit = 2 * time.Minute
	rotateEvery = 200 * time.Millisecond
)

// Rotate replaces the host key that came with user_data by one generated on the host, whose private half never leaves it. When
// it returns nil, the new key is the only one pinned and the host has been seen to serve it. client stays usable.
//
// It keeps no record of how far it is: the pins, the key in service and the files on the host tell. Stopped anywhere and run
// again it goes on:
//
//	generate   the successor, in a file of its own, unless a good one is there already
//	pin        both keys, the one in service first
//	install    by rename, then make sshd read it
//	verify     over a new connection
//	clean      what is left of the injected key, the successor's own file
//	pin        the new key alone
//
// Rotate waits for cloud-init to finish before it cleans, because cloud-init's last stages read what is removed.
func Rotate(ctx context.Context, client *Client, pins *Pins) error {
	node := client.cfg.Node
	pin, ok := pins.Node(node)
	serving := slices.Index(pin.Keys, client.hostKey)
	switch {
	case !ok:
		return fmt.Errorf("rotating host key of %s: no key is pinned", node)
	case serving < 0:
		return fmt.Errorf("rotating host key of %s: the connection has a key that is not pinned", node)
	case pin.Rotated:
		return nil
	}
	if serving == 0 {
		next, err := generate(ctx, client)
		if err == nil {
			pin.Keys = []string{client.hostKey, next}
			err = pins.Set(node, pin)
		}
		if err == nil {
			_, err = client.Run(ctx, Command{Line: installScript, Sudo: true})
		}
		if err == nil {
			err = verifyServed(ctx, client.cfg, pin.Keys)
		}
		if err != nil {
			return fmt.Errorf("rotating host key of %s: %w", node, err)
		}
	}
	if err := clean(ctx, client, pin.Keys[0]); err != nil {
		return fmt.Errorf("rotating host key of %s: %w", node, err)
	}
	pin.Keys, pin.Rotated = pin.Keys[1:], true
	if err := pins.Set(node, pin); err != nil {
		return fmt.Errorf("rotating host key of %s: %w", node, err)
	}
	return nil
}

// generateScript prints the public half, read from the private one: of two files a crash may have left the wrong one.
const generateScript = `# generate the next host key
set -eu
umask 077
next=/etc/ssh/kuryrctl_next_host_key
if ! ssh-keygen -y -P '' -f "$next" 2>/dev/null; then
	rm -f "$next" "$next.pub"
	ssh-keygen -q -t ed25519 -N '' -C '' -f "$next"
	sync "$next"
	ssh-keygen -y -P '' -f "$next"
fi
`

func generate(ctx context.Context, client *Client) (string, error) {
	out, err := client.Run(ctx, Command{Line: generateScript, Sudo: true})
	if err != nil {
		return "", err
	}
	key, err := parseHostKey(strings.TrimSpace(out.Stdout))
	if err != nil {
		return "", err
	}
	return marshalKey(key), nil
}

// installScript copies the successor over the key in service. The copy keeps the original until the new key is seen in
// service. sshd is asked first whether it would start: a restart of one that would not locks everybody out. It is restarted
// and not reloaded because a socket-activated sshd (Ubuntu) need not survive a reload; sessions go on, for the units kill only
// the listener. The unit is ssh on Debian and Ubuntu, sshd elsewhere.
const installScript = `# install the next host key
set -eu
umask 077
next=/etc/ssh/kuryrctl_next_host_key
key=/etc/ssh/ssh_host_ed25519_key
rm -f "$key.kuryrctl"
cp "$next" "$key.kuryrctl"
sync "$key.kuryrctl"
mv -f "$key.kuryrctl" "$key"
sync /etc/ssh
if command -v restorecon >/dev/null; then restorecon "$key"; fi
sshd -t
if command -v systemctl >/dev/null; then
	for unit in ssh.service sshd.service; do
		if systemctl is-active --quiet "$unit"; then
			systemctl restart "$unit"
			exit 0
		fi
	done
fi
if [ -s /run/sshd.pid ]; then kill -HUP "$(cat /run/sshd.pid)"; fi
`

// verifyServed connects anew until the host serves the second of two keys.
func verifyServed(ctx context.Context, cfg Config, keys []string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, rotateLimit, errors.New("sshd does not take the key it was given"))
	defer cancel()
	cfg.HostKeys = keys
	return wait.For(ctx, "sshd to serve its new host key", rotateEvery, func(ctx context.Context) (string, bool, error) {
		c, err := Dial(ctx, cfg)
		wrong := (*HostKeyError)(nil)
		switch {
		case errors.As(err, &wrong):
			return "", false, err
		case err != nil:
			return err.Error(), false, nil // restarting
		}
		defer c.Close()
		return "the old one", c.hostKey == keys[1], nil
	})
}

// cleanScript makes the public half beside the new key, which sshd does not need but people do. It removes the successor's own
// file and, under cloud-init's directories, every file that holds the injected key
// ($old is its public half, which stands in the private one's neighbourhood in every form) and the files that hold user-data in
// a form that cannot be searched. The metadata service goes on handing the key out, which is why it is not accepted any more.
// Without its cached data source a later boot may find none, take the server for a new one and replace its host keys: the
// setting forbids it.
const cleanScript = `set -eu
key=/etc/ssh/ssh_host_ed25519_key
ssh-keygen -y -P '' -f "$key" >"$key.pub.kuryrctl"
chmod 644 "$key.pub.kuryrctl"
mv -f "$key.pub.kuryrctl" "$key.pub"
rm -f /etc/ssh/kuryrctl_next_host_key /etc/ssh/kuryrctl_next_host_key.pub "$key.kuryrctl"
if ! command -v cloud-init >/dev/null; then exit 0; fi
cloud-init status --wait >/dev/null 2>&1 || true
mkdir -p /etc/cloud/cloud.cfg.d
echo 'ssh_deletekeys: false' >/etc/cloud/cloud.cfg.d/99-kuryrctl-host-key.cfg
for dir in /var/lib/cloud /run/cloud-init; do
	if ! [ -d "$dir" ]; then continue; fi
	find "$dir" -type f -exec grep -qF -e "$old" {} \; -exec rm -f {} +
	find "$dir" -type f '(' -name 'user-data.txt*' -o -name cloud-config.txt -o -name obj.pkl ')' -exec rm -f {} +
done
sync /var/lib/cloud
`

func clean(ctx context.Context, client *Client, old string) error {
	blob := strings.Fields(old)[1]
	_, err := client.Run(ctx, Command{Line: "# remove the injected host key\nold=" + Quote(blob) + "\n" + cleanScript, Sudo: true})
	return err
}

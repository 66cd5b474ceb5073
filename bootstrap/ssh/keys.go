package ssh

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	cryptossh "golang.org/x/crypto/ssh"
)

// PrivateKey is the private half of a key pair in OpenSSH PEM. Printing or logging it shows a placeholder; convert it to
// []byte or string where the key itself is wanted.
type PrivateKey []byte

// String hides the key.
func (PrivateKey) String() string { return "[redacted]" }

// GoString hides the key from %#v.
func (PrivateKey) GoString() string { return "[redacted]" }

// MarshalText hides the key from slog and from JSON, which would not ask String of a byte slice.
func (PrivateKey) MarshalText() ([]byte, error) { return []byte("[redacted]"), nil }

// KeyPair is an ed25519 key pair.
type KeyPair struct {
	Private PrivateKey
	Public  string // one authorized_keys line without a line end: "ssh-ed25519 AAAA... comment"
}

// NewHostKey makes the host key a server is born with. It has no comment: the line is compared, not read.
func NewHostKey() (KeyPair, error) { return newKey("") }

// NewUserKey makes the key with which one stack's servers are entered. The comment tells a person whose key a line in
// authorized_keys is.
func NewUserKey(comment string) (KeyPair, error) {
	if strings.ContainsAny(comment, "\r\n") {
		return KeyPair{}, errors.New("making user key: the comment has more than one line")
	}
	return newKey(comment)
}

func newKey(comment string) (KeyPair, error) {
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return KeyPair{}, fmt.Errorf("generating ed25519 key: %w", err)
	}
	block, err := cryptossh.MarshalPrivateKey(priv, comment)
	if err != nil {
		return KeyPair{}, fmt.Errorf("encoding private key: %w", err)
	}
	sshPub, err := cryptossh.NewPublicKey(pub)
	if err != nil {
		return KeyPair{}, fmt.Errorf("encoding public key: %w", err)
	}
	line := marshalKey(sshPub)
	if comment != "" {
		line += " " + comment
	}
	return KeyPair{Private: pem.EncodeToMemory(block), Public: line}, nil
}

// Save writes the private half to path and the public half to path + ".pub", for the owner's eyes only. It never overwrites:
// a key that servers already trust cannot be had back. The public half goes first, so that a private key on disk is complete.
func (k KeyPair) Save(path string) error {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			err = fs.ErrExist
		}
		return fmt.Errorf("saving key %s: %w", path, err)
	}
	if err := writeFile(path+".pub", []byte(k.Public+"\n")); err != nil {
		return fmt.Errorf("saving key: %w", err)
	}
	if err := writeFile(path, k.Private); err != nil {
		return fmt.Errorf("saving key: %w", err)
	}
	return nil
}

// Signer proves to a host who we are.
type Signer = cryptossh.Signer

// LoadUserKey reads a private key. Like OpenSSH it refuses a file that group or others can read: such a key is no secret.
func LoadUserKey(path string) (Signer, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading private key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat() // of the open file: the name may be swapped between two calls
	if err != nil {
		return nil, fmt.Errorf("reading private key: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("reading private key %s: mode %04o lets others read it; run chmod 600 %s", path, mode, path)
	}
	pemBytes, err := readAll(f, info)
	if err != nil {
		return nil, fmt.Errorf("reading private key %s: %w", path, err)
	}
	signer, err := cryptossh.ParsePrivateKey(pemBytes)
	if missing := (*cryptossh.PassphraseMissingError)(nil); errors.As(err, &missing) {
		return nil, fmt.Errorf("reading private key %s: it has a passphrase, which cannot be asked for here", path)
	}
	if err != nil {
		return nil, fmt.Errorf("reading private key %s: %w", path, err)
	}
	return signer, nil
}

// marshalKey is the canonical authorized_keys line: type and blob, no comment, no line end.
func marshalKey(k cryptossh.PublicKey) string {
	return strings.TrimSuffix(string(cryptossh.MarshalAuthorizedKey(k)), "\n")
}

// parseHostKey reads one line with an ed25519 key, the only type we pin: one type leaves nothing to downgrade to.
func parseHostKey(line string) (cryptossh.PublicKey, error) {
	key, _, options, rest, err := cryptossh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		return nil, fmt.Errorf("parsing host key %q: %w", line, err)
	}
	if len(rest) > 0 || len(options) > 0 || strings.ContainsAny(line, "\r\n") {
		return nil, fmt.Errorf("parsing host key %q: want one line of type, key and nothing else", line)
	}
	if key.Type() != cryptossh.KeyAlgoED25519 {
		return nil, fmt.Errorf("parsing host key %q: type is %s, want %s", line, key.Type(), cryptossh.KeyAlgoED25519)
	}
	return key, nil
}

package ssh_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	cryptossh "golang.org/x/crypto/ssh"

	"github.com/kuryrctl/kuryrctl/bootstrap/ssh"
)

func TestUserKeySurvivesTheDisk(t *testing.T) {
	pair, err := ssh.NewUserKey("kuryrctl demo")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(pair.Public, "ssh-ed25519 AAAA") || !strings.HasSuffix(pair.Public, " kuryrctl demo") {
		t.Fatalf("public half: %q", pair.Public)
	}
	path := filepath.Join(t.TempDir(), "demo", "key")
	if err := pair.Save(path); err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		if info, err := os.Stat(p); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v; want %v", p, info.Mode(), err, want)
		}
	}
	signer, err := ssh.LoadUserKey(path)
	if err != nil {
		t.Fatal(err)
	}
	if line := string(cryptossh.MarshalAuthorizedKey(signer.PublicKey())); !strings.HasPrefix(pair.Public, strings.TrimSpace(line)) {
		t.Fatalf("loaded another key: %s", line)
	}
	if public, err := os.ReadFile(path + ".pub"); err != nil || string(public) != pair.Public+"\n" {
		t.Fatalf("public file: %q, %v", public, err)
	}
	if err := pair.Save(path); err == nil {
		t.Fatal("overwrote a key")
	}
}

func TestUserKeyCommentIsOneLine(t *testing.T) {
	if _, err := ssh.NewUserKey("a\nssh-ed25519 AAAA"); err == nil {
		t.Fatal("a second line got into authorized_keys")
	}
}

func TestPrivateKeysDoNotPrint(t *testing.T) {
	pair, err := ssh.NewHostKey()
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(h).Info("key", "pair", pair, "private", pair.Private)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		fmt.Fprintf(&log, verb+"\n", pair)
	}
	if s := log.String(); strings.Contains(s, "OPENSSH") || strings.Contains(s, fmt.Sprintf("%x", "OPENSSH")) || strings.Contains(s, "45, 45") || strings.Contains(s, "LS0tLS1CRUdJTi") {
		t.Fatalf("printed: %s", s)
	}
}

func TestLoadUserKeyRefuses(t *testing.T) {
	pair, err := ssh.NewUserKey("")
	if err != nil {
		t.Fatal(err)
	}
	_, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	locked, err := cryptossh.MarshalPrivateKeyWithPassphrase(priv, "", []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		content []byte
		mode    os.FileMode
		want    string
	}{
		"a key the group can read": {pair.Private, 0o640, "chmod 600"},
		"a key others can read":    {pair.Private, 0o604, "chmod 600"},
		"a key with a passphrase":  {pem.EncodeToMemory(locked), 0o600, "passphrase"},
		"a public key":             {[]byte(pair.Public), 0o600, "no key found"},
		"nothing":                  {nil, 0o600, "no key found"},
	} {
		path := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(path, c.content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		if _, err := ssh.LoadUserKey(path); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := ssh.LoadUserKey(t.TempDir()); err == nil {
		t.Error("loaded a directory")
	}
}

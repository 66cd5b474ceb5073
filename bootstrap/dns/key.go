package dns

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"

	miekg "github.com/miekg/dns"
)

// Key is a TSIG key: who may change a zone.
type Key struct {
	name      string // with the final dot
	algorithm string // likewise
	secret    string // base64
}

// String keeps the secret out of what is printed.
func (k Key) String() string { return "TSIG key " + strings.TrimSuffix(k.name, ".") }

// GoString does the same for %#v.
func (k Key) GoString() string { return k.String() }

var algorithms = map[string]string{
	"hmac-sha1": miekg.HmacSHA1, "hmac-sha224": miekg.HmacSHA224, "hmac-sha256": miekg.HmacSHA256, "hmac-sha384": miekg.HmacSHA384, "hmac-sha512": miekg.HmacSHA512,
}

var (
	keyForm    = regexp.MustCompile(`(?s)^\s*key\s+"?([^"\s{]+)"?\s*\{(.*)\}\s*;\s*$`)
	clauseForm = regexp.MustCompile(`(algorithm|secret)\s+"?([^"\s;]+)"?\s*;`)
	lineForm   = regexp.MustCompile(`^\s*([^:\s]+):([^:\s]+):([^:\s]+)\s*$`)
)

// ParseKey reads a key as tsig-keygen writes it (key "NAME" { algorithm ...; secret "..."; };) or as nsupdate -y takes it
// (ALGORITHM:NAME:SECRET). No error has any part of the secret.
func ParseKey(text string) (Key, error) {
	var algorithm, name, secret string
	if m := lineForm.FindStringSubmatch(text); m != nil {
		algorithm, name, secret = m[1], m[2], m[3]
	} else if m := keyForm.FindStringSubmatch(text); m != nil {
		name = m[1]
		for _, clause := range clauseForm.FindAllStringSubmatch(m[2], -1) {
			if clause[1] == "secret" {
				secret = clause[2]
			} else {
				algorithm = clause[2]
			}
		}
	} else {
		return Key{}, errors.New("it is no TSIG key: want what tsig-keygen writes, or ALGORITHM:NAME:SECRET")
	}
	k := Key{name: miekg.CanonicalName(name), algorithm: algorithms[strings.ToLower(strings.TrimSuffix(algorithm, "."))], secret: secret}
	if _, ok := miekg.IsDomainName(name); !ok {
		return Key{}, errors.New("the TSIG key has no usable name")
	}
	if k.algorithm == "" {
		return Key{}, fmt.Errorf("the TSIG key %s has no algorithm that is known here: hmac-sha256 is", name)
	}
	if raw, err := base64.StdEncoding.DecodeString(secret); err != nil || len(raw) == 0 {
		return Key{}, fmt.Errorf("the secret of TSIG key %s is no base64", name)
	}
	return k, nil
}

// LoadKey reads a key from a file that nobody but its owner can read.
func LoadKey(path string) (Key, error) {
	f, err := os.Open(path)
	if err != nil {
		return Key{}, fmt.Errorf("reading TSIG key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat() // of the open file: the name may be swapped between two calls
	if err != nil {
		return Key{}, fmt.Errorf("reading TSIG key: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return Key{}, fmt.Errorf("reading TSIG key %s: mode %04o lets others read it; run chmod 600 %s", path, mode, path)
	}
	text, err := io.ReadAll(io.LimitReader(f, 1<<16))
	if err != nil {
		return Key{}, fmt.Errorf("reading TSIG key: %w", err)
	}
	k, err := ParseKey(string(text))
	if err != nil {
		return Key{}, fmt.Errorf("reading TSIG key %s: %w", path, err)
	}
	return k, nil
}

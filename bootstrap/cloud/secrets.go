package cloud

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/kuryrctl/kuryrctl/templates/lab"
)

// secrets are made once per state directory and are all that this cloud's logins rest on. What the golden root was baked with
// is replaced before any service starts.
type secrets struct {
	Cloud         lab.Cloud `json:"cloud"`
	FernetKey     string    `json:"fernet_key"`     // signs Keystone's tokens
	CredentialKey string    `json:"credential_key"` // encrypts Keystone's stored credentials
	NamesKey      string    `json:"names_key"`      // of who may change the lab's zone
}

func newSecrets() secrets {
	s := secrets{
		Cloud: lab.Cloud{
			Address: Address, AdminPassword: rand.Text(), DemoPassword: rand.Text(), RabbitPassword: rand.Text(),
			MetadataSecret: rand.Text(), HeartbeatSecret: rand.Text(), ServicePasswords: map[string]string{},
		},
		FernetKey: fernetKey(), CredentialKey: fernetKey(), NamesKey: namesKey(),
	}
	for _, name := range serviceUsers() {
		s.Cloud.ServicePasswords[name] = rand.Text()
	}
	return s
}

func serviceUsers() []string { return []string{"glance", "neutron", "nova", "octavia", "placement"} }

// fernetKey returns 32 random bytes in the alphabet that Fernet's specification asks for.
func fernetKey() string {
	key := make([]byte, 32)
	rand.Read(key) // never fails: it ends the program instead
	return base64.URLEncoding.EncodeToString(key)
}

// namesKey is 32 random bytes, as tsig-keygen makes them.
func namesKey() string {
	key := make([]byte, 32)
	rand.Read(key)
	return base64.StdEncoding.EncodeToString(key)
}

// names is the name server that the lab has.
func (s secrets) names() lab.Names {
	return lab.Names{Address: NameServer, Zone: Zone, KeyName: "kuryrctl", Secret: s.NamesKey}
}

// loadSecrets reads the secrets at path, or makes them.
func loadSecrets(path string) (secrets, error) {
	var s secrets
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		s = newSecrets()
		return s, writeJSON(path, s, 0o600)
	}
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("reading %s: %w", path, err)
	}
	if s.NamesKey == "" { // of a cloud that was made before there was a name server
		s.NamesKey = namesKey()
		return s, writeJSON(path, s, 0o600)
	}
	return s, nil
}

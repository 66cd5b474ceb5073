package openstacktest

import (
	"crypto/md5"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
)

// keypair belongs to a user, not to a project.
type keypair struct {
	base
	Name        string `json:"name" api:"c"`
	PublicKey   string `json:"public_key" api:"c"`
	Type        string `json:"type" api:"c"`
	Fingerprint string `json:"fingerprint"`
	UserID      string `json:"user_id" api:"c"`
}

func (c *Cloud) keypairRoutes(on func(string, string, int, func(*call) (any, error))) {
	on("GET", "/os-keypairs", 200, func(q *call) (any, error) {
		out := []any{}
		for _, k := range q.compute.keypairs.rows {
			if k.UserID == q.who.UserID {
				out = append(out, map[string]any{"keypair": k.show(q, false)})
			}
		}
		return map[string]any{"keypairs": out}, nil
	})
	on("POST", "/os-keypairs", 200, createKeypair)
	on("GET", "/os-keypairs/{name}", 200, func(q *call) (any, error) {
		k, err := q.keypair()
		if err != nil {
			return nil, err
		}
		return map[string]any{"keypair": k.show(q, true)}, nil
	})
	on("DELETE", "/os-keypairs/{name}", 202, func(q *call) (any, error) {
		k, err := q.keypair()
		if err != nil {
			return nil, err
		}
		if q.since(2) {
			q.status = http.StatusNoContent
		}
		q.compute.keypairs.drop(k.ID)
		return nil, nil
	})
}

func (k *keypair) show(q *call, all bool) map[string]any {
	m := map[string]any{"name": k.Name, "public_key": k.PublicKey, "fingerprint": k.Fingerprint, "user_id": k.UserID}
	if q.since(2) {
		m["type"] = k.Type
	}
	if all {
		m["id"], m["deleted"], m["created_at"], m["deleted_at"], m["updated_at"] = 1, false, "2025-01-01T00:00:00.000000", nil, nil
	}
	return m
}

func (q *call) keypair() (*keypair, error) {
	k, ok := q.compute.keypairs.first(func(k *keypair) bool { return k.Name == q.PathValue("name") && k.UserID == q.who.UserID })
	if !ok {
		return nil, nova(http.StatusNotFound, "Keypair %s not found for user %s", q.PathValue("name"), q.who.UserID)
	}
	return k, nil
}

func createKeypair(q *call) (any, error) {
	f, err := q.object("keypair")
	if err != nil {
		return nil, err
	}
	k := &keypair{Type: "ssh", UserID: q.who.UserID}
	refused, err := assign(k, f, atCreate)
	if len(refused) > 0 || err != nil || k.Name == "" {
		q.misuse("bad keypair: %v %v", refused, err)
		return nil, nova(http.StatusBadRequest, "Additional properties are not allowed (%v)", refused)
	}
	if !k.validName(q) {
		q.misuse("keypair name %q", k.Name)
		return nil, nova(http.StatusBadRequest, "An invalid 'name' value was provided. The name must be: Only expected characters: [_- 0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ]")
	}
	if k.PublicKey == "" {
		// Nova would make a private key and send it over the wire; 2.92 ended that.
		q.misuse("a keypair without a public key")
		return nil, nova(http.StatusBadRequest, "Invalid input for field/attribute keypair. 'public_key' is a required property")
	}
	words := strings.Fields(k.PublicKey)
	var blob []byte
	if len(words) >= 2 {
		blob, err = base64.StdEncoding.DecodeString(words[1])
	}
	if err != nil || len(blob) == 0 {
		return nil, nova(http.StatusBadRequest, "Keypair data is invalid: failed to generate fingerprint")
	}
	if q.compute.keypairs.any(func(o *keypair) bool { return o.UserID == k.UserID && o.Name == k.Name }) {
		return nil, nova(http.StatusConflict, "Key pair '%s' already exists.", k.Name)
	}
	n := len(q.compute.keypairs.where(func(o *keypair) bool { return o.UserID == k.UserID }))
	if limit := q.limit("compute", "key_pairs", q.who.ProjectID); limit >= 0 && n >= limit {
		return nil, nova(http.StatusForbidden, "Quota exceeded, too many key pairs.")
	}
	sum := md5.Sum(blob)
	k.Fingerprint = strings.ReplaceAll(fmt.Sprintf("% x", sum), " ", ":")
	k.ID = q.newID()
	q.compute.keypairs.add(k)
	if q.since(2) {
		q.status = http.StatusCreated
	}
	return map[string]any{"keypair": k.show(q, false)}, nil
}

// validName tells whether Nova takes the name; dots and @ came with 2.92.
func (k *keypair) validName(q *call) bool {
	return !strings.ContainsFunc(k.Name, func(r rune) bool {
		plain := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_- ", r)
		return !plain && !(q.since(92) && strings.ContainsRune("@.", r))
	})
}

package openstack

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

const redacted = "[redacted]"

// isSecret tells which names carry something that must not be shown.
func isSecret(name string) bool {
	name = strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(name))
	for _, part := range []string{"password", "passwd", "passcode", "secret", "userdata", "privatekey", "adminpass", "token", "signature"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}

// safeURL is u without the values of secret query parameters and without a password.
func safeURL(u *url.URL) string {
	safe := *u
	query := safe.Query()
	for name, values := range query {
		if isSecret(name) {
			for i := range values {
				values[i] = redacted
			}
			safe.RawQuery = query.Encode()
		}
	}
	return safe.Redacted()
}

// secretsOf collects the secret values that req carries. Services echo them: Nova's "Invalid input for field/attribute user_data.
// Value: ..." has the whole of it, and gophercloud puts the whole reply into the error.
func secretsOf(req *http.Request) []string {
	var found []string
	for name, values := range req.Header {
		if isSecret(name) {
			found = append(found, values...)
		}
	}
	for name, values := range req.URL.Query() {
		if isSecret(name) {
			found = append(found, values...)
		}
	}
	if req.GetBody == nil {
		return found
	}
	body, err := req.GetBody()
	if err != nil {
		return found
	}
	defer body.Close()
	var v any
	if json.NewDecoder(body).Decode(&v) != nil {
		return found
	}
	return appendSecrets(found, v, false)
}

func appendSecrets(found []string, v any, secret bool) []string {
	switch v := v.(type) {
	case string:
		if secret {
			found = append(found, v)
		}
	case []any:
		for _, item := range v {
			found = appendSecrets(found, item, secret)
		}
	case map[string]any:
		for name, item := range v {
			_, leaf := item.(string)
			// {"password": {"user": {"name", "password"}}}: the object's name must not condemn the user's name in it. A token is
			// {"token": {"id"}}.
			found = appendSecrets(found, item, leaf && isSecret(name) || secret && name == "id" || !leaf && name == "token")
		}
	}
	return found
}

// minSecret is the shortest value that is searched for: replacing "a" would only spoil the sentence.
const minSecret = 3

// scrub replaces the secrets in the body of a reply. JSON is searched decoded, since each language escapes in a way of its own.
func scrub(body []byte, secrets []string) []byte {
	clean := scrubber(secrets)
	var v any
	if json.Unmarshal(body, &v) != nil {
		return []byte(clean.Replace(string(body)))
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if enc.Encode(scrubValue(v, clean)) != nil {
		return []byte(redacted)
	}
	return out.Bytes()
}

func scrubValue(v any, clean *strings.Replacer) any {
	switch v := v.(type) {
	case string:
		return clean.Replace(v)
	case []any:
		for i := range v {
			v[i] = scrubValue(v[i], clean)
		}
	case map[string]any:
		for key := range v {
			v[key] = scrubValue(v[key], clean)
		}
	}
	return v
}

// scrubber knows the secrets as they are, as JSON quotes them (with and without HTML in mind), and as a query has them.
func scrubber(secrets []string) *strings.Replacer {
	secrets = slices.Clone(secrets)
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) }) // one may be the beginning of another
	var pairs []string
	for _, s := range secrets {
		if len(s) < minSecret {
			continue
		}
		for _, form := range []string{s, quoted(s, false), quoted(s, true), url.QueryEscape(s)} {
			pairs = append(pairs, form, redacted)
		}
	}
	return strings.NewReplacer(pairs...)
}

// quoted is s as JSON writes it, without the quotes around it.
func quoted(s string, escapeHTML bool) string {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(escapeHTML)
	if enc.Encode(s) != nil {
		return s
	}
	return out.String()[1 : out.Len()-2] // a newline comes after the quote
}

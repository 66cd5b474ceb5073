package openstack

import (
	"encoding/json"
	"net/http"
	"net/url"

	"github.com/kuryrctl/kuryrctl/internal/redact"
)

// safeURL is u without the values of secret query parameters and without a password.
func safeURL(u *url.URL) string {
	safe := *u
	query := safe.Query()
	for name, values := range query {
		if redact.Name(name) {
			for i := range values {
				values[i] = redact.Mark
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
		if redact.Name(name) {
			found = append(found, values...)
		}
	}
	for name, values := range req.URL.Query() {
		if redact.Name(name) {
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
			found = appendSecrets(found, item, leaf && redact.Name(name) || secret && name == "id" || !leaf && name == "token")
		}
	}
	return found
}

package redact_test

import (
	"encoding/json"
	"fmt"
	"html"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/kuryrctl/kuryrctl/internal/redact"
)

const canary = "c4narY"

func TestNoFormOfASecretIsLeft(t *testing.T) {
	for name, text := range map[string]string{
		"a private key":            "a\n-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA" + canary + "\n-----END OPENSSH PRIVATE KEY-----\nb",
		"one cut off at its end":   "a\n-----BEGIN EC PRIVATE KEY-----\nAAAA" + canary,
		"one cut off at its begin": canary + "AA==\n-----END EC PRIVATE KEY-----\nb",
		"one in a string":          `key="-----BEGIN PRIVATE KEY-----\nAA` + canary + `\n-----END PRIVATE KEY-----\n"`,
		"YAML":                     "auth:\n  password: a " + canary + "\n",
		"YAML with quotes":         `"client-key-data": "` + canary + `"` + "\nx: 1",
		"a kubeconfig":             "users:\n- name: admin\n  user:\n    client-key-data: " + canary + "\n",
		"a kubeconfig's token":     "    token: " + canary,
		"an encryption key":        "      - name: first\n        secret: " + canary + "/+=\n",
		"a setting":                "OS_PASSWORD=" + canary + " OS_X=1",
		"a setting with quotes":    `export OS_PASSWORD="a ` + canary + `"`,
		"a flag":                   "kubeadm join --token " + canary + " 1.2.3.4",
		"a flag with =":            "kubeadm join --token=" + canary,
		"a log line":               `level=info msg="got" token="` + canary + `"`,
		"a log line in JSON":       `Nov 25 x: {"admin_password": "a ` + canary + `", "x": 1}`,
		"escaped JSON":             `msg="{\"password\": \"a` + canary + `\"}"`,
		"a header":                 "X-Auth-Token: " + canary,
		"a bearer":                 "Authorization: Bearer " + canary,
		"a URL":                    "mysql://root:" + canary + "@db/x",
		"a query":                  "GET /x?token=" + canary + "&y=1",
		"a known value":            "it was xyz" + canary + "zyx there",
		"JSON":                     `{"server": {"user_data": "` + canary + `", "name": "x"}}`,
		"JSON in JSON":             `{"a": ["password=` + canary + `"]}`,
		"an environment":           `{"env": [{"name": "DB_PASSWORD", "value": "` + canary + `"}]}`,
		"a Secret":                 `{"kind": "Secret", "data": {"tls.crt": "` + canary + `"}, "stringData": {"a": "` + canary + `"}}`,
		"a Secret within a list":   `{"items": [{"kind": "Secret", "data": {"x": "` + canary + `"}}]}`,
		"a credential":             `{"application_credential": {"id": "1", "secret": "` + canary + `"}}`,
		"a block of YAML":          "x:\n  userData: |\n    #cloud-config\n    a: " + canary + "\n  y: 1\n",
	} {
		if got := string(redact.Text([]byte(text), "xyz"+canary+"zyx")); strings.Contains(got, canary) {
			t.Errorf("%s: %q", name, got)
		}
	}
	for name, text := range map[string]string{
		"a bootstrap token": "Using token: ok\nabcdef.0123456789abcdef was made",
		"a JWT":             "got eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrdWJlIn0.c2ln here",
		"a Fernet token":    "got gAAAAABmZ0123456789abcdefghij here",
	} {
		got := string(redact.Text([]byte(text)))
		if strings.Contains(got, "0123456789abcdef") || strings.Contains(got, "eyJ") || !strings.Contains(got, redact.Mark) {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestWhatIsNoSecretStays(t *testing.T) {
	for _, text := range []string{
		"Nov 25 08:28:09 master-0 kubelet[2433]: I1125 \"Container runtime network not ready\" networkReady=\"false reason:NetworkPluginNotReady\"\n",
		"kind: Pod\nmetadata:\n  name: etcd\nspec:\n  image: registry.k8s.io/etcd:3.6.5-0\n",
		"https://172.30.0.1:443/readyz ok\n",
	} {
		if got := string(redact.Text([]byte(text))); got != text {
			t.Errorf("got %q, want %q", got, text)
		}
	}
	var v map[string]any
	if err := json.Unmarshal(redact.Text([]byte(`{"id": "1", "n": 12345678901234567890, "token": "x", "name": "demo/worker-0"}`)), &v); err != nil || v["name"] != "demo/worker-0" || v["token"] != redact.Mark {
		t.Errorf("%v, %v", v, err)
	}
}

// quotes are the ways in which those who are sent a secret quote it.
var quotes = map[string]func(string) string{
	"as it is": func(s string) string { return s },
	"JSON": func(s string) string {
		return asJSON(map[string]any{"error": map[string]any{"message": "not " + s, s: 1, "all": []any{s}}})
	},
	"JSON, as text": func(s string) string {
		return asJSON(map[string]any{"message": "got " + asJSON(map[string]any{"name": s}) + " in " + asJSON(s)})
	},
	"JSON in ASCII": func(s string) string { return "got " + strconv.QuoteToASCII(s) },
	"JSON, not HTML": func(s string) string {
		return strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&").Replace(asJSON(s)) + " it was"
	},
	"HTML": func(s string) string { return "<p>" + html.EscapeString(s) + "</p>" },
	"Python's HTML": func(s string) string {
		return "<p>" + strings.ReplaceAll(strings.ReplaceAll(html.EscapeString(s), "&#34;", "&quot;"), "&#39;", "&#x27;")
	},
	"a query": func(s string) string { return "GET /x?q=" + url.QueryEscape(s) + "&y=1" },
	"a path":  func(s string) string { return "GET /x/" + url.PathEscape(s) + "/y" },
}

func asJSON(v any) string {
	out, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(out)
}

// texts are all texts in what may be JSON: a secret need not be written as it is.
func texts(out []byte) []string {
	var v any
	if json.Unmarshal(out, &v) != nil {
		return []string{string(out)}
	}
	var all []string
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, x := range v {
				walk(x)
			}
		case map[string]any:
			for key, x := range v {
				all = append(all, key)
				walk(x)
			}
		default:
			all = append(all, fmt.Sprint(v))
		}
	}
	walk(v)
	return all
}

// FuzzKnown: a secret that is known is in nothing that was masked, whoever quoted it, and however.
func FuzzKnown(f *testing.F) {
	for _, secret := range []string{"hunter2", `a"b\c`, "<&>'\"", "geheimß", "пароль", "a b%20+c", "123456", "-1.5e3", "tab\tand\nline", "\U0001f511key", "{}", "&amp;", "://x:y@z"} {
		f.Add(secret, "")
		f.Add(secret, "some: ")
	}
	f.Fuzz(func(t *testing.T, secret, around string) {
		// A mark has brackets and a word of its own, and what is not text is not sent.
		if utf8.RuneCountInString(secret) < 3 || !utf8.ValidString(secret+around) || strings.ContainsAny(secret, "[]\x00\x7f") || strings.Contains(redact.Mark, secret) {
			return
		}
		for how, quote := range quotes {
			text := quote(secret)
			if !strings.HasPrefix(text, "{") {
				text = around + text + around
			}
			for name, out := range map[string][]byte{"Values": redact.Values([]byte(text), []string{secret}), "Text": redact.Text([]byte(text), secret)} {
				for _, x := range texts(out) {
					if strings.Contains(x, secret) || strings.HasPrefix(text, "{") && strings.Contains(x, strings.Trim(asJSON(secret), `"`)) {
						t.Fatalf("%s of %s, %q, leaves %q", name, how, text, out)
					}
				}
			}
		}
	})
}

// Package redact takes secrets out of what people get to see: it owns what a secret's name looks like ([Name]), the replacement of
// secrets that are known ([Values]), and the search for those that are not, in any text ([Text]).
//
// It refuses to be exact. What might be a secret is taken for one: a word too few in a log is asked for, a key too many is rotated.
package redact

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Mark stands where a secret was.
const Mark = "[redacted]"

// parts are what names of secrets have in them, in small letters, without - and _.
var parts = []string{"password", "passwd", "passcode", "secret", "userdata", "privatekey", "adminpass", "token", "signature", "keydata"}

// Name tells which names carry something that must not be shown.
func Name(name string) bool {
	name = strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(name))
	for _, part := range parts {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}

// minSecret is the shortest value that is searched for: replacing "a" would only spoil the sentence.
const minSecret = 3

// Values replaces secrets that are known in the body of a reply. JSON is searched decoded, since each language escapes in a way of its own.
func Values(body []byte, secrets []string) []byte {
	clean := scrubber(secrets)
	v, ok := decoded(body)
	if !ok {
		return []byte(clean.Replace(string(body)))
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if enc.Encode(scrubValue(v, clean)) != nil {
		return []byte(Mark)
	}
	return out.Bytes()
}

// decoded is a text that is JSON and nothing else, with its numbers as they are written.
func decoded(text []byte) (v any, ok bool) {
	if !json.Valid(text) {
		return nil, false
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	return v, d.Decode(&v) == nil
}

func scrubValue(v any, clean *strings.Replacer) any {
	switch v := v.(type) {
	case string:
		return clean.Replace(v)
	case json.Number: // a passcode may be one
		return scrubNumber(v, clean)
	case []any:
		for i := range v {
			v[i] = scrubValue(v[i], clean)
		}
	case map[string]any:
		out := map[string]any{}
		for key := range v {
			out[clean.Replace(key)] = scrubValue(v[key], clean)
		}
		return out
	}
	return v
}

func scrubNumber(n json.Number, clean *strings.Replacer) any {
	if s := clean.Replace(n.String()); s != n.String() {
		return s
	}
	return n
}

// scrubber knows the secrets as they are and as they are quoted: by JSON (with HTML in mind or not, and in ASCII alone) and Python, and what came
// of that by JSON once more, in a web page, in a query and in a path.
func scrubber(secrets []string) *strings.Replacer {
	secrets = slices.Clone(secrets)
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) }) // one may be the beginning of another
	var pairs []string
	known := map[string]bool{}
	for _, s := range secrets {
		if len(s) < minSecret {
			continue
		}
		plain := quoted(s, false)
		for _, said := range []string{s, plain, quoted(s, true), ascii(plain), pythonic.Replace(s)} {
			for _, form := range []string{said, quoted(said, false), html.EscapeString(said), paged.Replace(said), url.QueryEscape(said), url.PathEscape(said)} {
				if !known[form] {
					known[form], pairs = true, append(pairs, form, Mark)
				}
			}
		}
	}
	return strings.NewReplacer(pairs...)
}

var (
	pythonic = strings.NewReplacer(`\`, `\\`, `'`, `\'`, "\n", `\n`)                                     // repr of what has both kinds of quotes
	paged    = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "'", "&#x27;") // html.escape of Python; Go's names quotes by numbers
)

// ascii writes what is not ASCII as JSON may.
func ascii(s string) string {
	var out strings.Builder
	for _, u := range utf16.Encode([]rune(s)) {
		if u < utf8.RuneSelf {
			out.WriteByte(byte(u))
		} else {
			fmt.Fprintf(&out, `\u%04x`, u)
		}
	}
	return out.String()
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

// form is a text in which a secret is recognised by how it looks or by what stands before it.
type form struct {
	look *regexp.Regexp
	with string
}

// secretWord is a name of which [Name] is true, as a pattern.
const secretWord = `[\w.-]*(?:pass-?_?word|passwd|pass-?_?code|secret|user-?_?data|private-?_?key|admin-?_?pass|token|signature|key-?_?data)[\w.-]*`

// keys are private keys, which are several lines.
var keys = []form{
	{regexp.MustCompile(`(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\z)`), Mark},
	{regexp.MustCompile(`(?:[A-Za-z0-9+/=\s]|\\n)*-----END [A-Z0-9 ]*PRIVATE KEY-----`), Mark}, // whose beginning was cut off
}

// forms are found within a line.
var forms = []form{
	{regexp.MustCompile(`(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]+`), "$1 " + Mark},
	{regexp.MustCompile(`\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?`), Mark}, // JWT
	{regexp.MustCompile(`\bgAAAA[A-Za-z0-9_=-]{20,}`), Mark},                               // Fernet, as Keystone's
	{regexp.MustCompile(`\b[a-z0-9]{6}\.[a-z0-9]{16}\b`), Mark},                            // of kubeadm, to join with
	{regexp.MustCompile(`(://[^\s:/@]*:)[^\s@/]+@`), "$1" + Mark + "@"},
	// A line of its own, as in YAML, whose value may have spaces; an object of that name goes on in the next line.
	{regexp.MustCompile(`(?im)^(\s*(?:- )?["']?` + secretWord + `["']?:[ \t]+)\S.*$`), "${1}" + Mark},
	// Within a line: NAME=VALUE, "NAME": "VALUE", --NAME VALUE.
	{regexp.MustCompile(`(?i)(["']?` + secretWord + `\\?["']?\s*[:=]\s*)(?:\\?"[^"]*"|'[^']*'|[^\s"',;&}\])]+)`), "${1}" + Mark},
	{regexp.MustCompile(`(?i)(--?` + secretWord + `[ \t]+)[^\s-]\S*`), "${1}" + Mark},
}

// Text masks everything in a text that may be a secret, and the known ones wherever they are. JSON is masked by its structure: what is
// below data of a Kubernetes Secret, what has a secret's name, and every string as a text of its own.
func Text(text []byte, known ...string) []byte {
	clean := scrubber(known)
	if v, ok := decoded(text); ok {
		if _, whole := v.(json.Number); !whole {
			var out bytes.Buffer
			enc := json.NewEncoder(&out)
			enc.SetEscapeHTML(false)
			enc.SetIndent("", "  ")
			if enc.Encode(mask(v, clean)) != nil {
				return []byte(Mark)
			}
			return out.Bytes()
		}
	}
	return []byte(maskString(string(text), clean))
}

func maskString(s string, clean *strings.Replacer) string {
	s = clean.Replace(s)
	if strings.Contains(s, "PRIVATE KEY-----") {
		for _, f := range keys {
			s = f.look.ReplaceAllString(s, f.with)
		}
	}
	var out strings.Builder
	for line := range strings.Lines(maskBlocks(s)) {
		if suspicious(line) { // most are not, and the forms are slow
			for _, f := range forms {
				line = f.look.ReplaceAllString(line, f.with)
			}
		}
		out.WriteString(line)
	}
	return out.String()
}

// hints are in every line that has one of the forms but the last, in small letters.
var hints = []string{"pass", "secret", "token", "user-data", "user_data", "userdata", "private", "signature", "key-data", "key_data", "keydata",
	"bearer", "basic", "eyj", "gaaaa", "://"}

func suspicious(line string) bool {
	low := strings.ToLower(line)
	for _, h := range hints {
		if strings.Contains(low, h) {
			return true
		}
	}
	// A token of kubeadm has a dot after six characters.
	for i := 6; i+16 < len(line); i++ {
		if line[i] == '.' && plain(line[i-6:i]) && plain(line[i+1:i+17]) {
			return true
		}
	}
	return false
}

func plain(s string) bool {
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789") == ""
}

var block = regexp.MustCompile(`(?i)^(\s*)(?:- )?["']?` + secretWord + `["']?:[ \t]*[|>][-+0-9]*\s*$`)

// maskBlocks masks values of YAML that are lines of their own, further in than their name.
func maskBlocks(s string) string {
	if !strings.ContainsAny(s, "|>") {
		return s
	}
	var out strings.Builder
	within, hidden := -1, false
	for line := range strings.Lines(s) {
		indent := len(line) - len(strings.TrimLeft(line, " \t"))
		if within >= 0 && (indent > within || strings.TrimSpace(line) == "") {
			if !hidden {
				out.WriteString(line[:indent] + Mark + "\n")
			}
			hidden = true
			continue
		}
		within, hidden = -1, false
		if strings.ContainsAny(line, "|>") && suspicious(line) {
			if m := block.FindStringSubmatch(line); m != nil {
				within = len(m[1])
			}
		}
		out.WriteString(line)
	}
	return out.String()
}

func mask(v any, clean *strings.Replacer) any {
	switch v := v.(type) {
	case string:
		return maskString(v, clean)
	case json.Number:
		return scrubNumber(v, clean)
	case []any:
		for i := range v {
			v[i] = mask(v[i], clean)
		}
	case map[string]any:
		name, _ := v["name"].(string)
		out := map[string]any{}
		for key, item := range v {
			leaf := false
			switch item.(type) {
			case string, json.Number:
				leaf = true
			}
			shown := clean.Replace(key)
			switch {
			case leaf && Name(key), leaf && key == "value" && Name(name): // the latter is an environment
				out[shown] = Mark
			case v["kind"] == "Secret" && (key == "data" || key == "stringData"):
				out[shown] = Mark
			default:
				out[shown] = mask(item, clean)
			}
		}
		return out
	}
	return v
}

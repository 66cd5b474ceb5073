package openstack

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"regexp"
	"strings"
)

// NeutronType is the class of Neutron's error ("OverQuota", "PortInUseAsSubPort"), or "" for any other.
func NeutronType(err error) string {
	r, _ := response(err)
	var body struct {
		NeutronError struct{ Type string }
	}
	if json.Unmarshal(r.Body, &body) != nil {
		return ""
	}
	return body.NeutronError.Type
}

// Reason is what the cloud itself says in the body of its reply, in one line, or the status in words when it says nothing. For an error
// that is no reply it is the error's own text.
func Reason(err error) string {
	r, ok := response(err)
	if !ok {
		if err == nil {
			return ""
		}
		return oneLine(err.Error())
	}
	if to := r.ResponseHeader.Get("Location"); to != "" && r.Actual >= 300 && r.Actual < 400 {
		return "the server redirects to " + to + ": use that address instead of " + r.URL
	}
	if text := bodyText(r.Body); text != "" {
		return text
	}
	if text := http.StatusText(r.Actual); text != "" {
		return strings.ToLower(text)
	}
	return fmt.Sprintf("status %d", r.Actual)
}

// bodyText finds the sentence in an error body. Each service has a form of its own: {"NeutronError": {"message"}},
// {"forbidden": {"message"}} (Nova), {"error": {"message"}} (Keystone), {"faultstring"} (Octavia), {"errors": [{"detail"}]}
// (Placement), {"message"} (unknown paths), HTML (Glance, and every proxy).
func bodyText(body []byte) string {
	body = bytes.TrimSpace(body)
	if isHTML(body) {
		return htmlText(string(body))
	}
	var v any
	if json.Unmarshal(body, &v) == nil {
		return oneLine(htmlBreak.ReplaceAllString(message(v, 3), " ")) // webob's JSON keeps them
	}
	return oneLine(string(body))
}

func message(v any, depth int) string {
	switch v := v.(type) {
	case string:
		return v
	case []any:
		if len(v) > 0 && depth > 0 {
			return message(v[0], depth-1)
		}
	case map[string]any:
		for _, key := range []string{"message", "faultstring", "detail", "error_message"} {
			if s, ok := v[key].(string); ok && s != "" {
				return s
			}
		}
		if depth == 0 {
			return ""
		}
		for _, key := range []string{"NeutronError", "error", "errors"} {
			if s := message(v[key], depth-1); s != "" {
				return s
			}
		}
		if len(v) == 1 { // Nova names the envelope after the fault
			for _, inner := range v {
				return message(inner, depth-1)
			}
		}
	}
	return ""
}

var (
	htmlBreak  = regexp.MustCompile(`<br ?/?>`)
	htmlTag    = regexp.MustCompile(`(?s)<[^>]*>`)
	htmlHidden = regexp.MustCompile(`(?is)<(head|style|script)\b.*?</(head|style|script)>`)
	htmlTitle  = regexp.MustCompile(`(?is)<title[^>]*>(.*?)</title>`)
)

func isHTML(body []byte) bool { return len(body) > 0 && body[0] == '<' }

// htmlText is what a person would read on the page.
func htmlText(page string) string {
	text := oneLine(html.UnescapeString(htmlTag.ReplaceAllString(htmlHidden.ReplaceAllString(page, " "), " ")))
	if text == "" {
		if m := htmlTitle.FindStringSubmatch(page); m != nil {
			text = oneLine(html.UnescapeString(m[1]))
		}
	}
	return text
}

// maxReason keeps a traceback or a whole page from filling the screen, in bytes.
const maxReason = 400

func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > maxReason {
		s = strings.ToValidUTF8(s[:maxReason], "") + "..."
	}
	return s
}

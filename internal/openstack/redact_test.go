package openstack

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2"

	"github.com/kuryrctl/kuryrctl/internal/redact"
)

// TestNoSecretReachesALogOrAnError sends a canary in every place a secret may be, to a server that echoes all it gets.
func TestNoSecretReachesALogOrAnError(t *testing.T) {
	const canary = "cAnArY\"<0042>"
	isolate(t)
	k := newKeystone(t)
	k.network = func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]any{"badRequest": map[string]any{
			"message": fmt.Sprintf("%v %v %s", r.Header, r.URL.RawQuery, body), "code": 400}})
	}
	var log bytes.Buffer
	logger := slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	c := mustConnect(t, Options{File: k.write(t, strings.Replace(simpleCloud, "sesame", `'cAnArY"<0042>'`, 1)), Log: logger})
	network, err := c.Network()
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range []map[string]any{
		{"server": map[string]any{"user_data": canary, "adminPass": canary, "name": "web"}},
		{"auth": map[string]any{"identity": map[string]any{"token": map[string]any{"id": canary}, "password": map[string]any{"user": map[string]any{"password": canary}}}}},
		{"keypair": map[string]any{"private_key": canary}, "application_credential": []any{map[string]any{"secret": canary}}},
	} {
		_, err := network.Post(t.Context(), network.ServiceURL("ports"), body, nil,
			&gophercloud.RequestOpts{MoreHeaders: map[string]string{"X-Subject-Token": canary}})
		if err == nil {
			t.Fatal("no error")
		}
		logger.Error("it failed", "error", err)
		for _, shown := range []string{err.Error(), fmt.Sprintf("%+v", err), Reason(err), Wrap(err, "creating").Error()} {
			if i := strings.Index(shown, "cAnArY"); i >= 0 {
				t.Errorf("a secret is shown: %s", shown[max(0, i-60):min(len(shown), i+20)])
			}
			if strings.Contains(shown, c.provider.Token()) {
				t.Errorf("the token is shown: %s", shown)
			}
		}
	}
	// No API of ours has a secret in its URL, which gophercloud puts into its error; what we make of that error and log has none.
	_, err = network.Get(t.Context(), network.ServiceURL("ports?password="+url.QueryEscape(canary)+"&name=web"), nil, nil)
	if shown := Wrap(err, "listing").Error(); strings.Contains(shown, "cAnArY") || !strings.Contains(shown, "[redacted]") {
		t.Errorf("got %s", shown)
	}
	k.refuse = func(w http.ResponseWriter) bool { // Keystone's schema check quotes what it got
		http.Error(w, `{"error": {"code": 400, "message": "Invalid input for field 'password': 'cAnArY\"<0042>' is not wanted"}}`, http.StatusBadRequest)
		return true
	}
	_, err = Connect(t.Context(), Options{File: k.write(t, strings.Replace(simpleCloud, "sesame", `'cAnArY"<0042>'`, 1)), Log: logger, Backoff: time.Microsecond})
	if err == nil || strings.Contains(err.Error(), "cAnArY") || !strings.Contains(err.Error(), "'[redacted]' is not wanted") {
		t.Errorf("got %v", err)
	}
	logger.Error("it failed", "error", err)
	if strings.Contains(log.String(), "cAnArY") || strings.Contains(log.String(), "token-1") {
		t.Errorf("the log has a secret:\n%s", log.String())
	}
	for _, want := range []string{`"method":"POST"`, `"status":400`, `"took":`, "name=web", "password=%5Bredacted%5D", `"request_id":"req-1"`} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %s:\n%s", want, log.String())
		}
	}
}

func TestWhatIsNoSecretStaysReadable(t *testing.T) {
	req := request(t.Context(), "POST", ports, `{"auth": {"identity": {"token": {"id": "tok-1"}}, "scope": {"project": {"id": "p1"}}}}`)
	if got := string(redact.Values([]byte(`token tok-1 for p1`), secretsOf(req))); got != `token [redacted] for p1` {
		t.Errorf("got %s", got)
	}
	req = request(t.Context(), "POST", ports, `{"auth": {"identity": {"methods": ["password"], "password": {"user": {"name": "alice", "domain": {"id": "default"}, "password": "sesame"}}}}}`)
	got := string(redact.Values([]byte(`user alice of default: methods password, sesame`), secretsOf(req)))
	if want := `user alice of default: methods password, [redacted]`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestAProxysPasswordIsNotLogged(t *testing.T) {
	u, err := url.Parse("http://user:hush@cloud/v3?limit=5&X-Auth-Token=abc")
	if err != nil {
		t.Fatal(err)
	}
	if got := safeURL(u); strings.Contains(got, "hush") || strings.Contains(got, "abc") || !strings.Contains(got, "limit=5") {
		t.Errorf("got %s", got)
	}
}

func TestSecretsAreFoundInEveryForm(t *testing.T) {
	secrets := []string{"abc", "abcdef", `"quoted" & <more>`, "no"}
	for in, want := range map[string]string{
		"abcdef and abc":                             "[redacted] and [redacted]",
		`{"m":"abcdef"}`:                             `{"m":"[redacted]"}` + "\n",
		`{"m":["\u0022quoted\u0022 & <more>"]}`:      `{"m":["[redacted]"]}` + "\n",
		`it said \"quoted\" & <more>`:                `it said [redacted]`,
		`it said \"quoted\" \u0026 \u003cmore\u003e`: `it said [redacted]`,
		"q=%22quoted%22+%26+%3Cmore%3E":              "q=[redacted]",
		"no secret so short":                         "no secret so short",
	} {
		if got := string(redact.Values([]byte(in), secrets)); got != want {
			t.Errorf("%s became %s, want %s", in, got, want)
		}
	}
}

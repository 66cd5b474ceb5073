package main

import (
	"archive/tar"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
)

// What the secrets of a stack are called here.
const (
	aPassword  = "a password"
	aToken     = "a token"
	hostKey    = "a host key"
	userData   = "user data"
	sshKey     = "the stack's SSH key"
	credential = "the application credential"
	clientKey  = "the administrator's key"
	tsigKey    = "the TSIG key"
)

// spy knows every secret that was planted or came about, and what the cloud was sent.
type spy struct {
	mu      sync.Mutex
	secrets map[string]string        // what each is
	wrong   []string                 // where one was sent that has no business there
	quote   string                   // the call that is refused with all that it sent, as "POST /v2.1/servers"
	as      func(text string) string // how it is quoted
}

func newSpy() *spy { return &spy{secrets: map[string]string{}} }

func (s *spy) know(what, secret string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(secret) < 6 {
		panic("no secret: " + what)
	}
	s.secrets[secret] = what
}

// in lists the secrets in a text, in whatever form.
func (s *spy) in(text string) (found []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for secret, what := range s.secrets {
		quoted, _ := json.Marshal(secret)
		for _, form := range []string{secret, strings.Trim(string(quoted), `"`), url.QueryEscape(secret), url.PathEscape(secret), html.EscapeString(secret),
			base64.StdEncoding.EncodeToString([]byte(secret))} {
			if strings.Contains(text, form) && !slices.Contains(found, what) {
				found = append(found, what)
			}
		}
	}
	return found
}

// keyLines are the lines of an OpenSSH key that its private half is in; those before tell the public one.
func keyLines(pem string) []string {
	_, body, _ := strings.Cut(strings.ReplaceAll(pem, `\n`, "\n"), "KEY-----")
	body, _, _ = strings.Cut(body, "-----END ")
	lines := strings.Fields(body)
	return lines[min(3, len(lines)):]
}

// judge learns from a request what is secret in it, and looks for what does not belong there.
func (s *spy) judge(sent openstacktest.Sent) *openstacktest.Mishap {
	call := sent.Method + " " + sent.Path
	body, allowed := string(sent.Body), ""
	header := sent.Header.Clone()
	if token := header.Get("X-Auth-Token"); token != "" {
		s.know(aToken, token)
	}
	header.Del("X-Auth-Token")
	header.Del("X-Subject-Token")
	switch call {
	case "POST /v3/auth/tokens":
		allowed = aPassword
		if m := regexp.MustCompile(`"password":"([^"]*-secret)"`).FindStringSubmatch(body); m != nil {
			s.know(aPassword, m[1])
		}
	case "POST /v2.1/servers":
		allowed = hostKey
		var made struct {
			Server struct {
				UserData []byte `json:"user_data"`
			}
		}
		if err := json.Unmarshal(sent.Body, &made); err != nil {
			panic(err)
		}
		for _, line := range keyLines(string(made.Server.UserData)) {
			s.know(hostKey, line)
		}
		body = strings.ReplaceAll(body, base64.StdEncoding.EncodeToString(made.Server.UserData), string(made.Server.UserData))
		s.know(userData, base64.StdEncoding.EncodeToString(made.Server.UserData))
	}
	for _, what := range s.in(fmt.Sprint(sent.URL, header, body)) {
		if what != allowed {
			s.wrong = append(s.wrong, what+" was sent by "+call)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if call != s.quote {
		return nil
	}
	return &openstacktest.Mishap{Status: 400, Body: s.as(fmt.Sprintf("will not have %v %s", sent.Header, sent.Body))}
}

// refuse makes the cloud refuse a call with all that was sent, quoted in some way; "" is none.
func (s *spy) refuse(call string, as func(string) string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quote, s.as = call, as
}

// inJSON quotes as the services do.
func inJSON(text string) string {
	body, err := json.Marshal(map[string]any{"badRequest": map[string]any{"code": 400, "message": text}})
	if err != nil {
		panic(err)
	}
	return string(body)
}

// inHTML quotes as the servers in front of them do.
func inHTML(text string) string {
	return "<html><head><title>400 Bad Request</title></head><body><h1>Bad Request</h1><p>" + html.EscapeString(text) + "</p></body></html>"
}

// linked gives each file of the stack's a second name below linked, and returns what is in it.
func linked(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err == nil {
		err = os.Mkdir("linked", 0o700)
	}
	for _, e := range entries {
		if err != nil || !e.Type().IsRegular() {
			continue
		}
		var text []byte
		text, err = os.ReadFile(filepath.Join(dir, e.Name()))
		err = errors.Join(err, os.Link(filepath.Join(dir, e.Name()), filepath.Join("linked", e.Name())))
		all[e.Name()] = string(text)
	}
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// ownFiles expects that all files below a directory are this user's alone, and that secrets are only where they are kept.
func ownFiles(t *testing.T, s *spy, dir string, keeps map[string]string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == "linked" {
			return fs.SkipDir
		}
		var info fs.FileInfo
		if err == nil {
			info, err = d.Info()
		}
		if err != nil || d.IsDir() && path == dir || d.Type()&fs.ModeSymlink != 0 {
			return err
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %04o", path, info.Mode().Perm())
		}
		if d.IsDir() {
			return nil
		}
		text, err := os.ReadFile(path)
		for _, what := range s.in(string(text)) {
			if keeps[d.Name()] != what {
				t.Errorf("%s has %s", path, what)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// unpacked is all that is in an archive.
func unpacked(t *testing.T, archive string) string {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zip, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for r := tar.NewReader(zip); ; {
		if _, err := r.Next(); errors.Is(err, io.EOF) {
			return all.String()
		} else if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(&all, r); err != nil {
			t.Fatal(err)
		}
	}
}

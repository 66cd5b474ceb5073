package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kuryrctl/kuryrctl/internal/clustertest"
	"github.com/kuryrctl/kuryrctl/internal/dnstest"
	"github.com/kuryrctl/kuryrctl/internal/labtest"
	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
	"github.com/kuryrctl/kuryrctl/internal/redact"
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

// home makes this process one of somebody who has nothing yet, and returns the state directory.
func home(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Chdir(dir)
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "OS_") || strings.HasPrefix(name, "KURYRCTL_") {
			t.Setenv(name, "")
			os.Unsetenv(name)
		}
	}
	t.Setenv("HOME", dir)
	t.Setenv("KUBECONFIG", filepath.Join(dir, "kubeconfig"))
	t.Setenv("XDG_STATE_HOME", filepath.Join(dir, "state"))
	if err := os.Mkdir("state", 0o700); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "state", "kuryrctl")
}

// speech is a file that all may write to at once.
type speech struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *speech) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

// said runs kuryrctl as talkative as it gets, and returns all that it said and how it ended.
func said(t *testing.T, lab *labtest.Lab, args ...string) (text string, code int) {
	t.Helper()
	var out speech
	a := &app{stdin: strings.NewReader(""), stdout: &out, stderr: &out, poll: time.Millisecond, dial: lab.Dial}
	code = a.run(t.Context(), append(args, "-vv", "--log-file", "run.log"), nil)
	return out.text.String(), code
}

func TestNoSecretIsSeenInTheLifeOfAStack(t *testing.T) {
	lab := labtest.New(t, []string{"demo"})
	state := home(t)
	if err := os.Symlink(lab.State, state); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(lab.State, "stacks", lab.ProjectID(), "demo")
	names := dnstest.New(t, "lab.test")
	t.Setenv("OS_CLIENT_CONFIG_FILE", lab.CloudsYAML())
	t.Setenv("OS_CLOUD", "fake")
	t.Setenv("KURYRCTL_KUBERNETES", "false") // the hosts of this lab run nothing
	abs := func(name string) string { return filepath.Join(filepath.Dir(filepath.Dir(state)), name) }
	files := map[string]string{"dns.key": dnstest.Key, "lab.yaml": "dns_domain: lab.test\ndns: {update: {server: " + names.Address + ", key_file: " + abs("dns.key") + "}}\n"}
	for name, text := range files {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := newSpy()
	s.know(tsigKey, regexp.MustCompile(`secret "(.*)"`).FindStringSubmatch(dnstest.Key)[1])
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	for _, line := range keyLines(read("id_ed25519")) {
		s.know(sshKey, line)
	}
	lab.Judge(s.judge)
	run := func(want int, args ...string) {
		t.Helper()
		text, code := said(t, lab, args...)
		if code != want {
			t.Errorf("%v ended with %d:\n%s", args, code, text)
		}
		if found := s.in(text); len(found) > 0 {
			t.Errorf("%v says %v:\n%s", args, found, text)
		}
		if args[0] == "dump" { // tells of what it did not get in the archive
			text += unpacked(t, args[len(args)-1])
		}
		if s.quote != "" && !strings.Contains(text, redact.Mark) {
			t.Errorf("%v does not tell of what was quoted:\n%s", args, text)
		}
	}

	// A cloud that quotes what it was sent, before anything is there.
	for i, call := range []string{"POST /v3/auth/tokens", "GET /v2.1/servers/detail", "POST /v2.0/networks", "POST /v2.1/os-keypairs", "POST /v2.1/servers"} {
		s.refuse(call, []func(string) string{inJSON, inHTML}[i%2])
		want := exitFailed
		if i == 0 {
			want = exitNoCloud
		}
		run(want, "stack", "demo", "-f", "lab.yaml")
	}
	s.refuse("", nil)
	run(exitDone, "stack", "demo", "-f", "lab.yaml", "--timings")
	var kept struct{ Secret string }
	if err := json.Unmarshal([]byte(read("application-credential.json")), &kept); err != nil {
		t.Fatal(err)
	}
	s.know(credential, kept.Secret)
	api := clustertest.New(t, "172.30.0.1")
	lab.Lead("172.30.0.1:443", strings.TrimPrefix(api.URL, "https://"))
	s.know(clientKey, regexp.MustCompile(`client-key-data: (\S+)`).FindStringSubmatch(string(api.Kubeconfig()))[1])
	if err := os.WriteFile(filepath.Join(dir, "kubeconfig"), api.Kubeconfig(), 0o600); err != nil {
		t.Fatal(err)
	}
	before := linked(t, dir)
	run(exitDone, "plan", "demo")
	run(exitDone, "show", "demo", "-o", "html")
	run(exitDone, "status", "demo")
	run(exitDone, "list")
	run(exitDone, "inventory", "demo", "--style", "openshift")
	run(exitDone, "dns", "sync", "demo")
	run(exitDone, "dns", "show", "demo", "-o", "json")
	run(exitDone, "pods", "demo")
	run(exitDone, "logs", "demo", "worker-0")
	run(exitDone, "logs", "demo", "worker-0", "--local")
	run(exitDone, "logs", "demo", "worker-0", "--console")
	run(exitDone, "doctor", "demo", "-o", "json")
	lab.Delete("application_credential", "kuryrctl-demo-"+lab.ProjectID()[:8])
	run(exitDone, "scale", "demo", "--workers", "3")
	run(exitDone, "scale", "demo", "--workers", "1", "--yes")
	run(exitDone, "dump", "demo", "-o", "demo.tar.gz")
	t.Setenv("KURYRCTL_KUBERNETES", "true")
	run(exitDone, "dump", "demo", "-o", "more.tar.gz")
	s.refuse("GET /v2.0/ports", inJSON)
	run(exitDone, "dump", "demo", "-o", "less.tar.gz")
	t.Setenv("KURYRCTL_KUBERNETES", "false")
	run(exitDiffers, "doctor", "demo")
	run(exitFailed, "unstack", "demo", "--yes")
	s.refuse("", nil)

	changed := 0
	for name, old := range before {
		now, err := os.ReadFile(filepath.Join(dir, name))
		if filepath.Base(name) != "lock" && err == nil && string(now) != old { // what a lock says is a note for people
			changed++
			if kept, err := os.ReadFile(filepath.Join("linked", filepath.Base(name))); err != nil || string(kept) != old {
				t.Errorf("%s was changed in its place (%v): a crash would leave a part of it", name, err)
			}
		}
	}
	if changed < 3 {
		t.Errorf("only %d files were written anew", changed)
	}
	for _, archive := range []string{"demo.tar.gz", "more.tar.gz", "less.tar.gz"} {
		if found := s.in(unpacked(t, archive)); len(found) > 0 {
			t.Errorf("%s has %v", archive, found)
		}
	}
	ownFiles(t, s, dir, map[string]string{"id_ed25519": sshKey, "application-credential.json": credential, "kubeconfig": clientKey})
	ownFiles(t, s, ".", map[string]string{"dns.key": tsigKey})
	run(exitDone, "unstack", "demo", "--yes")
	if log, err := os.ReadFile("run.log"); err != nil || len(s.in(string(log))) > 0 || len(log) < 10000 {
		t.Errorf("the log (%d bytes, %v) has %v", len(log), err, s.in(string(log)))
	}
	for _, node := range []string{"master-0", "worker-0", "worker-1", "worker-2"} {
		if found := s.in(strings.Join(lab.Host("demo/"+node).Commands(), "\n")); len(found) > 0 {
			t.Errorf("%s was told %v for everybody to see", node, found)
		}
	}
	for _, wrong := range s.wrong {
		t.Error(wrong)
	}
	if kinds := slices.Compact(slices.Sorted(maps.Values(s.secrets))); len(kinds) != 8 {
		t.Errorf("of the secrets only these were there to be seen: %q", kinds)
	}
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

// Every way to log in, at a cloud that quotes the login in its refusal.
func TestNoSecretIsSeenOfALoginThatIsRefused(t *testing.T) {
	lab := labtest.New(t, nil)
	home(t)
	const canary = `c4narY'<&> ß`
	var clouds strings.Builder
	kinds := map[string]string{
		"password":   "auth_type: password, auth: {username: demo, user_domain_id: default, project_name: demo, password: CANARY, ",
		"passcode":   "auth_type: v3totp, auth: {username: demo, user_domain_id: default, project_name: demo, passcode: CANARY, ",
		"both":       "auth_type: v3multifactor, auth_methods: [v3password, v3totp], auth: {username: demo, user_domain_id: default, project_name: demo, password: CANARY, passcode: CANARY, ",
		"token":      "auth_type: token, auth: {token: CANARY, project_name: demo, ",
		"credential": "auth_type: v3applicationcredential, auth: {application_credential_id: abc, application_credential_secret: CANARY, ",
	}
	clouds.WriteString("clouds:\n")
	for name, text := range kinds {
		fmt.Fprintf(&clouds, "  %s: {%s auth_url: %q}}\n", name, strings.ReplaceAll(text, "CANARY", `"`+canary+`"`), lab.AuthURL())
	}
	if err := os.WriteFile("clouds.yaml", []byte(clouds.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newSpy()
	s.know(aPassword, canary)
	lab.Judge(s.judge)
	refused := func(how string, args ...string) {
		t.Helper()
		for name, as := range map[string]func(string) string{"JSON": inJSON, "HTML": inHTML} {
			s.refuse("POST /v3/auth/tokens", as)
			text, code := said(t, lab, args...)
			if found := s.in(text); len(found) > 0 {
				t.Errorf("%s, in %s: %v says %v:\n%s", how, name, args, found, text)
			}
			if code == exitDone || !strings.Contains(text, redact.Mark) {
				t.Errorf("%s, in %s: %v ended with %d:\n%s", how, name, args, code, text)
			}
		}
	}
	for kind := range kinds {
		refused(kind, "list", "--cloud", kind)
		refused(kind, "doctor", "--cloud", kind)
	}
	for name, value := range map[string]string{"AUTH_URL": lab.AuthURL(), "USERNAME": "demo", "PROJECT_NAME": "demo", "PASSWORD": canary, "PASSCODE": canary} {
		t.Setenv("OS_"+name, value)
	}
	refused("the environment", "list")
	if log, err := os.ReadFile("run.log"); err != nil || len(log) == 0 || len(s.in(string(log))) > 0 {
		t.Errorf("the log has %v (%v)", s.in(string(log)), err)
	}
	for _, wrong := range s.wrong {
		t.Error(wrong)
	}
}

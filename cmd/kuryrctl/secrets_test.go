package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
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
	"github.com/kuryrctl/kuryrctl/internal/redact"
)

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

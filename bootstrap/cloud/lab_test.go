package cloud

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDefaultFollowsXDG(t *testing.T) {
	t.Setenv("HOME", "/home/a")
	tests := map[string]struct{ cache, state, wantCache, wantState, wantErr string }{
		"unset":      {"", "", "/home/a/.cache/kuryrctl/cloud", "/home/a/.local/state/kuryrctl/cloud", ""},
		"set":        {"/x", "/y/", "/x/kuryrctl/cloud", "/y/kuryrctl/cloud", ""},
		"relative":   {"x", "y", "/home/a/.cache/kuryrctl/cloud", "/home/a/.local/state/kuryrctl/cloud", ""},
		"overlay's ": {"/x:y", "/y", "", "", "must not contain"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Setenv("XDG_CACHE_HOME", tt.cache)
			t.Setenv("XDG_STATE_HOME", tt.state)
			l, err := Default()
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Fatalf("Default: %v", err)
				}
				return
			}
			if err != nil || l.cache != tt.wantCache || l.state != tt.wantState || l.CloudsYAML() != tt.wantState+"/clouds.yaml" {
				t.Errorf("Default: %+v, %v", l, err)
			}
		})
	}
}

func testLab(t *testing.T) *Lab {
	t.Helper()
	dir := t.TempDir()
	return &Lab{cache: filepath.Join(dir, "cache"), state: filepath.Join(dir, "state"), namespace: "kuryrctl-unit"}
}

func TestLockNamesItsHolder(t *testing.T) {
	l := testLab(t)
	unlock, err := l.lock("up")
	if err != nil {
		t.Fatal(err)
	}
	_, err = l.lock("down")
	if !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), fmt.Sprintf("cloud up, process %d", os.Getpid())) {
		t.Errorf("a second lock gives: %v", err)
	}
	unlock()
	unlock, err = l.lock("down")
	if err != nil {
		t.Fatalf("a lock that was given up: %v", err)
	}
	unlock()
}

// TestRunningKnowsTheProcess checks that neither a number used again nor an earlier boot is taken for the lab.
func TestRunningKnowsTheProcess(t *testing.T) {
	self, err := currentProcess()
	if err != nil {
		t.Fatal(err)
	}
	if self.PID != os.Getpid() {
		t.Fatalf("the own process is %d, not %d", self.PID, os.Getpid())
	}
	tests := map[string]struct {
		change func(*process)
		want   bool
	}{
		"itself":          {func(*process) {}, true},
		"number reused":   {func(p *process) { p.Ticks++ }, false},
		"another boot":    {func(p *process) { p.Boot = "x" }, false},
		"no such process": {func(p *process) { p.PID = 1 << 30 }, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l, p := testLab(t), self
			tt.change(&p)
			if err := os.MkdirAll(l.state, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := writeJSON(l.processFile(), p, 0o600); err != nil {
				t.Fatal(err)
			}
			if got := l.Running(); got != tt.want {
				t.Errorf("Running is %t", got)
			}
		})
	}
	if testLab(t).Running() {
		t.Error("a lab that never was runs")
	}
}

func TestSecretsAreMadeOnceAndPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secrets.json")
	first, err := loadSecrets(path)
	if err != nil {
		t.Fatal(err)
	}
	again, err := loadSecrets(path)
	if err != nil || fmt.Sprint(first) != fmt.Sprint(again) {
		t.Errorf("the second reading differs: %v", err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	other := newSecrets()
	seen := map[string]bool{}
	for _, s := range []secrets{first, other} {
		c := s.Cloud
		all := []string{c.AdminPassword, c.DemoPassword, c.RabbitPassword, c.MetadataSecret, c.HeartbeatSecret, s.FernetKey, s.CredentialKey, s.NamesKey}
		for _, name := range serviceUsers() {
			all = append(all, c.ServicePasswords[name])
		}
		for i, secret := range all {
			if len(secret) < 20 || seen[secret] {
				t.Errorf("secret %d of %d bytes, seen before: %t", i, len(secret), seen[secret])
			}
			seen[secret] = true
		}
	}
}

func TestACloudOfBeforeTheNameServerGetsItsKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secrets.json")
	old := newSecrets()
	old.NamesKey = ""
	if err := writeJSON(path, old, 0o600); err != nil {
		t.Fatal(err)
	}
	first, err := loadSecrets(path)
	if err != nil || first.NamesKey == "" || first.FernetKey != old.FernetKey {
		t.Fatalf("an old file: %v, key of %d bytes", err, len(first.NamesKey))
	}
	if again, err := loadSecrets(path); err != nil || again.NamesKey != first.NamesKey {
		t.Errorf("the key is another one: %v", err)
	}
}

func TestWriteFileRepairsTheMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path+".new", nil, 0o666); err != nil { // of a killed run
		t.Fatal(err)
	}
	if err := writeFile(path, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestBaseWhoseLayersHaveGone(t *testing.T) {
	l := testLab(t)
	if b, err := l.readBase(); b != (base{}) || err != nil {
		t.Fatalf("no overlay yet: %+v, %v", b, err)
	}
	dir := t.TempDir()
	if err := os.MkdirAll(l.state, 0o700); err != nil {
		t.Fatal(err)
	}
	b := base{Root: dir, Bake: dir, Guest: dir}
	if err := writeJSON(l.baseFile(), b, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := l.readBase(); got != b || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
	b.Root = filepath.Join(dir, "gone")
	if err := writeJSON(l.baseFile(), b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := l.readBase(); err == nil || !strings.Contains(err.Error(), "--fresh") {
		t.Errorf("a root that has gone: %v", err)
	}
}

func TestExecEnvironmentIsClean(t *testing.T) {
	t.Setenv("PYTHONDONTWRITEBYTECODE", "1")
	t.Setenv("OS_CLOUD", "")
	env := strings.Join(commandEnvironment(os.Getenv), "\n")
	if strings.Contains(env, "PYTHON") || !strings.Contains(env, "OS_CLOUD=lab\n") {
		t.Errorf("environment:\n%s", env)
	}
	t.Setenv("OS_CLOUD", "lab-admin")
	if env := strings.Join(commandEnvironment(os.Getenv), "\n"); !strings.Contains(env, "OS_CLOUD=lab-admin\n") {
		t.Errorf("OS_CLOUD is lost:\n%s", env)
	}
}

func TestDialRefusesNamesAndReportsAMissingLab(t *testing.T) {
	l := testLab(t)
	if _, err := l.DialContext(t.Context(), "tcp", "lab:80"); err == nil || !strings.Contains(err.Error(), "IP:PORT") {
		t.Errorf("a name: %v", err)
	}
	if _, err := l.DialContext(t.Context(), "tcp", "10.0.0.1:80"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no namespace: %v", err)
	}
	if _, err := l.Exec(t.Context(), []string{"true"}, nil, nil, nil); err == nil || !strings.Contains(err.Error(), "not running") {
		t.Errorf("Exec without a lab: %v", err)
	}
}

func TestDebianArchive(t *testing.T) {
	targets := "Debian|Debian-Security|http://s/\nGoogle|x|http://g/\nDebian|Debian|http://d/debian/\nDebian|Debian|http://e/\n"
	if got := debianArchive(targets); got != "http://d/debian/" {
		t.Errorf("got %q", got)
	}
	if got := debianArchive("Ubuntu|Ubuntu|http://u/\n"); got != "" {
		t.Errorf("got %q", got)
	}
}

package openstack

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestAFileThatHasNoEndIsRefused(t *testing.T) {
	bomb := "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
	for _, name := range []string{"a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8"} {
		before := "*a" + string(name[1]-1)
		bomb += name + ": &" + name + " [" + strings.TrimSuffix(strings.Repeat(before+", ", 10), ", ") + "]\n"
	}
	for text, want := range map[string]string{
		"clouds: &a {one: *a}":             "&a contains itself",
		"clouds: &a\n  one: {<<: *a}":      "&a contains itself",
		bomb:                               "more than",
		"clouds:\n  one: &b [&c [*b], *c]": "&b contains itself",
	} {
		path := filepath.Join(t.TempDir(), "clouds.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := loadConfiguration(Options{File: path})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%.40q: got %v", text, err)
		}
	}
}

// FuzzClouds: whatever is in the files, there is a cloud or an error; one of reading names the file. What is laid upon itself stays what it is.
func FuzzClouds(f *testing.F) {
	for _, seed := range [][2]string{
		{oneCloud(""), "clouds: {one: {auth: {password: s}}}"},
		{"clouds: {one: {profile: p, regions: [{name: a, values: {x: y}}, b]}}", "public-clouds: {p: {auth: {auth_url: u}}}"},
		{"base: &b {auth: {auth_url: u}}\nclouds: {one: {<<: *b, region_name: [a, b]}}", "clouds: [one]"},
		{"clouds: {one: {auth: x, interface: [internal], verify: maybe}}", "{"},
		{"clouds: &a {one: *a}", "clouds: {one: null}"},
		{`{"clouds": {"one": {"auth-type": "v3totp", "auth": {"user-name": "x"}}}}`, "- 1"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, clouds, secure string) {
		dir := t.TempDir()
		for name, text := range map[string]string{"clouds.yaml": clouds, "secure.yaml": secure, "clouds-public.yaml": secure} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := loadConfiguration(Options{File: filepath.Join(dir, "clouds.yaml")}); err != nil && !strings.Contains(err.Error(), dir) {
			t.Errorf("no file in: %v", err)
		}
		if s, err := resolve(Options{File: filepath.Join(dir, "clouds.yaml"), Cloud: "one"}); err == nil {
			_, _ = s.authOptions() // whatever it says, it does not panic
		}
		a, errA := parse([]byte(clouds))
		b, errB := parse([]byte(secure))
		if errA != nil || errB != nil || a == nil {
			return
		}
		was := merged(nil, a)
		if got := merged(a, a); !reflect.DeepEqual(got, a) {
			t.Errorf("%v upon itself is %v", a, got)
		}
		twice := merged(merged(a, b), b)
		if got := merged(a, b); !reflect.DeepEqual(got, twice) {
			t.Errorf("%v upon %v is %v, and once more %v", b, a, got, twice)
		}
		if !reflect.DeepEqual(a, was) {
			t.Errorf("merging changed %v to %v", was, a)
		}
	})
}

package dns

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kuryrctl/kuryrctl/bootstrap/ssh"
	"github.com/kuryrctl/kuryrctl/internal/sshtest"
)

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestAZoneFileIsWrittenOnceChangedAndRemoved(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "zones")
	z := ZoneFile{Domain: "lab.test", Nameserver: "192.0.2.53", Directory: dir}
	want := []Record{at("*.apps.lab.test", "172.24.4.9"), at("worker-0.lab.test", "10.11.0.5")}
	sync(t, z, demo, want, "+ *.apps.lab.test", "+ worker-0.lab.test")
	first := read(t, filepath.Join(dir, "lab.test.zone"))
	for _, line := range []string{"; heritage=kuryrctl,stack=demo,uuid=0b1e\n", "ns.lab.test.\t300\tIN\tA\t192.0.2.53\n", "lab.test.\t300\tIN\tNS\tns.lab.test.\n", "*.apps.lab.test.\t300\tIN\tA\t172.24.4.9\n"} {
		if !strings.Contains(first, line) {
			t.Errorf("no %q in\n%s", line, first)
		}
	}
	if conf := read(t, filepath.Join(dir, "lab.test.conf")); !strings.Contains(conf, `file "`+filepath.Join(dir, "lab.test.zone")+`";`) {
		t.Errorf("the fragment:\n%s", conf)
	}
	info, err := os.Stat(filepath.Join(dir, "lab.test.zone"))
	if err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}

	sync(t, z, demo, want, "= *.apps.lab.test", "= worker-0.lab.test")
	if again := read(t, filepath.Join(dir, "lab.test.zone")); again != first {
		t.Errorf("written again:\n%s", again)
	}
	_, serial, err := z.parse(demo, first)
	if err != nil {
		t.Fatal(err)
	}
	sync(t, z, demo, want[1:], "- *.apps.lab.test", "= worker-0.lab.test")
	if _, next, err := z.parse(demo, read(t, filepath.Join(dir, "lab.test.zone"))); err != nil || next <= serial {
		t.Errorf("serial %d after %d, %v", next, serial, err)
	}

	sync(t, z, demo, nil, "- worker-0.lab.test")
	if conf := read(t, filepath.Join(dir, "lab.test.conf")); conf != nothing {
		t.Errorf("the fragment after removal: %s", conf)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left: %v", entries)
	}
	sync(t, z, demo, nil)
}

func TestAZoneFileOfSomebodyElseIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	z := ZoneFile{Domain: "lab.test", Nameserver: "ns.example.test", Directory: dir}
	want := []Record{at("worker-0.lab.test", "10.11.0.5")}
	sync(t, z, demo, want, "+ worker-0.lab.test")
	for _, other := range []Owner{{"demo", "x"}, {"demo-2", "0b1e"}} {
		if _, err := z.Sync(t.Context(), other, want, AtOnce); !errors.Is(err, ErrOther) {
			t.Errorf("%+v: %v", other, err)
		}
	}
	path := filepath.Join(dir, "lab.test.zone")
	for text, want := range map[string]string{
		"$TTL 300\n@ IN SOA ...\n":                                     "kuryrctl did not make it",
		"; heritage=kuryrctl,stack=demo,uuid=0b1e\n; names\na. IN A x": "damaged",
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := z.Sync(t.Context(), demo, nil, AtOnce); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
		if read(t, path) != text {
			t.Error("it was written over")
		}
	}
	if _, err := (ZoneFile{Domain: "lab.test", Directory: t.TempDir()}).Sync(t.Context(), demo, want, AtOnce); err == nil {
		t.Error("a zone without a name server was written")
	}
}

func TestAZoneOnAHostIsWrittenAndBindIsTold(t *testing.T) {
	hosts := sshtest.New(t, "ns")
	h := hosts.Host("ns")
	h.Shell(sshtest.Debian12)
	h.Stub("rndc", `case "$1" in reload) [ -e "/etc/bind/kuryrctl/$2.conf" ] || exit 1; esac`)
	client, err := ssh.Dial(t.Context(), ssh.Config{Node: "ns", Address: h.Addr, User: sshtest.User, Signer: hosts.UserKey, HostKeys: []string{h.HostKey()}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	z := ZoneFile{Domain: "lab.test", Nameserver: "192.0.2.53", Directory: "/etc/bind/kuryrctl", Host: client}
	want := []Record{at("worker-0.lab.test", "10.11.0.5")}
	sync(t, z, demo, want, "+ worker-0.lab.test")
	sync(t, z, demo, want, "= worker-0.lab.test") // and bind is told again: the run before may not have come so far
	zone := read(t, filepath.Join(h.Dir, "etc/bind/kuryrctl/lab.test.zone"))
	if !strings.Contains(zone, "worker-0.lab.test.\t300\tIN\tA\t10.11.0.5\n") {
		t.Errorf("the zone:\n%s", zone)
	}
	sync(t, z, demo, nil, "- worker-0.lab.test")
	var told []string
	for _, call := range h.Calls() {
		if strings.HasPrefix(call, "rndc ") {
			told = append(told, strings.TrimPrefix(call, "rndc "))
		}
	}
	if d := cmp.Diff([]string{"reconfig", "reload lab.test", "reconfig", "reload lab.test", "reconfig"}, told); d != "" {
		t.Errorf("rndc (-want +got):\n%s", d)
	}
	if entries, _ := os.ReadDir(filepath.Join(h.Dir, "etc/bind/kuryrctl")); len(entries) != 1 {
		t.Errorf("left: %v", entries)
	}
	h.Stub("rndc", `[ "$1" != reload ]`)
	if _, err := z.Sync(t.Context(), demo, want, AtOnce); err == nil || !strings.Contains(err.Error(), `include "/etc/bind/kuryrctl/lab.test.conf";`) {
		t.Errorf("a bind that has no such zone: %v", err)
	}
}

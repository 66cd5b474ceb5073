//go:build e2e

package cloud

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"github.com/kuryrctl/kuryrctl/bootstrap/dns"
)

// TestTheLabsBindTakesNames speaks to the real bind: what the fake of package dnstest does is held against it.
func TestTheLabsBindTakesNames(t *testing.T) {
	l := usersLab(t)
	dig := func(name string) string {
		t.Helper()
		var out, errs bytes.Buffer
		code, err := l.Exec(t.Context(), []string{"dig", "+short", "@" + NameServer, name, "A"}, nil, &out, &errs)
		if err != nil || code != 0 {
			t.Fatalf("dig %s: exit code %d, %v, %s%s", name, code, err, out.String(), errs.String())
		}
		return strings.TrimSpace(out.String())
	}
	p := dns.Server{Address: NameServer + ":53", Domain: Zone, Key: must(dns.LoadKey(l.NamesKey()))(t), Dial: l.DialContext}
	owner := dns.Owner{Stack: "e2e-names", UUID: "0b1e"}
	want := []dns.Record{{Name: "*.e2e." + Zone, Address: netip.MustParseAddr("172.24.4.201")}, {Name: "worker-0.e2e." + Zone, Address: netip.MustParseAddr("10.11.0.5")}}
	sync := func(want []dns.Record, actions string) {
		t.Helper()
		var got strings.Builder
		for _, c := range must(p.Sync(t.Context(), owner, want, dns.AtOnce))(t) {
			got.WriteString(string(c.Action))
		}
		if got.String() != actions {
			t.Fatalf("changes %q, want %q", got.String(), actions)
		}
	}
	must(p.Sync(t.Context(), dns.Owner{Stack: owner.Stack}, nil, dns.AtOnce))(t) // of a test that was killed
	sync(want, "++")
	sync(want, "==")
	if got := dig("test.e2e." + Zone); got != "172.24.4.201" {
		t.Errorf("an application is at %q", got)
	}
	if got := dig("worker-0.e2e." + Zone); got != "10.11.0.5" {
		t.Errorf("worker-0 is at %q", got)
	}
	if _, err := p.Sync(t.Context(), dns.Owner{Stack: "e2e-other", UUID: "1"}, want[1:], dns.AtOnce); err == nil || !strings.Contains(err.Error(), "is taken in zone "+Zone) {
		t.Errorf("a name that is taken: %v", err)
	}
	for text, said := range map[string]string{"hmac-sha256:other:c2VjcmV0": "does not know the TSIG key other", "hmac-sha256:kuryrctl:c2VjcmV0": "another secret"} {
		q := p
		q.Key = must(dns.ParseKey(text))(t)
		if _, err := q.Sync(t.Context(), owner, want, dns.AtOnce); err == nil || !strings.Contains(err.Error(), said) {
			t.Errorf("%s: %v", said, err)
		}
	}
	want[0].Address = netip.MustParseAddr("172.24.4.202")
	sync(want[:1], "~-")
	if got := dig("worker-0.e2e." + Zone); got != "172.24.4.202" { // the wildcard's
		t.Errorf("a name that was removed is at %q", got)
	}
	sync(nil, "-")
	if got := dig("test.e2e." + Zone); got != "" {
		t.Errorf("left: %q", got)
	}
}

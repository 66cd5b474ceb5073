package dns

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kuryrctl/kuryrctl/internal/dnstest"
)

var demo = Owner{Stack: "demo", UUID: "0b1e"}

func at(name, address string) Record { return Record{name, netip.MustParseAddr(address)} }

func key(t *testing.T, text string) Key {
	t.Helper()
	k, err := ParseKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func place(t *testing.T, s *dnstest.Server) Server {
	return Server{Address: s.Address, Domain: "lab.test", Key: key(t, dnstest.Key)}
}

// sync expects changes as "ACTION NAME", and that leave is asked for them alone.
func sync(t *testing.T, p Place, o Owner, want []Record, changes ...string) {
	t.Helper()
	asked := 0
	all, err := p.Sync(t.Context(), o, want, func() error { asked++; return nil })
	if err != nil {
		t.Fatal(err)
	}
	if asked > 1 || Settled(all) != (asked == 0) {
		t.Errorf("leave was asked %d times for %v", asked, all)
	}
	var got []string
	for _, c := range all {
		got = append(got, string(c.Action)+" "+c.Name)
	}
	if d := cmp.Diff(changes, got); d != "" {
		t.Errorf("changes (-want +got):\n%s", d)
	}
}

func holds(t *testing.T, s *dnstest.Server, want ...string) {
	t.Helper()
	if d := cmp.Diff(want, s.Records()); d != "" {
		t.Errorf("the zone (-want +got):\n%s", d)
	}
}

const (
	heading1 = `_kuryrctl-demo.lab.test TXT "heritage=kuryrctl,stack=demo,uuid=0b1e"`
	other    = "mail.lab.test A 192.0.2.25"
)

func TestNamesComeChangeAndGo(t *testing.T) {
	s := dnstest.New(t, "lab.test", "mail.lab.test. 300 IN A 192.0.2.25")
	p := place(t, s)
	want := []Record{at("*.apps.lab.test", "172.24.4.9"), at("worker-0.lab.test", "10.11.0.5")}
	sync(t, p, demo, want, "+ *.apps.lab.test", "+ worker-0.lab.test")
	holds(t, s, "*.apps.lab.test A 172.24.4.9", `_kuryrctl-demo.lab.test TXT "heritage=kuryrctl,stack=demo,uuid=0b1e"`, `_kuryrctl-demo.lab.test TXT "name=*.apps,a=172.24.4.9"`,
		`_kuryrctl-demo.lab.test TXT "name=worker-0,a=10.11.0.5"`, other, "worker-0.lab.test A 10.11.0.5")

	sync(t, p, demo, want, "= *.apps.lab.test", "= worker-0.lab.test")
	if s.Updates() != 1 {
		t.Errorf("%d updates: what is as it should be was written again", s.Updates())
	}

	want = []Record{at("*.apps.lab.test", "172.24.4.10"), at("worker-1.lab.test", "10.11.0.6")}
	sync(t, p, demo, want, "~ *.apps.lab.test", "- worker-0.lab.test", "+ worker-1.lab.test")
	holds(t, s, "*.apps.lab.test A 172.24.4.10", heading1, `_kuryrctl-demo.lab.test TXT "name=*.apps,a=172.24.4.10"`,
		`_kuryrctl-demo.lab.test TXT "name=worker-1,a=10.11.0.6"`, other, "worker-1.lab.test A 10.11.0.6")

	sync(t, p, demo, nil, "- *.apps.lab.test", "- worker-1.lab.test")
	holds(t, s, other)
	sync(t, p, demo, nil)
	if s.Updates() != 3 {
		t.Errorf("%d updates: nothing was removed twice", s.Updates())
	}
}

// TestAWildcardHidesNothing has the wildcard on the domain itself, where it answers for every name that is not there.
func TestAWildcardHidesNothing(t *testing.T) {
	s := dnstest.New(t, "lab.test")
	p := place(t, s)
	want := []Record{at("*.lab.test", "172.24.4.9"), at("worker-0.lab.test", "172.24.4.9")}
	sync(t, p, demo, want[:1], "+ *.lab.test")
	sync(t, p, demo, want, "= *.lab.test", "+ worker-0.lab.test")
	s.Drop("worker-0.lab.test")
	sync(t, p, demo, want, "= *.lab.test", "~ worker-0.lab.test")
	sync(t, p, demo, nil, "- *.lab.test", "- worker-0.lab.test")
	holds(t, s)
}

func TestDriftIsRepairedAndWhatSomebodyElsePutThereStays(t *testing.T) {
	s := dnstest.New(t, "lab.test")
	p := place(t, s)
	want := []Record{at("a.lab.test", "192.0.2.1"), at("b.lab.test", "192.0.2.2")}
	sync(t, p, demo, want, "+ a.lab.test", "+ b.lab.test")
	s.Drop("b.lab.test")
	s.Add(t, "b.lab.test. 300 IN A 192.0.2.99")
	sync(t, p, demo, want, "= a.lab.test", "~ b.lab.test")
	s.Drop("b.lab.test")
	s.Add(t, "b.lab.test. 300 IN A 192.0.2.99")
	sync(t, p, demo, nil, "- a.lab.test", "- b.lab.test")
	holds(t, s, "b.lab.test A 192.0.2.99")
}

func TestANameThatIsTakenStopsAllBeforeAnythingIsWritten(t *testing.T) {
	s := dnstest.New(t, "lab.test", "b.lab.test. 300 IN CNAME mail.lab.test.")
	_, err := place(t, s).Sync(t.Context(), demo, []Record{at("a.lab.test", "192.0.2.1"), at("b.lab.test", "192.0.2.2")}, AtOnce)
	var taken *TakenError
	if !errors.As(err, &taken) || !cmp.Equal(taken.Names, []string{"b.lab.test"}) {
		t.Fatalf("a name that is taken: %v", err)
	}
	if s.Updates() != 0 {
		t.Error("something was written")
	}
}

func TestTwoStacksOfOneNameDoNotMeet(t *testing.T) {
	s := dnstest.New(t, "lab.test")
	p := place(t, s)
	sync(t, p, demo, []Record{at("a.lab.test", "192.0.2.1")}, "+ a.lab.test")
	for _, want := range [][]Record{nil, {at("a.lab.test", "192.0.2.1")}} {
		if _, err := p.Sync(t.Context(), Owner{"demo", "other"}, want, AtOnce); !errors.Is(err, ErrOther) {
			t.Errorf("another stack demo: %v", err)
		}
	}
	sync(t, p, Owner{"demo-2", "x"}, []Record{at("c.lab.test", "192.0.2.3")}, "+ c.lab.test")
	sync(t, p, Owner{Stack: "demo"}, nil, "- a.lab.test") // whichever it is
	holds(t, s, `_kuryrctl-demo-2.lab.test TXT "heritage=kuryrctl,stack=demo-2,uuid=x"`, `_kuryrctl-demo-2.lab.test TXT "name=c,a=192.0.2.3"`, "c.lab.test A 192.0.2.3")
}

func TestAnUpdateWhoseAnswerIsLostIsFoundByTheNextRun(t *testing.T) {
	s := dnstest.New(t, "lab.test")
	p := place(t, s)
	want := []Record{at("a.lab.test", "192.0.2.1")}
	s.LoseAnswer()
	if _, err := p.Sync(t.Context(), demo, want, AtOnce); err == nil {
		t.Fatal("an answer that never came is a success")
	}
	sync(t, p, demo, want, "= a.lab.test")
}

func TestTwoRunsAtOnceDoNotMixTheirNotes(t *testing.T) {
	s := dnstest.New(t, "lab.test")
	p := place(t, s)
	s.Before(func() { sync(t, p, demo, []Record{at("b.lab.test", "192.0.2.2")}, "+ b.lab.test") })
	if _, err := p.Sync(t.Context(), demo, []Record{at("a.lab.test", "192.0.2.1")}, AtOnce); !errors.Is(err, ErrChanged) {
		t.Errorf("the slower of two first runs: %v", err)
	}
	s.Before(func() { sync(t, p, demo, nil, "- b.lab.test") })
	if _, err := p.Sync(t.Context(), demo, []Record{at("a.lab.test", "192.0.2.1")}, AtOnce); !errors.Is(err, ErrChanged) {
		t.Errorf("the slower of two: %v", err)
	}
	holds(t, s)
}

func TestManyNamesFitIntoOneUpdate(t *testing.T) {
	s := dnstest.New(t, "lab.test")
	var want []Record
	next := netip.MustParseAddr("10.11.0.1")
	for i := range 203 {
		next = next.Next()
		want = append(want, Record{"worker-" + strings.Repeat("x", i%10) + string(rune('a'+i%26)) + next.String()[8:] + ".lab.test", next})
	}
	if _, err := place(t, s).Sync(t.Context(), demo, want, AtOnce); err != nil {
		t.Fatal(err)
	}
	if _, err := place(t, s).Sync(t.Context(), demo, nil, AtOnce); err != nil {
		t.Fatal(err)
	}
	holds(t, s)
}

func TestWhatAServerRefusesIsSaid(t *testing.T) {
	s := dnstest.New(t, "lab.test")
	good := place(t, s)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	tests := map[string]struct {
		change func(*Server)
		want   string
	}{
		"another key":     {func(p *Server) { p.Key = key(t, "hmac-sha256:other:c2VjcmV0") }, "it does not know the TSIG key other"},
		"another secret":  {func(p *Server) { p.Key = key(t, "hmac-sha256:test-key:c2VjcmV0") }, "it has another secret for the TSIG key test-key"},
		"another domain":  {func(p *Server) { p.Domain = "example.test" }, "not the primary of this zone"},
		"nobody there":    {func(p *Server) { p.Address = "127.0.0.1:1" }, "connecting to name server 127.0.0.1:1"},
		"below the zone":  {func(p *Server) { p.Domain = "below.lab.test" }, ""},
		"through dialers": {func(p *Server) { p.Address, p.Dial = "192.0.2.1:53", dialTo(s.Address) }, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := good
			tt.change(&p)
			_, err := p.Sync(t.Context(), demo, nil, AtOnce)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "c2VjcmV0") {
				t.Errorf("the secret is in %v", err)
			}
		})
	}
	t.Run("an interrupt ends the wait for a server that is silent", func(t *testing.T) {
		p := good
		p.Address = silent.Addr().String()
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			conn, err := silent.Accept()
			if err == nil {
				defer conn.Close()
				conn.Read(make([]byte, 1)) // the question is on its way
			}
			cancel()
		}()
		if _, err := p.Sync(ctx, demo, nil, AtOnce); !errors.Is(err, context.Canceled) {
			t.Errorf("interrupted: %v", err)
		}
	})
}

func dialTo(address string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}
}

func TestKeysAreReadAndNeverPrinted(t *testing.T) {
	same := []string{dnstest.Key, "key test-key { secret \"c2VjcmV0\"; algorithm \"HMAC-SHA256\"; };", "hmac-sha256:test-key:c2VjcmV0\n"}
	for _, text := range same {
		k, err := ParseKey(text)
		if err != nil || k.String() != "TSIG key test-key" || k.GoString() != k.String() {
			t.Errorf("%q: %v, %v", text, k, err)
		}
	}
	for text, want := range map[string]string{
		"":                                "no TSIG key",
		"hmac-md5:k:Z2VoZWlt":             "no algorithm",
		"hmac-sha256:k:Z2VoZWlt!":         "no base64",
		`key "k" { secret "Z2VoZWlt"; }`:  "no TSIG key",
		`key "k" { secret "Z2VoZWlt"; };`: "no algorithm",
	} {
		if _, err := ParseKey(text); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "Z2VoZWlt") {
			t.Errorf("%q: %v", text, err)
		}
	}
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte(dnstest.Key), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadKey(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that others can read: %v", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadKey(path); err != nil {
		t.Error(err)
	}
}

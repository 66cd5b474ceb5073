package dns

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/kuryrctl/kuryrctl/internal/dnstest"
	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
)

func TestNothingIsWrittenWithoutLeave(t *testing.T) {
	server, cloud := dnstest.New(t, "lab.test"), openstacktest.New(t, openstacktest.Zones("lab.test"))
	zone := ZoneFile{Domain: "lab.test", Nameserver: "192.0.2.53", Directory: t.TempDir()}
	all := func() string {
		files, err := os.ReadDir(zone.Directory)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(server.Records(), cloud.Left(), files)
	}
	for _, p := range []Place{place(t, server), zone, Designate{Client: designateClient(t, cloud), Domain: "lab.test"}} {
		refused := func(want []Record) {
			t.Helper()
			there, no := all(), errors.New("not now")
			if _, err := p.Sync(t.Context(), demo, want, func() error { return no }); !errors.Is(err, no) || all() != there {
				t.Errorf("%T: %v; there was %s, and is %s", p, err, there, all())
			}
		}
		one := []Record{at("a.lab.test", "192.0.2.1")}
		refused(one)
		sync(t, p, demo, one, "+ a.lab.test")
		refused(nil)
		sync(t, p, demo, nil, "- a.lab.test")
	}
}

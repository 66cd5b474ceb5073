package dns

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/dns/v2/recordsets"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
)

func designateClient(t *testing.T, cloud *openstacktest.Cloud) *gophercloud.ServiceClient {
	t.Helper()
	c, err := openstack.Connect(t.Context(), openstack.Options{Cloud: "fake", File: cloud.CloudsYAML(), Backoff: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	client, err := c.Names()
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func TestNamesComeChangeAndGoInDesignate(t *testing.T) {
	cloud := openstacktest.New(t, openstacktest.Zones("test", "lab.test", "other.test"))
	client := designateClient(t, cloud)
	p := Designate{Client: client, Domain: "lab.test"}
	want := []Record{at("*.apps.lab.test", "172.24.4.9"), at("worker-0.lab.test", "10.11.0.5")}
	sync(t, p, demo, want, "+ *.apps.lab.test", "+ worker-0.lab.test")
	cloud.ResetLog()
	sync(t, p, demo, want, "= *.apps.lab.test", "= worker-0.lab.test")
	if w := cloud.Writes(); len(w) > 0 {
		t.Errorf("what is as it should be was written: %v", w)
	}
	page, err := recordsets.ListAll(client, recordsets.ListOpts{Type: "A"}).AllPages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sets, err := recordsets.ExtractRecordSets(page)
	if err != nil || len(sets) != 2 || sets[0].ZoneName != "lab.test." || sets[0].Description != openstack.Mark("demo") || sets[0].TTL != TTL {
		t.Errorf("in Designate: %+v, %v", sets, err)
	}
	want[0] = at("*.apps.lab.test", "172.24.4.10")
	sync(t, p, demo, want, "~ *.apps.lab.test", "= worker-0.lab.test")
	sync(t, p, demo, want[:1], "= *.apps.lab.test", "- worker-0.lab.test")
	sync(t, p, demo, nil, "- *.apps.lab.test")
	if left := cloud.Left(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestDesignateGoesOnAfterEveryWrite(t *testing.T) {
	want := []Record{at("a.lab.test", "192.0.2.1"), at("b.lab.test", "192.0.2.2")}
	for n := range 3 {
		cloud := openstacktest.New(t, openstacktest.Zones("lab.test"))
		p := Designate{Client: designateClient(t, cloud), Domain: "lab.test"}
		cloud.CutAfter(n)
		if _, err := p.Sync(t.Context(), demo, want, AtOnce); (err == nil) != (n == 2) {
			t.Fatalf("cut after %d writes: %v", n, err)
		}
		cloud.Heal()
		if _, err := p.Sync(t.Context(), demo, want, AtOnce); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff([]string{"recordset a.lab.test.", "recordset b.lab.test."}, slices.Sorted(slices.Values(cloud.Left()))); d != "" {
			t.Errorf("cut after %d writes (-want +got):\n%s", n, d)
		}
	}
}

func TestDesignateTakesNothingOfOthers(t *testing.T) {
	cloud := openstacktest.New(t, openstacktest.Zones("lab.test"))
	p := Designate{Client: designateClient(t, cloud), Domain: "lab.test"}
	sync(t, p, demo, []Record{at("a.lab.test", "192.0.2.1")}, "+ a.lab.test")
	var taken *TakenError
	if _, err := p.Sync(t.Context(), Owner{"demo-2", "x"}, []Record{at("a.lab.test", "192.0.2.1")}, AtOnce); !errors.As(err, &taken) {
		t.Errorf("a name of another stack: %v", err)
	}
	p.Domain = "example.org"
	if _, err := p.Sync(t.Context(), demo, nil, AtOnce); err == nil || !strings.Contains(err.Error(), "it has lab.test; make one with") {
		t.Errorf("no zone for the domain: %v", err)
	}
}

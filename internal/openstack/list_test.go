package openstack

import (
	"encoding/json"
	"testing"
)

func TestTheNextPageIsAskedOfTheAddressWeKnow(t *testing.T) {
	const at = "https://cloud/v2.0/ports?limit=2"
	for raw, want := range map[string]string{
		`{}`: "",
		`{"ports_links":[{"rel":"next","href":"https://cloud/v2.0/ports?limit=2&marker=x"}]}`:              at + "&marker=x",
		`{"ports_links":[{"rel":"next","href":"http://internal:9696/v2.0/ports?marker=x"}]}`:               "https://cloud/v2.0/ports?marker=x", // our token goes nowhere else
		`{"ports_links":[{"rel":"previous","href":"https://cloud/v2.0/ports?limit=2&marker=x"}]}`:          "",
		`{"ports_links":[{"rel":"next","href":"https://cloud/v2.0/ports?limit=2"}]}`:                       "", // to itself
		`{"ports_links":{"next":"http://b"}}`:                                                              "",
		`{"next":"/v2.0/ports?limit=2&marker=x"}`:                                                          at + "&marker=x", // Glance
		`{"links":{"self":"https://cloud/v2.0/ports","next":"https://cloud/v2.0/ports?limit=2&marker=x"}}`: at + "&marker=x", // Designate
		`{"links":{"self":"https://cloud/v2.0/ports","next":null}}`:                                        "",               // Keystone
	} {
		var page map[string]json.RawMessage
		if err := json.Unmarshal([]byte(raw), &page); err != nil {
			t.Fatal(err)
		}
		if got, err := nextPage(link(page, "ports"), at); got != want || err != nil {
			t.Errorf("%s: %q, %v; want %q", raw, got, err, want)
		}
	}
}

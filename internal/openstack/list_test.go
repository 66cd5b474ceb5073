package openstack

import (
	"encoding/json"
	"testing"
)

func TestTheNextPageIsAskedOfTheAddressWeKnow(t *testing.T) {
	const at = "https://cloud/v2.0/ports?limit=2"
	for raw, want := range map[string]string{
		``: "",
		`[{"rel":"next","href":"https://cloud/v2.0/ports?limit=2&marker=x"}]`:     at + "&marker=x",
		`[{"rel":"next","href":"http://internal:9696/v2.0/ports?marker=x"}]`:      "https://cloud/v2.0/ports?marker=x", // our token goes nowhere else
		`[{"rel":"previous","href":"https://cloud/v2.0/ports?limit=2&marker=x"}]`: "",
		`[{"rel":"next","href":"https://cloud/v2.0/ports?limit=2"}]`:              "", // to itself
		`{"next":"http://b"}`: "",
	} {
		if got, err := nextPage(json.RawMessage(raw), at); got != want || err != nil {
			t.Errorf("%s: %q, %v; want %q", raw, got, err, want)
		}
	}
}

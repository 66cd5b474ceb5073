package controller

import (
	"os"
	"strings"
	"testing"

	"github.com/kuryrctl/kuryrctl/nodeagent/subport"
)

func TestTheDocumentationKnowsEveryReason(t *testing.T) {
	text, err := os.ReadFile("../../docs/events.md")
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]string{}
	own, _, _ := strings.Cut(string(text), "\n# Events about Services\n") // package lbaas has those
	for line := range strings.Lines(own) {
		if cells := strings.Split(line, "|"); len(cells) > 3 {
			told[strings.TrimSpace(cells[1])] = strings.TrimSpace(cells[2])
		}
	}
	for reason, kind := range reasons {
		if told[string(reason)] != kind {
			t.Errorf("docs/events.md calls %s %q, it is %q", reason, told[string(reason)], kind)
		}
	}
	if len(told) != len(reasons)+2 { // the head and the line below
		t.Errorf("docs/events.md has %d reasons, there are %d", len(told)-2, len(reasons))
	}
}

func TestARefusalIsToldByItsReason(t *testing.T) {
	for _, r := range []Reason{QuotaExceeded, NoAddresses, CloudError} {
		if _, ok := reasons[r]; !ok {
			t.Errorf("%s is no reason", r)
		}
	}
	if r := subport.Refusal(os.ErrClosed); r != string(CloudError) {
		t.Errorf("an unknown error is %s", r)
	}
}

package lbaas

import (
	"os"
	"strings"
	"testing"
)

func TestTheDocumentationKnowsEveryReason(t *testing.T) {
	text, err := os.ReadFile("../../docs/events.md")
	if err != nil {
		t.Fatal(err)
	}
	_, mine, ok := strings.Cut(string(text), "\n# Events about Services\n")
	if !ok {
		t.Fatal("docs/events.md has no part about Services")
	}
	told := map[string]string{}
	for line := range strings.Lines(mine) {
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

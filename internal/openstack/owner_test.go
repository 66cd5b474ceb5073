package openstack

import (
	"slices"
	"testing"
)

func TestAnObjectBelongsToTheStackItNamesExactly(t *testing.T) {
	tests := []struct {
		name        string
		description string
		tags        []string
		want        string // "" for nobody's
	}{
		{"born with the mark", Mark("demo"), nil, "demo"},
		{"tagged, its description changed by a person", "Bob's", Tags("demo", "net.vm"), "demo"},
		{"both", Mark("demo"), Tags("demo", "net.vm"), "demo"},
		{"a longer name is another stack", Mark("demo-2"), nil, "demo-2"},
		{"two owners are none", Mark("demo"), Tags("demo-2", "net.vm"), ""},
		{"two stack tags are none", "", append(Tags("a", "k"), Tags("b", "k")...), ""},
		{"a sentence that begins like a mark", "kuryrctl stack=demo was here", nil, ""},
		{"a mark without a name", "kuryrctl stack=", []string{"kuryrctl:stack="}, ""},
		{"a mark inside a sentence", "not " + Mark("demo"), nil, ""},
		{"somebody else's tags", "", []string{"stack=demo", "kuryrctl:key=net.vm"}, ""},
		{"nothing", "", nil, ""},
	}
	for _, tt := range tests {
		if got, ok := StackOf(tt.description, tt.tags); got != tt.want || ok != (tt.want != "") {
			t.Errorf("%s: %q, %v, want %q", tt.name, got, ok, tt.want)
		}
	}
}

func TestMarksReadBack(t *testing.T) {
	if Mark("demo") != "kuryrctl stack=demo" || !slices.Equal(Tags("demo", "net.vm"), []string{"kuryrctl:stack=demo", "kuryrctl:key=net.vm"}) {
		t.Error("the marks changed: objects of older versions would be lost")
	}
	if stack, key, ok := ServerStack(ServerMetadata("demo", "server.a")); stack != "demo" || key != "server.a" || !ok {
		t.Errorf("got %q, %q, %v", stack, key, ok)
	}
	if _, _, ok := ServerStack(map[string]string{"stack": "demo"}); ok {
		t.Error("somebody else's server has an owner")
	}
}

package openstack

import "testing"

func TestAMarkIsMatchedExactly(t *testing.T) {
	for _, tt := range []struct{ description, want string }{
		{Mark("demo"), "demo"},
		{Mark("demo-2"), "demo-2"},
		{"", ""},
		{"kuryrctl stack=", ""},
		{"kuryrctl stack=demo is nice", ""},
		{"a kuryrctl stack=demo", ""},
		{"Kuryrctl stack=demo", ""},
	} {
		if got, ok := StackOf(tt.description); got != tt.want || ok != (tt.want != "") {
			t.Errorf("StackOf(%q) = %q, %v; want %q", tt.description, got, ok, tt.want)
		}
	}
	stack, key, ok := ServerStack(ServerMetadata("demo", "server.worker-0"))
	if stack != "demo" || key != "server.worker-0" || !ok {
		t.Errorf("metadata reads back as %q %q %v", stack, key, ok)
	}
	if _, _, ok := ServerStack(map[string]string{"stack": "demo"}); ok {
		t.Error("a stranger's metadata was taken for ours")
	}
}

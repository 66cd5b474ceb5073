package cloud

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestAStepThatIsOverBeforeTheFirstLookIsToldFromItsStart(t *testing.T) {
	l := &Lab{state: t.TempDir()}
	if err := os.MkdirAll(filepath.Dir(l.reportFile()), 0o755); err != nil {
		t.Fatal(err)
	}
	r := report{Ready: true, Units: []UnitStatus{{Name: "passwords", Phase: "done"}, {Name: "keystone", Phase: "ready"}, {Name: "glance", Phase: "waiting"}}}
	if err := writeJSON(l.reportFile(), r, 0o644); err != nil {
		t.Fatal(err)
	}
	var got []string
	if err := l.follow(t.Context(), process{PID: os.Getpid()}, "start.", func(e Event) { got = append(got, string(e.Key)+" "+string(e.Kind)) }); err != nil {
		t.Fatal(err)
	}
	want := []string{"start.passwords started", "start.passwords done", "start.keystone started", "start.keystone done"}
	if !slices.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}

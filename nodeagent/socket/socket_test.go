package socket

import (
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWordIsLeftReadAndTakenBack(t *testing.T) {
	dir := t.TempDir()
	if words, err := Buried(dir); err != nil || words != nil {
		t.Errorf("got %v, %v", words, err)
	}
	a, b := Attachment{Container: "a", IfName: "eth0"}, Attachment{Container: "a", IfName: "net/../1"}
	for _, w := range []Attachment{a, b, a} {
		if err := Bury(dir, w); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{".cut.off": `{"container":"x"}`, "torn": `{"conta`, "empty": `{}`} {
		if err := os.WriteFile(filepath.Join(dir, "freed", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	words, err := Buried(dir)
	if diff := cmp.Diff([]Attachment{a, b}, words); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	for _, w := range []Attachment{a, b, a} {
		if err := Exhume(dir, w); err != nil {
			t.Error(err)
		}
	}
	if words, err := Buried(dir); err != nil || words != nil {
		t.Errorf("got %v, %v", words, err)
	}
}

func TestAFileIsReplacedAsAWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for _, text := range []string{"first", "second"} {
		if err := Replace(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != text {
			t.Errorf("got %q, %v", got, err)
		}
	}
	if err := os.Mkdir(path+".d", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Replace(path+".d", nil); err == nil {
		t.Error("a directory was replaced")
	}
	if files, err := os.ReadDir(filepath.Dir(path)); err != nil || len(files) != 2 {
		t.Errorf("left behind: %v, %v", files, err)
	}
}

func TestARefusalIsToldFromAnAccident(t *testing.T) {
	dir, err := os.MkdirTemp("", "kuryr")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var code int
	var body string
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		_, _ = w.Write([]byte(body))
	})}
	done := make(chan error)
	go func() { done <- s.Serve(l) }()
	defer func() { s.Close(); <-done }()
	c := NewClient(path)
	var no *Refusal
	code, body = 503, `{"reason":"none is free"}`
	if err := c.Del(t.Context(), Attachment{}); !errors.As(err, &no) || no.Code != 503 || no.Reason != "none is free" {
		t.Errorf("got %v", err)
	}
	code, body = 502, `<html>`
	if err := c.Del(t.Context(), Attachment{}); !errors.As(err, &no) || !strings.Contains(no.Reason, "502 Bad Gateway") {
		t.Errorf("got %v", err)
	}
	code, body = 200, `{"inter`
	if _, err := c.Add(t.Context(), Add{}); err == nil || errors.As(err, new(*Refusal)) {
		t.Errorf("got %v", err)
	}
	if _, err := NewClient(filepath.Join(dir, "none")).Status(t.Context()); err == nil || !strings.Contains(err.Error(), "none: dial unix") {
		t.Errorf("got %v", err)
	}
}

package payload_test

import (
	"strings"
	"testing"

	"github.com/kuryrctl/kuryrctl/bootstrap/payload"
)

func TestAnArchitectureThatWasNotBuiltIsNamed(t *testing.T) {
	_, err := payload.Archive("vax")
	if err == nil || !strings.Contains(err.Error(), "vax") || !strings.Contains(err.Error(), "make build") {
		t.Errorf("got %v", err)
	}
}

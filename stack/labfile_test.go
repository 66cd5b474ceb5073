package stack_test

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/kuryrctl/kuryrctl/stack"
)

// commented is a key that a comment has in the place where it would be.
var commented = regexp.MustCompile(`(?m)^( *)# ( *[a-z_]+:( |$))`)

// docs/labfile.md has every key, those with a default at that, and the others commented out with an example that is understood.
func TestThePageOfTheLabFileIsTheCode(t *testing.T) {
	page, err := os.ReadFile("../docs/labfile.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "\n```yaml\n")
	block, _, whole := strings.Cut(rest, "\n```\n")
	if !whole {
		t.Fatal("the page has no block of YAML")
	}
	var c stack.Config
	if err := c.Decode(strings.NewReader(block), "the block"); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(c, stack.Defaults()) {
		t.Errorf("the block declares %+v, the defaults are %+v", c, stack.Defaults())
	}
	block = commented.ReplaceAllString(block, "$1$2")
	if err := c.Decode(strings.NewReader(block), "the block with its examples"); err != nil {
		t.Fatal(err)
	}
	var there map[string]any
	if err := yaml.Unmarshal([]byte(block), &there); err != nil {
		t.Fatal(err)
	}
	wantKeys(t, reflect.TypeFor[stack.Config](), there, "")
}

// wantKeys reports the keys of a type, and of those below it, that a mapping does not have.
func wantKeys(t *testing.T, of reflect.Type, there map[string]any, at string) {
	for i := range of.NumField() {
		f := of.Field(i)
		key := f.Tag.Get("yaml")
		if key == "" {
			continue // of an address
		}
		value, ok := there[key]
		if !ok {
			t.Errorf("the block lacks %s%s", at, key)
		}
		if f.Type.Kind() == reflect.Struct {
			below, _ := value.(map[string]any)
			wantKeys(t, f.Type, below, at+key+".")
		}
	}
}

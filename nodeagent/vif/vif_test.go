package vif

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// shape is as much of an OpenAPI schema as the definition uses for types.
type shape struct {
	Type       string
	Properties map[string]shape
	Required   []string
	Items      *shape
}

type definition struct {
	Metadata struct{ Name string }
	Spec     struct {
		Group, Scope string
		Names        struct{ Kind, ListKind, Plural string }
		Versions     []struct {
			Name                     string
			Subresources             map[string]any
			AdditionalPrinterColumns []struct{ Name, JSONPath string }
			Schema                   struct {
				OpenAPIV3Schema shape `json:"openAPIV3Schema"`
			}
		}
	}
}

func decode(t *testing.T) (d definition) {
	t.Helper()
	if err := yaml.UnmarshalStrict(CRD(), new(map[string]any)); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(CRD(), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestTheDefinitionNamesWhatTheTypesAreRegisteredAs(t *testing.T) {
	d := decode(t)
	got := []string{d.Metadata.Name, d.Spec.Group, d.Spec.Scope, d.Spec.Names.Kind, d.Spec.Names.ListKind, d.Spec.Names.Plural, d.Spec.Versions[0].Name}
	want := []string{Resource + "." + Group, Group, "Cluster", Kind, Kind + "List", Resource, Version}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	s := runtime.NewScheme()
	if err := AddToScheme(s); err != nil {
		t.Fatal(err)
	}
	if kinds, _, err := s.ObjectKinds(&SubportPool{}); err != nil || kinds[0] != GroupVersion.WithKind(Kind) {
		t.Errorf("registered as %v, %v", kinds, err)
	}
	if kinds, _, err := s.ObjectKinds(&SubportPoolList{}); err != nil || kinds[0] != GroupVersion.WithKind(Kind+"List") {
		t.Errorf("registered as %v, %v", kinds, err)
	}
}

func TestTheSchemaIsThatOfTheTypes(t *testing.T) {
	v := decode(t).Spec.Versions[0]
	if _, ok := v.Subresources["status"]; !ok {
		t.Error("the status is no subresource: the daemon and the controller would overwrite each other")
	}
	compare(t, "", v.Schema.OpenAPIV3Schema, reflect.TypeFor[SubportPool]())
	for _, c := range v.AdditionalPrinterColumns {
		at := v.Schema.OpenAPIV3Schema
		path := strings.Split(strings.TrimPrefix(c.JSONPath, "."), ".")
		if path[0] == "metadata" {
			continue
		}
		for _, name := range path {
			next, ok := at.Properties[name]
			if !ok {
				t.Errorf("column %s shows %s, which is not there", c.Name, c.JSONPath)
			}
			at = next
		}
	}
}

func compare(t *testing.T, at string, s shape, typ reflect.Type) {
	t.Helper()
	want := map[reflect.Kind]string{reflect.Struct: "object", reflect.Slice: "array", reflect.String: "string", reflect.Int: "integer",
		reflect.Int64: "integer", reflect.Bool: "boolean"}[typ.Kind()]
	if typ == reflect.TypeFor[metav1.Time]() {
		want = "string"
	}
	if s.Type != want {
		t.Errorf("%s is %q in the schema and %s in Go", at, s.Type, typ)
	}
	switch {
	case typ == reflect.TypeFor[metav1.Time](), typ == reflect.TypeFor[metav1.ObjectMeta](): // the API server's own
	case typ.Kind() == reflect.Slice:
		if s.Items == nil {
			t.Fatalf("%s has no items in the schema", at)
		}
		compare(t, at+"[]", *s.Items, typ.Elem())
	case typ.Kind() == reflect.Struct:
		var names, required []string
		for _, f := range reflect.VisibleFields(typ) {
			tag := strings.Split(f.Tag.Get("json"), ",")
			if f.Anonymous && tag[0] == "" || len(f.Index) > 1 && f.Type.Kind() != reflect.String || tag[0] == "" {
				continue
			}
			if len(f.Index) > 1 && typ == reflect.TypeFor[SubportPool]() && !slices.Contains([]string{"kind", "apiVersion"}, tag[0]) {
				continue // of the metadata
			}
			names = append(names, tag[0])
			if p, ok := s.Properties[tag[0]]; ok {
				compare(t, at+"."+tag[0], p, f.Type)
			}
			if len(tag) == 1 {
				required = append(required, tag[0])
			}
		}
		var known []string
		for name := range s.Properties {
			known = append(known, name)
		}
		for _, list := range [][]string{names, known, required, s.Required} {
			slices.Sort(list)
		}
		if diff := cmp.Diff(names, known); diff != "" {
			t.Errorf("%s: fields in Go (-) and in the schema (+):\n%s", at, diff)
		}
		if diff := cmp.Diff(required, s.Required); diff != "" {
			t.Errorf("%s: fields without omitempty (-) and required ones (+):\n%s", at, diff)
		}
	}
}

func full() *SubportPool {
	now := metav1.NewTime(time.Date(2026, 11, 25, 8, 0, 0, 0, time.UTC))
	return &SubportPool{
		TypeMeta:   metav1.TypeMeta{APIVersion: GroupVersion.String(), Kind: Kind},
		ObjectMeta: metav1.ObjectMeta{Name: "worker-0", Labels: map[string]string{"a": "b"}},
		Spec: SubportPoolSpec{Trunk: "t", ParentMAC: "fa:16:3e:00:00:01", Min: 1, Max: 2, Batch: 3,
			Subports: []Subport{{Port: "p", MAC: "fa:16:3e:00:00:02", VLAN: 5, MTU: 1400, IPs: []IP{{Address: "10.10.0.5/16", Gateway: "10.10.0.1"}}, Retiring: true}}},
		Status: SubportPoolStatus{Allocations: []Allocation{{Port: "p", Namespace: "n", Pod: "x", UID: "u", Container: "c", Since: now}},
			Released: []string{"q"}, Subports: 1, Used: 1, Heartbeat: now, Conditions: []metav1.Condition{{Type: Ready, Status: "True"}}},
	}
}

func TestACopySharesNothing(t *testing.T) {
	a := full()
	b := a.DeepCopy()
	if diff := cmp.Diff(a, b); diff != "" {
		t.Fatal(diff)
	}
	list := (&SubportPoolList{Items: []SubportPool{*a}}).DeepCopyObject().(*SubportPoolList)
	a.Labels["a"] = "c"
	a.Spec.Subports[0].IPs[0].Address = "10.10.0.6/16"
	a.Spec.Subports[0].Port, a.Status.Allocations[0].Pod, a.Status.Released[0], a.Status.Conditions[0].Type = "x", "y", "z", "w"
	if diff := cmp.Diff(full(), b); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(full(), &list.Items[0]); diff != "" {
		t.Error(diff)
	}
}

func TestAPoolSurvivesJSON(t *testing.T) {
	text, err := json.Marshal(full())
	if err != nil {
		t.Fatal(err)
	}
	var back SubportPool
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(full(), &back); diff != "" {
		t.Error(diff)
	}
	if text, _ := json.Marshal(SubportPool{}); strings.Contains(string(text), "status") {
		t.Errorf("an empty status is sent: %s", text)
	}
}

func TestASubportThatIsUnfitSaysWhy(t *testing.T) {
	if err := full().Spec.Subports[0].Problem(); err != nil {
		t.Error(err)
	}
	for want, spoil := range map[string]func(*Subport){
		"without a port id":   func(s *Subport) { s.Port = "" },
		"VLAN 4095":           func(s *Subport) { s.VLAN = 4095 },
		"VLAN 0":              func(s *Subport) { s.VLAN = 0 },
		"has no address":      func(s *Subport) { s.IPs = nil },
		"not ADDRESS/LENGTH":  func(s *Subport) { s.IPs[0].Address = "10.10.0.5" },
		"no address of its k": func(s *Subport) { s.IPs[0].Gateway = "fe80::1" },
	} {
		s := full().Spec.Subports[0]
		spoil(&s)
		if err := s.Problem(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v", want, err)
		}
	}
}

package openstacktest

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
)

// fields is a JSON object as a client sent it: what is absent, null and empty
// stay three different things.
type fields map[string]json.RawMessage

func (f fields) has(key string) bool { _, ok := f[key]; return ok }

// null tells that key was sent as null.
func (f fields) null(key string) bool { return string(f[key]) == "null" }

func (f fields) without(key string) fields {
	f = maps.Clone(f)
	delete(f, key)
	return f
}

// take decodes what f has at key, if anything, and returns the rest of f.
func (f fields) take(key string, into any) (fields, error) {
	if !f.has(key) {
		return f, nil
	}
	if err := json.Unmarshal(f[key], into); err != nil {
		return nil, fmt.Errorf("decoding %s: %w", key, err)
	}
	return f.without(key), nil
}

// Struct tag `api` of a field of a resource: "c" may be given at creation, "u"
// in an update; without the tag the field is the cloud's own.
const (
	atCreate = "c"
	atUpdate = "u"
	anyField = "" // Set may write everything
)

// assign writes f into the struct dst points to, where the api tag allows it.
// It reports the fields that do not exist or may not be written now, sorted, and
// the first value of the wrong type. null writes the zero value.
func assign(dst any, f fields, when string) (refused []string, err error) {
	v := reflect.ValueOf(dst).Elem()
	index := columns(v.Type())
	for _, key := range slices.Sorted(maps.Keys(f)) {
		col, ok := index[key]
		if !ok || when != anyField && !strings.Contains(col.Tag.Get("api"), when) {
			refused = append(refused, key)
			continue
		}
		fresh := reflect.New(col.Type)
		if e := json.Unmarshal(f[key], fresh.Interface()); e != nil && err == nil {
			err = fmt.Errorf("invalid input for %s: %w", key, e)
			continue
		}
		v.FieldByIndex(col.Index).Set(fresh.Elem())
	}
	return refused, err
}

// columns maps the JSON names of a struct, embedded structs included, to its fields.
func columns(t reflect.Type) map[string]reflect.StructField {
	if m, ok := columnsOf.Load(t); ok {
		return m.(map[string]reflect.StructField)
	}
	m := map[string]reflect.StructField{}
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name != "" && name != "-" && !f.Anonymous {
			m[name] = f
		}
	}
	columnsOf.Store(t, m)
	return m
}

// columnsOf remembers what columns found, by type: it is asked for each row of each list.
var columnsOf sync.Map

// column is the value of r's field with this JSON name.
func column(r row, name string) (reflect.Value, bool) {
	v := reflect.ValueOf(r).Elem()
	f, ok := columns(v.Type())[name]
	if !ok {
		return reflect.Value{}, false
	}
	return v.FieldByIndex(f.Index), true
}

// text writes a value as it would stand in a query string.
func text(v reflect.Value) string {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return ""
		}
		return text(v.Elem())
	default:
		return fmt.Sprint(v.Interface())
	}
}

// clone copies a resource one level deep; assign never writes into shared slices.
func clone[T row](r T) T {
	v := reflect.New(reflect.TypeOf(r).Elem())
	v.Elem().Set(reflect.ValueOf(r).Elem())
	return v.Interface().(T)
}

// overwrite makes dst equal to src.
func overwrite[T row](dst, src T) { reflect.ValueOf(dst).Elem().Set(reflect.ValueOf(src).Elem()) }

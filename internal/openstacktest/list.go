package openstacktest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// dialect phrases an error as one service does; kind is Neutron's exception.
type dialect func(status int, kind, format string, args ...any) error

// list answers a GET of a collection: filters, sorting, paging, fields. Rows must
// be those the caller may see; each row shown is polled once.
func list[T row](q *call, plural, title string, rows []T, d dialect) (any, error) {
	query := q.URL.Query()
	if err := knownFilters[T](q, query, d); err != nil {
		return nil, err
	}
	// A transition must advance although the filter asks for its end
	// (?status=ACTIVE), so the state is matched after the poll.
	state := url.Values{}
	for _, k := range []string{"status", "provisioning_status"} {
		if query.Has(k) {
			state[k] = query[k]
			query.Del(k)
		}
	}
	var found []T
	for _, r := range rows {
		if !matches(r, query) {
			continue
		}
		q.look(r)
		found = append(found, r)
	}
	found = slices.DeleteFunc(found, func(r T) bool { return r.head().gone || !matches(r, state) })
	sortRows(found, query)
	page, links, err := paginate(q, title, found, query, d)
	if err != nil {
		return nil, err
	}
	out := make([]any, len(page))
	for i, r := range page {
		if out[i], err = project(q.show(r), query["fields"]); err != nil {
			return nil, err
		}
	}
	answer := map[string]any{plural: out}
	if len(links) > 0 {
		answer[plural+"_links"] = links
	}
	return answer, nil
}

// reserved are the parameters of a list that are not filters.
func reserved(key string) bool {
	switch key {
	case "limit", "marker", "page_reverse", "sort_key", "sort_dir", "fields", "tags", "tags-any", "not-tags", "not-tags-any", "tenant_id":
		return true
	}
	return false
}

func knownFilters[T row](q *call, query url.Values, d dialect) error {
	index := columns(reflect.TypeFor[T]().Elem())
	for key := range query {
		if _, ok := index[key]; !ok && !reserved(key) {
			q.misuse("unknown filter %s", key)
			return d(400, "HTTPBadRequest", "['%s'] is invalid attribute for filtering", key)
		}
	}
	return nil
}

// matches tells whether r passes every filter: values of one key are
// alternatives, keys add up.
func matches(r row, query url.Values) bool {
	for key, values := range query {
		switch key {
		case "tags", "tags-any", "not-tags", "not-tags-any":
			if !matchTags(r, key, values) {
				return false
			}
			continue
		case "tenant_id":
			key = "project_id"
		}
		if reserved(key) {
			continue
		}
		v, ok := column(r, key)
		if !ok || !matchValue(v, values) {
			return false
		}
	}
	return true
}

func matchValue(v reflect.Value, values []string) bool {
	if v.Kind() != reflect.Slice {
		return slices.ContainsFunc(values, func(want string) bool {
			return text(v) == want || v.Kind() == reflect.Bool && strings.EqualFold(text(v), want)
		})
	}
	if v.Type().Elem().Kind() != reflect.Struct {
		return slices.ContainsFunc(values, func(want string) bool {
			return slices.ContainsFunc(elements(v), func(e reflect.Value) bool { return text(e) == want })
		})
	}
	// Lists of objects are filtered by "field=value", as in
	// fixed_ips=ip_address=10.0.0.5; the fields add up.
	byField := map[string][]string{}
	for _, want := range values {
		f, x, _ := strings.Cut(want, "=")
		byField[f] = append(byField[f], x)
	}
	return slices.ContainsFunc(elements(v), func(e reflect.Value) bool {
		index := columns(e.Type())
		for f, wants := range byField {
			col, ok := index[f]
			if !ok || !slices.Contains(wants, text(e.FieldByIndex(col.Index))) {
				return false
			}
		}
		return true
	})
}

func elements(v reflect.Value) []reflect.Value {
	es := make([]reflect.Value, v.Len())
	for i := range es {
		es[i] = v.Index(i)
	}
	return es
}

func matchTags(r row, key string, values []string) bool {
	v, ok := column(r, "tags")
	if !ok {
		return false
	}
	has, _ := v.Interface().([]string)
	var wanted []string
	for _, s := range values {
		wanted = append(wanted, strings.Split(s, ",")...)
	}
	all := !slices.ContainsFunc(wanted, func(w string) bool { return !slices.Contains(has, w) })
	some := slices.ContainsFunc(wanted, func(w string) bool { return slices.Contains(has, w) })
	switch key {
	case "tags":
		return all
	case "tags-any":
		return some
	case "not-tags":
		return !all
	default:
		return !some
	}
}

// sortRows orders by sort_key, then by id, as Neutron and Octavia do.
func sortRows[T row](rows []T, query url.Values) {
	desc := query.Get("sort_dir") == "desc"
	slices.SortStableFunc(rows, func(a, b T) int {
		for _, key := range query["sort_key"] {
			x, okx := column(a, key)
			y, oky := column(b, key)
			if !okx || !oky || text(x) == text(y) {
				continue
			}
			if n := cmp.Compare(text(x), text(y)); desc {
				return -n
			} else {
				return n
			}
		}
		return cmp.Compare(a.head().ID, b.head().ID)
	})
}

type link struct {
	Rel  string `json:"rel"`
	Href string `json:"href"`
}

// pagesOf is the length of a page where the client asks for none: some services have one.
func (q *call) pagesOf(n int) {
	if query := q.URL.Query(); query.Get("limit") == "" {
		query.Set("limit", strconv.Itoa(n))
		q.URL.RawQuery = query.Encode()
	}
}

// paginate cuts the page that limit and marker ask for. A full page has a link to
// the next one, even when that will be empty: the server does not look ahead.
func paginate[T row](q *call, title string, rows []T, query url.Values, d dialect) ([]T, []link, error) {
	if m := query.Get("marker"); m != "" {
		i := slices.IndexFunc(rows, func(r T) bool { return r.head().ID == m })
		if i < 0 {
			return nil, nil, d(404, title+"NotFound", title+" %s could not be found.", m)
		}
		rows = rows[i+1:]
	}
	if query.Get("limit") == "" {
		return rows, nil, nil
	}
	limit, err := strconv.Atoi(query.Get("limit"))
	if err != nil || limit < 0 {
		return nil, nil, d(400, "InvalidInput", "Bad limit: %s", query.Get("limit"))
	}
	if limit == 0 || len(rows) < limit {
		return rows, nil, nil
	}
	rows = rows[:limit]
	next := q.URL.Query()
	next.Set("marker", rows[limit-1].head().ID)
	return rows, []link{{"next", fmt.Sprintf("%s%s?%s", q.server.URL, q.URL.Path, next.Encode())}}, nil
}

// project keeps only the asked fields of v.
func project(v any, names []string) (any, error) {
	if len(names) == 0 {
		return v, nil
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var all, some map[string]json.RawMessage
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, err
	}
	some = map[string]json.RawMessage{}
	for _, list := range names {
		for name := range strings.SplitSeq(list, ",") {
			if x, ok := all[name]; ok {
				some[name] = x
			}
		}
	}
	return some, nil
}

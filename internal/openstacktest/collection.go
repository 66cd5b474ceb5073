package openstacktest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// collection is one of Neutron's resource collections: what differs between
// networks and trunks is in the four functions.
type collection[T row] struct {
	table    *table[T]
	plural   string // networks, security-groups: the path
	singular string // network, security_group: the body
	title    string // Network: the exception is NetworkNotFound
	fresh    func(*call) T
	create   func(*call, T, fields) error    // checks and completes the new row, which is stored afterwards
	update   func(*call, T, T, fields) error // checks the new state against the old
	remove   func(*call, T) error            // refuses, or removes what goes along; the row is dropped afterwards
	noBulk   bool                            // many in one request are refused
	visible  func(*call, T) bool             // besides the owner's and the admin's sight; nil is nobody
}

func (s collection[T]) key() string { return strings.ReplaceAll(s.plural, "-", "_") }

// register adds the five routes of a collection.
func register[T row](c *Cloud, s collection[T]) {
	path := "/v2.0/" + s.plural
	c.on("GET", prefixNetwork, path, route{do: s.list})
	c.on("POST", prefixNetwork, path, route{status: http.StatusCreated, do: s.post})
	c.on("GET", prefixNetwork, path+"/{id}", route{do: s.get})
	c.on("PUT", prefixNetwork, path+"/{id}", route{do: s.put})
	c.on("DELETE", prefixNetwork, path+"/{id}", route{status: http.StatusNoContent, do: s.delete})
	if c.taggable(s.plural) {
		registerTags(c, s)
	}
}

func (s collection[T]) sees(q *call, r T) bool {
	return q.admin() || r.head().ProjectID == q.who.ProjectID || s.visible != nil && s.visible(q, r)
}

// lookup finds a row the caller may see, or answers 404.
func (s collection[T]) lookup(q *call, id string) (T, error) {
	r, ok := s.table.get(id)
	if !ok || !s.sees(q, r) {
		var none T
		return none, s.notFound(id)
	}
	return r, nil
}

func (s collection[T]) notFound(id string) error {
	format := s.title + " %s could not be found."
	switch s.title {
	case "SecurityGroup":
		format = "Security group %s does not exist"
	case "SecurityGroupRule":
		format = "Security group rule %s does not exist"
	case "Router":
		format = "Router %s could not be found"
	case "FloatingIP":
		format = "Floating IP %s could not be found"
	}
	return neutron(http.StatusNotFound, strings.ReplaceAll(s.title, " ", "")+"NotFound", format, id)
}

// owned finds a row the caller may change.
func (s collection[T]) owned(q *call, id string) (T, error) {
	r, err := s.lookup(q, id)
	if err == nil && !q.admin() && r.head().ProjectID != q.who.ProjectID {
		return r, q.forbidden("%s_%s", map[string]string{"PUT": "update", "DELETE": "delete"}[q.Method], s.singular)
	}
	return r, err
}

func (q *call) forbidden(format string, args ...any) error {
	return neutron(http.StatusForbidden, "PolicyNotAuthorized", "(rule:%s) is disallowed by policy", fmt.Sprintf(format, args...))
}

func (s collection[T]) list(q *call) (any, error) {
	return list(q, s.key(), s.title, s.table.where(func(r T) bool { return s.sees(q, r) }), neutron)
}

func (s collection[T]) get(q *call) (any, error) {
	r, err := s.lookup(q, q.PathValue("id"))
	if err != nil {
		return nil, err
	}
	if q.look(r); r.head().gone {
		return nil, s.notFound(r.head().ID)
	}
	v, err := project(q.show(r), q.URL.Query()["fields"])
	return map[string]any{s.singular: v}, err
}

// post creates one ({"port": {}}) or many ({"ports": [{}]}), all or nothing.
func (s collection[T]) post(q *call) (any, error) {
	var env map[string]json.RawMessage
	if err := json.Unmarshal(q.body, &env); err != nil {
		return nil, neutron(http.StatusBadRequest, "HTTPBadRequest", "The server could not comply with the request since it is either malformed or otherwise incorrect.")
	}
	many, bulk := env[s.key()]
	if bulk && s.noBulk {
		q.misuse("Neutron makes %s one by one", s.plural)
		return nil, neutron(http.StatusBadRequest, "HTTPBadRequest", "Bulk operation not supported")
	}
	var wanted []fields
	if bulk {
		if err := json.Unmarshal(many, &wanted); err != nil {
			return nil, fmt.Errorf("decoding %s: %w", s.key(), err)
		}
	} else {
		f, err := q.object(s.singular)
		if err != nil {
			return nil, err
		}
		if f == nil {
			q.misuse("the body has no %s", s.singular)
			return nil, neutron(http.StatusBadRequest, "HTTPBadRequest", "Resource body required")
		}
		wanted = []fields{f}
	}
	if err := q.quota("network", s.singular, len(wanted)); err != nil {
		return nil, err
	}
	var made []T
	for _, f := range wanted {
		r, err := s.make(q, f)
		if err != nil {
			for _, undo := range slices.Backward(made) {
				if e := s.remove(q, undo); e != nil {
					return nil, fmt.Errorf("undoing a bulk request: %v: %w", err, e)
				}
				s.table.drop(undo.head().ID)
			}
			return nil, err
		}
		made = append(made, r)
	}
	if !bulk {
		return map[string]any{s.singular: q.show(made[0])}, nil
	}
	out := make([]any, len(made))
	for i, r := range made {
		out[i] = q.show(r)
	}
	return map[string]any{s.key(): out}, nil
}

func (s collection[T]) make(q *call, f fields) (T, error) {
	var none T
	r := s.fresh(q)
	h := r.head()
	h.ID, h.ProjectID = q.newID(), q.who.ProjectID
	if x, ok := any(r).(interface{ std() *standard }); ok {
		std := x.std()
		std.CreatedAt, std.UpdatedAt, std.Revision, std.Tags = stamp(), stamp(), 1, []string{}
	}
	tags := f["tags"]
	if f.has("tags") {
		if !q.knobs.tagsAtCreation && s.plural != "ports" {
			return none, neutron(http.StatusBadRequest, "HTTPBadRequest", "Attribute 'tags' not allowed in POST")
		}
		if !q.knobs.tagsAtCreation {
			tags = json.RawMessage("[]") // without a word
		}
		if err := json.Unmarshal(tags, &any(r).(interface{ std() *standard }).std().Tags); err != nil {
			return none, neutron(http.StatusBadRequest, "HTTPBadRequest", "Invalid input for tags: %v", err)
		}
		f = f.without("tags")
	}
	if err := s.write(q, r, f, atCreate); err != nil {
		return none, err
	}
	if x, ok := any(r).(interface{ std() *standard }); ok {
		if std := x.std(); std.TenantID != "" {
			h.ProjectID = std.TenantID
		}
	}
	if h.ProjectID != q.who.ProjectID && !q.admin() {
		return none, q.forbidden("create_%s", s.singular)
	}
	if err := s.create(q, r, f); err != nil {
		return none, err
	}
	s.table.add(r)
	return r, nil
}

// write puts the client's fields into r; a field that does not exist or may not
// be given fails the test, since a client of ours never means it.
func (s collection[T]) write(q *call, r T, f fields, when string) error {
	if q.knobs.without["dns-integration"] && (f.has("dns_name") || f.has("dns_domain")) {
		return s.refuse(q, []string{"dns_name"})
	}
	refused, err := assign(r, f, when)
	if len(refused) > 0 {
		return s.refuse(q, refused)
	}
	if err != nil {
		q.misuse("%v", err)
		return neutron(http.StatusBadRequest, "HTTPBadRequest", "Invalid input: %v", err)
	}
	return nil
}

func (s collection[T]) refuse(q *call, names []string) error {
	q.misuse("%s does not take %s now", s.singular, strings.Join(names, ", "))
	if index := columns(reflect.TypeFor[T]().Elem()); q.Method == http.MethodPut && index[names[0]].Name != "" {
		return neutron(http.StatusBadRequest, "HTTPBadRequest", "Cannot update read-only attribute %s", names[0])
	}
	return neutron(http.StatusBadRequest, "HTTPBadRequest", "Unrecognized attribute(s) '%s'", strings.Join(names, ", "))
}

func (s collection[T]) put(q *call) (any, error) {
	r, err := s.owned(q, q.PathValue("id"))
	if err != nil {
		return nil, err
	}
	if err := s.unchanged(q, r); err != nil {
		return nil, err
	}
	f, err := q.object(s.singular)
	if err != nil {
		return nil, err
	}
	fresh := clone(r)
	if err := s.write(q, fresh, f, atUpdate); err != nil {
		return nil, err
	}
	if err := s.update(q, r, fresh, f); err != nil {
		return nil, err
	}
	overwrite(r, fresh)
	touch(r)
	return map[string]any{s.singular: q.show(r)}, nil
}

func (s collection[T]) delete(q *call) (any, error) {
	r, err := s.owned(q, q.PathValue("id"))
	if err != nil {
		return nil, err
	}
	if err := s.unchanged(q, r); err != nil {
		return nil, err
	}
	if err := s.remove(q, r); err != nil {
		q.look(r) // a refusal counts as a poll, see Polls
		return nil, err
	}
	s.table.drop(r.head().ID)
	return nil, nil
}

// unchanged enforces If-Match: revision_number=N (extension revision-if-match).
func (s collection[T]) unchanged(q *call, r T) error {
	want, ok := strings.CutPrefix(q.Header.Get("If-Match"), "revision_number=")
	if !ok {
		return nil
	}
	v, _ := column(r, "revision_number")
	if n, err := strconv.Atoi(want); err == nil && text(v) == strconv.Itoa(n) {
		return nil
	}
	return neutron(http.StatusPreconditionFailed, "RevisionNumberConstraintFailed", "Constrained to %s, but current revision is %s", want, text(v))
}

func allow[T row](*call, T) error             { return nil }
func accept[T row](*call, T, T, fields) error { return nil }

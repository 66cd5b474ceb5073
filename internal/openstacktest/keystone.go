package openstacktest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"
)

const (
	region   = "RegionOne"
	domainID = "default"

	microseconds = "2006-01-02T15:04:05.000000Z" // how Keystone writes times
)

type named struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Domain struct {
		ID   string `json:"id"`
		Name string `json:"name"`
	} `json:"domain"`
}

func newNamed(id, name string) named {
	n := named{ID: id, Name: name}
	n.Domain.ID, n.Domain.Name = domainID, "Default"
	return n
}

// account is a user with the project and the roles of the same name; two are enough.
type account struct {
	user, project named
	roles         []named
}

// session is an issued token.
type session struct {
	account
	ProjectID  string
	UserID     string
	admin      bool
	methods    []string
	credential *credential // of an application credential
	issued     time.Time
	expires    time.Time
}

type identity struct {
	demo, admin named // projects
	accounts    map[string]account
	sessions    map[string]*session
	credentials *table[*credential]
	quotas      map[string]map[string]int // project to "service/resource" to limit, where changed
}

func newIdentity(c *Cloud) identity {
	i := identity{accounts: map[string]account{}, sessions: map[string]*session{}, credentials: newTable[*credential]("application_credential"),
		quotas: map[string]map[string]int{}}
	i.demo, i.admin = newNamed(c.newHex(), "demo"), newNamed(c.newHex(), "admin")
	role := func(name string) named { return named{ID: c.newHex(), Name: name} }
	member, reader := role("member"), role("reader")
	roles := []named{member, reader, role("load-balancer_member")}
	if c.knobs.roles != nil {
		roles = nil
		for _, name := range c.knobs.roles {
			roles = append(roles, role(name))
		}
	}
	i.accounts["demo"] = account{newNamed(c.newHex(), "demo"), i.demo, roles}
	i.accounts["admin"] = account{newNamed(c.newHex(), "admin"), i.admin, []named{role("admin"), member, reader}}
	return i
}

// password is the one of a seeded user.
func password(user string) string { return user + "-secret" }

func (i *identity) session(token string) (*session, bool) {
	s, ok := i.sessions[token]
	if !ok || token == "" || time.Now().After(s.expires) {
		return nil, false
	}
	return s, true
}

// RevokeTokens makes every token so far worthless: requests get 401 until the
// client authenticates again.
func (c *Cloud) RevokeTokens() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.identity.sessions = map[string]*session{}
}

func keystoneBody(status int, message string) any {
	return map[string]any{"error": map[string]any{"code": status, "message": message, "title": http.StatusText(status)}}
}

func keystone(status int, format string, args ...any) error {
	return &apiError{status, keystoneBody(status, fmt.Sprintf(format, args...))}
}

func (c *Cloud) identityRoutes() {
	version := func() map[string]any {
		return map[string]any{"id": "v3.14", "status": "stable", "updated": "2020-04-07T00:00:00Z",
			"links": []link{{"self", c.AuthURL() + "/"}}, "media-types": []any{}}
	}
	c.on("GET", prefixIdentity, "/{$}", route{open: true, status: http.StatusMultipleChoices, do: func(*call) (any, error) {
		return map[string]any{"versions": map[string]any{"values": []any{version()}}}, nil
	}})
	one := func(*call) (any, error) { return map[string]any{"version": version()}, nil }
	c.on("GET", prefixIdentity, "/v3", route{open: true, do: one})
	c.on("GET", prefixIdentity, "/v3/{$}", route{open: true, do: one})
	c.on("POST", prefixIdentity, "/v3/auth/tokens", route{open: true, status: http.StatusCreated, do: issue})
	c.on("GET", prefixIdentity, "/v3/auth/tokens", route{do: validate})
	c.on("DELETE", prefixIdentity, "/v3/auth/tokens", route{status: http.StatusNoContent, do: func(q *call) (any, error) {
		delete(q.identity.sessions, q.Header.Get("X-Subject-Token"))
		return nil, nil
	}})
	c.on("GET", prefixIdentity, "/v3/auth/catalog", route{do: func(q *call) (any, error) { return map[string]any{"catalog": q.catalog()}, nil }})
	c.on("GET", prefixIdentity, "/v3/auth/projects", route{do: func(q *call) (any, error) {
		return map[string]any{"projects": []any{showProject(q.who.project)}}, nil
	}})
	c.on("GET", prefixIdentity, "/v3/projects", route{do: listProjects})
	c.on("GET", prefixIdentity, "/v3/projects/{id}", route{do: getProject})
	c.credentialRoutes()
}

func showProject(p named) map[string]any {
	return map[string]any{"id": p.ID, "name": p.Name, "domain_id": domainID, "description": "", "enabled": true, "parent_id": domainID, "is_domain": false, "tags": []string{}}
}

func listProjects(q *call) (any, error) {
	if !q.admin() {
		return nil, keystone(http.StatusForbidden, "You are not authorized to perform the requested action: identity:list_projects.")
	}
	out := []any{}
	for _, p := range []named{q.identity.demo, q.identity.admin} {
		if want := q.URL.Query().Get("name"); want == "" || want == p.Name {
			out = append(out, showProject(p))
		}
	}
	return map[string]any{"projects": out}, nil
}

func getProject(q *call) (any, error) {
	id := q.PathValue("id")
	if id != q.who.ProjectID && !q.admin() {
		return nil, keystone(http.StatusForbidden, "You are not authorized to perform the requested action: identity:get_project.")
	}
	for _, p := range []named{q.identity.demo, q.identity.admin} {
		if p.ID == id {
			return map[string]any{"project": showProject(p)}, nil
		}
	}
	return nil, keystone(http.StatusNotFound, "Could not find project: %s.", id)
}

// catalog lists the services with their three interfaces.
func (c *Cloud) catalog() []any {
	type entry struct{ kind, name, url string }
	entries := []entry{{"identity", "keystone", prefixIdentity}, {"network", "neutron", prefixNetwork},
		{"compute", "nova", prefixCompute + "/v2.1"}, {"image", "glance", prefixImage}}
	if !c.knobs.noOctavia {
		entries = append(entries, entry{"load-balancer", "octavia", prefixBalancer})
	}
	if len(c.knobs.volumeTypes) > 0 {
		entries = append(entries, entry{"block-storage", "cinder", prefixVolume + "/v3"})
	}
	if len(c.knobs.zones) > 0 {
		entries = append(entries, entry{"dns", "designate", prefixNames})
	}
	var out []any
	for _, e := range entries {
		var endpoints []any
		for _, i := range []string{"public", "internal", "admin"} {
			endpoints = append(endpoints, map[string]string{"id": c.newHex(), "interface": i, "region": region, "region_id": region, "url": c.server.URL + e.url})
		}
		out = append(out, map[string]any{"id": c.newHex(), "type": e.kind, "name": e.name, "endpoints": endpoints})
	}
	return out
}

func (q *call) describe(s *session) map[string]any {
	t := map[string]any{"methods": s.methods, "user": map[string]any{"id": s.user.ID, "name": s.user.Name, "domain": s.user.Domain, "password_expires_at": nil},
		"audit_ids": []string{"x"}, "issued_at": s.issued.Format(microseconds), "expires_at": s.expires.Format(microseconds)}
	if s.ProjectID != "" {
		t["project"], t["is_domain"], t["roles"], t["catalog"] = s.project, false, s.roles, q.catalog()
	}
	if s.credential != nil {
		t["application_credential"] = map[string]any{"id": s.credential.ID, "name": s.credential.Name, "restricted": !s.credential.Unrestricted}
	}
	return map[string]any{"token": t}
}

func validate(q *call) (any, error) {
	subject := q.Header.Get("X-Subject-Token")
	s, ok := q.identity.session(subject)
	if !ok {
		return nil, keystone(http.StatusNotFound, "Could not find token: %s.", "****")
	}
	if s.UserID != q.who.UserID && !q.admin() {
		return nil, keystone(http.StatusForbidden, "You are not authorized to perform the requested action: identity:validate_token.")
	}
	q.header.Set("X-Subject-Token", subject)
	return q.describe(s), nil
}

type authRequest struct {
	Auth struct {
		Identity struct {
			Methods  []string `json:"methods"`
			Password struct {
				User authUser `json:"user"`
			} `json:"password"`
			Token struct {
				ID string `json:"id"`
			} `json:"token"`
			Credential struct {
				ID     string    `json:"id"`
				Name   string    `json:"name"`
				Secret string    `json:"secret"`
				User   *authUser `json:"user"`
			} `json:"application_credential"`
		} `json:"identity"`
		Scope *struct {
			Project *struct {
				ID     string      `json:"id"`
				Name   string      `json:"name"`
				Domain *authDomain `json:"domain"`
			} `json:"project"`
			System map[string]bool `json:"system"`
			Domain *authDomain     `json:"domain"`
		} `json:"scope"`
	} `json:"auth"`
}

type authDomain struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

func (d *authDomain) isDefault() bool { return d != nil && (d.ID == domainID || d.Name == "Default") }

type authUser struct {
	ID       string      `json:"id"`
	Name     string      `json:"name"`
	Password string      `json:"password"`
	Domain   *authDomain `json:"domain"`
}

// issue answers POST /v3/auth/tokens.
func issue(q *call) (any, error) {
	var body authRequest
	if err := json.Unmarshal(q.body, &body); err != nil {
		return nil, keystone(http.StatusBadRequest, "Expecting to find valid JSON in request body.")
	}
	s, err := q.login(body)
	if err != nil {
		return nil, err
	}
	if scope := body.Auth.Scope; scope != nil && s.credential != nil {
		return nil, keystone(http.StatusUnauthorized, "Application credentials cannot request a scope.")
	} else if scope == nil && s.credential == nil {
		s.project, s.roles = named{}, nil // an unscoped token: good for nothing but Keystone
	} else if scope != nil && (scope.Project == nil || scope.Project.ID != s.project.ID && (scope.Project.Name != s.project.Name || !scope.Project.Domain.isDefault())) {
		return nil, unauthorized()
	}
	s.ProjectID, s.UserID = s.project.ID, s.user.ID
	s.admin = slices.ContainsFunc(s.roles, func(r named) bool { return r.Name == "admin" })
	s.issued = now()
	s.expires = time.Now().UTC().Add(q.knobs.tokenLifetime)
	token := "gAAAAA" + q.newHex() + q.newHex()
	q.identity.sessions[token] = s
	q.header.Set("X-Subject-Token", token)
	return q.describe(s), nil
}

func unauthorized() error {
	return keystone(http.StatusUnauthorized, "The request you have made requires authentication.")
}

// login finds who asks, by password, token or application credential.
func (q *call) login(body authRequest) (*session, error) {
	id := body.Auth.Identity
	method := ""
	if len(id.Methods) == 1 {
		method = id.Methods[0]
	}
	switch method {
	case "password":
		u := id.Password.User
		for _, a := range q.identity.accounts {
			if (u.ID == a.user.ID || u.Name == a.user.Name && u.Domain.isDefault()) && u.Password == password(a.user.Name) {
				return &session{account: a, methods: id.Methods}, nil
			}
		}
	case "token":
		if s, ok := q.identity.session(id.Token.ID); ok {
			return &session{account: s.account, methods: []string{"token", s.methods[0]}}, nil
		}
	case "application_credential":
		return q.loginCredential(id.Credential.ID, id.Credential.Name, id.Credential.Secret, id.Credential.User)
	default:
		return nil, keystone(http.StatusBadRequest, "unsupported methods %v", id.Methods)
	}
	return nil, unauthorized()
}

package openstacktest

import (
	"cmp"
	"net/http"
	"slices"
	"time"
)

// credential is an application credential.
type credential struct {
	base
	Name         string       `json:"name" api:"c"`
	Description  string       `json:"description" api:"c"`
	Secret       string       `json:"secret,omitempty" api:"c"`
	Roles        []named      `json:"roles" api:"c"`
	ExpiresAt    *string      `json:"expires_at" api:"c"`
	Unrestricted bool         `json:"unrestricted" api:"c"`
	AccessRules  []accessRule `json:"access_rules,omitempty" api:"c"`
	System       *string      `json:"system"`

	userID  string
	account account
}

type accessRule struct {
	ID      string `json:"id"`
	Path    string `json:"path"`
	Method  string `json:"method"`
	Service string `json:"service"`
}

func (c *Cloud) credentialRoutes() {
	path := "/v3/users/{user}/application_credentials"
	mine := func(do func(*call) (any, error)) func(*call) (any, error) {
		return func(q *call) (any, error) {
			if q.PathValue("user") != q.who.UserID && !q.admin() {
				return nil, keystone(http.StatusForbidden, "You are not authorized to perform the requested action.")
			}
			if q.Method != http.MethodGet && q.who.credential != nil && !q.who.credential.Unrestricted {
				return nil, keystone(http.StatusForbidden, "Using method 'application_credential' is not allowed for managing additional application credentials.")
			}
			return do(q)
		}
	}
	c.on("POST", prefixIdentity, path, route{status: http.StatusCreated, do: mine(createCredential)})
	c.on("GET", prefixIdentity, path, route{do: mine(listCredentials)})
	c.on("GET", prefixIdentity, path+"/{id}", route{do: mine(func(q *call) (any, error) {
		x, err := q.credential()
		return map[string]any{"application_credential": x}, err
	})})
	c.on("DELETE", prefixIdentity, path+"/{id}", route{status: http.StatusNoContent, do: mine(func(q *call) (any, error) {
		x, err := q.credential()
		if err != nil {
			return nil, err
		}
		q.identity.credentials.drop(x.ID)
		for token, s := range q.identity.sessions {
			if s.credential != nil && s.credential.ID == x.ID {
				delete(q.identity.sessions, token)
			}
		}
		return nil, nil
	})})
}

func listCredentials(q *call) (any, error) {
	out := []*credential{}
	for _, x := range q.identity.credentials.rows {
		if want := q.URL.Query().Get("name"); x.userID == q.PathValue("user") && (want == "" || want == x.Name) {
			out = append(out, x.public())
		}
	}
	return map[string]any{"application_credentials": out}, nil
}

func (q *call) credential() (*credential, error) {
	x, ok := q.identity.credentials.get(q.PathValue("id"))
	if !ok || x.userID != q.PathValue("user") {
		return nil, keystone(http.StatusNotFound, "Could not find Application Credential: %s.", q.PathValue("id"))
	}
	return x.public(), nil
}

// public hides the secret, which only the answer to the creation holds.
func (x *credential) public() *credential {
	v := clone(x)
	v.Secret = ""
	return v
}

func createCredential(q *call) (any, error) {
	f, err := q.object("application_credential")
	if err != nil {
		return nil, err
	}
	x := &credential{userID: q.who.UserID, account: q.who.account}
	refused, err := assign(x, f, atCreate)
	if len(refused) > 0 || err != nil || x.Name == "" {
		q.misuse("bad application credential: %v %v", refused, err)
		return nil, keystone(http.StatusBadRequest, "Additional properties are not allowed (%v)", refused)
	}
	if q.identity.credentials.any(func(o *credential) bool { return o.userID == x.userID && o.Name == x.Name }) {
		return nil, keystone(http.StatusConflict, "Conflict occurred attempting to store application_credential - Duplicate entry found with name %s.", x.Name)
	}
	x.ID, x.ProjectID = q.newHex(), q.who.ProjectID
	if len(x.Roles) == 0 {
		x.Roles = slices.Clone(q.who.roles)
	}
	for i, want := range x.Roles {
		k := slices.IndexFunc(q.who.roles, func(r named) bool { return r.ID == want.ID || r.Name == want.Name })
		if k < 0 {
			return nil, keystone(http.StatusBadRequest, "Invalid application credential: Could not find role assignment with role: %s, user or group: %s, project, domain, or system: %s.", want.Name+want.ID, x.userID, x.ProjectID)
		}
		x.Roles[i] = q.who.roles[k]
	}
	if x.Secret == "" {
		x.Secret = q.newHex() + q.newHex()
	}
	for i := range x.AccessRules {
		x.AccessRules[i].ID = q.newHex()
	}
	x.account.roles = x.Roles
	q.identity.credentials.add(x)
	return map[string]any{"application_credential": x}, nil
}

func (q *call) loginCredential(id, name, secret string, u *authUser) (*session, error) {
	x, ok := q.identity.credentials.first(func(x *credential) bool {
		return x.ID == id || id == "" && u != nil && x.Name == name && (x.userID == u.ID || x.account.user.Name == u.Name)
	})
	if !ok {
		return nil, keystone(http.StatusNotFound, "Could not find Application Credential: %s.", cmp.Or(id, name))
	}
	if x.Secret != secret {
		return nil, unauthorized()
	}
	if x.ExpiresAt != nil {
		at, err := time.Parse(microseconds, *x.ExpiresAt)
		if err != nil || time.Now().After(at) {
			return nil, unauthorized()
		}
	}
	return &session{account: x.account, methods: []string{"application_credential"}, credential: x}, nil
}

package openstack

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/gophercloud/gophercloud/v2"
)

// authOf gathers the credentials. openstacksdk takes them from the auth section and, as OS_* arrive, from beside it: for
// projects, domains and the token the one beside wins, for the rest the one inside.
func authOf(cloud section) map[string]string {
	inside, _ := cloud["auth"].(section)
	auth := map[string]string{}
	for key, names := range map[string][]string{
		"project_id":          {"project_id", "tenant_id"},
		"project_name":        {"project_name", "tenant_name"},
		"token":               {"token", "auth_token"},
		"passcode":            {"passcode"},
		"domain_id":           {"domain_id"},
		"domain_name":         {"domain_name"},
		"user_domain_id":      {"user_domain_id"},
		"user_domain_name":    {"user_domain_name"},
		"project_domain_id":   {"project_domain_id"},
		"project_domain_name": {"project_domain_name"},
	} {
		for _, name := range names {
			if v := str(cloud, name); auth[key] == "" && v != "" {
				auth[key] = v
			}
			if v := str(inside, name); auth[key] == "" && v != "" {
				auth[key] = v
			}
		}
	}
	for key, names := range map[string][]string{
		"auth_url":                      {"auth_url"},
		"username":                      {"username", "user_name"},
		"user_id":                       {"user_id"},
		"password":                      {"password"},
		"application_credential_id":     {"application_credential_id"},
		"application_credential_name":   {"application_credential_name"},
		"application_credential_secret": {"application_credential_secret"},
		"default_domain_id":             {"default_domain_id", "default_domain"},
		"default_domain_name":           {"default_domain_name"},
		"trust_id":                      {"trust_id"},
		"system_scope":                  {"system_scope"},
	} {
		auth[key] = str(inside, names...)
		if auth[key] == "" {
			auth[key] = str(cloud, names...)
		}
	}
	return auth
}

// domain is a user's or a project's domain as id or name: its own, the common one, the default one, and at last "default", which
// is what the openstack command assumes.
func (s *settings) domain(whose string) (id, name string) {
	for _, prefix := range []string{whose + "_domain", "domain", "default_domain"} {
		if id = s.auth[prefix+"_id"]; id != "" {
			return id, ""
		}
		if name = s.auth[prefix+"_name"]; name != "" {
			return "", name
		}
	}
	return "default", ""
}

// authOptions turns the settings into what gophercloud logs in with.
func (s *settings) authOptions() (gophercloud.AuthOptions, error) {
	a := s.auth
	ao := gophercloud.AuthOptions{IdentityEndpoint: a["auth_url"], AllowReauth: true}
	need := func(keys ...string) error {
		if slices.ContainsFunc(keys, func(k string) bool { return a[k] != "" }) {
			return nil
		}
		return fmt.Errorf("no %s (OS_%s)", keys[0], strings.ToUpper(keys[0]))
	}
	scope, err := s.scope()
	switch s.kind() {
	case "password", "v3password":
		err = errors.Join(err, need("username", "user_id"), need("password"))
		if a["passcode"] != "" {
			err = errors.Join(err, errors.New("a passcode (OS_PASSCODE) goes with auth_type v3multifactor, or v3totp where there is no password"))
		}
		ao.Password = a["password"]
		s.user(&ao, scope)
	case "v3totp", "v3multifactor":
		// The next login would need another passcode.
		err = errors.Join(err, need("username", "user_id"), need("passcode"))
		ao.Passcode, ao.AllowReauth = a["passcode"], false
		if s.kind() == "v3multifactor" {
			err = errors.Join(err, need("password"), s.checkMethods())
			ao.Password = a["password"]
		}
		s.user(&ao, scope)
	case "token", "v3token":
		// A token cannot renew itself.
		err = errors.Join(err, need("token"))
		ao.TokenID, ao.Scope, ao.AllowReauth = a["token"], scope, false
	case "v3applicationcredential":
		// Its project is part of it: a scope in the request is refused.
		err = errors.Join(need("application_credential_id", "application_credential_name"), need("application_credential_secret"))
		ao.ApplicationCredentialID, ao.ApplicationCredentialSecret = a["application_credential_id"], a["application_credential_secret"]
		if ao.ApplicationCredentialID == "" {
			err = errors.Join(err, need("username", "user_id"))
			ao.ApplicationCredentialName, ao.Username, ao.UserID = a["application_credential_name"], a["username"], a["user_id"]
			if ao.UserID == "" {
				ao.DomainID, ao.DomainName = s.domain("user")
			}
		}
	default:
		return ao, fmt.Errorf("auth_type %q is not supported: use password, token, v3totp, v3multifactor or v3applicationcredential "+
			"(with a federated login, make one by `openstack application credential create`)", s.authType)
	}
	if err != nil {
		return ao, errors.New(strings.ReplaceAll(err.Error(), "\n", ", "))
	}
	return ao, nil
}

// user puts who logs in, and for what, into ao. An id needs no domain.
func (s *settings) user(ao *gophercloud.AuthOptions, scope *gophercloud.AuthScope) {
	ao.UserID, ao.Scope = s.auth["user_id"], scope
	if ao.UserID == "" {
		ao.Username = s.auth["username"]
		ao.DomainID, ao.DomainName = s.domain("user")
	}
}

// checkMethods refuses factors other than the two that there are here.
func (s *settings) checkMethods() error {
	for _, m := range s.methods {
		if m != "v3password" && m != "v3totp" {
			return fmt.Errorf("auth_methods has %q: only v3password and v3totp are supported", m)
		}
	}
	return nil
}

// kind is the auth_type or, where none is given, the one that the credentials speak for.
func (s *settings) kind() string {
	switch {
	case s.authType != "":
		return s.authType
	case s.auth["application_credential_secret"] != "":
		return "v3applicationcredential"
	case s.auth["passcode"] != "" && s.auth["password"] != "":
		return "v3multifactor"
	case s.auth["passcode"] != "":
		return "v3totp"
	case s.auth["token"] != "" && s.auth["password"] == "":
		return "token"
	}
	return "password"
}

func (s *settings) scope() (*gophercloud.AuthScope, error) {
	switch {
	case s.auth["system_scope"] != "":
		return nil, errors.New("system_scope (OS_SYSTEM_SCOPE) is for no project, and everything kuryrctl makes belongs to one: name a project instead")
	case s.auth["trust_id"] != "" && (s.auth["project_id"] != "" || s.auth["project_name"] != ""):
		return nil, errors.New("trust_id and a project exclude each other, because a trust has its own: leave one out")
	case s.auth["trust_id"] != "":
		return &gophercloud.AuthScope{TrustID: s.auth["trust_id"]}, nil
	case s.auth["project_id"] != "":
		return &gophercloud.AuthScope{ProjectID: s.auth["project_id"]}, nil
	case s.auth["project_name"] != "":
		id, name := s.domain("project")
		return &gophercloud.AuthScope{ProjectName: s.auth["project_name"], DomainID: id, DomainName: name}, nil
	case s.kind() == "token" || s.kind() == "v3token": // it may be for a project already
		return nil, nil
	}
	return nil, errors.New("no project_name (OS_PROJECT_NAME)")
}

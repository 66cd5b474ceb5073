package openstack

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gophercloud/gophercloud/v2"
)

// settings is one cloud with everything that has a say merged: profile, file, secure file, region, environment.
type settings struct {
	name     string
	authType string
	auth     map[string]string // the names of keystoneauth's options
	region   string
	iface    string // "public", "internal" or "admin"
	insecure bool
	cacert   string
	cert     string
	key      string
}

func resolve(o Options) (*settings, error) {
	c, err := loadConfiguration(o)
	if err != nil {
		return nil, err
	}
	name, cloud, err := c.choose(o)
	if err != nil {
		return nil, err
	}
	s, err := c.settings(name, cloud)
	if err != nil {
		return nil, fmt.Errorf("cloud %q: %w", name, err)
	}
	return s, nil
}

func (c *configuration) settings(name string, cloud section) (*settings, error) {
	fromEnv := c.env != nil && name == c.envName
	override := c.override
	if fromEnv {
		override = nil
	}
	profile := str(cloud, "profile", "cloud")
	regions := regionsOf(cloud)
	if regions == nil {
		regions = regionsOf(c.profiles[profile])
	}
	cloud = merged(c.profiles[profile], cloud)
	region, values, err := chosenRegion(regions, str(override, "region_name"))
	if err != nil {
		return nil, err
	}
	cloud = merged(merged(cloud, normalized(values)), override)
	s := &settings{
		name:     name,
		authType: str(cloud, "auth_type", "auth_plugin"),
		auth:     authOf(cloud),
		region:   region,
		cacert:   str(cloud, "cacert"),
		cert:     str(cloud, "cert"),
		key:      str(cloud, "key"),
		insecure: isTrue(str(cloud, "insecure")) || isFalse(str(cloud, "verify")),
	}
	if s.iface, err = interfaceOf(cloud, override); err != nil {
		return nil, err
	}
	if override != nil {
		for key, variable := range map[string]string{"password": "OS_PASSWORD", "application_credential_secret": "OS_APPLICATION_CREDENTIAL_SECRET"} {
			if v := os.Getenv(variable); v != "" && s.auth[key] == "" {
				s.auth[key] = v
			}
		}
	}
	s.auth["auth_url"] = strings.ReplaceAll(s.auth["auth_url"], "{region_name}", region)
	if s.auth["auth_url"] == "" {
		if _, ok := c.profiles[profile]; profile != "" && !ok {
			return nil, fmt.Errorf("no auth_url, and its profile %q is in no clouds-public.yaml", profile)
		}
		return nil, errors.New("no auth_url (OS_AUTH_URL)")
	}
	return s, nil
}

// regionsOf reads the regions a cloud or profile lists: names or {name, values}, whose values then count for that region. region_name may
// be a list too, or names with commas between.
func regionsOf(s section) []any {
	if list, ok := s["regions"].([]any); ok {
		return list
	}
	switch v := s["region_name"].(type) {
	case []any:
		return v
	case string:
		var list []any
		for part := range strings.SplitSeq(v, ",") {
			list = append(list, strings.TrimSpace(part))
		}
		return list
	}
	return nil
}

// chosenRegion is the one wanted, or the first, with its values.
func chosenRegion(list []any, wanted string) (string, section, error) {
	if len(list) == 0 {
		return wanted, nil, nil
	}
	var known []string
	for _, item := range list {
		name, values := "", section(nil)
		switch v := item.(type) {
		case string:
			name = v
		case section:
			name = str(v, "name")
			values, _ = v["values"].(section)
		}
		if wanted == "" || name == wanted {
			return name, values, nil
		}
		known = append(known, name)
	}
	return "", nil, fmt.Errorf("it has no region %q (it has %s)", wanted, strings.Join(known, ", "))
}

// interfaceOf accepts "internalURL" for "internal", endpoint_type for interface, and the first of a list.
func interfaceOf(cloud, override section) (string, error) {
	name := str(override, "interface", "endpoint_type")
	if name == "" {
		name = str(cloud, "interface", "endpoint_type")
	}
	if list, ok := cloud["interface"].([]any); ok && name == "" && len(list) > 0 {
		name, _ = list[0].(string)
	}
	switch name = strings.TrimSuffix(name, "URL"); name {
	case "":
		return "public", nil
	case "public", "internal", "admin":
		return name, nil
	}
	return "", fmt.Errorf("interface %q is none of public, internal, admin", name)
}

// authOf gathers the credentials. openstacksdk takes them from the auth section and, as OS_* arrive, from beside it: for
// projects, domains and the token the one beside wins, for the rest the one inside.
func authOf(cloud section) map[string]string {
	inside, _ := cloud["auth"].(section)
	auth := map[string]string{}
	for key, names := range map[string][]string{
		"project_id":          {"project_id", "tenant_id"},
		"project_name":        {"project_name", "tenant_name"},
		"token":               {"token", "auth_token"},
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
		ao.Username, ao.UserID, ao.Password, ao.Scope = a["username"], a["user_id"], a["password"], scope
		if ao.UserID != "" {
			ao.Username = ""
		} else {
			ao.DomainID, ao.DomainName = s.domain("user")
		}
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
		return ao, fmt.Errorf("auth_type %q is not supported: use password, token or v3applicationcredential "+
			"(with a federated login, make one by `openstack application credential create`)", s.authType)
	}
	if err != nil {
		return ao, errors.New(strings.ReplaceAll(err.Error(), "\n", ", "))
	}
	return ao, nil
}

// kind is the auth_type or, where none is given, the one that the credentials speak for.
func (s *settings) kind() string {
	switch {
	case s.authType != "":
		return s.authType
	case s.auth["application_credential_secret"] != "":
		return "v3applicationcredential"
	case s.auth["token"] != "" && s.auth["password"] == "":
		return "token"
	}
	return "password"
}

func (s *settings) scope() (*gophercloud.AuthScope, error) {
	switch {
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

// tlsConfig trusts cacert instead of the system's authorities, as the openstack command does.
func (s *settings) tlsConfig() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: s.insecure}
	if s.cacert != "" && !s.insecure {
		pem, err := os.ReadFile(expand(s.cacert))
		if err != nil {
			return nil, fmt.Errorf("reading cacert: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("reading cacert: %s holds no certificate in PEM form", s.cacert)
		}
	}
	if s.cert == "" {
		if s.key != "" {
			return nil, errors.New("there is a key for TLS but no cert")
		}
		return config, nil
	}
	key := s.key
	if key == "" {
		key = s.cert // both in one file
	}
	pair, err := tls.LoadX509KeyPair(expand(s.cert), expand(key))
	if err != nil {
		return nil, fmt.Errorf("reading the client certificate: %w", err)
	}
	config.Certificates = []tls.Certificate{pair}
	return config, nil
}

func expand(path string) string {
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		if home, err := os.UserHomeDir(); err == nil {
			return filepath.Join(home, rest)
		}
	}
	return path
}

// str is the first of the keys that has text.
func str(s section, keys ...string) string {
	for _, key := range keys {
		if v, ok := s[key].(string); ok && v != "" {
			return v
		}
	}
	return ""
}

// isTrue and isFalse know YAML 1.1's words, which Python's reader accepts.
func isTrue(v string) bool {
	return slices.Contains([]string{"true", "yes", "on", "1"}, strings.ToLower(v))
}

func isFalse(v string) bool {
	return slices.Contains([]string{"false", "no", "off", "0"}, strings.ToLower(v))
}

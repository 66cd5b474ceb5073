package openstack

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// settings is one cloud with everything that has a say merged: profile, file, secure file, region, environment.
type settings struct {
	name     string
	authType string
	auth     map[string]string // the names of keystoneauth's options
	methods  []string          // of v3multifactor
	region   string
	iface    string // "public", "internal" or "admin"
	insecure bool
	cacert   string
	cert     string
	key      string
	own      map[string]string // what one service has for itself, by openstacksdk's key: "network_endpoint_override"
	secrets  []string          // paths of the files that secrets came from
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
		methods:  methodsOf(cloud),
		auth:     authOf(cloud),
		region:   region,
		cacert:   str(cloud, "cacert"),
		cert:     str(cloud, "cert"),
		key:      str(cloud, "key"),
	}
	if s.insecure, err = insecureOf(cloud); err != nil {
		return nil, err
	}
	if s.own, err = ownOf(cloud); err != nil {
		return nil, err
	}
	for _, path := range []string{c.path, c.secure} {
		if path != "" && !fromEnv {
			s.secrets = append(s.secrets, path)
		}
	}
	if s.key != "" {
		s.secrets = append(s.secrets, expand(s.key))
	}
	if s.iface, err = interfaceOf(cloud, override); err != nil {
		return nil, err
	}
	if override != nil {
		for _, key := range []string{"password", "passcode", "application_credential_secret"} {
			if v := os.Getenv("OS_" + strings.ToUpper(key)); v != "" && s.auth[key] == "" {
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

// chosenRegion is the one wanted, or the first, with its values. A region is a name, or a name and values and nothing else.
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
			for key := range v {
				if key != "name" && key != "values" {
					return "", nil, fmt.Errorf("region %q has a key %q: what is different there goes below its values", name, key)
				}
			}
		}
		if name == "" {
			return "", nil, errors.New("one of its regions has no name")
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
	if name == "" {
		return "public", nil
	}
	return knownInterface("interface", name)
}

func knownInterface(key, name string) (string, error) {
	switch short := strings.TrimSuffix(name, "URL"); short {
	case "public", "internal", "admin":
		return short, nil
	}
	return "", fmt.Errorf("%s %q is none of public, internal, admin", key, name)
}

// ownOf gathers the address, interface and region that a service has of its own ("load_balancer_endpoint_override"), under their newest
// names.
func ownOf(cloud section) (map[string]string, error) {
	own := map[string]string{}
	for _, s := range services {
		for _, prefix := range s.prefixes() {
			keep := func(key string, older ...string) {
				for _, k := range append([]string{key}, older...) {
					if v := str(cloud, prefix+k); v != "" && own[prefix+key] == "" {
						own[prefix+key] = v
					}
				}
			}
			keep("endpoint_override", "endpoint")
			keep("region_name")
			keep("interface", "endpoint_type")
			if v, ok := own[prefix+"interface"]; ok {
				var err error
				if own[prefix+"interface"], err = knownInterface(prefix+"interface", v); err != nil {
					return nil, err
				}
			}
		}
	}
	return own, nil
}

// methodsOf reads auth_methods, a list or names with commas between.
func methodsOf(cloud section) []string {
	var methods []string
	list, _ := cloud["auth_methods"].([]any)
	for _, item := range list {
		if m, ok := item.(string); ok {
			methods = append(methods, m)
		}
	}
	for m := range strings.SplitSeq(str(cloud, "auth_methods"), ",") {
		if m = strings.TrimSpace(m); m != "" {
			methods = append(methods, m)
		}
	}
	return methods
}

// insecureOf tells that servers need to prove nothing. A word that says neither yes nor no is refused: whichever was guessed, somebody would be
// surprised.
func insecureOf(cloud section) (bool, error) {
	for _, key := range []string{"insecure", "verify"} {
		if v := str(cloud, key); v != "" && !isTrue(v) && !isFalse(v) {
			return false, fmt.Errorf("%s is %q: write true or false", key, v)
		}
	}
	return isTrue(str(cloud, "insecure")) || isFalse(str(cloud, "verify")), nil
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

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
	region   string
	iface    string // "public", "internal" or "admin"
	insecure bool
	cacert   string
	cert     string
	key      string
	secrets  []string // paths of the files that secrets came from
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

package openstack

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// place writes files below the present directory, which isolate has made empty.
func place(t *testing.T, files map[string]string) {
	t.Helper()
	for name, text := range files {
		name = os.ExpandEnv(name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// oneCloud is a clouds.yaml with cloud "one" and what is added to it.
func oneCloud(more string) string {
	return "clouds:\n  one:\n    auth: {auth_url: http://one/v3, username: u, password: p, project_name: demo}\n" + more
}

// openrc is what Horizon's v3 file sets.
var openrc = map[string]string{
	"OS_AUTH_URL": "http://env/v3", "OS_USERNAME": "u", "OS_PASSWORD": "p", "OS_PROJECT_NAME": "demo",
	"OS_USER_DOMAIN_NAME": "People", "OS_PROJECT_DOMAIN_ID": "d2", "OS_REGION_NAME": "East", "OS_INTERFACE": "internal", "OS_IDENTITY_API_VERSION": "3",
}

// devstackrc is what DevStack's openrc sets.
var devstackrc = map[string]string{
	"OS_AUTH_URL": "http://192.0.2.1/identity", "OS_AUTH_TYPE": "password", "OS_USERNAME": "demo", "OS_PASSWORD": "nomoresecret", "OS_PROJECT_NAME": "demo",
	"OS_TENANT_NAME": "demo", "OS_USER_DOMAIN_ID": "default", "OS_PROJECT_DOMAIN_ID": "default", "OS_REGION_NAME": "RegionOne", "OS_IDENTITY_API_VERSION": "3",
	"OS_CACERT": "/opt/stack/data/ca-bundle.pem", "OS_VOLUME_API_VERSION": "3",
}

func with(base map[string]string, more map[string]string) map[string]string {
	result := maps.Clone(base)
	maps.Copy(result, more)
	return result
}

// show writes settings as sorted "key=value" of what is set.
func show(s *settings) string {
	parts := []string{"cloud=" + s.name}
	for _, key := range slices.Sorted(maps.Keys(s.auth)) {
		if v := s.auth[key]; v != "" {
			parts = append(parts, key+"="+v)
		}
	}
	for _, kv := range [][2]string{{"auth_type", s.authType}, {"region", s.region}, {"interface", s.iface}, {"cacert", s.cacert}, {"cert", s.cert}, {"key", s.key}} {
		if kv[1] != "" {
			parts = append(parts, kv[0]+"="+kv[1])
		}
	}
	if s.insecure {
		parts = append(parts, "insecure")
	}
	if s.methods != nil {
		parts = append(parts, "methods="+strings.Join(s.methods, "+"))
	}
	for _, key := range slices.Sorted(maps.Keys(s.own)) {
		parts = append(parts, key+"="+s.own[key])
	}
	return strings.Join(parts, " ")
}

func TestSettingsFollowOpenstacksdk(t *testing.T) {
	tests := []struct {
		name  string
		files map[string]string
		env   map[string]string
		opts  Options
		want  []string // all of these words in show(settings)
	}{
		{"the only cloud of the file needs no name", map[string]string{"clouds.yaml": oneCloud("")}, nil, Options{},
			[]string{"cloud=one", "auth_url=http://one/v3", "interface=public"}},
		{"OS_CLOUD names one of several", map[string]string{"clouds.yaml": oneCloud("  two: {auth: {auth_url: http://two}}\n")},
			map[string]string{"OS_CLOUD": "two"}, Options{}, []string{"cloud=two"}},
		{"a name asked for wins over OS_CLOUD", map[string]string{"clouds.yaml": oneCloud("  two: {auth: {auth_url: http://two}}\n")},
			map[string]string{"OS_CLOUD": "two"}, Options{Cloud: "one"}, []string{"cloud=one"}},
		{"OS_AUTH_URL describes a cloud that wins over the only one of the file", map[string]string{"clouds.yaml": oneCloud("")}, openrc, Options{},
			[]string{"cloud=envvars", "auth_url=http://env/v3", "user_domain_name=People", "project_domain_id=d2", "region=East", "interface=internal"}},
		{"DevStack's openrc is a cloud", nil, devstackrc, Options{}, []string{"cloud=envvars", "auth_type=password", "auth_url=http://192.0.2.1/identity", "username=demo",
			"project_name=demo", "user_domain_id=default", "project_domain_id=default", "region=RegionOne", "cacert=/opt/stack/data/ca-bundle.pem", "interface=public"}},
		{"Horizon's openrc gives the project's id and name, and older ones endpoint_type", nil,
			with(openrc, map[string]string{"OS_PROJECT_ID": "p1", "OS_INTERFACE": "", "OS_ENDPOINT_TYPE": "adminURL"}), Options{},
			[]string{"project_id=p1", "project_name=demo", "interface=admin"}},
		{"the environment's cloud is chosen by its name beside others", map[string]string{"clouds.yaml": oneCloud("")}, openrc, Options{Cloud: "envvars"}, []string{"cloud=envvars"}},
		{"OS_CLOUD wins over OS_AUTH_URL", map[string]string{"clouds.yaml": oneCloud("")}, with(openrc, map[string]string{"OS_CLOUD": "one", "OS_REGION_NAME": ""}), Options{},
			[]string{"cloud=one", "auth_url=http://one/v3"}},
		{"OS_CLOUD_NAME renames the environment's cloud", nil, with(openrc, map[string]string{"OS_CLOUD_NAME": "mine"}), Options{Cloud: "mine"}, []string{"cloud=mine"}},
		{"tenant is project's old name", nil, with(openrc, map[string]string{"OS_PROJECT_NAME": "", "OS_TENANT_NAME": "old"}), Options{}, []string{"project_name=old"}},
		{"the environment gives an application credential", nil, map[string]string{"OS_AUTH_URL": "http://env", "OS_AUTH_TYPE": "v3applicationcredential",
			"OS_APPLICATION_CREDENTIAL_ID": "ac", "OS_APPLICATION_CREDENTIAL_SECRET": "s"}, Options{},
			[]string{"auth_type=v3applicationcredential", "application_credential_id=ac", "application_credential_secret=s"}},
		{"OS_CLIENT_CONFIG_FILE replaces the search", map[string]string{"clouds.yaml": oneCloud(""), "other.yaml": "clouds: {far: {auth: {auth_url: http://far}}}"},
			map[string]string{"OS_CLIENT_CONFIG_FILE": "other.yaml"}, Options{}, []string{"cloud=far"}},
		{"here comes before XDG_CONFIG_HOME", map[string]string{"clouds.yaml": oneCloud(""), "$XDG_CONFIG_HOME/openstack/clouds.yaml": "clouds: {far: {auth: {auth_url: http://far}}}"},
			nil, Options{}, []string{"cloud=one"}},
		{"XDG_CONFIG_HOME comes before ~/.config", map[string]string{"$HOME/.config/openstack/clouds.yaml": oneCloud(""), "$XDG_CONFIG_HOME/openstack/clouds.yaml": "clouds: {far: {auth: {auth_url: http://far}}}"},
			nil, Options{}, []string{"cloud=far"}},
		{"~/.config is searched though XDG_CONFIG_HOME is elsewhere", map[string]string{"$HOME/.config/openstack/clouds.yaml": oneCloud("")}, nil, Options{}, []string{"cloud=one"}},
		{"~/.config comes before XDG_CONFIG_DIRS", map[string]string{"$HOME/.config/openstack/clouds.yaml": oneCloud(""), "$XDG_CONFIG_DIRS/openstack/clouds.yaml": "clouds: {far: {auth: {auth_url: http://far}}}"},
			nil, Options{}, []string{"cloud=one"}},
		{"XDG_CONFIG_DIRS is searched", map[string]string{"$XDG_CONFIG_DIRS/openstack/clouds.yaml": oneCloud("")}, nil, Options{}, []string{"cloud=one"}},
		{"yaml comes before yml and json", map[string]string{"clouds.yaml": oneCloud(""), "clouds.yml": "clouds: {far: {}}", "clouds.json": "{}"}, nil, Options{}, []string{"cloud=one"}},
		{"the file may be JSON", map[string]string{"clouds.json": `{"clouds": {"j": {"auth": {"auth_url": "http://j"}}}}`}, nil, Options{}, []string{"cloud=j"}},
		{"a file asked for is used alone", map[string]string{"clouds.yaml": oneCloud(""), "dir/f.yaml": "clouds: {far: {auth: {auth_url: http://far}, region_name: West}}", "secure.yaml": "clouds: {far: {region_name: Stray}}"},
			openrc, Options{File: "dir/f.yaml"}, []string{"cloud=far", "region=West", "interface=public"}},
		{"secure.yaml completes the cloud", map[string]string{"clouds.yaml": "clouds: {one: {auth: {auth_url: http://one}}}", "secure.yaml": "clouds: {one: {auth: {password: hush}}}"},
			nil, Options{}, []string{"auth_url=http://one", "password=hush"}},
		{"secure.yaml is found in another directory of the path", map[string]string{"clouds.yaml": "clouds: {one: {auth: {auth_url: http://one}}}", "$HOME/.config/openstack/secure.yaml": "clouds: {one: {auth: {password: hush}}}"},
			nil, Options{}, []string{"password=hush"}},
		{"OS_CLIENT_SECURE_FILE names it", map[string]string{"clouds.yaml": oneCloud(""), "s.yaml": "clouds: {one: {auth: {password: hush}}}"},
			map[string]string{"OS_CLIENT_SECURE_FILE": "s.yaml"}, Options{}, []string{"password=hush"}},
		{"a profile of clouds-public.yaml lies below the cloud", map[string]string{"clouds-public.yaml": "public-clouds: {acme: {auth: {auth_url: http://acme, project_name: x}, region_name: Acme1}}",
			"clouds.yaml": "clouds: {one: {profile: acme, auth: {project_name: mine}}}"}, nil, Options{}, []string{"auth_url=http://acme", "project_name=mine", "region=Acme1"}},
		{"a profile used to be named by cloud", map[string]string{"clouds-public.yaml": "public-clouds: {acme: {auth: {auth_url: http://acme}}}", "clouds.yaml": "clouds: {one: {cloud: acme}}"},
			nil, Options{}, []string{"auth_url=http://acme"}},
		{"the environment may use a profile", map[string]string{"clouds-public.yaml": "public-clouds: {acme: {auth_type: token, interface: internal}}"},
			map[string]string{"OS_AUTH_URL": "http://env", "OS_PROFILE": "acme"}, Options{}, []string{"cloud=envvars", "auth_type=token", "interface=internal"}},
		{"a profile nobody knows is no harm where there is an auth_url", map[string]string{"clouds.yaml": oneCloud("    profile: acme\n")}, nil, Options{}, []string{"cloud=one"}},
		{"a cloud's region_name wins over its profile's regions", map[string]string{"clouds-public.yaml": "public-clouds: {acme: {auth: {auth_url: http://acme}, regions: [a, b]}}",
			"clouds.yaml": "clouds: {one: {profile: acme, region_name: b}}"}, nil, Options{}, []string{"region=b"}},
		{"the first region is the default", map[string]string{"clouds.yaml": oneCloud("    regions: [East, West]\n")}, nil, Options{}, []string{"region=East"}},
		{"region_name may hold several", map[string]string{"clouds.yaml": oneCloud("    region_name: East,West\n")}, map[string]string{"OS_REGION_NAME": "West"}, Options{}, []string{"region=West"}},
		{"a region's values count for it", map[string]string{"clouds.yaml": oneCloud("    regions: [East, {name: West, values: {auth: {project-name: west}, interface: admin}}]\n")},
			map[string]string{"OS_REGION_NAME": "West"}, Options{}, []string{"region=West", "project_name=west", "interface=admin", "username=u"}},
		{"auth_url may contain the region", map[string]string{"clouds.yaml": "clouds: {one: {region_name: r1, auth: {auth_url: \"http://{region_name}.x\"}}}"}, nil, Options{}, []string{"auth_url=http://r1.x"}},
		{"OS_INTERFACE and the TLS variables change a cloud of the file", map[string]string{"clouds.yaml": oneCloud("    interface: public\n    cacert: /a\n")},
			map[string]string{"OS_INTERFACE": "internalURL", "OS_CACERT": "/ca", "OS_CERT": "/c", "OS_KEY": "/k", "OS_INSECURE": "true"}, Options{},
			[]string{"interface=internal", "cacert=/ca", "cert=/c", "key=/k", "insecure"}},
		{"endpoint_type is interface's old name", map[string]string{"clouds.yaml": oneCloud("    endpoint_type: adminURL\n")}, nil, Options{}, []string{"interface=admin"}},
		{"the first interface of a list counts", map[string]string{"clouds.yaml": oneCloud("    interface: [internal, public]\n")}, nil, Options{}, []string{"interface=internal"}},
		{"verify may be any word for no", map[string]string{"clouds.yaml": oneCloud("    verify: No\n")}, nil, Options{}, []string{"insecure"}},
		{"OS_INSECURE may take back what the file says", map[string]string{"clouds.yaml": oneCloud("    insecure: true\n    key: /k\n")}, map[string]string{"OS_INSECURE": "false"}, Options{}, []string{"key=/k", "interface=public"}},
		{"a service may have an address, an interface and a region of its own", map[string]string{"clouds.yaml": oneCloud("    network_endpoint_override: http://n\n    load-balancer-interface: adminURL\n    dns_region_name: Far\n    image_endpoint: http://old\n    compute_endpoint_type: internal\n")},
			nil, Options{}, []string{"network_endpoint_override=http://n", "load_balancer_interface=admin", "dns_region_name=Far", "image_endpoint_override=http://old", "compute_interface=internal"}},
		{"so it may in the environment", nil, with(openrc, map[string]string{"OS_LOAD_BALANCER_ENDPOINT_OVERRIDE": "http://o"}), Options{}, []string{"load_balancer_endpoint_override=http://o"}},
		{"and in a region", map[string]string{"clouds.yaml": oneCloud("    regions: [{name: East, values: {network_endpoint_override: http://east}}]\n")}, nil, Options{}, []string{"network_endpoint_override=http://east"}},
		{"OS_PASSCODE completes a login with two factors", map[string]string{"clouds.yaml": oneCloud("    auth_type: v3multifactor\n    auth_methods: [v3password, v3totp]\n")},
			map[string]string{"OS_PASSCODE": "123456"}, Options{}, []string{"auth_type=v3multifactor", "methods=v3password+v3totp", "passcode=123456", "password=p"}},
		{"methods may have commas between", nil, with(openrc, map[string]string{"OS_AUTH_METHODS": "v3password, v3totp"}), Options{}, []string{"methods=v3password+v3totp"}},
		{"OS_APPLICATION_CREDENTIAL_SECRET completes a cloud without one", map[string]string{"clouds.yaml": "clouds: {one: {auth: {auth_url: http://one, application_credential_id: a}}}"},
			map[string]string{"OS_APPLICATION_CREDENTIAL_SECRET": "typed"}, Options{}, []string{"application_credential_secret=typed"}},
		{"OS_PASSWORD completes a cloud without one", map[string]string{"clouds.yaml": "clouds: {one: {auth: {auth_url: http://one}}}"},
			map[string]string{"OS_PASSWORD": "typed"}, Options{}, []string{"password=typed"}},
		{"a left-over OS_PASSWORD does not replace the file's", map[string]string{"clouds.yaml": oneCloud("")}, map[string]string{"OS_PASSWORD": "old"}, Options{}, []string{"password=p"}},
		{"keys may have dashes and credentials stand beside auth", map[string]string{"clouds.yaml": "clouds: {one: {auth-url: http://one, username: u, auth: {project_id: inside, user-domain-name: d}, project_id: beside}}"},
			nil, Options{}, []string{"auth_url=http://one", "username=u", "user_domain_name=d", "project_id=beside"}},
		{"a password of digits stays as it is written", map[string]string{"clouds.yaml": "clouds: {one: {auth: {auth_url: http://one, password: 0123}}}"}, nil, Options{}, []string{"password=0123"}},
		{"merge keys and anchors work", map[string]string{"clouds.yaml": "base: &b\n  auth: &a {auth_url: http://base, username: b}\n  region_name: B\nclouds:\n  one:\n    <<: *b\n    auth:\n      <<: *a\n      username: mine\n"},
			nil, Options{}, []string{"auth_url=http://base", "username=mine", "region=B"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			isolate(t)
			place(t, tt.files)
			for k, v := range tt.env {
				t.Setenv(k, v)
			}
			s, err := resolve(tt.opts)
			if err != nil {
				t.Fatal(err)
			}
			got := show(s)
			for _, word := range tt.want {
				if !slices.Contains(strings.Fields(got), word) {
					t.Errorf("want %s in: %s", word, got)
				}
			}
		})
	}
}

func TestConfigurationErrorsSayWhatToDo(t *testing.T) {
	several := "clouds: {one: {auth: {auth_url: http://1}}, two: {auth: {auth_url: http://2}}}"
	tests := []struct {
		name  string
		files map[string]string
		env   map[string]string
		opts  Options
		want  []string
	}{
		{"nothing at all", nil, nil, Options{}, []string{"no cloud is configured", "clouds.yaml", "OS_AUTH_URL", "`kuryrctl cloud up`"}},
		{"a name but no file", nil, nil, Options{Cloud: "one"}, []string{`"one"`, "no clouds.yaml", "/etc/openstack"}},
		{"an unknown name", map[string]string{"clouds.yaml": several}, nil, Options{Cloud: "three"}, []string{`no cloud "three"`, "one, two"}},
		{"several and no name", map[string]string{"clouds.yaml": several}, nil, Options{}, []string{"several clouds", "--cloud", "OS_CLOUD", "one, two"}},
		{"a file asked for that is not there", nil, nil, Options{File: "gone.yaml"}, []string{"gone.yaml", "no such file"}},
		{"OS_CLIENT_CONFIG_FILE that is not there", map[string]string{"clouds.yaml": several}, map[string]string{"OS_CLIENT_CONFIG_FILE": "gone.yaml"}, Options{}, []string{"gone.yaml"}},
		{"broken YAML", map[string]string{"clouds.yaml": "clouds: {one: ["}, nil, Options{}, []string{"clouds.yaml", "yaml"}},
		{"no mapping", map[string]string{"clouds.yaml": "- a\n"}, nil, Options{}, []string{"clouds.yaml", "not a mapping"}},
		{"an unknown region", map[string]string{"clouds.yaml": oneCloud("    regions: [East, West]\n")}, map[string]string{"OS_REGION_NAME": "North"}, Options{}, []string{`no region "North"`, "East, West"}},
		{"a region with values beside its name", map[string]string{"clouds.yaml": oneCloud("    regions: [{name: East, interface: admin}]\n")}, nil, Options{}, []string{`"East"`, `"interface"`, "below its values"}},
		{"a region without a name", map[string]string{"clouds.yaml": oneCloud("    regions: [{values: {interface: admin}}]\n")}, nil, Options{}, []string{"no name"}},
		{"an unknown interface of a service", map[string]string{"clouds.yaml": oneCloud("    network_interface: pubic\n")}, nil, Options{}, []string{`network_interface "pubic"`, "public, internal, admin"}},
		{"a word that is neither yes nor no", map[string]string{"clouds.yaml": oneCloud("    verify: maybe\n")}, nil, Options{}, []string{`verify is "maybe"`, "true or false"}},
		{"a file without clouds", map[string]string{"clouds.yaml": "# nothing yet\n"}, nil, Options{}, []string{"no cloud is configured", "clouds.yaml has none"}},
		{"an unknown interface", map[string]string{"clouds.yaml": oneCloud("    interface: pubic\n")}, nil, Options{}, []string{`"pubic"`, "public, internal, admin"}},
		{"no auth_url", map[string]string{"clouds.yaml": "clouds: {one: {auth: {username: u}}}"}, nil, Options{}, []string{"no auth_url"}},
		{"a profile nobody knows", map[string]string{"clouds.yaml": "clouds: {one: {profile: acme}}"}, nil, Options{}, []string{`"acme"`, "clouds-public.yaml"}},
		{"one name twice", map[string]string{"clouds.yaml": "clouds: {envvars: {auth: {auth_url: http://1}}}"}, openrc, Options{}, []string{"envvars", "OS_CLOUD_NAME"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			isolate(t)
			place(t, tt.files)
			for k, v := range tt.env {
				t.Setenv(k, v)
			}
			_, err := resolve(tt.opts)
			if err == nil {
				t.Fatal("no error")
			}
			for _, part := range tt.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("want %q in: %v", part, err)
				}
			}
			if got, want := IsNotConfigured(err), slices.Contains([]string{"nothing at all", "a name but no file", "a file without clouds"}, tt.name); got != want {
				t.Errorf("IsNotConfigured is %v for: %v", got, err)
			}
		})
	}
}

func TestConfiguredListsCloudsAndTheirSource(t *testing.T) {
	isolate(t)
	if names, source, err := Configured(Options{}); len(names) != 0 || source != "" || err != nil {
		t.Errorf("with nothing configured: %v, %q, %v", names, source, err)
	}
	place(t, map[string]string{"clouds.yaml": "clouds: {b: {auth: {}}, a: {auth: {}}}"})
	for k, v := range openrc {
		t.Setenv(k, v)
	}
	names, source, err := Configured(Options{})
	if err != nil || !slices.Equal(names, []string{"a", "b", "envvars"}) || source != "clouds.yaml and the environment" {
		t.Errorf("got %v, %q, %v", names, source, err)
	}
}

func TestFilesWithSecretsAreNamed(t *testing.T) {
	isolate(t)
	place(t, map[string]string{"clouds.yaml": oneCloud("    cert: /tls/cert.pem\n    key: /tls/key.pem\n"), "secure.yaml": "clouds: {one: {auth: {password: p}}}"})
	for k, v := range openrc {
		t.Setenv(k, v)
	}
	for cloud, want := range map[string][]string{"one": {"clouds.yaml", "secure.yaml", "/tls/key.pem"}, "envvars": nil} {
		s, err := resolve(Options{Cloud: cloud})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(s.secrets, want) {
			t.Errorf("%s: %v, want %v", cloud, s.secrets, want)
		}
	}
}

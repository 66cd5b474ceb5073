package openstack

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// configuration is what the files and the environment say, before a cloud is chosen. The rules are those of
// openstacksdk (https://docs.openstack.org/openstacksdk/latest/user/config/configuration.html) and not gophercloud's, which knows no
// environment, no "only cloud" and no regions; docs/clouds.md lists where we differ from openstacksdk on purpose.
type configuration struct {
	path     string             // of clouds.yaml, or "" when there is none
	secure   string             // of secure.yaml, likewise
	searched []string           // the directories where it was looked for
	clouds   map[string]section // with secure.yaml merged in
	profiles map[string]section // public-clouds
	env      section            // the cloud that OS_* describes, or nil
	envName  string             // its name
	override section            // what OS_* changes in a cloud of the file, or nil
}

func loadConfiguration(o Options) (*configuration, error) {
	c := &configuration{clouds: map[string]section{}, profiles: map[string]section{}}
	dirs := searchPath()
	var explicit, secure string
	if o.File != "" {
		explicit, dirs = o.File, []string{filepath.Dir(o.File)}
	} else {
		explicit, secure = os.Getenv("OS_CLIENT_CONFIG_FILE"), os.Getenv("OS_CLIENT_SECURE_FILE")
		c.envName = getenv("OS_CLOUD_NAME", "envvars")
		c.env, c.override = environment()
	}
	c.searched = dirs
	path, root, err := readFirst(explicit, "clouds", dirs)
	if err != nil {
		return nil, err
	}
	c.path = path
	secure, secrets, err := readFirst(secure, "secure", dirs)
	if err != nil {
		return nil, err
	}
	c.secure = secure
	for name, cloud := range sections(merged(root, secrets)["clouds"]) {
		c.clouds[name] = normalized(cloud)
	}
	if _, ok := c.clouds[c.envName]; ok && c.env != nil {
		return nil, fmt.Errorf("%s has a cloud named %q, which is also the name of the cloud that OS_AUTH_URL describes: rename one (OS_CLOUD_NAME)", c.path, c.envName)
	}
	_, public, err := readFirst("", "clouds-public", dirs)
	if err != nil {
		return nil, err
	}
	for name, profile := range sections(public["public-clouds"]) {
		c.profiles[name] = normalized(profile)
	}
	return c, nil
}

// searchPath is where openstacksdk looks, in its order.
func searchPath() []string {
	dirs := []string{"."}
	if xdg := os.Getenv("XDG_CONFIG_HOME"); xdg != "" {
		dirs = append(dirs, filepath.Join(xdg, "openstack"))
	}
	if home, err := os.UserHomeDir(); err == nil {
		dirs = append(dirs, filepath.Join(home, ".config", "openstack"))
	}
	for _, dir := range filepath.SplitList(getenv("XDG_CONFIG_DIRS", "/etc/xdg")) {
		dirs = append(dirs, filepath.Join(dir, "openstack"))
	}
	return append(dirs, "/etc/openstack")
}

func candidates(name string, dirs []string) []string {
	var paths []string
	for _, dir := range dirs {
		for _, suffix := range []string{".yaml", ".yml", ".json"} {
			paths = append(paths, filepath.Join(dir, name+suffix))
		}
	}
	return paths
}

// readFirst reads explicit, which must be there, or else the first file there is. JSON is read as the YAML that it is.
func readFirst(explicit, name string, dirs []string) (string, section, error) {
	paths := candidates(name, dirs)
	if explicit != "" {
		paths = []string{explicit}
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if explicit == "" && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)) {
			continue
		}
		if err != nil {
			return "", nil, fmt.Errorf("reading cloud configuration: %w", err)
		}
		root, err := parse(data)
		if err != nil {
			return "", nil, fmt.Errorf("reading cloud configuration %s: %w", path, err)
		}
		return path, root, nil
	}
	return "", nil, nil
}

func getenv(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// environment reads OS_*. With OS_AUTH_URL they describe a cloud, each as the key of the same name in lower case. Without it they are
// what the openstack command lets them be for a cloud of the file: the region, the interface and the TLS files. Secrets complete a file
// that holds none; see [configuration.settings].
func environment() (env, override section) {
	all := section{}
	for _, kv := range os.Environ() {
		name, value, _ := strings.Cut(kv, "=")
		if rest, ok := strings.CutPrefix(name, "OS_"); ok && value != "" {
			all[strings.ToLower(rest)] = value
		}
	}
	override = section{}
	for _, key := range []string{"region_name", "interface", "endpoint_type", "cacert", "cert", "key", "insecure"} {
		if v, ok := all[key]; ok {
			override[key] = v
		}
	}
	if _, ok := all["auth_url"]; ok {
		for _, selector := range []string{"cloud", "cloud_name", "client_config_file", "client_secure_file"} {
			delete(all, selector)
		}
		env = all
	}
	return env, override
}

// errNotConfigured is returned when neither a file nor the environment names a cloud.
var errNotConfigured = errors.New("no cloud is configured")

// IsNotConfigured tells that no cloud was named anywhere, so that one has to be made or described first.
func IsNotConfigured(err error) bool { return errors.Is(err, errNotConfigured) }

// choose finds the cloud that o means, and its name.
func (c *configuration) choose(o Options) (string, section, error) {
	name := o.Cloud
	if name == "" {
		name = os.Getenv("OS_CLOUD")
	}
	if name == "" && c.env != nil {
		name = c.envName
	}
	if name == "" && len(c.clouds) == 1 {
		name = c.names()[0]
	}
	if c.env != nil && name == c.envName {
		return name, c.env, nil
	}
	if cloud, ok := c.clouds[name]; ok {
		return name, cloud, nil
	}
	known := strings.Join(c.names(), ", ")
	switch {
	case c.path == "" && name != "":
		return "", nil, fmt.Errorf("cloud %q: %w: there is no clouds.yaml (looked in %s)", name, errNotConfigured, strings.Join(c.searched, ", "))
	case c.path != "" && len(c.clouds) == 0 && c.env == nil:
		return "", nil, fmt.Errorf("%w: %s has none below a key \"clouds\"", errNotConfigured, c.path)
	case len(c.clouds) == 0 && c.env == nil:
		return "", nil, fmt.Errorf("%w: describe yours in clouds.yaml (or set OS_AUTH_URL and its companions), or run `kuryrctl cloud up` for one on this machine", errNotConfigured)
	case name == "":
		return "", nil, fmt.Errorf("%s has several clouds: name one with --cloud or OS_CLOUD (%s)", c.path, known)
	}
	return "", nil, fmt.Errorf("%s has no cloud %q (it has %s)", c.path, name, known)
}

// names are the clouds one can ask for.
func (c *configuration) names() []string {
	names := slices.Sorted(maps.Keys(c.clouds))
	if c.env != nil {
		names = append(names, c.envName)
	}
	return names
}

// Configured lists the clouds that [Connect] can be asked for, and where they are described: a file, "the environment", or both.
// It asks no cloud. Without any it returns no names and no error.
func Configured(o Options) (names []string, source string, err error) {
	c, err := loadConfiguration(o)
	if err != nil {
		return nil, "", err
	}
	var sources []string
	if len(c.clouds) > 0 {
		sources = append(sources, c.path)
	}
	if c.env != nil {
		sources = append(sources, "the environment")
	}
	return c.names(), strings.Join(sources, " and "), nil
}

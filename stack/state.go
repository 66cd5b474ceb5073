package stack

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/kuryrctl/kuryrctl/bootstrap/ssh"
)

// local is the stack's directory on this machine: secrets (the SSH key, the application credential) and pins of host keys. It
// never says what belongs to the stack; losing it loses the way in, not ownership.
type local struct{ dir string }

// stateHome is where kuryrctl keeps what must outlive a command, per the XDG base directory specification.
func stateHome() (string, error) {
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "kuryrctl"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("finding the state directory: %w", err)
	}
	return filepath.Join(home, ".local", "state", "kuryrctl"), nil
}

// openLocal names the directory of a stack in a project. The project is part of it: two clouds may each have a stack "demo".
func openLocal(home, projectID, name string) (l local, err error) {
	if home == "" {
		home, err = stateHome()
	}
	return local{filepath.Join(home, "stacks", projectID, name)}, err
}

// FindKey is the path of the private key of a stack known on this machine, without asking any cloud. It is an error when there
// is none, or when several projects have a stack of that name.
func FindKey(name string) (string, error) { return find(name, keyFile, ErrNoKey) }

// FindKubeconfig is the same for the administrator's kubeconfig.
func FindKubeconfig(name string) (string, error) { return find(name, kubeconfigFile, ErrNoKubeconfig) }

// Files of a stack that are looked for without asking a cloud.
const (
	keyFile         = "id_ed25519"
	kubeconfigFile  = "kubeconfig"
	declarationFile = "lab.yaml"
	pinsFile        = "hosts.json"
)

func find(name, file string, none error) (string, error) {
	home, err := stateHome()
	if err != nil {
		return "", err
	}
	paths, err := filepath.Glob(filepath.Join(home, "stacks", "*", name, file))
	switch {
	case err != nil:
		return "", fmt.Errorf("looking for %s of %s: %w", file, name, err)
	case len(paths) == 0:
		return "", fmt.Errorf("%w %s: it is kept only where the stack was made, below %s", none, name, filepath.Join(home, "stacks"))
	case len(paths) > 1:
		return "", fmt.Errorf("%d projects have a stack %s: name the cloud with --cloud", len(paths), name)
	}
	return paths[0], nil
}

// ErrNoKey means that this machine has no key of a stack, ErrNoKubeconfig the same of the administrator's kubeconfig.
var (
	ErrNoKey        = errors.New("there is no key on this machine for stack")
	ErrNoKubeconfig = errors.New("there is no kubeconfig on this machine for stack")
)

// keep replaces a file by one that nobody else can read, whole or not at all: a crash leaves what there was, or what there is to be.
func (l local) keep(path string, text []byte) (err error) {
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(l.dir, "."+filepath.Base(path)+".*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // where it is still there
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(l.dir) // a rename lives in the directory
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (l local) keyPath() string { return filepath.Join(l.dir, keyFile) }

// hasKey reports whether the stack's private key is here.
func (l local) hasKey() bool {
	_, err := os.Stat(l.keyPath())
	return err == nil
}

// knownKey is the public half if the pair is here, else "".
func (l local) knownKey() string {
	public, err := os.ReadFile(l.keyPath() + ".pub")
	if err != nil || !l.hasKey() {
		return ""
	}
	return string(public)
}

// publicKey returns the public half, making the key if there is none.
func (l local) publicKey(comment string) (string, error) {
	if known := l.knownKey(); known != "" {
		return known, nil
	}
	if l.hasKey() {
		return "", fmt.Errorf("reading the stack's key: %s has no public half beside it; restore it with ssh-keygen -y", l.keyPath())
	}
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return "", fmt.Errorf("making the stack's directory: %w", err)
	}
	os.Remove(l.keyPath() + ".pub") // of a pair whose private half was never written
	pair, err := ssh.NewUserKey(comment)
	if err != nil {
		return "", err
	}
	return pair.Public, pair.Save(l.keyPath())
}

func (l local) signer() (ssh.Signer, error) { return ssh.LoadUserKey(l.keyPath()) }

func (l local) pins() (*ssh.Pins, error) { return ssh.LoadPins(filepath.Join(l.dir, pinsFile)) }

// credential is the stack's application credential as kept here.
type credential struct {
	ID     string `json:"id"`
	Secret string `json:"secret"`
}

func (l local) credentialPath() string { return filepath.Join(l.dir, "application-credential.json") }

// credential is the application credential that is kept here.
func (l local) credential() (c credential, err error) {
	text, err := os.ReadFile(l.credentialPath())
	if err == nil {
		err = json.Unmarshal(text, &c)
	}
	if err == nil && c.Secret == "" {
		err = errors.New("it is empty")
	}
	if err != nil {
		return c, fmt.Errorf("reading the stack's application credential: %w", err)
	}
	return c, nil
}

// hasCredential reports whether the secret of the credential with this id is here.
func (l local) hasCredential(id string) bool {
	c, err := l.credential()
	return err == nil && c.ID == id
}

func (l local) keepCredential(id, secret string) error {
	text, err := json.Marshal(credential{id, secret})
	if err == nil {
		err = l.keep(l.credentialPath(), text)
	}
	if err != nil {
		return fmt.Errorf("keeping the application credential: %w", err)
	}
	return nil
}

func (l local) logPath(node string) string { return filepath.Join(l.dir, "logs", node+".log") }

// logLimit is the size at which a node's log is put aside, in bytes. One older log is kept.
const logLimit = 8 << 20

// openLog opens the log of what is run on a node, to append to it.
func (l local) openLog(node string) (*os.File, error) {
	path := l.logPath(node)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("opening the log of %s: %w", node, err)
	}
	if info, err := os.Stat(path); err == nil && info.Size() > logLimit {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, fmt.Errorf("putting the log of %s aside: %w", node, err)
		}
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the log of %s: %w", node, err)
	}
	return f, nil
}

func (l local) kubeconfigPath() string { return filepath.Join(l.dir, kubeconfigFile) }

func (l local) bundlePath() string { return filepath.Join(l.dir, "bundle") }

// knownBundle is the path of the bundle that the stack was made from, or "".
func (l local) knownBundle() string {
	path, err := os.ReadFile(l.bundlePath())
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(path))
}

// keepBundle remembers the bundle that the stack is made from.
func (l local) keepBundle(path string) error {
	if l.knownBundle() == path {
		return nil
	}
	if err := l.keep(l.bundlePath(), []byte(path+"\n")); err != nil {
		return fmt.Errorf("remembering the bundle: %w", err)
	}
	return nil
}

func (l local) declarationPath() string { return filepath.Join(l.dir, declarationFile) }

// keepDeclaration remembers what the stack was last declared to be, for verbs that change one thing about it.
func (l local) keepDeclaration(c Config) error {
	text, err := yaml.Marshal(c)
	if err == nil {
		err = l.keep(l.declarationPath(), text)
	}
	if err != nil {
		return fmt.Errorf("keeping the declaration: %w", err)
	}
	return nil
}

func (l local) namesPath() string { return filepath.Join(l.dir, "names.yaml") }

// namesPlace is where the stack's names were put: what unstack needs to find them again without a declaration.
type namesPlace struct {
	UUID   string `yaml:"uuid"` // of the stack
	Domain string `yaml:"dns_domain"`
	DNS    DNS    `yaml:"dns"`
}

// knownNames is where names were put from this machine, or nil.
func (l local) knownNames() (*namesPlace, error) {
	text, err := os.ReadFile(l.namesPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var p namesPlace
	if err == nil {
		err = yaml.Unmarshal(text, &p)
	}
	if err != nil {
		return nil, fmt.Errorf("reading where the names are: %w", err)
	}
	return &p, nil
}

// keepNames remembers where names are about to be put.
func (l local) keepNames(p namesPlace) error {
	text, err := yaml.Marshal(p)
	if err == nil {
		err = l.keep(l.namesPath(), text)
	}
	if err != nil {
		return fmt.Errorf("remembering where the names are: %w", err)
	}
	return nil
}

// forgetNames is called when there are none any more.
func (l local) forgetNames() error {
	if err := os.Remove(l.namesPath()); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// forget removes everything kept of the stack.
func (l local) forget() error { return os.RemoveAll(l.dir) }
